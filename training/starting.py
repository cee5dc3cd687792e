"""Starting a training from a trained model: of the same scene, or of a scene that this one is a block of.

A block (``scene.blocks``) of a scene with a coarse model has the right surroundings from its first step, and the poses
and the world of that model, as in CityGaussian (Liu et al. 2024).  It trains the Gaussians in its core only, so that
none is spent on what other blocks show, and blocks cannot drift apart.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from arguments import GaussianSettings
from gaussian_renderer.field import GaussianField
from gaussians.model import PARAMETERS, GaussianModel
from gaussians.ply import LowPass
from scene.blocks import BLOCK, read_block
from scene.model_folder import (
    find_iteration,
    load_gaussians,
    load_learned_sensor,
    load_trajectory,
    read_cameras,
    why_stale,
)
from scene.trajectory import Trajectory
from training.state import State
from utils.checkpoint import fitting


def start_from_model(c: GaussianSettings, state: State) -> None:
    """Give a new state the Gaussians, curves and gains of the model that ``start_from`` names, if it names one.

    Raises:
        ValueError: no model, or one that does not fit the scene or the settings.
    """
    if not c.gaussians.start_from:
        return
    model, recording, field = Path(c.gaussians.start_from), state.recording, state.gaussian_field
    if c.scene.model_path and model.resolve() == Path(c.scene.model_path).resolve():
        raise ValueError(f"{model}: is also the folder of the results; expected another one for -m")
    if c.scene.perturb:
        raise ValueError(f"--perturb moves the poses of the scene, but training starts from those of {model}")
    iteration = find_iteration(model)
    state.trajectory = _curves(c, model, iteration, state).to(recording.device)
    gaussians = load_gaussians(model, iteration, field.gaussians.channels).to(recording.device)
    _require_alike(c, model, gaussians)
    sensor = load_learned_sensor(model, iteration)
    if sensor is not None and sensor.gain_map is not None and recording.from_spikes:
        recording.use_gains(fitting("the gains", sensor.gain_map, torch.empty(recording.size)))
    # Colors that were learned depend on the view from the first step.
    state.field = GaussianField(gaussians, field.rasterizer, 0, field.screen_gradients)
    if (recording.scene.root / BLOCK).is_file():
        block = read_block(recording.scene.root)
        inside = block.core.contains(gaussians.means.detach())
        if not inside.any():
            raise ValueError(f"{model}: none of its {len(gaussians)} Gaussians is in the core of block {block.name}")
        around = _in_view(state) & ~inside
        state.field = GaussianField(
            _chosen(gaussians, inside), field.rasterizer, 0, field.screen_gradients,
            _chosen(gaussians, around) if around.any() else None,
        )  # fmt: skip


def _curves(c: GaussianSettings, model: Path, iteration: int, state: State) -> Trajectory:
    """The model's curves of the recording's views."""
    cameras = [entry for entry in read_cameras(model) if entry["split"] == "train"]
    stale = why_stale(cameras, iteration)
    if stale is not None:
        raise ValueError(f"{model}: {stale}")
    place = {entry["name"]: i for i, entry in enumerate(cameras)}
    names = [exposure.camera.name for exposure in state.recording.exposures]
    lacking = [name for name in names if name not in place]
    if lacking:
        raise ValueError(f"{model}: was trained without view {lacking[0]}, expected all {len(names)} of the scene")
    curves = load_trajectory(model, iteration)
    if curves.curve != c.path.trajectory:
        raise ValueError(f"{model}: its curves are {curves.curve}, expected {c.path.trajectory} (--trajectory)")
    if curves.curve == "bezier" and curves.degree != c.path.curve_degree:
        raise ValueError(
            f"{model}: its curves are of degree {curves.degree}, expected {c.path.curve_degree} (--curve_degree)"
        )
    return curves.of_views([place[name] for name in names])


def _require_alike(c: GaussianSettings, model: Path, gaussians: GaussianModel) -> None:
    """Raise an error if Gaussians are not rendered as the settings say."""
    wanted = LowPass(c.gaussians.low_pass, c.gaussians.antialiased)
    if gaussians.low_pass != wanted:
        raise ValueError(
            f"{model}: its Gaussians have a {gaussians.low_pass.comment}, expected a {wanted.comment} (--low_pass, "
            "--antialiased)"
        )
    if gaussians.sh_degree != c.gaussians.sh_degree:
        raise ValueError(
            f"{model}: its Gaussians have colors of degree {gaussians.sh_degree}, expected {c.gaussians.sh_degree} "
            "(--sh_degree)"
        )


def _in_view(state: State) -> Tensor:
    """Which Gaussians [N] are in the image of any view, at the beginning, middle or end of its exposure."""
    recording = state.recording
    height, width = recording.size
    times = torch.tensor([0.0, 0.5, 1.0], device=recording.device)
    seen = torch.zeros(len(state.gaussians), dtype=torch.bool, device=recording.device)
    with torch.no_grad():
        for i, exposure in enumerate(recording.exposures):
            poses, intrinsics = state.trajectory.view(i, times), exposure.camera.K.to(recording.device)
            seen |= (state.field.render(poses, intrinsics, width, height).info["radii"] > 0).all(-1).any(0)
    return seen


def _chosen(gaussians: GaussianModel, which: Tensor) -> GaussianModel:
    """Some of the Gaussians."""
    raw = {name: gaussians.raw[name].detach()[which] for name in PARAMETERS}
    return GaussianModel(raw, gaussians.sh_degree, gaussians.low_pass)
