"""What a run saves to disk: checkpoints to resume from, and models to render."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from scene.dataset import IN_MEMORY
from scene.identity import difference
from scene.model_folder import camera_entries, save_iteration, write_cameras, write_origin
from spike import SensorModel
from training.after import FixedPatternUpdates
from training.finite import not_finite
from training.training import Training
from utils.checkpoint import fitting, latest_checkpoint, load_checkpoint, save_checkpoint
from utils.json_files import whole
from utils.reading import reason


def learned_sensor(training: Training) -> SensorModel | None:
    """The sensor with the gains estimated so far, or None if there are only the scene's own."""
    recording = training.state.recording
    looked_for = any(isinstance(action, FixedPatternUpdates) for action in training.after)
    return recording.sensor if looked_for or recording.sensor is not recording.scene.sensor else None


def save_model(training: Training) -> Path:
    """Save this iteration's scene, network and trajectories in 3DGS's folder layout; returns the folder.

    Raises:
        ValueError: the settings name no folder for the results.
    """
    state = training.state
    if not training.settings.scene.model_path:
        raise ValueError("the settings name no folder for the results: give model_path")
    require_finite(training)
    save_settings(training)
    folder = save_iteration(
        training.settings.scene.model_path, state.iteration, state.field.save, state.trajectory, state.network,
        learned_sensor(training),
    )  # fmt: skip
    save_cameras(training)
    return folder


def save_settings(training: Training) -> None:
    """Write ``cfg_args.json``, with the scene's folder also where the settings do not name it."""
    settings, root = training.settings, training.state.recording.scene.root
    # Absolute, so that the model can be rendered from any directory.
    source = str(root) if root == IN_MEMORY else os.path.abspath(settings.scene.source_path or root)
    start = settings.values().get("start_from")
    places = {"source_path": source} | ({"start_from": os.path.abspath(start)} if start else {})
    settings.replaced(**places, resume=False).save(settings.scene.model_path)


def save_cameras(training: Training) -> None:
    """Write ``cameras.json`` with the poses of this iteration, and where they are counted from."""
    state, recording = training.state, training.state.recording
    entries = camera_entries(recording.scene.train, state.trajectory, recording.u, state.iteration)
    write_cameras(training.settings.scene.model_path, entries)
    write_origin(training.settings.scene.model_path, recording.scene.origin)


def stored_state(training: Training) -> dict[str, Any]:
    """Everything needed to resume; tensors are not copied.

    Random numbers are functions of the seed and the iteration, so no generator state is stored.
    """
    state = training.state
    sensor, gains = learned_sensor(training), {}
    if sensor is not None and sensor.gain_map is not None:
        gains = {"gain_map": sensor.gain_map}
    return gains | {
        "scene": state.recording.identity,
        "iteration": state.iteration,
        "field": {name: value.detach() for name, value in state.field.parameters().items()},
        "trajectory": state.trajectory.state_dict(),
        "network": {} if state.network is None else state.network.state_dict(),
        "optimizers": training.optimizers.state_dict(),
        "strategy": {} if training.strategy is None else training.strategy.state_dict(),
        "after": {action.name: action.state_dict() for action in training.after},
    }


def require_finite(training: Training, state: dict[str, Any] | None = None) -> None:
    """Check that all that was learned, and the optimizers' moments, are finite numbers.

    Raises:
        ValueError: a number is not; says which, at which iteration, and which checkpoint is still good.
    """
    wrong = not_finite(stored_state(training) if state is None else state)
    if wrong is None:
        return
    kept = latest_checkpoint(training.settings.scene.model_path)
    good = "no checkpoint was written before" if kept is None else f"{kept} is the last good checkpoint"
    raise ValueError(f"iteration {training.iteration}: {wrong}, expected finite numbers; nothing is saved, {good}")


def save(training: Training) -> Path:
    """Write everything needed to resume, and remove older checkpoints; returns the file.

    Raises:
        ValueError: a number is not finite, or the file cannot be written; older checkpoints are then kept.
    """
    path = Path(training.settings.scene.model_path) / f"chkpnt{training.iteration}.pth"
    stored = stored_state(training)
    require_finite(training, stored)
    save_checkpoint(path, stored)
    for old in path.parent.glob("chkpnt*.pth"):
        if old != path and old.stem[6:].isdigit() and int(old.stem[6:]) < training.iteration:
            old.unlink()
    return path


def load(training: Training, path: Path) -> None:
    """Resume from a checkpoint that ``save`` wrote.

    Raises:
        ValueError: not a checkpoint, or one of another scene or other settings (names the file).
    """
    state, recording = training.state, training.state.recording
    stored = load_checkpoint(path, recording.device)
    if "gaussian_optimiser" in stored:
        raise ValueError(f"{path}: a checkpoint of version 0.1.0, whose model can be rendered but not trained further")
    try:
        other = difference(stored["scene"], recording.identity)
        if other is not None:
            raise ValueError(f"a checkpoint of another scene than {recording.scene.root}: {other}")
        state.field.restore(stored["field"])
        state.trajectory.load_state_dict(stored["trajectory"])
        if state.network is not None:
            state.network.load_state_dict(stored["network"])
        training.optimizers.restart()
        training.optimizers.load_state_dict(stored["optimizers"])
        if training.strategy is not None:
            training.strategy.load_state_dict(stored["strategy"])
        for action in training.after:
            action.load_state_dict(stored["after"][action.name])
        if "gain_map" in stored:
            recording.use_gains(fitting("gain_map", stored["gain_map"].cpu(), torch.empty(recording.size)))
        state.iteration = whole()(stored["iteration"])
    except Exception as error:  # whatever the parts raise for values of other types and shapes
        raise ValueError(f"{path}: does not fit this scene and configuration ({reason(error)})") from error
