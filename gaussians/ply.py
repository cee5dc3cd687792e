"""PLY files: point clouds, and Gaussians with the properties that 3DGS viewers read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from gaussians.ply_table import Columns, read_vertices
from utils.io import atomic_write
from utils.json_files import number, record
from utils.reading import reading


@dataclass(frozen=True)
class LowPass:
    """The screen-space filter that Gaussians were trained with; they look right with no other.

    ``variance`` (square pixels) is added to every projected covariance, so that no Gaussian falls between pixels.
    ``compensated`` reduces the opacity by what the widening adds (the 2D filter of Mip-Splatting, Yu et al., CVPR
    2024, section 5.2).  The default is 3DGS's filter.
    """

    variance: float = 0.3
    compensated: bool = False

    @property
    def comment(self) -> str:
        """The line for a PLY header that describes the filter."""
        kind = "compensated" if self.compensated else "classic"
        return f"low-pass {self.variance:g} square pixels, {kind}"

    @classmethod
    def from_comments(cls, comments: Sequence[str]) -> LowPass:
        """The filter described in the comments of a PLY header; 3DGS's own if none is.

        Raises:
            ValueError: an impossible variance.
        """
        found = (re.fullmatch(r"low-pass (\S+) square pixels, (compensated|classic)", line) for line in comments)
        for match in filter(None, found):
            variance = record({"low-pass": number(0, 1e4, from_text=True)})({"low-pass": match[1]})["low-pass"]
            return cls(variance, match[2] == "compensated")
        return cls()


CLASSIC = LowPass()


@dataclass
class GaussianParams:
    """Raw parameters of N Gaussians with C color channels, float32 (see ``gaussians.model``)."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4] wxyz
    log_scales: Tensor  # [N, 3]
    opacity_logits: Tensor  # [N]
    sh0: Tensor  # [N, 1, C]
    shN: Tensor  # [N, K - 1, C]
    low_pass: LowPass = CLASSIC

    def on_cpu(self) -> GaussianParams:
        """A copy without gradients, as float32 in main memory, for writing to files."""

        def plain(x: Tensor) -> Tensor:
            return x.detach().cpu().float()

        means, quats, log_scales = plain(self.means), plain(self.quats), plain(self.log_scales)
        logits, sh0, shn = plain(self.opacity_logits), plain(self.sh0), plain(self.shN)
        return GaussianParams(means, quats, log_scales, logits, sh0, shn, self.low_pass)


def _write(path: str | os.PathLike[str], columns: Columns, comments: list[str]) -> None:
    table = np.empty(len(next(iter(columns.values()))), dtype=[(k, v.dtype) for k, v in columns.items()])
    for name, values in columns.items():
        table[name] = values
    ply = PlyData([PlyElement.describe(table, "vertex")], byte_order="<", comments=comments)
    with atomic_write(path, "wb") as file:
        ply.write(file)


def _column(
    path: str | os.PathLike[str], columns: Columns, names: list[str], in_full: bool = False
) -> Tensor:
    """Some columns [N, len(names)] as float32 or, with ``in_full``, with at least the precision of the file."""
    missing = [name for name in names if name not in columns]
    if missing:
        raise ValueError(f"{path}: has no property {missing[0]}")
    stored = np.stack([columns[name] for name in names], axis=-1)
    with np.errstate(over="ignore"):  # a double beyond float32 counts as infinite
        values = stored.astype(np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(-1).sum())
        raise ValueError(f"{path}: {bad} of {len(values)} vertices have NaN or infinite {names[0]}...")
    return torch.from_numpy(stored.astype(np.result_type(stored, np.float32)) if in_full else values)


