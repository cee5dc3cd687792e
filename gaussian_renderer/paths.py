"""Camera paths for videos and the viewer: during an exposure, over a recording, around the scene, or from a file.

All poses are world-to-camera [B, 4, 4] with OpenCV axes, float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene.cameras import look_at, rigid_motions
from scene.model_folder import read_cameras
from scene.trajectory import interpolate_poses
from utils import se3
from utils.io import write_json
from utils.json_files import array, items, number, read_json, record, whole
from utils.reading import reading

# If the mean viewing direction is longer than this, the cameras look the same way: a full orbit would leave the scene.
_FACING = 0.5
_INTRINSICS = ("fx", "fy", "cx", "cy")

_ONE, _MANY, _POINT = rigid_motions(), rigid_motions(None), array(3)


def _camera_file(value: Any) -> Any:
    """The contents of a camera file; a list stands for its key poses."""
    return _CAMERA_FILE({"keyframes": value} if isinstance(value, list) else value)


def _key_poses(value: Any) -> Any:
    """One pose, or several (an entry of ``cameras.json``)."""
    nested = isinstance(value, list) and value and isinstance(value[0], list) and value[0]
    return _MANY(value) if nested and isinstance(value[0][0], list) else _ONE(value)


_SIZE, _FOCAL = whole(1, 65535), number(above=0, most=1e7)
_CAMERA_FILE = record(
    {"keyframes": items(record({}, {"w2c": _key_poses, "position": _POINT, "look_at": _POINT, "up": _POINT}), 1)},
    {"width": _SIZE, "height": _SIZE, "fx": _FOCAL, "fy": _FOCAL, "cx": number(), "cy": number()},
)


@dataclass(frozen=True)
class SavedView:
    """One entry of ``cameras.json``: a camera and its poses ``w2c`` [M, 4, 4] at the times ``times`` [M] (u)."""

    name: str
    split: str
    width: int
    height: int
    K: Tensor
    times: Tensor
    w2c: Tensor

    @classmethod
    def of(cls, entry: dict[str, Any]) -> SavedView:
        """From an entry that ``read_cameras`` read."""
        fx, fy, cx, cy = (entry[key] for key in _INTRINSICS)
        return cls(
            entry["name"],
            entry["split"],
            entry["width"],
            entry["height"],
            torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            torch.tensor(entry["time"], dtype=torch.float32),
            torch.tensor(entry["w2c"], dtype=torch.float32),
        )

    @property
    def middle(self) -> Tensor:
        """Pose [4, 4] at the middle of the exposure."""
        return self.w2c[len(self.w2c) // 2]

    def at(self, u: Tensor) -> Tensor:
        """Poses [B, 4, 4] at the times ``u`` [B] in the exposure."""
        return interpolate(self.w2c, self.times, u)

    def nearest(self, u: float) -> int:
        """Index of the sub-frame nearest in time to ``u``."""
        return int((self.times - u).abs().argmin())


def read_views(model: str | os.PathLike[str]) -> list[SavedView]:
    """The views of a trained model with their corrected sub-frame poses, in the order of ``cameras.json``."""
    views = [SavedView.of(entry) for entry in read_cameras(model)]
    if not views:
        raise ValueError(f"{Path(model) / 'cameras.json'}: holds no views; train this model first")
    return views


def interpolate(w2c: Tensor, times: Tensor, at: Tensor) -> Tensor:
    """Poses [B, 4, 4] at ``at`` [B] on SE(3) geodesics between ``w2c`` [M, 4, 4] at increasing ``times`` [M].

    Before the first and after the last time, the pose is constant.
    """
    if len(times) == 1:
        return w2c.expand(len(at), 4, 4)
    at = at.clamp(float(times[0]), float(times[-1]))
    left = (torch.searchsorted(times.contiguous(), at.contiguous(), right=True) - 1).clamp(0, len(times) - 2)
    share = (at - times[left]) / (times[left + 1] - times[left])
    step = se3.log(w2c[left + 1] @ se3.inverse(w2c[left]))
    return se3.exp(share[:, None] * step) @ w2c[left]


@dataclass(frozen=True)
class CameraPath:
    """The path of a video: poses ``w2c`` [B, 4, 4] and one camera.

    ``moments`` gives for each frame the training view and time of its exposure, (view, u), or None.
    """

    w2c: Tensor
    K: Tensor
    width: int
    height: int
    moments: list[tuple[SavedView, float] | None]

    @classmethod
    def through(cls, w2c: Tensor, camera: SavedView) -> CameraPath:
        """Create a path outside the exposures, with the camera of a view."""
        return cls(w2c, camera.K, camera.width, camera.height, [None] * len(w2c))


def exposure_path(view: SavedView, frames: int) -> CameraPath:
    """Slow motion: ``frames`` evenly spaced instants from u = 0 to u = 1 of one view's exposure."""
    u = torch.linspace(0, 1, frames) if frames > 1 else torch.tensor([0.5])
    return replace(CameraPath.through(view.at(u), view), moments=[(view, float(value)) for value in u])


