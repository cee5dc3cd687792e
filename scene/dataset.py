"""Scenes on disk: the authors' layout (transforms.json), or COLMAP's (sparse/0).

    spike_data/VVV.dat   sharp_data/VVV.png   sequence/VVV_MM.png   transforms.json   sparse_pc.ply
    novel.json  novel/   held-out sharp images      trajectory.json   true poses of all sub-frames

Everything but the spikes and the poses is optional.  Views are matched to their files by name.  All views with
exposures have the same size.

``transforms.json`` holds intrinsics (``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h``; for all frames, or per
frame) and ``frames``.  Each frame has ``file_path`` (its stem is the view's name), ``transform_matrix``
(camera-to-world, OpenGL axes) and optionally ``spike_path`` and ``recording``: views of one recording are
listed in its order, evenly spaced unless each has a ``middle_frame``.  The sensor is described by
``spike_gain`` and an object ``spike`` with any of ``gain``, ``dark_rate``, ``spurious_rate`` (spikes per frame),
``reset`` (``soft`` or ``hard``), ``bit_order``, ``flip``, ``stored_width`` and ``bayer`` (RGGB, BGGR, GRBG or GBRG: a
color sensor); a COLMAP scene has the same two keys in ``spike.json``.  A calibration, ``sensor.json`` with its maps
(``python -m spike calibrate``), takes precedence over both.

Lens distortion (``scene.lens``) belongs to a view's camera: binary spikes cannot be resampled to an ideal pinhole
camera, but the intensities made from them can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from arguments.parts import SceneOptions
from gaussians.ply import read_point_ply
from scene.cameras import OPENGL_TO_OPENCV, Camera, View, is_rigid, rigid_motions
from scene.colmap import MODEL_FOLDERS, find_model, named_parameters, open_model, other_models, pose_of, view_names
from scene.lens import COEFFICIENTS, IS_FISHEYE, LISTS, Lens, coefficients_of, lens_of, refuse_projections
from scene.matching import (
    IMAGE_FOLDERS,
    find_image,
    find_stream,
    listed_path,
    with_images,
    with_photographs,
    with_streams,
)
from scene.origin import origin_of, points_from, poses_from, shown
from scene.perturbation import median_distance, perturbed
from scene.plausibility import doubts
from spike import Layout, Mosaic, SensorModel, SpikeStream, find_stuck, load_sensor
from spike.bayer import BayerPattern
from spike.sensor import Reset
from spike.stream import BitOrder
from utils.io import image_size
from utils.json_files import flag, items, number, read_json, record, table, text, whole
from utils.reading import inside
from utils.se3 import camera_centers
from utils.swap import settle

CALIBRATION = "sensor.json"
# Initial points, unless transforms.json names another file.
POINTS = "sparse_pc.ply"
# Ground truth of a simulated recording: the pose at every spike frame, as TUM text.
TRAJECTORY = "trajectory.tum"
# Root of scenes that were not read from a folder.
IN_MEMORY = Path("<memory>")
_SENSOR_NUMBERS = ("gain", "dark_rate", "spurious_rate")
_SENSOR_KEYS = (*_SENSOR_NUMBERS, "reset")
_STREAM_KEYS = ("bit_order", "flip", "stored_width")

# Other programs write some numbers as text.
_NUMBER = number(from_text=True)
_FOCAL = number(above=0, most=1e7, from_text=True)
_ANGLE = number(above=0, most=3.1, from_text=True)
_CAMERA = {
    "w": whole(1, 65535, from_text=True), "h": whole(1, 65535, from_text=True), "fl_x": _FOCAL, "fl_y": _FOCAL,
    "cx": _NUMBER, "cy": _NUMBER, "camera_angle_x": _ANGLE, "camera_angle_y": _ANGLE, "camera_model": text(),
    **dict.fromkeys(COEFFICIENTS, _NUMBER), **dict.fromkeys(LISTS, items(_NUMBER)), IS_FISHEYE: flag,
}  # fmt: skip
_FRAME = record(
    {},
    _CAMERA
    | dict.fromkeys(("name", "file_path", "spike_path", "recording"), text())
    | {"middle_frame": number(most=1e9)},
)
_SPIKES = {
    "spike_gain": _NUMBER,
    "spike": record(
        {},
        dict.fromkeys(_SENSOR_NUMBERS, _NUMBER)
        | {"reset": text(*get_args(Reset))}
        | {"bit_order": text(*get_args(BitOrder)), "flip": flag, "stored_width": whole(1, 65535)}
        | {"bayer": text(*get_args(BayerPattern))},
        closed=True,
    ),
}
_TRANSFORMS = record({"frames": items(_FRAME)}, _CAMERA | _SPIKES | {"ply_file_path": text()})
_TRUTH = record({"w2c": table(rigid_motions(None))})
# Largest coordinate of a camera, world units.
_FARTHEST = 1e9


@dataclass(frozen=True)
class SceneData:
    """A scene as it was read from the folder ``root``, or made in memory (``from_streams``).

    ``train`` and ``test`` views have their own exposures, ``novel`` views are only sharp images.
    ``mosaic`` is a color sensor's filter array, ``layout`` the packing of the ``.dat`` files.  ``truth`` gives
    true poses [M, 4, 4] of the sub-frames by view name.  ``extent`` is 3DGS's scene radius: 1.1 times the largest
    distance of a camera from the mean camera center, world units.  ``frames_per_view`` is the stored length of a
    view's stream (0 without spikes).  ``notes`` are sentences for the user about files that were left out.  All
    coordinates are counted from ``origin`` [3] (float64), which is not 0 if the scene's are very large
    (``scene.origin``).
    """

    root: Path
    train: list[View]
    test: list[View]
    novel: list[View]
    points: Tensor | None
    rgb: Tensor | None
    sensor: SensorModel
    mosaic: Mosaic | None
    layout: Layout
    truth: dict[str, Tensor] | None
    extent: float
    frames_per_view: int = 0
    notes: tuple[str, ...] = ()
    origin: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    @property
    def has_spikes(self) -> bool:
        """Whether any training view has a spike stream."""
        return any(view.has_spikes for view in self.train)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first training view, pixels."""
        return self.train[0].camera.width, self.train[0].camera.height

    def open_stream(self, view: View) -> SpikeStream:
        """Open the spikes of a view; those of stuck pixels are replaced (``SpikeStream.mended``).

        Raises:
            ValueError: the view has none, or not the number of frames that the scene specifies.
        """
        return self._recorded(view).mended(self.sensor.stuck)

    def _recorded(self, view: View) -> SpikeStream:
        if view.spikes is not None:
            return view.spikes
        if view.spike_path is None:
            raise ValueError(f"view {view.camera.name}: no spike stream in {self.root / 'spike_data'}")
        pattern = None if self.mosaic is None else self.mosaic.pattern
        return SpikeStream.open(view.spike_path, view.camera.height, view.camera.width, self.layout, pattern)

    def with_stuck_pixels(self) -> SceneData:
        """The scene, with the dead and hot pixels that the spikes of its views show."""
        streams = [self._recorded(view) for view in (*self.train, *self.test) if view.has_spikes]
        found = find_stuck([(s, 0, len(s)) for s in streams], self.mosaic is not None, self.sensor.stuck)
        fits = found is not None and tuple(found.mask.shape) == self.size[::-1]
        return replace(self, sensor=self.sensor.with_stuck(found)) if fits else self

    @classmethod
    def from_streams(
        cls,
        streams: Sequence[SpikeStream],
        K: Tensor,
        w2c: Tensor,
        *,
        sensor: SensorModel = SensorModel(),
        points: Tensor | None = None,
        rgb: Tensor | None = None,
        middle_frames: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
        truth: dict[str, Tensor] | None = None,
        images: Sequence[Path] | None = None,
        lens: Lens | None = None,
    ) -> SceneData:
        """A scene of streams in memory, with all views in training; ``root`` is the placeholder ``<memory>``.

        Args:
            streams: spikes of the V views, cut from one recording, in its order and of one size.
            K: intrinsics [3, 3] of all views, or [V, 3, 3], pixels; with a lens, its ``matrix``.
            w2c: world-to-camera poses [V, 4, 4] at the exposures' middles, OpenCV axes.
            points, rgb: initial points [P, 3] in world units and their colors [P, 3] in [0, 1]; both or neither.
            middle_frames: spike frame of the recording at the middle of every exposure, increasing.
            names: names of the views (default: 000, 001, ...).
            truth: true poses [M, 4, 4] of the sub-frames by view name.
            images: files of the views' sharp images.
            lens: distortion of all views.

        Raises:
            ValueError: no views, lists or tensors of wrong lengths, streams of different sizes, a duplicate name, or
                a lens before another sensor.
        """
        count = len(streams)
        names = [f"{i:03d}" for i in range(count)] if names is None else list(names)
        _check_streams(streams, K, w2c, points, rgb, {"names": names, "middle_frames": middle_frames, "images": images})
        if lens is not None:
            _check_lens(lens, streams[0], K)
        origin = origin_of(w2c)
        cameras = [
            Camera(name, stream.width, stream.height, k.float(), pose, lens)
            for name, stream, k, pose in zip(
                names, streams, K.expand(count, 3, 3), poses_from(origin, w2c), strict=True
            )
        ]
        views = [
            View(
                camera,
                spikes=stream,
                image_path=None if images is None else images[i],
                middle_frame=None if middle_frames is None else float(middle_frames[i]),
            )
            for i, (camera, stream) in enumerate(zip(cameras, streams, strict=True))
        ]
        _check_truth(IN_MEMORY, truth or {})
        known = None if truth is None else {name: poses_from(origin, poses) for name, poses in truth.items()}
        points = None if points is None else points_from(origin, points)
        views = _in_order(IN_MEMORY, views)
        _refuse_duplicates(IN_MEMORY, views)
        pattern = streams[0].bayer
        mosaic = None if pattern is None else Mosaic(pattern)
        extent, frames = _extent(views), len(streams[0])
        made = cls(
            IN_MEMORY, views, [], [], points, rgb, sensor, mosaic, Layout(), known, extent, frames, origin=origin
        )
        return made.with_stuck_pixels()


