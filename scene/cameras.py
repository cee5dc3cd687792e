"""Cameras and the views recorded with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene.lens import Lens
from spike.stream import SpikeStream
from utils.json_files import Schema, Unexpected, array

# Converts between OpenGL camera axes (y up, z backward), used by transforms.json, and OpenCV axes.
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at the middle of its exposure.

    ``K`` [3, 3] in pixels, ``w2c`` [4, 4] world-to-camera with OpenCV axes (x right, y down, z forward),
    both float32.  A camera with a ``lens`` has that lens's ``pinhole`` as ``K``: what its sensor saw, spikes and image
    files alike, is resampled to the image of that pinhole camera.
    """

    name: str
    width: int
    height: int
    K: Tensor
    w2c: Tensor
    lens: Lens | None = None

    def straightened(self, images: Tensor) -> Tensor:
        """Images [..., H, W] of the sensor as the pinhole camera sees them."""
        return images if self.lens is None else self.lens.straightened(images)


@dataclass(frozen=True)
class View:
    """One view of a scene: its camera and, if they exist, the data that belong to it.

    ``spikes`` is a stream in memory, used instead of the file ``spike_path``.  ``sequence_paths`` are sharp images
    of single sub-frames, by sub-frame number.  ``recording`` names the recording that the view was cut from,
    ``position`` is its place in that recording (0, 1, ...), and ``middle_frame`` the spike frame of the recording at
    the middle of the exposure, if known.  The image is averaged over blocks of ``reduced`` x ``reduced`` pixels when it
    is read.
    """

    camera: Camera
    spike_path: Path | None = None
    image_path: Path | None = None
    sequence_paths: dict[int, Path] = field(default_factory=dict)
    recording: str = ""
    position: int = 0
    middle_frame: float | None = None
    spikes: SpikeStream | None = None
    reduced: int = 1

    @property
    def has_spikes(self) -> bool:
        """Whether the view has spikes, in memory or in a file."""
        return self.spikes is not None or self.spike_path is not None


def supersampling(width: int, across: int) -> int:
    """Rays across a pixel, 2 to 6, with which about ``across`` rays span an image of this width.

    What is finer than the rays aliases: the image changes with the camera in a way that no scene can explain.
    """
    return min(max(round(across / width), 2), 6)


def pixel_rays(k: NDArray[np.float64], width: int, height: int, supersampling: int = 1) -> Tensor:
    """Directions [H s W s, 3] (OpenCV axes, z = 1) of s x s rays per pixel (s = ``supersampling``), row by row."""
    x = (torch.arange(width * supersampling) + 0.5) / supersampling
    y = (torch.arange(height * supersampling) + 0.5) / supersampling
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    at = [(grid[:, 0] - k[0, 2]) / k[0, 0], (grid[:, 1] - k[1, 2]) / k[1, 1], torch.ones(len(grid))]
    return torch.stack(at, -1).float()


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """World-to-camera poses [B, 4, 4] at ``eye`` [B, 3] toward ``target`` ([B,] 3); ``up`` [3] points up in the image.

    Raises:
        ValueError: a camera looks along its up direction.
    """
    forward = target - eye
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, up)
    length = np.linalg.norm(right, axis=-1, keepdims=True)
    if not (length > 1e-9).all():
        raise ValueError("a camera cannot look along its own up direction")
    right = right / length
    w2c = np.tile(np.eye(4), (len(eye), 1, 1))
    w2c[:, :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    w2c[:, :3, 3] = -(w2c[:, :3, :3] @ eye[..., None])[..., 0]
    return w2c


def is_rigid(poses: NDArray[np.float64]) -> bool:
    """Whether all of ``poses`` [..., 4, 4] are rotations (to 1e-3, as files store few digits) and translations."""
    rotation = poses[..., :3, :3]
    orthonormal = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)) <= 1e-3
    return bool(
        np.isfinite(poses).all() and orthonormal.all() and (np.linalg.det(rotation) > 0).all()
        and (poses[..., 3, :] == [0, 0, 0, 1]).all()
    )  # fmt: skip


def rigid_motions(*shape: int | None) -> Schema:
    """Of a JSON file: rigid motions [*shape, 4, 4], as float64."""
    numbers = array(*shape, 4, 4)

    def check(value: Any) -> NDArray[np.float64]:
        found: NDArray[np.float64] = numbers(value)
        if not is_rigid(found):
            raise Unexpected("is not a rigid motion: expected an orthonormal rotation and the last row 0 0 0 1")
        return found

    return check


def opengl(w2c: NDArray[np.float64]) -> list[list[float]]:
    """Camera-to-world matrix (4 x 4) with OpenGL axes, as in transforms.json, of a world-to-camera pose [4, 4]."""
    matrix: list[list[float]] = (np.linalg.inv(w2c) @ OPENGL_TO_OPENCV).tolist()
    return matrix
