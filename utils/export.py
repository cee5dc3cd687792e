"""Files for other programs: trajectories as TUM text, Gaussians as ``.splat``.

TUM text (the RGB-D benchmark's format, read by ``evo``): a line a pose, ``time tx ty tz qx qy qz qw``, the
camera in the world.  ``.splat`` (antimatter15's viewer, SuperSplat, Spark, ...): 32 bytes a Gaussian, the
most visible first: centre and scales as float32, colour and opacity as bytes, the quaternion as bytes.  It
has no spherical harmonics and no word for antialiasing: keep the PLY for anything but looking.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from utils import se3
from utils.io import atomic_write
from utils.ply import GaussianParams
from utils.sh import SH_C0

_SPLAT = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
assert _SPLAT.itemsize == 32


def write_tum(path: str | os.PathLike[str], times: NDArray[np.floating], w2c: Tensor) -> None:
    """Write the poses ``w2c`` [B, 4, 4] at rising ``times`` [B] (seconds, frames, ...) as TUM text.

    Raises:
        ValueError: times that do not rise, or values that are not finite.
    """
    to_world = se3.inverse(w2c.detach().cpu().double())
    if times.shape != (len(to_world),):
        raise ValueError(f"{path}: {len(to_world)} poses have times of shape {times.shape}")
    if not (np.isfinite(times).all() and bool(to_world.isfinite().all())):
        raise ValueError(f"{path}: NaN or infinite values in the trajectory")
    if not (np.diff(times) > 0).all():
        raise ValueError(f"{path}: the times of a trajectory must rise from line to line")
    quats = Rotation.from_matrix(to_world[:, :3, :3].numpy()).as_quat()
    rows = np.concatenate([times[:, None], to_world[:, :3, 3].numpy(), quats], axis=1)
    with atomic_write(path, "w") as file:
        file.write("# time tx ty tz qx qy qz qw\n")
        file.writelines(" ".join(f"{value:.9g}" for value in row) + "\n" for row in rows)


def read_tum(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], Tensor]:
    """Times [B] and world-to-camera poses [B, 4, 4] (float32) of a TUM file.

    Raises:
        ValueError: not such a file (names it and the line).
    """
    rows: list[list[float]] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable trajectory ({error})") from None
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].replace(",", " ").split()
        if not text:
            continue
        try:
            row = [float(word) for word in text]
        except ValueError:
            row = []
        if len(row) != 8 or not np.isfinite(row).all() or not any(row[4:]):
            raise ValueError(f"{path}: line {number} is no pose, expected time tx ty tz qx qy qz qw")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: holds no poses")
    table = np.array(rows)
    to_world = np.tile(np.eye(4), (len(table), 1, 1))
    to_world[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
    to_world[:, :3, 3] = table[:, 1:4]
    return table[:, 0], torch.as_tensor(np.linalg.inv(to_world), dtype=torch.float32)


def write_splat(path: str | os.PathLike[str], gaussians: GaussianParams) -> None:
    """Write Gaussians as ``.splat``: colour of degree 0 only, mono as grey, eight bits a value."""
    g = GaussianParams(*(x.detach().cpu().float() for x in vars(gaussians).values()))
    opacity = g.opacity_logits.sigmoid()
    color = (0.5 + SH_C0 * g.sh0[:, 0].expand(-1, 3)).clamp(0, 1)
    # Viewers show the first lines while the rest arrives: large and opaque ones come first.
    order = torch.argsort(g.log_scales.sum(-1) + opacity.log(), descending=True, stable=True)
    table = np.empty(len(order), _SPLAT)
    table["mean"] = g.means[order].numpy()
    table["scale"] = g.log_scales[order].exp().numpy()
    rgba = torch.cat([color, opacity[:, None]], dim=-1)[order]
    table["rgba"] = (rgba * 255).round().numpy()
    quats = torch.nn.functional.normalize(g.quats[order], dim=-1)
    table["quat"] = (quats * 128 + 128).round().clamp(0, 255).numpy()
    with atomic_write(path, "wb") as file:
        file.write(table.tobytes())


def read_splat(path: str | os.PathLike[str]) -> GaussianParams:
    """Gaussians of a ``.splat`` file, three channels, spherical harmonics of degree 0.

    Raises:
        ValueError: not such a file (names it).
    """
    try:
        stored = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: not a readable .splat ({error.strerror})") from None
    if not stored or len(stored) % _SPLAT.itemsize:
        raise ValueError(f"{path}: {len(stored)} bytes, expected a multiple of {_SPLAT.itemsize} (one Gaussian each)")
    table = np.frombuffer(stored, _SPLAT)
    means, scales = (torch.from_numpy(table[name].astype(np.float32)) for name in ("mean", "scale"))
    rgba, quats = (torch.from_numpy(table[name].astype(np.float32)) for name in ("rgba", "quat"))
    quats = (quats - 128) / 128
    sound = means.isfinite().all(-1) & scales.isfinite().all(-1) & (scales >= 0).all(-1) & (quats != 0).any(-1)
    if not sound.all():
        raise ValueError(f"{path}: {int((~sound).sum())} of {len(table)} Gaussians have impossible values")
    # Half a step from 0 and 1, where the logit is infinite.
    opacity = (rgba[:, 3] / 255).clamp(0.5 / 255, 1 - 0.5 / 255)
    return GaussianParams(
        means,
        torch.nn.functional.normalize(quats, dim=-1),
        scales.clamp_min(1e-10).log(),
        opacity.logit(),
        ((rgba[:, None, :3] / 255 - 0.5) / SH_C0),
        torch.zeros(len(table), 0, 3),
    )