def scene_of(options: SceneOptions, from_images: bool = False) -> SceneData:
    """Read the scene that ``options`` name (see ``read_scene``)."""
    return read_scene(
        options.source_path, options.transforms, options.eval, options.llffhold, options.perturb, options.perturb_seed,
        options.image_folder, options.resolution, options.strict, from_images,
    )  # fmt: skip


def read_scene(
    root: str | Path, transforms: str = "transforms.json", eval: bool = False, llffhold: int = 8,
    perturb: float = 0.0, perturb_seed: int = 0, image_folder: str = "", resolution: int = 0, strict: bool = False,
    from_images: bool = False,
) -> SceneData:  # fmt: skip
    """Read the scene in ``root``.

    Args:
        transforms: pose file in the authors' layout; if ``transforms.json`` is missing, the COLMAP model is used
            instead (``scene.colmap.MODEL_FOLDERS``).
        eval: hold every ``llffhold``-th view out of training.
        perturb: level of the noise on the poses of the views with exposures (``scene.perturbation``).
        perturb_seed: seed of that noise.
        image_folder, resolution: which images to use without spikes (``scene.matching.with_photographs``).
        strict: refuse a folder whose views do not match its streams or images one to one.
        from_images: whether the images are used even where there are spikes.

    Raises:
        ValueError: nothing to read, or inconsistent content; the message names the file.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    settle(root, "a program that reads the scene")
    if llffhold < 1:
        raise ValueError(f"llffhold is {llffhold}, expected at least 1 (every llffhold-th view is held out)")
    views, meta, path, poses = _read_poses(root, transforms)
    notes = other_models(poses) if poses != path else []
    listed = poses == path
    if listed:  # before any is left out: the others keep their times
        views = _in_order(path, views)
    if not from_images:
        views, unmatched = with_streams(root, poses, views)
        notes += unmatched
    learns_from_images = from_images or not views[0].has_spikes
    if learns_from_images:
        views, unmatched = with_images(root, poses, views)
        notes += unmatched
    notes += doubts(views, _layout(meta))
    _refuse_duplicates(poses, views)
    if strict and notes:
        raise ValueError(f"{notes[0]}; --strict refuses that")
    origin = origin_of(torch.stack([view.camera.w2c for view in views]))
    if origin.any():
        notes.append(f"the cameras are far from the origin: the model's coordinates are relative to {shown(origin)}")
    views = _counted_from(origin, views)
    if learns_from_images:
        views, sizes = with_photographs(root, views, image_folder, resolution)
        notes += sizes
    elif resolution or image_folder:
        raise ValueError(f"{root}: --resolution and --image_folder are for photographs; spikes cannot be resampled")
    elif _mosaic(meta) is not None:
        refuse_distortion(root, views, "a color sensor's filters are in the way")
    if not listed:  # a COLMAP model may have photographs and helpers between the views
        views = _in_order(path, views)
    points, rgb = _read_points(root, path, meta)
    points = None if points is None else points_from(origin, points)
    if perturb:
        views = _perturbed(root, views, points, perturb, perturb_seed)
    train, test = _split(root, views, llffhold if eval else 0)
    scene = SceneData(
        root,
        train,
        test,
        _counted_from(origin, _read_novel(root)),
        points,
        rgb,
        load_sensor(root / CALIBRATION) if (root / CALIBRATION).is_file() else _sensor(path, meta),
        _mosaic(meta),
        _layout(meta),
        _read_truth(root, origin),
        _extent(train),
        notes=tuple(notes),
        origin=origin,
    )
    if not train[0].has_spikes:
        return scene
    return replace(scene, frames_per_view=len(scene.open_stream(train[0]))).with_stuck_pixels()


def _read_poses(root: Path, transforms: str) -> tuple[list[View], dict[str, Any], Path, Path]:
    """The views of a scene with poses in float64, and where they are from.

    Returns:
        the views; what the scene says about all of them; the file that says it, for messages (COLMAP: ``spike.json``);
        and the pose file or the folder of the COLMAP model.

    Raises:
        ValueError: no poses, or no views.
    """
    path = root / transforms
    poses = path
    if path.is_file():
        views, meta = _read_transforms(root, path, are_exposures=True)
    elif transforms == "transforms.json" and (model := find_model(root)) is not None:
        views, meta = _read_colmap(root, model)
        path, poses = root / "spike.json", model
    else:
        alternative = f" and no COLMAP model in {', '.join(MODEL_FOLDERS)}" if transforms == "transforms.json" else ""
        raise ValueError(f"{root}: there is no {transforms}{alternative}; a scene needs camera poses")
    if not views:
        raise ValueError(f"{root}: its pose file lists no views")
    return views, meta, path, poses


def _split(root: Path, views: list[View], every: int) -> tuple[list[View], list[View]]:
    """The training views and the held-out views: every ``every``-th one, beginning with the first (0: none).

    Raises:
        ValueError: no view is left to train on.
    """
    held = [bool(every) and i % every == 0 for i in range(len(views))]
    train = [view for view, out in zip(views, held, strict=True) if not out]
    test = [view for view, out in zip(views, held, strict=True) if out]
    if not train:
        raise ValueError(f"{root}: none of {len(views)} views is left to train on; {len(test)} are held out")
    return train, test


def _counted_from(origin: Tensor, views: list[View]) -> list[View]:
    """The views with poses as float32, in a world whose origin is there."""
    return [replace(v, camera=replace(v.camera, w2c=poses_from(origin, v.camera.w2c))) for v in views]


def _perturbed(root: Path, views: list[View], points: Tensor | None, level: float, seed: int) -> list[View]:
    """The views with noise on their poses, in units of the scene's points."""
    if points is None or not len(points):
        raise ValueError(f"{root}: has no points, which --perturb needs: its noise is in percent of their distance")
    poses = torch.stack([view.camera.w2c for view in views])
    moved = perturbed(poses, level, median_distance(poses, points), seed)
    return [replace(v, camera=replace(v.camera, w2c=pose)) for v, pose in zip(views, moved, strict=True)]


