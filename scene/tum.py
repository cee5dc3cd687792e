"""Trajectories as TUM text (the format of the RGB-D benchmark, read by ``evo``): one pose per line.

``time tx ty tz qx qy qz qw``: the timestamp and the camera-to-world pose.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from utils import se3
from utils.io import atomic_write
from utils.reading import read_text

# Above nanoseconds since 1970, and below the square root of the largest number: norms must not overflow.
_LARGEST = 1e30
_LARGEST_FILE = 1 << 28


def write_tum(
    path: str | os.PathLike[str], times: NDArray[np.floating], w2c: Tensor, origin: Tensor | None = None
) -> None:
    """Write the poses ``w2c`` [B, 4, 4] at increasing timestamps ``times`` [B] (seconds, frames, ...) as TUM text.

    Args:
        origin: where the poses' coordinates are counted from [3]; it is added.

    Raises:
        ValueError: timestamps that do not increase, or values that are not finite.
    """
    to_world = se3.inverse(w2c.detach().cpu().double())
    if times.shape != (len(to_world),):
        raise ValueError(f"{path}: {len(to_world)} poses have times of shape {times.shape}")
    if not (np.isfinite(times).all() and bool(to_world.isfinite().all())):
        raise ValueError(f"{path}: NaN or infinite values in the trajectory")
    if not (np.diff(times) > 0).all():
        raise ValueError(f"{path}: the timestamps of a trajectory must increase from line to line")
    quats = Rotation.from_matrix(to_world[:, :3, :3].numpy()).as_quat()
    centers = to_world[:, :3, 3] if origin is None else to_world[:, :3, 3] + origin
    digits = 9 if origin is None or not origin.any() else 15
    with atomic_write(path, "w") as file:
        file.write("# time tx ty tz qx qy qz qw\n")
        # Full precision: with nine digits, seconds since 1970 would be indistinguishable.
        for time, center, quat in zip(times, centers.tolist(), quats, strict=True):
            numbers = [*(f"{value:.{digits}g}" for value in center), *(f"{value:.9g}" for value in quat)]
            file.write(" ".join([repr(float(time)), *numbers]) + "\n")


def read_tum(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], Tensor]:
    """Timestamps [B] and world-to-camera poses [B, 4, 4] (float32) of a TUM file.

    Raises:
        ValueError: not a TUM file (names the file and the line).
    """
    rows: list[list[float]] = []
    lines = read_text(path, "trajectory", _LARGEST_FILE).splitlines()
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].replace(",", " ").split()
        if not text:
            continue
        try:
            row = [float(word) for word in text]
        except ValueError:
            row = []
        if len(row) != 8 or not np.isfinite(row).all() or max(map(abs, row)) > _LARGEST or not any(row[4:]):
            raise ValueError(f"{path}: line {number} is not a pose, expected time tx ty tz qx qy qz qw")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: holds no poses")
    table = np.array(rows)
    to_world = np.tile(np.eye(4), (len(table), 1, 1))
    to_world[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
    to_world[:, :3, 3] = table[:, 1:4]
    return table[:, 0], torch.as_tensor(np.linalg.inv(to_world), dtype=torch.float32)
