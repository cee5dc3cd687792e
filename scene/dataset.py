"""Scenes on disk: the authors' layout (transforms.json), or COLMAP's (sparse/0).

    spike_data/VVV.dat   sharp_data/VVV.png   sequence/VVV_MM.png   transforms.json   sparse_pc.ply
    novel.json  novel/   held-out sharp images      trajectory.json   true poses of all sub-frames

Everything but the spikes and the poses is optional.  Views are paired with their files by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Camera, View
from spike import SensorModel, SpikeStream
from utils.ply import read_point_ply

# From OpenGL's camera axes (y up, z backward), which transforms.json uses, to OpenCV's.
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_SPIKE_SUFFIXES = (".dat", ".npy", ".npz")
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


@dataclass(frozen=True)
class StreamSettings:
    """How the scene's ``.dat`` files are packed (see ``SpikeStream.open``)."""

    bit_order: str = "little"
    flip: bool = True
    stored_width: int | None = None


@dataclass(frozen=True)
class SceneData:
    """A scene as it was read.

    ``train`` and ``test`` views have exposures of their own, ``novel`` views are sharp images alone.
    ``truth`` gives true poses [M, 4, 4] of the sub-frames by view name.  ``extent`` is 3DGS's scene
    radius: 1.1 times the largest distance of a camera from their centre, world units.
    """

    root: Path
    train: list[View]
    test: list[View]
    novel: list[View]
    points: Tensor | None
    rgb: Tensor | None
    sensor: SensorModel
    settings: StreamSettings
    truth: dict[str, Tensor] | None
    extent: float
    frames_per_view: int = field(default=0)

    def open_stream(self, view: View) -> SpikeStream:
        """The spikes of a view."""
        if view.spike_path is None:
            raise ValueError(f"view {view.camera.name}: no spike stream in {self.root / 'spike_data'}")
        s = self.settings
        return SpikeStream.open(
            view.spike_path,
            view.camera.height,
            view.camera.width,
            bit_order=s.bit_order,  # type: ignore[arg-type]
            flip=s.flip,
            stored_width=s.stored_width,
        )