def recording_path(views: Sequence[SavedView], frames: int) -> CameraPath:
    """Follow the corrected trajectories of all views in order, and the gaps between them, at constant speed.

    Speed is the distance of the camera center, in units of the spread of all centers, plus its rotation in radians.
    """
    keys = torch.cat([view.w2c for view in views])
    owner = torch.cat([torch.full((len(view.w2c),), i) for i, view in enumerate(views)])
    centers = se3.camera_centers(keys)
    spread = float((centers - centers.mean(0)).norm(dim=-1).mean()) or 1.0
    turn = se3.log(keys[1:] @ se3.inverse(keys[:-1]))[:, 3:].norm(dim=-1)
    step = (centers[1:] - centers[:-1]).norm(dim=-1) / spread + turn
    # Poses that coincide with the previous one add no length to the path.
    moved = torch.cat([torch.ones(1, dtype=torch.bool), step > 1e-7])
    keys, owner = keys[moved], owner[moved]
    times = torch.cat([torch.zeros(1), step[moved[1:]].cumsum(0)])
    at = torch.linspace(0, float(times[-1]), frames)
    place = torch.cat([view.times for view in views])[moved]
    moments: list[tuple[SavedView, float] | None] = []
    for value in at:
        right = int(torch.searchsorted(times, value).clamp(max=len(times) - 1))
        left = max(right - 1, 0)
        if owner[left] != owner[right]:
            moments.append(None)
            continue
        span = float(times[right] - times[left])
        share = float(value - times[left]) / span if span else 0.0
        u = float(place[left]) + share * float(place[right] - place[left])
        moments.append((views[int(owner[left])], u))
    return replace(CameraPath.through(interpolate(keys, times, at), views[0]), moments=moments)


@dataclass(frozen=True)
class Surround:
    """The point that a scene's cameras look at, and their up direction, world units."""

    focus: np.ndarray
    up: np.ndarray
    centers: np.ndarray
    forward: np.ndarray

    @classmethod
    def of(cls, views: Sequence[SavedView]) -> Surround:
        """From mid-exposure poses: the point closest to all viewing axes, and the mean up direction."""
        poses = torch.stack([view.middle for view in views]).double()
        centers = se3.camera_centers(poses).numpy()
        # The rows of a world-to-camera rotation are the camera's right, down and forward axes in world coordinates.
        forward, up = poses[:, 2, :3].numpy(), -poses[:, 1, :3].mean(0).numpy()
        across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
        middle = centers.mean(0)
        sums = across.sum(0), (across @ (centers - middle)[..., None])[..., 0].sum(0)
        away, _, rank, _ = np.linalg.lstsq(*sums, rcond=1e-4)
        focus = middle + away
        depth = ((focus - centers) * forward).sum(-1)
        if rank < 3 or not (np.median(depth) > 0):
            # Parallel axes do not meet: use a point in front of the cameras, at a few times their spread.
            spread = float(np.linalg.norm(centers - middle, axis=-1).mean()) or 1.0
            focus = middle + 3 * spread * forward.mean(0) / max(float(np.linalg.norm(forward.mean(0))), 1e-9)
        return cls(focus, up / max(float(np.linalg.norm(up)), 1e-9), centers, forward)