def write_point_ply(path: str | os.PathLike[str], xyz: Tensor, rgb: Tensor) -> None:
    """Write points [N, 3] with colors [N, 3] in [0, 1] (and zero normals, as 3DGS's input.ply)."""
    xyz_array = xyz.detach().cpu().numpy().astype(np.float32)
    colors = (rgb.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    columns: Columns = dict(zip("xyz", xyz_array.T, strict=True))
    columns |= {n: np.zeros(len(xyz_array), np.float32) for n in ("nx", "ny", "nz")}
    columns |= dict(zip(("red", "green", "blue"), colors.T, strict=True))
    _write(path, columns, [])


def read_point_ply(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Read points [N, 3], in the file's precision, and their colors [N, 3] in [0, 1] (gray if the file has none).

    Colors are stored as integers over the full range of their type, or as floats in [0, 1].

    Raises:
        ValueError: not a readable PLY with finite vertices (names the file).
    """
    columns, _ = read_vertices(path)
    xyz = _column(path, columns, ["x", "y", "z"], in_full=True)
    if "red" not in columns:
        return xyz, torch.full(xyz.shape, 0.5)
    stored = columns["red"].dtype
    white = np.iinfo(stored.str).max if np.issubdtype(stored, np.integer) else 1
    return xyz, _column(path, columns, ["red", "green", "blue"]) / white


def write_gaussian_ply(path: str | os.PathLike[str], gaussians: GaussianParams) -> None:
    """Write Gaussians as 3DGS does; mono color is replicated to the three channels that viewers expect."""
    g = gaussians.on_cpu()
    n = len(g.means)
    sh0, shn = (x.expand(-1, -1, 3) if x.shape[-1] == 1 else x for x in (g.sh0, g.shN))
    blocks = [
        (["x", "y", "z"], g.means),
        (["nx", "ny", "nz"], torch.zeros(n, 3)),
        ([f"f_dc_{i}" for i in range(3)], sh0[:, 0]),
        # channel by channel, as 3DGS stores them
        ([f"f_rest_{i}" for i in range(3 * shn.shape[1])], shn.transpose(1, 2).flatten(1)),
        (["opacity"], g.opacity_logits[:, None]),
        ([f"scale_{i}" for i in range(3)], g.log_scales),
        ([f"rot_{i}" for i in range(4)], g.quats),
    ]
    columns: Columns = {}
    for names, values in blocks:
        columns |= {name: values.numpy()[:, i] for i, name in enumerate(names)}
    _write(path, columns, [g.low_pass.comment])


def read_gaussian_ply(path: str | os.PathLike[str], channels: int = 3) -> GaussianParams:
    """Read any 3DGS PLY; the number of ``f_rest`` properties determines the degree of the spherical harmonics.

    Args:
        channels: 3, or 1 to average the three color channels into one.

    Raises:
        ValueError: not a readable PLY, a property is missing, or a value is not finite (names the file).
    """
    columns, comments = read_vertices(path)
    _refuse_kin(path, columns)
    rest = sum(name.startswith("f_rest_") for name in columns)
    if rest % 3 or rest // 3 not in (0, 3, 8, 15):
        raise ValueError(
            f"{path}: {rest} f_rest properties fit no degree of spherical harmonics (expected 0, 9, 24 or 45)"
        )
    with reading(path, "a readable PLY"):
        low_pass = LowPass.from_comments(comments)
    means = _column(path, columns, ["x", "y", "z"])
    sh0 = _column(path, columns, [f"f_dc_{i}" for i in range(3)])[:, None]
    if rest:
        shn = _column(path, columns, [f"f_rest_{i}" for i in range(rest)])
        shn = shn.reshape(len(means), 3, rest // 3).transpose(1, 2)
    else:
        shn = torch.zeros(len(means), 0, 3)
    if channels == 1:
        sh0, shn = sh0.mean(-1, keepdim=True), shn.mean(-1, keepdim=True)
    return GaussianParams(
        means,
        _column(path, columns, [f"rot_{i}" for i in range(4)]),
        _column(path, columns, [f"scale_{i}" for i in range(3)]),
        _column(path, columns, ["opacity"])[:, 0],
        sh0.contiguous(),
        shn.contiguous(),
        low_pass,
    )


def _refuse_kin(path: str | os.PathLike[str], columns: Columns) -> None:
    """Raise an error that names a format that looks like 3DGS's PLY and is another."""
    if "packed_position" in columns:
        raise ValueError(f"{path}: a compressed PLY of SuperSplat; convert it first: splat-transform {path} out.ply")
    if "scale_1" in columns and "scale_2" not in columns:
        raise ValueError(f"{path}: Gaussians of two scales (2DGS: flat disks), expected three (3DGS)")
    if sum(name.startswith("f_rest_") for name in columns) == 72:
        raise ValueError(f"{path}: spherical harmonics of degree 4 (72 f_rest properties), expected at most degree 3")