def read_scene(
    root: str | Path, transforms: str = "transforms.json", eval: bool = False, llffhold: int = 8
) -> SceneData:
    """Read the scene in ``root``.

    Args:
        transforms: pose file in the authors' layout; without it COLMAP's ``sparse/0`` is looked for.
        eval: keep every ``llffhold``-th view out of training.

    Raises:
        ValueError: nothing to read, or something that does not fit; one sentence names the file.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    path = root / transforms
    if path.is_file():
        views, meta = _read_transforms(root, path, need_spikes=True)
    elif (root / "sparse" / "0").is_dir() or (root / "sparse").is_dir():
        views, meta = _read_colmap(root)
    else:
        raise ValueError(f"{root}: neither {transforms} nor sparse/0 is there; a scene needs camera poses")
    names = [view.camera.name for view in views]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: view {twice[0]} is listed more than once")
    if not views:
        raise ValueError(f"{path}: lists no views")
    held = [eval and i % llffhold == 0 for i in range(len(views))]
    train = [view for view, out in zip(views, held, strict=True) if not out]
    test = [view for view, out in zip(views, held, strict=True) if out]
    if not train:
        raise ValueError(f"{path}: no view is left to train on with every {llffhold}th held out")
    points, rgb = _read_points(root, meta)
    centres = np.stack([np.linalg.inv(v.camera.w2c.double().numpy())[:3, 3] for v in train])
    extent = 1.1 * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    scene = SceneData(
        root,
        train,
        test,
        _read_novel(root),
        points,
        rgb,
        _sensor(path, meta),
        _settings(path, meta),
        _read_truth(root),
        extent if extent > 0 else 1.0,
    )
    frames = 0
    if train[0].spike_path is not None:
        frames = len(scene.open_stream(train[0]))
    object.__setattr__(scene, "frames_per_view", frames)
    return scene


# ---- transforms.json -------------------------------------------------------------------------------------


def _load_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(loaded).__name__}")
    return loaded


def _number(path: Path, source: dict[str, Any], key: str) -> float:
    value = source.get(key)
    if not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ValueError(f"{path}: {key} is {value!r}, expected a number")
    return float(value)


def _pose(path: Path, name: str, matrix: object) -> Tensor:
    """World-to-camera of a camera-to-world matrix with OpenGL axes."""
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: the pose of view {name} is no matrix of numbers") from None
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape != (4, 4):
        raise ValueError(f"{path}: the pose of view {name} has shape {pose.shape}, expected (4, 4)")
    if not np.isfinite(pose).all():
        raise ValueError(f"{path}: the pose of view {name} has NaN or infinite entries")
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError(f"{path}: the pose of view {name} is no rigid motion (its rotation is not orthonormal)")
    u, _, vt = np.linalg.svd(rotation)  # files keep few digits
    pose[:3, :3] = u @ vt
    return torch.as_tensor(np.linalg.inv(pose @ _OPENGL_TO_OPENCV), dtype=torch.float32)


def _camera(path: Path, name: str, meta: dict[str, Any], frame: dict[str, Any]) -> Camera:
    source = meta | {k: v for k, v in frame.items() if v is not None}
    width, height = int(_number(path, source, "w")), int(_number(path, source, "h"))
    if "fl_x" not in source and "camera_angle_x" in source:
        focal = 0.5 * width / np.tan(0.5 * _number(path, source, "camera_angle_x"))
        source = source | {"fl_x": focal, "fl_y": focal}
    source = {"cx": width / 2, "cy": height / 2, "fl_y": source.get("fl_x")} | source
    bent = {k: source[k] for k in _DISTORTION if source.get(k)}
    if bent:
        raise ValueError(
            f"{path}: view {name} has lens distortion ({', '.join(f'{k}={v}' for k, v in bent.items())}); binary "
            "spikes cannot be undistorted, so calibrate to a pinhole camera or crop to where it is negligible"
        )
    k = torch.eye(3)
    k[0, 0], k[1, 1] = _number(path, source, "fl_x"), _number(path, source, "fl_y")
    k[0, 2], k[1, 2] = _number(path, source, "cx"), _number(path, source, "cy")
    if "transform_matrix" not in frame:
        raise ValueError(f"{path}: view {name} has no pose (transform_matrix)")
    return Camera(name, width, height, k, _pose(path, name, frame["transform_matrix"]))


def _read_transforms(root: Path, path: Path, need_spikes: bool) -> tuple[list[View], dict[str, Any]]:
    meta = _load_json(path)
    frames = meta.get("frames")
    if not isinstance(frames, list) or not all(isinstance(f, dict) for f in frames):
        raise ValueError(f"{path}: has no list of frames")
    views = []
    for frame in frames:
        file = frame.get("file_path") or frame.get("spike_path")
        if not isinstance(file, str):
            raise ValueError(f"{path}: a frame has neither file_path nor spike_path")
        name = Path(file).stem
        camera = _camera(path, name, meta, frame)
        views.append(_view(root, camera, frame, need_spikes))
    return views, meta


def _view(root: Path, camera: Camera, frame: dict[str, Any], need_spikes: bool) -> View:
    """Pair a camera with its files, by name."""
    name = camera.name
    image = root / frame["file_path"] if "file_path" in frame else root / "sharp_data" / f"{name}.png"
    spike = None
    if need_spikes:
        if "spike_path" in frame:
            spike = root / str(frame["spike_path"])
            if not spike.is_file():
                raise ValueError(f"{spike}: the spike stream of view {name} is not there")
        else:
            candidates = [root / "spike_data" / f"{name}{suffix}" for suffix in _SPIKE_SUFFIXES]
            spike = next((c for c in candidates if c.is_file()), None)
    pattern = re.compile(re.escape(name) + r"_(\d+)\.png")
    folder = root / "sequence"
    matches = [(pattern.fullmatch(p.name), p) for p in sorted(folder.glob(f"{name}_*.png"))]
    sequence = {int(match[1]): p for match, p in matches if match}
    return View(camera, spike, image if image.is_file() else None, sequence, str(frame.get("recording", "")))


def _sensor(path: Path, meta: dict[str, Any]) -> SensorModel:
    """``spike_gain`` and, in ``spike``, ``dark_rate`` and ``spurious_rate`` (spikes a frame)."""
    spike = meta.get("spike", {})
    keys = {"gain": meta.get("spike_gain", spike.get("gain", 1.0))}
    keys |= {k: spike[k] for k in ("dark_rate", "spurious_rate") if k in spike}
    values = {k: _number(path, keys, k) for k in keys}
    try:
        return SensorModel(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _settings(path: Path, meta: dict[str, Any]) -> StreamSettings:
    spike = meta.get("spike", {})
    known = {k: spike[k] for k in ("bit_order", "flip", "stored_width") if k in spike}
    if known.get("bit_order", "little") not in ("little", "big"):
        raise ValueError(f"{path}: bit_order is {known['bit_order']!r}, expected little or big")
    return StreamSettings(**known)


def _read_novel(root: Path) -> list[View]:
    path = root / "novel.json"
    if not path.is_file():
        return []
    views, _ = _read_transforms(root, path, need_spikes=False)
    for view in views:
        if view.image_path is None:
            raise ValueError(f"{path}: the sharp image of held-out view {view.camera.name} is not there")
    return views


def _read_truth(root: Path) -> dict[str, Tensor] | None:
    path = root / "trajectory.json"
    if not path.is_file():
        return None
    table = _load_json(path).get("w2c")
    if not isinstance(table, dict):
        raise ValueError(f"{path}: has no table w2c of poses by view")
    return {name: torch.tensor(poses, dtype=torch.float32) for name, poses in table.items()}


def _read_points(root: Path, meta: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    if "colmap_points" in meta:
        return meta["colmap_points"]
    path = root / str(meta.get("ply_file_path", "sparse_pc.ply"))
    return read_point_ply(path) if path.is_file() else (None, None)


# ---- COLMAP ----------------------------------------------------------------------------------------------


def _read_colmap(root: Path) -> tuple[list[View], dict[str, Any]]:
    """COLMAP's cameras, images and points, binary or text; spikes are paired by the images' names."""
    import pycolmap  # heavy, and only this layout needs it

    folder = root / "sparse" / "0"
    folder = folder if folder.is_dir() else root / "sparse"
    try:
        model = pycolmap.Reconstruction(str(folder))
    except Exception as error:  # pycolmap raises its own kinds
        raise ValueError(f"{folder}: not a readable COLMAP model ({str(error).splitlines()[0]})") from None
    views = []
    for image in sorted(model.images.values(), key=lambda i: i.name):
        source = model.cameras[image.camera_id]
        name = Path(image.name).stem
        kind = source.model.name
        if kind not in ("PINHOLE", "SIMPLE_PINHOLE") and np.abs(source.params[source.extra_params_idxs()]).max() > 0:
            raise ValueError(
                f"{folder}: view {name} has lens distortion ({kind} {source.params_to_string()}); binary spikes "
                "cannot be undistorted, so reconstruct with a PINHOLE camera"
            )
        w2c = np.eye(4)
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        w2c[:3] = pose.matrix()
        k = torch.as_tensor(source.calibration_matrix(), dtype=torch.float32)
        camera = Camera(name, source.width, source.height, k, torch.as_tensor(w2c, dtype=torch.float32))
        file = next((f for f in ("images", "sharp_data") if (root / f / image.name).is_file()), "images")
        views.append(_view(root, camera, {"file_path": f"{file}/{image.name}"}, need_spikes=True))
    meta: dict[str, Any] = {}
    if (root / "spike.json").is_file():
        meta = _load_json(root / "spike.json")
    points = [(p.xyz, p.color) for p in model.points3D.values()]
    if points:
        xyz, rgb = (np.array(column, dtype=np.float32) for column in zip(*points, strict=True))
        meta["colmap_points"] = (torch.from_numpy(xyz), torch.from_numpy(rgb) / 255)
    return views, meta
