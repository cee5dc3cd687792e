"""Files for other programs: Gaussians as ``.splat`` and ``.spz``.

``.splat`` (antimatter15's viewer, SuperSplat, Spark, ...): 32 bytes per Gaussian, the most visible first; center and
scales as float32, color and opacity as bytes, the quaternion as bytes.  It has no spherical harmonics and no flag for
antialiasing: use it for viewing only, and keep the PLY.  ``.spz`` (Niantic; described at
https://github.com/nianticlabs/spz): a tenth of the PLY's size, with spherical harmonics and a flag for antialiasing,
attribute by attribute in a gzip stream, axes x right, y up, z backward.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussians.ply import GaussianParams, LowPass, read_gaussian_ply, write_gaussian_ply
from gaussians.sh import SH_C0
from utils.io import atomic_write
from utils.reading import read_bytes, reading

FORMATS = (".ply", ".splat", ".spz")
# Formats that PlayCanvas' splat-transform converts to a PLY.
_CONVERTIBLE = (".ksplat", ".sog")

_SPLAT = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
assert _SPLAT.itemsize == 32


def _format(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in _CONVERTIBLE:
        raise ValueError(f"{path}: {suffix} is not supported; convert it first: splat-transform {path} out.ply")
    if suffix not in FORMATS:
        raise ValueError(f"{path}: expected a name ending in {', '.join(FORMATS)}")
    return suffix


def read_gaussians(path: str | os.PathLike[str]) -> GaussianParams:
    """Read Gaussians, with three channels, from a file in any of ``FORMATS``.

    Raises:
        ValueError: another suffix, or not a valid file (names it).
    """
    suffix = _format(path)
    if suffix == ".spz":
        return read_spz(path)
    return read_splat(path) if suffix == ".splat" else read_gaussian_ply(path)


def without_equal_channels(params: GaussianParams) -> GaussianParams:
    """The Gaussians with one channel if all three are equal, as in files of scenes from a gray sensor."""
    if not all(bool((x == x[..., :1]).all()) for x in (params.sh0, params.shN)):
        return params
    return replace(params, sh0=params.sh0[..., :1].contiguous(), shN=params.shN[..., :1].contiguous())


def write_gaussians(path: str | os.PathLike[str], gaussians: GaussianParams) -> None:
    """Write Gaussians in the format given by the suffix of ``path``."""
    suffix = _format(path)
    if suffix == ".spz":
        write_spz(path, gaussians)
    elif suffix == ".splat":
        write_splat(path, gaussians)
    else:
        write_gaussian_ply(path, gaussians)


# ---- .splat --------------------------------------------------------------------------------------------------


def write_splat(path: str | os.PathLike[str], gaussians: GaussianParams) -> None:
    """Write Gaussians as ``.splat``: color of degree 0 only, mono as gray, eight bits per value."""
    g = gaussians.on_cpu()
    opacity = g.opacity_logits.sigmoid()
    color = (0.5 + SH_C0 * g.sh0[:, 0].expand(-1, 3)).clamp(0, 1)
    # Viewers show the first Gaussians while the rest are loading, so large and opaque ones come first.
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
    """Read Gaussians from a ``.splat`` file: three channels, spherical harmonics of degree 0.

    Raises:
        ValueError: not a ``.splat`` file (names it).
    """
    stored = read_bytes(path, ".splat file")
    if not stored or len(stored) % _SPLAT.itemsize:
        raise ValueError(f"{path}: {len(stored)} bytes, expected a multiple of {_SPLAT.itemsize} (one Gaussian each)")
    table = np.frombuffer(stored, _SPLAT)
    means, scales = (torch.from_numpy(table[name].astype(np.float32)) for name in ("mean", "scale"))
    rgba, quats = (torch.from_numpy(table[name].astype(np.float32)) for name in ("rgba", "quat"))
    quats = (quats - 128) / 128
    sound = means.isfinite().all(-1) & scales.isfinite().all(-1) & (scales >= 0).all(-1) & (quats != 0).any(-1)
    if not sound.all():
        raise ValueError(f"{path}: {int((~sound).sum())} of {len(table)} Gaussians have impossible values")
    # At least half a step away from 0 and 1, where the logit is infinite.
    opacity = (rgba[:, 3] / 255).clamp(0.5 / 255, 1 - 0.5 / 255)
    return GaussianParams(
        means,
        torch.nn.functional.normalize(quats, dim=-1),
        scales.clamp_min(1e-10).log(),
        opacity.logit(),
        ((rgba[:, None, :3] / 255 - 0.5) / SH_C0),
        torch.zeros(len(table), 0, 3),
    )


# ---- .spz ----------------------------------------------------------------------------------------------------

_SPZ_HEADER = struct.Struct("<4sIIBBBB")  # magic, version, Gaussians, SH degree, fraction bits, flags, reserved
_SPZ_MAGIC, _SPZ_VERSION, _SPZ_ANTIALIASED = b"NGSP", 3, 1
# Bits unpacked per stored bit at most: positions and rotations hardly compress.
_SPZ_MOST = 200
# Bits kept of coefficients of degree 1 and of higher degrees: the rest of each byte is zero and compresses away.
_SPZ_SH_BITS = (5, 4, 4)
# The axes of .spz are ours rotated by 180 degrees about x: y and z change sign ...
_SPZ_FLIP = torch.tensor([1.0, -1.0, -1.0])
# ... and so do the harmonics that are odd in y and z together.
_SPZ_FLIP_SH = torch.tensor([-1.0, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1])
# For each component of a quaternion, the other three.
_SPZ_OTHERS = torch.tensor([[j for j in range(4) if j != i] for i in range(4)])


def _bytes_of(values: Tensor) -> bytes:
    return bytes(values.round().clamp(0, 255).to(torch.uint8).contiguous().numpy())


def _packed_positions(positions: Tensor, fraction_bits: int) -> bytes:
    """Signed 24-bit fixed-point numbers, lowest byte first."""
    fixed = (positions.double() * 2.0**fraction_bits).round().to(torch.int32).numpy().astype("<i4")
    return fixed.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()


def _packed_quats(quats: Tensor) -> bytes:
    """The three smaller components of xyzw, with a sign and 9 bits each, below 2 bits that identify the omitted one."""
    unit = torch.nn.functional.normalize(quats.double(), dim=-1)
    xyzw = unit[:, [1, 2, 3, 0]] * torch.cat([_SPZ_FLIP, torch.ones(1)])
    largest = xyzw.abs().argmax(-1)
    xyzw = xyzw * torch.where(xyzw.gather(1, largest[:, None]) < 0, -1, 1)
    small = xyzw.gather(1, _SPZ_OTHERS[largest])
    code = largest
    for i in range(3):
        magnitude = (small[:, i].abs() * 2**0.5 * 511).round().long().clamp(max=511)
        code = (code << 10) | ((small[:, i] < 0).long() << 9) | magnitude
    return code.numpy().astype("<u4").tobytes()


# Largest log scale: scales are bytes, in sixteenths from -10 on.
_SPZ_LARGEST = 255 / 16 - 10


def write_spz(path: str | os.PathLike[str], gaussians: GaussianParams) -> None:
    """Write Gaussians as ``.spz`` (version 3), mono as gray; of the low-pass, only its compensation flag is stored.

    Positions have 24 bits, with as many fraction bits as the farthest Gaussian permits, at most 20.  Opacities and
    colors have 8 bits, spherical harmonics (clipped to [-1, 1]) 5 bits in degree 1 and 4 above.

    Raises:
        ValueError: Gaussians too large or too far from the origin, or the file cannot be written.
    """
    g = gaussians.on_cpu()
    count, coefficients = g.shN.shape[:2]
    degree = round((coefficients + 1) ** 0.5) - 1
    reach = float(g.means.abs().max()) if count else 1.0
    if reach >= 2**22:
        raise ValueError(f"{path}: Gaussians {reach:.3g} units from the origin, .spz holds less than {2**22}")
    largest = float(g.log_scales.max()) if count else 0.0
    if largest > _SPZ_LARGEST:
        raise ValueError(
            f"{path}: Gaussians of {math.exp(largest):.3g} units, .spz holds at most {math.exp(_SPZ_LARGEST):.0f}"
        )
    fraction_bits = min(22 - math.ceil(math.log2(max(reach, 1e-9))), 20)
    rest = g.shN.expand(-1, -1, 3) * _SPZ_FLIP_SH[:coefficients, None]
    steps = torch.tensor([2.0 ** (8 - _SPZ_SH_BITS[d]) for d in range(degree) for _ in range(2 * d + 3)])[:, None]
    flags = _SPZ_ANTIALIASED if g.low_pass.compensated else 0
    parts = [
        _SPZ_HEADER.pack(_SPZ_MAGIC, _SPZ_VERSION, count, degree, fraction_bits, flags, 0),
        _packed_positions(g.means * _SPZ_FLIP, fraction_bits),
        _bytes_of(g.opacity_logits.sigmoid() * 255),
        _bytes_of((0.5 + 0.15 * g.sh0[:, 0].expand(-1, 3)) * 255),
        _bytes_of((g.log_scales + 10) * 16),
        _packed_quats(g.quats),
        _bytes_of(((rest * 128 + 128) / steps).round() * steps) if degree else b"",
    ]
    with atomic_write(path, "wb") as file:
        file.write(gzip.compress(b"".join(parts), mtime=0))


def _unpacked_quats(stored: NDArray[np.uint8], version: int) -> Tensor:
    """Quaternions [N, 4] wxyz, in the axes of ``.spz``."""
    if version == 2:  # x, y, z as bytes, w positive
        xyz = torch.from_numpy(stored.astype(np.float32)) / 127.5 - 1
        w = (1 - xyz.square().sum(-1, keepdim=True)).clamp_min(0).sqrt()
        return torch.cat([w, xyz], dim=-1)
    code = torch.from_numpy(stored.copy().view("<u4")[:, 0].astype(np.int64))
    small = torch.stack([code >> shift & 1023 for shift in (20, 10, 0)], dim=-1)
    values = (small & 511).double() / 511 / 2**0.5 * torch.where(small > 511, -1, 1)
    largest = code >> 30
    xyzw = torch.zeros(len(code), 4, dtype=torch.float64).scatter(1, _SPZ_OTHERS[largest], values)
    rest = (1 - values.square().sum(-1, keepdim=True)).clamp_min(0).sqrt()
    return xyzw.scatter(1, largest[:, None], rest)[:, [3, 0, 1, 2]].float()


def read_spz(path: str | os.PathLike[str]) -> GaussianParams:
    """Read Gaussians from a ``.spz`` file (version 2 or 3), three channels.

    Raises:
        ValueError: not a ``.spz`` file (names it).
    """
    packed = read_bytes(path, ".spz file")
    with reading(path, "a readable .spz"):
        return _read_spz(path, packed)


def _unzipped(packed: bytes, most: int) -> bytes:
    """The first ``most`` bytes of a gzip stream, or all of them, checked by their checksum, if there are fewer."""
    stream = zlib.decompressobj(wbits=31)
    stored = stream.decompress(packed, most)
    if len(stored) < most and not stream.eof:
        raise ValueError("truncated")
    return stored


def _read_spz(path: str | os.PathLike[str], packed: bytes) -> GaussianParams:
    stored = _unzipped(packed, _SPZ_HEADER.size)
    if len(stored) < _SPZ_HEADER.size or stored[:4] != _SPZ_MAGIC:
        raise ValueError(f"it does not begin with {_SPZ_MAGIC.decode()}")
    _, version, count, degree, fraction_bits, flags, _ = _SPZ_HEADER.unpack_from(stored)
    if version not in (2, 3) or degree > 3:
        raise ValueError(f"{path}: .spz of version {version} and SH degree {degree}, expected 2 or 3, and 0 to 3")
    coefficients = (degree + 1) ** 2 - 1
    widths = [9, 1, 3, 3, 4 if version == 3 else 3, 3 * coefficients]
    needed = _SPZ_HEADER.size + count * sum(widths)
    if needed > _SPZ_MOST * len(packed):
        raise ValueError(f"{path}: {count} Gaussians in {len(packed)} bytes, which no file of this format achieves")
    stored = _unzipped(packed, needed + 1)
    if len(stored) < needed:
        raise ValueError(f"{path}: {len(stored)} bytes, expected {needed} for {count} Gaussians")
    blocks, at = [], _SPZ_HEADER.size
    for width in widths:
        blocks.append(np.frombuffer(stored, np.uint8, count * width, at).reshape(count, width))
        at += count * width
    positions, alphas, colors, scales, quats, rest = blocks
    wide = np.zeros((count * 3, 4), np.uint8)
    wide[:, 1:] = positions.reshape(-1, 3)  # in the upper bytes, so that the sign bit is in its place
    means = torch.from_numpy((wide.view("<i4")[:, 0].reshape(count, 3) >> 8) * 0.5**fraction_bits).float()
    opacity, color, log_scales, harmonics = (
        torch.from_numpy(x.astype(np.float32)) for x in (alphas, colors, scales, rest)
    )
    flip = torch.cat([torch.ones(1), _SPZ_FLIP])
    return GaussianParams(
        means * _SPZ_FLIP,
        torch.nn.functional.normalize(_unpacked_quats(quats, version) * flip, dim=-1),
        log_scales / 16 - 10,
        # At least half a step away from 0 and 1, where the logit is infinite.
        (opacity[:, 0] / 255).clamp(0.5 / 255, 1 - 0.5 / 255).logit(),
        ((color / 255 - 0.5) / 0.15)[:, None],
        (harmonics.reshape(count, coefficients, 3) / 128 - 1) * _SPZ_FLIP_SH[:coefficients, None],
        LowPass(compensated=bool(flags & _SPZ_ANTIALIASED)),
    )
