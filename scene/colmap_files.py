"""Checks COLMAP's files before pycolmap reads them: it trusts counts and references, and would loop or end the process.

The formats are described at https://colmap.github.io/format.html; ``rigs.bin`` and ``frames.bin`` exist since 3.12.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.reading import read_bytes, read_text, reading, require_short

# Number of parameters of each camera model, by its name; the position is its number in binary files.
_MODELS = {
    "SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12, "FOV": 5, "SIMPLE_RADIAL_FISHEYE": 4, "RADIAL_FISHEYE": 5, "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
}  # fmt: skip
_NO_POINT = 2**64 - 1
# Largest coordinate or parameter, and image side.
_LARGEST, _WIDEST = 1e12, 65535


@dataclass
class _Found:
    """What the files refer to: the cameras; the observed points [n] of each image; (image, observation) of each point.

    ``points`` are the points' ids, ``owners`` [m] the row in it of each of ``tracks`` [m, 2].
    """

    cameras: set[int] = field(default_factory=set)
    images: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
    points: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    owners: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    tracks: NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, 2), np.uint32))


def check_model(folder: Path, shown: Path | None = None) -> None:
    """Check that the files of a model hold what they announce and refer to each other.

    Args:
        shown: the folder that errors name, if ``folder`` is a copy.

    Raises:
        ValueError: they do not, or some are missing (names the file or folder).
    """
    found = _Found()
    readers = next((r for r in (_BINARY, _TEXT) if all((folder / name).exists() for name in list(r)[:3])), None)
    if readers is None:
        names = " and ".join(", ".join(list(r)[:3]) for r in (_BINARY, _TEXT))
        raise ValueError(f"{shown or folder}: not a readable COLMAP model (it has not all of {names})")
    for name, read in readers.items():
        if (folder / name).exists():
            with reading((shown or folder) / name, "a readable part of a COLMAP model"):
                read(folder / name, found)
    with reading(shown or folder, "a readable COLMAP model"):
        _check_tracks(found)


def _check_tracks(found: _Found) -> None:
    """Images and points must name each other's rows."""
    images = np.array(sorted(found.images), np.int64)
    observed = [found.images[image] for image in images.tolist()]
    flat = np.concatenate([*observed, np.empty(0, np.uint64)])
    # Without any points, the poses alone are of use.
    seen, ids = flat[flat != _NO_POINT], np.sort(found.points)
    if seen.size and ids.size and not np.array_equal(ids[np.searchsorted(ids, seen).clip(max=len(ids) - 1)], seen):
        raise ValueError("images observes points that are not in points3D")
    named, at = found.tracks[:, 0].astype(np.int64), found.tracks[:, 1].astype(np.int64)
    if not named.size:
        return
    row = np.searchsorted(images, named).clip(max=max(len(images) - 1, 0))
    if not images.size or not np.array_equal(images[row], named):
        raise ValueError("points3D refers to images that are not in images")
    counts = np.array([len(points) for points in observed])
    if not (at < counts[row]).all():
        raise ValueError("points3D refers to observations that are not in images")
    if not np.array_equal(flat[(np.cumsum(counts) - counts)[row] + at], found.points[found.owners]):
        raise ValueError("points3D and images disagree about who observes what")


def _check_camera(camera: int, width: int, height: int, parameters: Sequence[float], found: _Found) -> None:
    if not (0 < width <= _WIDEST and 0 < height <= _WIDEST):
        raise ValueError(f"camera {camera} has {width}x{height} pixels")
    if not all(abs(value) <= _LARGEST for value in parameters) or not parameters[0] > 0:
        raise ValueError(f"camera {camera} has the parameters {', '.join(f'{value:g}' for value in parameters)}")
    if camera in found.cameras:
        raise ValueError(f"camera {camera} is listed twice")
    found.cameras.add(camera)


def _check_image(image: int, pose: Sequence[float], camera: int, found: _Found) -> None:
    _check_motion(f"image {image}", pose)
    if camera not in found.cameras:
        raise ValueError(f"image {image} refers to camera {camera}, which is not in cameras")
    if image in found.images:
        raise ValueError(f"image {image} is listed twice")


