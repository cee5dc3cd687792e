"""Cameras and the views they took."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at the middle of its exposure.

    ``K`` [3, 3] in pixels, ``w2c`` [4, 4] world-to-camera with OpenCV axes (x right, y down, z forward),
    both float32.
    """

    name: str
    width: int
    height: int
    K: Tensor
    w2c: Tensor


@dataclass(frozen=True)
class View:
    """One view of a scene: its camera and the files that belong to it, where they exist.

    ``sequence_paths`` are sharp images of single sub-frames by their number; ``recording`` names the
    recording the view was cut from, ``position`` is its place in that recording's order (0, 1, ...), and
    ``middle_frame`` the spike frame of the recording at the middle of the exposure, where it is known.
    """

    camera: Camera
    spike_path: Path | None = None
    image_path: Path | None = None
    sequence_paths: dict[int, Path] = field(default_factory=dict)
    recording: str = ""
    position: int = 0
    middle_frame: float | None = None