def _extent(views: list[View]) -> float:
    """3DGS's scene radius: 1.1 times the largest distance of a camera from the mean camera center, world units."""
    centers = camera_centers(torch.stack([v.camera.w2c for v in views]).double())
    extent = 1.1 * float((centers - centers.mean(0)).norm(dim=-1).max())
    return extent if extent > 0 else 1.0


def _check_streams(
    streams: Sequence[SpikeStream], K: Tensor, w2c: Tensor, points: Tensor | None, rgb: Tensor | None,
    lists: dict[str, Sequence[Any] | None],
) -> None:  # fmt: skip
    """Raise an error if views in memory do not fit together."""
    count = len(streams)
    if not count:
        raise ValueError("a scene needs at least one spike stream")
    if tuple(w2c.shape) != (count, 4, 4):
        raise ValueError(f"w2c has the shape {tuple(w2c.shape)}, expected ({count}, 4, 4): a pose for every stream")
    if not is_rigid(w2c.double().cpu().numpy()):
        raise ValueError("w2c has poses that are not rigid motions: expected orthonormal rotations and finite numbers")
    if tuple(K.shape) not in ((3, 3), (count, 3, 3)):
        raise ValueError(f"K has the shape {tuple(K.shape)}, expected (3, 3) or ({count}, 3, 3)")
    for name, values in lists.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{name} has {len(values)} entries, expected {count}: one for every stream")
    first = streams[0]
    for stream in streams:
        if (stream.height, stream.width, stream.bayer) != (first.height, first.width, first.bayer):
            raise ValueError(
                f"{stream.name}: {stream.width}x{stream.height} pixels with the filters {stream.bayer}, expected "
                f"{first.width}x{first.height} with {first.bayer} as in the first stream"
            )
    if (points is None) != (rgb is None) or (points is not None and rgb is not None and points.shape != rgb.shape):
        shapes = [None if x is None else tuple(x.shape) for x in (points, rgb)]
        raise ValueError(f"points and rgb have the shapes {shapes[0]} and {shapes[1]}, expected both [P, 3], or none")


