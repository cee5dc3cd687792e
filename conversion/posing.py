"""New poses for a scene: structure from motion on the images that a method makes of its views.

This is the first half of a cascade (images, poses from these images, Gaussians from both; supplement C).  The camera
is known: intrinsics are those of the scene.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conversion.structure_from_motion import WIDE, Solution, enlarged, solution_of, structure_from_motion
from conversion.windows import FEWEST
from gaussians.ply import write_point_ply
from scene.cameras import View, opengl
from scene.dataset import SceneData
from utils.io import LUMA, save_image, write_json
from utils.telling import progress
from utils.trajectory_metrics import align, centers, umeyama

# Share of the views that must register.
SHARE = 0.5


@dataclass(frozen=True)
class Posed:
    """Views with new poses, in the world of the old ones.

    Args:
        views: the registered views.
        count: number of views with an image.
        points: points of the reconstruction [N, 3], world units, and their gray levels [N] in [0, 1].
        ate: root mean square distance of the camera centers from the true ones after alignment, or from the old ones
            if the truth is not known.
    """

    views: list[View]
    count: int
    points: Tensor
    levels: Tensor
    reprojection: float
    ate: float
    against_truth: bool


def posed_by_images(scene: SceneData, image_of: Callable[[View], Tensor], label: str) -> Posed:
    """Find the poses of the training views by structure from motion on ``image_of(view)`` [C, H, W].

    Two attempts, the second with lower thresholds if the first misses a view; the one with more views counts.  The
    result is aligned to the old poses by a similarity, which structure from motion leaves undetermined.

    Args:
        label: what the images are called in messages.

    Raises:
        ValueError: too few views could be registered; the message says how many.
    """
    views = scene.train
    scale = max(round(WIDE / views[0].camera.width), 1)
    best: Solution | None = None
    why = ""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for i, view in enumerate(progress(views, f"Making {label} images")):
            save_image(work / "images" / f"{i:05d}.png", enlarged(_gray(image_of(view)), scale) / 255)
        for patient in progress((False, True), "Finding poses", unit="attempt"):
            attempt = work / ("patient" if patient else "usual")
            attempt.mkdir()
            model, reason = structure_from_motion(
                work / "images", attempt, patient, True, scale * _intrinsics(views[0]), seed=0
            )
            why = reason or why
            if model is not None:
                found = solution_of(model, scale, label)
                if best is None or len(found.w2c) > len(best.w2c):
                    best = found
            if best is not None and len(best.w2c) == len(views):
                break
    registered = 0 if best is None else len(best.w2c)
    needed = max(FEWEST, int(np.ceil(SHARE * len(views))))
    if best is None or registered < needed:
        raise ValueError(
            f"structure from motion on {label} images registered {registered} of {len(views)} views, {needed} are "
            f"needed: {why or 'the views have too little in common'}"
        )
    return _in_the_old_world(scene, best)


def _gray(image: Tensor) -> Tensor:
    return image[0] if len(image) == 1 else torch.einsum("chw,c->hw", image, image.new_tensor(LUMA))


def _intrinsics(view: View) -> np.ndarray:
    k = view.camera.K.double().numpy()
    return np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])


def _in_the_old_world(scene: SceneData, found: Solution) -> Posed:
    """The solution, whose views are named by their index, after the similarity that best aligns it with the scene."""
    index = sorted(int(name) for name in found.w2c)
    poses = np.array([found.w2c[f"{i:05d}"] for i in index])
    views = [scene.train[i] for i in index]
    old = np.array([view.camera.w2c.double().numpy() for view in views])
    aligned, _, _ = align(poses[:, None], old[:, None])
    scale, rotation, translation = umeyama(centers(poses), centers(old))
    xyz = scale * found.xyz @ rotation.T + translation
    truth = scene.truth or {}
    known = all(view.camera.name in truth for view in views)
    wanted = old
    if known:
        wanted = np.array([truth[v.camera.name][len(truth[v.camera.name]) // 2].double().numpy() for v in views])
    moved, _, _ = align(poses[:, None], wanted[:, None])
    ate = float(np.sqrt(((centers(moved[:, 0]) - centers(wanted)) ** 2).sum(-1).mean()))
    placed = [
        replace(view, camera=replace(view.camera, w2c=torch.as_tensor(pose, dtype=torch.float32)))
        for view, pose in zip(views, aligned[:, 0], strict=True)
    ]
    return Posed(
        placed, len(scene.train), torch.from_numpy(xyz).float(), torch.from_numpy(found.gray[:, 0]).float(),
        found.error, ate, known,
    )  # fmt: skip


def write_transforms(path: Path, scene: SceneData, posed: Posed, label: str) -> None:
    """Write a pose file of the scene, which ``--transforms`` reads, and its points next to it (``.ply``).

    The file must be outside the scene's folder, or directly in it: ``--transforms`` takes absolute paths.
    """
    points = path.with_suffix(".ply")
    write_point_ply(points, posed.points, posed.levels[:, None].expand(-1, 3))
    layout = {name: value for name, value in asdict(scene.layout).items() if value is not None}
    spike: dict[str, Any] = scene.sensor.to_dict() | layout
    if scene.mosaic is not None:
        spike["bayer"] = scene.mosaic.pattern
    write_json(
        path,
        {
            "spike": spike,
            "ply_file_path": points.name,
            "poses": f"structure from motion on {label} images, {len(posed.views)} of {posed.count} views",
            "frames": [_entry(scene, view, dropped=len(posed.views) < posed.count) for view in posed.views],
        },
    )


def _entry(scene: SceneData, view: View, dropped: bool) -> dict[str, Any]:
    camera = view.camera
    fx, fy, cx, cy = _intrinsics(view).tolist()
    entry: dict[str, Any] = {
        "name": camera.name, "file_path": _inside(scene.root, view.image_path) or f"sharp_data/{camera.name}.png",
        "transform_matrix": opengl(camera.w2c.double().numpy()),
        "recording": view.recording, "w": camera.width, "h": camera.height,
        "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy,
    }  # fmt: skip
    if view.spike_path is not None:
        entry["spike_path"] = _inside(scene.root, view.spike_path)
    # Without the views in between, the order alone no longer says when a view was exposed.
    middle = view.position * float(scene.frames_per_view) if dropped else None
    middle = middle if view.middle_frame is None else view.middle_frame
    return entry if middle is None else entry | {"middle_frame": middle}


def _inside(root: Path, path: Path | None) -> str | None:
    """The path relative to the scene's folder."""
    return None if path is None else os.path.relpath(path, root)
