"""Camera paths for simulated recordings: from a file, or a hand-held walk past an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scene.cameras import Camera, look_at, opengl
from scene.dataset import TRAJECTORY, read_cameras
from scene.trajectory import interpolate_poses
from scene.tum import read_tum, write_tum
from simulation.mesh import Mesh
from utils.io import write_json

Array = NDArray[np.float64]

UPS = {"x": (1, 0, 0), "-x": (-1, 0, 0), "y": (0, 1, 0), "-y": (0, -1, 0), "z": (0, 0, 1), "-z": (0, 0, -1)}
# The walk: its extent around the middle (degrees to either side), and its length in spike frames.
_ARC = 40.0
WALK = 1600
WIDTH, HEIGHT = 400, 250


@dataclass(frozen=True)
class Walk:
    """Poses ``w2c`` [B, 4, 4] (world-to-camera, OpenCV axes) at increasing ``times`` [B], and the camera if known."""

    times: Array
    w2c: Array
    camera: Camera | None = None

    def at(self, frames: int) -> Array:
        """Poses [frames, 4, 4] on the smooth path through the walk's poses, evenly spaced in time."""
        return interpolate_poses(self.times, self.w2c, np.linspace(self.times[0], self.times[-1], frames))


def read_walk(path: Path) -> Walk:
    """Read a path from TUM text (time tx ty tz qx qy qz qw, camera-to-world) or a ``transforms.json``.

    Raises:
        ValueError: the file is missing or not readable, has fewer than two poses, or its times do not increase.
    """
    if path.suffix.lower() == ".json":
        cameras, middles = read_cameras(path)
        poses = np.array([c.w2c.double().numpy() for c in cameras])
        walk = Walk(np.arange(len(poses), dtype=np.float64) if middles is None else middles, poses, cameras[0])
    else:
        times, w2c = read_tum(path)
        walk = Walk(times, w2c.double().numpy())
    if len(walk.times) < 2:
        raise ValueError(f"{path}: a path needs two poses or more")
    if not (np.diff(walk.times) > 0).all():
        raise ValueError(f"{path}: the times of its poses do not increase")
    return walk


def walk_past(low: Array, high: Array, up: str, field_of_view: float, seed: int = 0) -> Walk:
    """A hand-held walk on an arc in front of an object, looking at its middle.

    Args:
        low, high: corners of the object's bounding box [3].
        up: world axis that points up (a key of ``UPS``).
        field_of_view: the smaller field of view of the camera, radians; the object roughly fills it.
    """
    middle, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    vertical = np.array(UPS[up], np.float64)
    front = np.roll(np.abs(vertical), 1)  # one of the two horizontal axes; glTF objects have y up and face +z
    aside = np.cross(vertical, front)
    t = np.linspace(0, 1, 41)
    angle = np.radians(_ARC) * np.sin(np.pi * (t - 0.5))
    distance = 0.6 * radius / np.sin(field_of_view / 2) * (1 + 0.06 * np.sin(5 * t))
    height = distance * (0.35 + 0.06 * np.sin(2 * np.pi * 1.3 * t))
    eye = middle + np.outer(distance * np.sin(angle), aside) + np.outer(distance * np.cos(angle), front)
    eye += np.outer(height, vertical)
    # Hand tremor.
    shake = np.random.default_rng(seed).normal(size=(2, len(t), 3)) * radius
    return Walk(t, look_at(eye + 0.004 * shake[0], middle + 0.012 * shake[1], vertical))


def camera_of(
    walk: Walk | None, width: int | None, height: int | None, focal: float | None
) -> tuple[Array, int, int]:
    """Intrinsics [3, 3], width and height: given values, else those of the walk, else the defaults.

    Raises:
        ValueError: invalid sizes or focal length.
    """
    known = None if walk is None else walk.camera
    width = width or (WIDTH if known is None else known.width)
    height = height or (HEIGHT if known is None else known.height)
    if min(width, height) < 8 or width * height % 8:
        raise ValueError(f"--width and --height: {width}x{height} is too small, or not a multiple of 8 pixels in all")
    if focal is not None and not (np.isfinite(focal) and focal > 0):
        raise ValueError(f"--fl_x must be positive, not {focal:g}")
    if known is not None and focal is None and (known.width, known.height) == (width, height):
        return known.K.double().numpy(), width, height
    f = width if focal is None else focal
    return np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], np.float64), width, height


def shoot(
    mesh: Mesh, poses: Array, k: Array, width: int, height: int, truth: Path, every: int
) -> Iterator[tuple[NDArray[np.float32], bool]]:
    """Yield a sharp image for every pose [F, 4, 4], and whether to keep it (one in ``every`` is kept).

    Writes all poses to ``truth`` as TUM text, and those of the kept images as a ``transforms.json``.
    """
    kept = range(0, len(poses), every)
    write_tum(truth / TRAJECTORY, np.arange(len(poses), dtype=np.float64), torch.from_numpy(poses))
    frames = [{"file_path": f"{t:06d}.png", "transform_matrix": opengl(poses[t])} for t in kept]
    write_json(
        truth / "transforms.json",
        {
            "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": width, "h": height,
            "camera_model": "PINHOLE", "frames": frames,
        },
    )  # fmt: skip
    for t, pose in enumerate(poses):
        yield mesh.picture(pose, k, width, height), t in kept