def _check_lens(lens: Lens, stream: SpikeStream, K: Tensor) -> None:
    """Raise an error if a lens does not belong to views in memory."""
    if (lens.width, lens.height) != (stream.width, stream.height):
        raise ValueError(f"lens is of {lens.width}x{lens.height} pixels, expected {stream.width}x{stream.height}")
    if not torch.allclose(K.float(), lens.matrix.expand_as(K)):
        raise ValueError("K is not the matrix of the lens's pinhole camera; expected lens.matrix")
    if stream.bayer is not None:
        raise ValueError("a lens before a color sensor: its filters are in the way of undistortion")


def refuse_distortion(root: Path, views: Sequence[View], why: str) -> None:
    """Raise an error if any of the views has a lens, for what cannot be undistorted."""
    for view in views:
        if view.camera.lens is not None:
            raise ValueError(f"{root}: view {view.camera.name} has lens distortion that cannot be undone: {why}")


def _refuse_duplicates(path: Path, views: list[View]) -> None:
    names = {view.camera.name for view in views}
    for view in views:
        for m in view.sequence_paths:
            if f"{view.camera.name}_{m:02d}" in names:
                raise ValueError(f"{path}: view {view.camera.name}_{m:02d} is also sub-frame {m} of another view")
    seen: set[str] = set()
    for name in (view.camera.name for view in views):
        if name in seen:
            raise ValueError(f"{path}: view {name} is listed more than once; views are paired by name")
        seen.add(name)