def _check_points(ids: NDArray[np.uint64], numbers: NDArray[np.float64], found: _Found) -> None:
    if not (np.abs(numbers) <= _LARGEST).all():
        raise ValueError("points with NaN, infinite or huge coordinates")
    if len(np.unique(ids)) < len(ids) or _NO_POINT in ids:
        raise ValueError("a point is listed twice, or has no number")
    found.points = ids


# ---- binary ----------------------------------------------------------------------------------------------


class _Cursor:
    """Reads numbers from the bytes of a file, and no further."""

    def __init__(self, path: Path):
        self.data, self.at = read_bytes(path), 0

    def take(self, format: str) -> tuple[Any, ...]:
        start = self.skip(struct.calcsize("<" + format))
        return struct.unpack_from("<" + format, self.data, start)

    def skip(self, size: int) -> int:
        """Pass ``size`` bytes; returns where they begin."""
        start = self.at
        if size > len(self.data) - start:
            raise ValueError(f"truncated: {size} bytes at {start} of {len(self.data)} bytes")
        self.at += size
        return start

    def count(self, least: int, format: str = "Q") -> int:
        """A number of entries of at least ``least`` bytes."""
        (count,) = self.take(format)
        if count * least > len(self.data) - self.at:
            raise ValueError(f"truncated: {count} entries at {self.at} of {len(self.data)} bytes")
        return int(count)

    def text(self) -> bytes:
        """A text that ends with a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError("truncated: a name without an end")
        start, self.at = self.at, end + 1
        return self.data[start:end]

    def finish(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data)} bytes, expected {self.at}")


def _binary_cameras(path: Path, found: _Found) -> None:
    cursor, counts = _Cursor(path), list(_MODELS.values())
    for _ in range(cursor.count(24)):
        camera, model, width, height = cursor.take("IiQQ")
        if not 0 <= model < len(counts):
            raise ValueError(f"camera {camera} has the model {model}, expected 0 to {len(counts) - 1}")
        _check_camera(camera, width, height, cursor.take(f"{counts[model]}d"), found)
    cursor.finish()


def _binary_images(path: Path, found: _Found) -> None:
    cursor = _Cursor(path)
    for _ in range(cursor.count(69)):
        image, *pose, camera = cursor.take("I7dI")
        _check_name(cursor.text().decode("utf-8"))
        _check_image(image, pose, camera, found)
        count = cursor.count(24)
        rows = np.frombuffer(cursor.data, [("xy", "<f8", 2), ("point", "<u8")], count, cursor.skip(24 * count))
        if not (np.abs(rows["xy"]) <= _LARGEST).all():
            raise ValueError(f"image {image} has observations with NaN, infinite or huge coordinates")
        found.images[image] = rows["point"].copy()
    cursor.finish()


def _binary_points(path: Path, found: _Found) -> None:
    cursor = _Cursor(path)
    data, size = cursor.data, len(cursor.data)
    starts, lengths, at = [], [], 8
    length_of = struct.Struct("<Q").unpack_from
    for _ in range(cursor.count(51)):
        if at + 51 > size:
            raise ValueError(f"truncated: a point at {at} of {size} bytes")
        (length,) = length_of(data, at + 43)
        starts.append(at)
        lengths.append(length)
        at += 51 + 8 * length
    if at != size:
        raise ValueError(f"{size} bytes, expected {at}")
    fixed = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")])
    stored = np.frombuffer(data, np.uint8)
    begins, counts = np.array(starts, np.int64), np.array(lengths, np.int64)
    rows = stored[begins[:, None] + np.arange(51)].reshape(-1).view(fixed)
    _check_points(rows["id"].copy(), np.column_stack([rows["xyz"], rows["error"]]), found)
    found.owners = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(found.owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    entries = (begins + 51)[found.owners] + 8 * within
    found.tracks = stored[entries[:, None] + np.arange(8)].reshape(-1).view("<u4").reshape(-1, 2)


def _binary_rigs(path: Path, found: _Found) -> None:
    cursor = _Cursor(path)
    for _ in range(cursor.count(8)):
        rig, sensors = cursor.take("II")
        for index in range(sensors):
            kind, sensor = cursor.take("iI")
            if kind == 0 and sensor not in found.cameras:
                raise ValueError(f"rig {rig} refers to camera {sensor}, which is not in cameras")
            if index and cursor.take("B")[0]:
                _check_motion(f"rig {rig}", cursor.take("7d"))


def _binary_frames(path: Path, found: _Found) -> None:
    cursor = _Cursor(path)
    for _ in range(cursor.count(68)):
        frame, _, *pose, count = cursor.take("II7dI")
        _check_motion(f"frame {frame}", pose)
        for _ in range(count):
            kind, sensor, data = cursor.take("iIQ")
            if kind == 0 and (sensor not in found.cameras or data not in found.images):
                raise ValueError(f"frame {frame} refers to camera {sensor} and image {data}, which are not there")


def _check_motion(name: str, pose: Sequence[float]) -> None:
    if not all(abs(value) <= _LARGEST for value in pose) or not 0.5 < math.hypot(*pose[:4]) < 2:
        raise ValueError(f"{name} has the pose {', '.join(f'{value:g}' for value in pose)}, not a rigid motion")


def _check_name(name: str) -> None:
    if not name or any(ord(c) < 32 for c in name):
        raise ValueError(f"an image has the name {name[:80]!r}")
    require_short(name)


# ---- text ------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[str]:
    """The lines of a text file without its comments."""
    return [line.strip() for line in read_text(path).splitlines() if not line.lstrip().startswith("#")]


def _text_cameras(path: Path, found: _Found) -> None:
    for line in filter(None, _lines(path)):
        camera, model, width, height, *parameters = line.split()
        if len(parameters) != _MODELS.get(model, -1):
            raise ValueError(f"camera {camera} has the model {model} with {len(parameters)} parameters")
        _check_camera(_id(camera), int(width), int(height), [float(word) for word in parameters], found)


def _text_images(path: Path, found: _Found) -> None:
    lines = _lines(path)
    while lines and not lines[0]:
        lines.pop(0)
    for start in range(0, len(lines), 2):
        if not lines[start]:
            continue
        image, *pose, camera, name = lines[start].split(maxsplit=9)
        _check_name(name)
        _check_image(_id(image), [float(word) for word in pose], _id(camera), found)
        words = lines[start + 1].split() if start + 1 < len(lines) else []
        if len(words) % 3 or not all(abs(float(w)) <= _LARGEST for i, w in enumerate(words) if i % 3 < 2):
            raise ValueError(f"the observations of image {image} are not x, y and a point each")
        found.images[_id(image)] = np.array([int(word) % 2**64 for word in words[2::3]], np.uint64)


def _text_points(path: Path, found: _Found) -> None:
    ids, numbers, owners, tracks = list[int](), list[list[float]](), list[int](), list[list[int]]()
    for line in filter(None, _lines(path)):
        point, *words = line.split()
        if len(words) < 7 or len(words) % 2 == 0 or not all(0 <= int(word) < 256 for word in words[3:6]):
            raise ValueError(f"point {point} is not x, y, z, red, green, blue, an error and pairs of numbers")
        pairs = [[_id(a), _id(b)] for a, b in zip(words[7::2], words[8::2], strict=True)]
        owners += [len(ids)] * len(pairs)
        ids.append(int(point))
        numbers.append([float(word) for word in (*words[:3], words[6])])
        tracks += pairs
    found.owners, found.tracks = np.array(owners, np.int64), np.array(tracks, np.uint32).reshape(-1, 2)
    _check_points(np.array(ids, np.uint64), np.array(numbers, np.float64), found)


def _id(word: str) -> int:
    """The number of a camera, image or observation: 32 bits."""
    value = int(word)
    if not 0 <= value < 2**32 - 1:
        raise ValueError(f"the number {word[:40]}, expected 0 to {2**32 - 2}")
    return value


# Every model has the first three files.
_BINARY = {
    "cameras.bin": _binary_cameras, "images.bin": _binary_images, "points3D.bin": _binary_points,
    "rigs.bin": _binary_rigs, "frames.bin": _binary_frames,
}  # fmt: skip
_TEXT = {"cameras.txt": _text_cameras, "images.txt": _text_images, "points3D.txt": _text_points}