def orbit_path(views: Sequence[SavedView], frames: int) -> CameraPath:
    """One orbit around the point that the cameras look at.

    Cameras on all sides: a circle at their median distance and mean height.  Cameras that look the same way:
    an ellipse across their positions, always facing the common point.
    """
    s = Surround.of(views)
    angle = np.linspace(0, 2 * np.pi, frames, endpoint=False)[:, None]
    mean = s.forward.mean(0)
    if np.linalg.norm(mean) > _FACING:
        middle = s.centers.mean(0)
        toward = (s.focus - middle) / np.linalg.norm(s.focus - middle)
        right = np.cross(toward, s.up)
        right /= np.linalg.norm(right)
        high = np.cross(right, toward)
        # At least a tenth of the distance, so that a nearly static camera also shows some parallax.
        least = 0.1 * np.linalg.norm(s.focus - middle)
        reach = np.quantile(np.abs((s.centers - middle) @ np.stack([right, high], axis=-1)), 0.9, axis=0)
        wide, tall = np.maximum(reach, least)
        eye = middle + wide * np.sin(angle) * right + tall * np.cos(angle) * high
    else:
        offset = s.centers - s.focus
        height = float((offset @ s.up).mean())
        flat = offset - (offset @ s.up)[:, None] * s.up
        radius = float(np.median(np.linalg.norm(flat, axis=-1)))
        first = flat[0] / np.linalg.norm(flat[0])
        second = np.cross(s.up, first)
        eye = s.focus + height * s.up + radius * (np.cos(angle) * first + np.sin(angle) * second)
    return CameraPath.through(torch.as_tensor(look_at(eye, s.focus, s.up), dtype=torch.float32), views[0])


def file_path(path: str | os.PathLike[str], views: Sequence[SavedView], frames: int) -> CameraPath:
    """A smooth path through the key poses of a JSON file, at a constant number of keys per time.

    The file contains ``{"keyframes": [...]}``; a key is ``{"w2c": 4x4}`` or ``{"position": [3], "look_at": [3],
    "up": [3]}`` (``up`` defaults to the scene's).  ``width``, ``height``, ``fx``, ``fy``, ``cx``, ``cy``
    beside the list override those of the first view.  A ``cameras.json`` is also such a file.
    """
    stored = read_json(path, _camera_file, "camera file")
    camera = views[0]
    poses = torch.cat([_key(path, key, views) for key in stored["keyframes"]])
    fx, fy, cx, cy = (
        stored.get(key, default)
        for key, default in zip(_INTRINSICS, camera.K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), strict=True)
    )
    k = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    width, height = stored.get("width", camera.width), stored.get("height", camera.height)
    times = np.arange(len(poses), dtype=np.float64)
    smooth = interpolate_poses(times, poses.double().numpy(), np.linspace(0, times[-1], frames))
    return CameraPath(torch.as_tensor(smooth, dtype=torch.float32), k, width, height, [None] * frames)


def _key(path: str | os.PathLike[str], key: dict[str, Any], views: Sequence[SavedView]) -> Tensor:
    """Poses [M, 4, 4] of one entry."""
    if "w2c" in key:
        return torch.as_tensor(key["w2c"], dtype=torch.float32).reshape(-1, 4, 4)
    if "position" not in key or "look_at" not in key:
        raise ValueError(f"{path}: not a key pose, expected w2c, or position and look_at")
    up = key["up"] if "up" in key else Surround.of(views).up
    with reading(path, "a camera file"):
        return torch.as_tensor(look_at(key["position"][None], key["look_at"], up), dtype=torch.float32)


def save_camera_file(path: str | os.PathLike[str], poses: Iterable[Tensor]) -> None:
    """Write key poses [4, 4] to a file that ``file_path`` can read."""
    write_json(path, {"keyframes": [{"w2c": pose.tolist()} for pose in poses]})