def _in_order(path: Path, views: list[View]) -> list[View]:
    """The views with their positions in their recordings."""
    counts: dict[str, int] = {}
    known: dict[str, bool] = {}
    latest: dict[str, float] = {}
    placed = []
    for view in views:
        recording, frame = view.recording, view.middle_frame
        if known.setdefault(recording, frame is not None) != (frame is not None):
            raise ValueError(f"{path}: only some views have a middle_frame; all views of a recording, or none, must")
        if frame is not None and frame <= latest.get(recording, -1.0):
            raise ValueError(f"{path}: view {view.camera.name} has middle_frame {frame:g}, expected one after the last")
        if frame is not None:
            latest[recording] = frame
        placed.append(replace(view, position=counts.get(recording, 0)))
        counts[recording] = counts.get(recording, 0) + 1
    return placed


def read_cameras(path: Path) -> tuple[list[Camera], np.ndarray | None]:
    """The cameras that a ``transforms.json`` lists, and their ``middle_frame`` [V] if all have one.

    Raises:
        ValueError: no such file, no poses, or inconsistent content.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    views, _ = _read_transforms(path.parent, path, are_exposures=False)
    if not views:
        raise ValueError(f"{path}: its pose file lists no views")
    middles = [view.middle_frame for view in views]
    views = _counted_from(torch.zeros(3, dtype=torch.float64), views)
    return [view.camera for view in views], None if None in middles else np.array(middles, np.float64)


# ---- transforms.json -------------------------------------------------------------------------------------


def _pose(path: Path, name: str, matrix: object) -> Tensor:
    """World-to-camera, float64, of a camera-to-world matrix with OpenGL axes."""
    try:
        pose = np.asarray(matrix)
    except (ValueError, OverflowError):  # rows of different lengths, integers of hundreds of digits
        pose = np.empty(0, object)
    if pose.dtype.kind not in "iuf":
        raise ValueError(f"{path}: the pose of view {name} is not a matrix of numbers")
    pose = pose.astype(np.float64)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape != (4, 4):
        raise ValueError(f"{path}: the pose of view {name} has shape {pose.shape}, expected (4, 4)")
    if not np.isfinite(pose).all():
        raise ValueError(f"{path}: the pose of view {name} has NaN or infinite entries")
    if not np.array_equal(pose[3], [0, 0, 0, 1]):
        last = " ".join(f"{value:g}" for value in pose[3])
        raise ValueError(f"{path}: the pose of view {name} has the last row {last}, expected 0 0 0 1")
    if np.abs(pose).max() > _FARTHEST:
        raise ValueError(f"{path}: the pose of view {name} has entries up to {np.abs(pose).max():g}, not a camera's")
    if not is_rigid(pose):
        raise ValueError(f"{path}: the pose of view {name} is not a rigid motion (rotation not orthonormal)")
    u, _, vt = np.linalg.svd(pose[:3, :3])  # files store few digits
    pose[:3, :3] = u @ vt
    return torch.from_numpy(np.linalg.inv(pose @ OPENGL_TO_OPENCV))


def _camera(path: Path, name: str, meta: dict[str, Any], frame: dict[str, Any]) -> Camera:
    source = meta | frame
    for key in ("w", "h"):
        if key not in source:
            raise ValueError(f"{path}: view {name} has no {key}")
    width, height = source["w"], source["h"]
    for key, angle, size in (("fl_y", "camera_angle_y", height), ("fl_x", "camera_angle_x", width)):
        if "fl_x" not in source and angle in source:
            source = source | {key: 0.5 * size / math.tan(0.5 * source[angle])}
    if "fl_x" not in source:
        raise ValueError(f"{path}: view {name} has no fl_x")
    source = {"cx": width / 2, "cy": height / 2, "fl_y": source["fl_x"]} | source
    k = torch.tensor([[source["fl_x"], 0, source["cx"]], [0, source["fl_y"], source["cy"]], [0, 0, 1]])
    where, model = f"{path}: view {name}", source.get("camera_model", "PINHOLE")
    refuse_projections(where, source)
    lens = lens_of(
        where, model, coefficients_of(source), k.double().numpy(), width, height, source.get(IS_FISHEYE, False)
    )
    if "transform_matrix" not in frame:
        raise ValueError(f"{path}: view {name} has no pose (transform_matrix)")
    pose = _pose(path, name, frame["transform_matrix"])
    return Camera(name, width, height, k.float() if lens is None else lens.matrix, pose, lens)


def _read_transforms(root: Path, path: Path, are_exposures: bool) -> tuple[list[View], dict[str, Any]]:
    """The views that a pose file lists, with poses in float64, and what it says for all of them."""
    meta = _with_size(root, read_json(path, _TRANSFORMS))
    sequences = _sequences(root) if are_exposures else {}
    views = []
    for frame in meta["frames"]:
        name = frame.get("name") or listed_path(frame.get("file_path") or frame.get("spike_path") or "").stem
        if not name:
            raise ValueError(f"{path}: a frame has neither file_path nor spike_path")
        if listed_path(name).name != name:
            raise ValueError(f"{path}: the name of a view is {name!r}, expected one without folders")
        for key in ("file_path", "spike_path"):
            if key in frame:
                inside(path, root, str(listed_path(frame[key])), key)
        camera = _camera(path, name, meta, frame)
        view = _view(root, camera, frame, sequences.get(name, {}), are_exposures)
        views.append(replace(view, middle_frame=frame.get("middle_frame")))
    _refuse_duplicates(path, views)
    return views, meta


def _with_size(root: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """NeRF's synthetic scenes list no size: all their images are as large as the first."""
    frames = meta["frames"]
    if any(key in listed for listed in (meta, *frames) for key in ("w", "h")):
        return meta
    path = find_image(root, frames[0]["file_path"]) if frames and frames[0].get("file_path") else None
    return meta if path is None else meta | dict(zip(("w", "h"), image_size(path), strict=True))


