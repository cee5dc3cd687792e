"""Recovered trajectories against ground truth, or the reason why they cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scene.model_folder import why_stale
from scene.views import true_poses
from training.trained_model import TrainedModel
from utils.trajectory_metrics import trajectory_errors


@dataclass(frozen=True)
class Trajectories:
    """Training views with their recovered, true and initial poses [V, M, 4, 4].

    Without truth, ``why`` gives the reason.
    """

    names: list[str]
    poses: np.ndarray | None
    truth: np.ndarray | None = None
    initial: np.ndarray | None = None
    why: str = ""


def read_trajectories(model: TrainedModel, cameras: Sequence[dict[str, Any]]) -> Trajectories:
    """Recovered poses of the training views in ``cameras.json``, and the true poses if known."""
    entries = [entry for entry in cameras if entry["split"] == "train"]
    names = [entry["name"] for entry in entries]
    shapes = {np.shape(entry["w2c"]) for entry in entries}
    if len(shapes) != 1:
        return Trajectories(names, None, why="cameras.json has training views of different numbers of sub-frames")
    poses = np.array([entry["w2c"] for entry in entries])
    stale = why_stale(entries, model.iteration)
    if stale is not None:
        return Trajectories(names, None, why=stale)
    try:
        scene = model.scene
    except ValueError as error:
        return Trajectories(names, poses, why=f"the scene cannot be read ({error})")
    file = scene.root / "trajectory.json"
    if scene.truth is None:
        return Trajectories(names, poses, why=f"there is no {file} with true poses")
    unknown = [name for name in names if name not in scene.truth]
    if unknown:
        why = f"{file} lacks {len(unknown)} of {len(names)} training views ({', '.join(unknown[:3])})"
        return Trajectories(names, poses, why=why)
    spec, found = model.window_spec, []
    for name in names:
        true = true_poses(scene.truth[name], spec)
        if true is None:
            count = len(scene.truth[name])
            why = f"{file} has view {name} at {count} instants, not at the model's {spec.subframes}"
            return Trajectories(names, poses, why=why)
        found.append(true.numpy())
    return Trajectories(names, poses, np.stack(found), _initial_poses(model, names))


@torch.no_grad()
def _initial_poses(model: TrainedModel, names: Sequence[str]) -> np.ndarray | None:
    """The poses [V, M, 4, 4] from which training started; None if it started from a model, or the scene changed."""
    if model.settings.values().get("start_from"):
        return None
    index = {view.camera.name: i for i, view in enumerate(model.scene.train)}
    if not set(names) <= index.keys():
        return None
    return np.stack([model.initial_trajectory.view(index[name], model.u).cpu() for name in names])


def measure_trajectories(found: Trajectories) -> tuple[dict[str, Any] | None, str]:
    """ATE, RPE and motion error of the training views, or None and the reason why they are missing."""
    if found.poses is None or found.truth is None:
        return None, found.why
    try:
        errors = trajectory_errors(found.poses, found.truth)
    except ValueError as error:
        return None, str(error)
    return {
        "ATE": errors.ate,
        "RPE_translation": errors.rpe_translation,
        "RPE_rotation_deg": errors.rpe_rotation,
        "motion_error": errors.motion,
        "reversed_views": [found.names[v] for v in errors.flipped],
        "subframes": found.poses.shape[1],
    }, ""