def _sequences(root: Path) -> dict[str, dict[int, Path]]:
    """The sharp sub-frames ``sequence/VVV_MM.png`` by view and number; the folder is listed once for all views."""
    pattern = re.compile(r"(.+)_(\d+)\.png")
    found: dict[str, dict[int, Path]] = {}
    for file in sorted((root / "sequence").glob("*.png")):
        if match := pattern.fullmatch(file.name):
            found.setdefault(match[1], {})[int(match[2])] = file
    return found


def _view(root: Path, camera: Camera, frame: dict[str, Any], sequence: dict[int, Path], is_exposure: bool) -> View:
    """Match a camera to its files by name; only exposures have spikes and sub-frames."""
    name = camera.name
    image = find_image(root, frame.get("file_path", f"sharp_data/{name}.png"), name)
    recording = frame.get("recording", "")
    if not is_exposure:
        return View(camera, image_path=image, recording=recording)
    if "spike_path" not in frame:
        return View(camera, find_stream(root, name), image, sequence, recording)
    spike = root / listed_path(frame["spike_path"])
    if not spike.is_file():
        raise ValueError(f"{spike}: the spike stream of view {name} is not there")
    return View(camera, spike, image, sequence, recording)


def _sensor(path: Path, meta: dict[str, Any]) -> SensorModel:
    spike = meta.get("spike", {})
    given = {key: spike[key] for key in _SENSOR_KEYS if key in spike}
    if "spike_gain" in meta:
        given["gain"] = meta["spike_gain"]
    try:
        return SensorModel(**given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _mosaic(meta: dict[str, Any]) -> Mosaic | None:
    pattern = meta.get("spike", {}).get("bayer")
    return None if pattern is None else Mosaic(pattern)


def _layout(meta: dict[str, Any]) -> Layout:
    spike = meta.get("spike", {})
    return Layout(**{key: spike[key] for key in _STREAM_KEYS if key in spike})


def _read_novel(root: Path) -> list[View]:
    path = root / "novel.json"
    if not path.is_file():
        return []
    views, _ = _read_transforms(root, path, are_exposures=False)
    for view in views:
        if view.image_path is None:
            raise ValueError(f"{path}: the sharp image of held-out view {view.camera.name} is not there")
    return views


def _read_truth(root: Path, origin: Tensor) -> dict[str, Tensor] | None:
    path = root / "trajectory.json"
    if not path.is_file():
        return None
    poses = read_json(path, _TRUTH)["w2c"]
    return {name: poses_from(origin, torch.as_tensor(stored)) for name, stored in poses.items()}


def _check_truth(path: Path, truth: dict[str, Tensor]) -> None:
    for name, poses in truth.items():
        shape = tuple(poses.shape)
        if shape[1:] != (4, 4) or not bool(torch.isfinite(poses).all()):
            raise ValueError(f"{path}: view {name} has poses of shape {shape}, expected finite (M, 4, 4)")


def _read_points(root: Path, path: Path, meta: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    if "colmap_points" in meta:
        return meta["colmap_points"]
    if "ply_file_path" in meta:
        # A pose file from elsewhere brings its own points.
        folder = root if path.is_relative_to(root) else path.parent
        return read_point_ply(inside(path, folder, meta["ply_file_path"], "ply_file_path"))
    return read_point_ply(root / POINTS) if (root / POINTS).is_file() else (None, None)


# ---- COLMAP ----------------------------------------------------------------------------------------------


def _read_colmap(root: Path, folder: Path) -> tuple[list[View], dict[str, Any]]:
    """COLMAP's cameras, images and points, in float64, binary or text; spikes are matched by image name."""
    model = open_model(folder)
    sequences, names = _sequences(root), view_names(model)
    views = []
    for image in sorted((i for i in model.images.values() if i.has_pose), key=lambda i: i.name):
        source = model.cameras[image.camera_id]
        name = names[image.image_id]
        where, matrix = f"{folder}: view {name}", source.calibration_matrix()
        coefficients = coefficients_of(named_parameters(source))
        lens = lens_of(where, source.model.name, coefficients, matrix, source.width, source.height)
        k = torch.as_tensor(matrix, dtype=torch.float32) if lens is None else lens.matrix
        pose = torch.from_numpy(pose_of(image))
        camera = Camera(name, source.width, source.height, k, pose, lens)
        file = next((f for f in IMAGE_FOLDERS if find_image(root, f"{f}/{image.name}")), IMAGE_FOLDERS[0])
        frame = {"file_path": f"{file}/{image.name}"}
        views.append(_view(root, camera, frame, sequences.get(name, {}), is_exposure=True))
    meta: dict[str, Any] = {}
    if (root / "spike.json").is_file():
        meta = read_json(root / "spike.json", record({}, _SPIKES))
    points = [(p.xyz, p.color) for p in model.points3D.values()]
    if points:
        xyz, rgb = (torch.from_numpy(np.array(column)) for column in zip(*points, strict=True))
        meta["colmap_points"] = (xyz, rgb.float() / 255)
    return views, meta
