"""Building blocks of a training: targets, initial Gaussians, trajectories, and the densification strategy."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arguments import GaussianSettings, Settings, SpikeNerfSettings
from gaussian_renderer import NEAR_PLANE
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.field import GaussianField
from gaussian_renderer.radiance import Frustum, RadianceGrid, RadianceNets
from gaussians.densification import DefaultStrategy, MCMCStrategy, Strategy
from gaussians.initialization import Picture, depth_range, fill_points, median_depth, thinned
from gaussians.model import GaussianModel
from gaussians.ply import LowPass
from scene.dataset import SceneData, refuse_distortion
from scene.preconditioning import preconditioners
from scene.trajectory import Trajectory
from scene.views import Quadrature, TargetSpec, view_timing
from spike import WindowSpec
from training.state import Recording, State
from utils.io import LUMA

# When the grid of a radiance field is refined, as a share of the steps.
REFINED_AT = 0.4


def window_of(c: Settings) -> WindowSpec:
    """The exposure window and its sub-frames."""
    return WindowSpec(exposure=c.window.exposure, short=c.short, subframes=c.window.subframes)


def target_spec(c: Settings, intervals: tuple[tuple[int, int], ...] = (), wide: bool = False) -> TargetSpec:
    """How the spikes of a view are converted to targets (see ``TargetSpec``)."""
    return TargetSpec(window_of(c), c.target_mode, c.subframe_width, intervals, wide)


def spike_recording(c: Settings, scene: SceneData, spec: TargetSpec, device: torch.device) -> Recording:
    """The recording with targets from spikes; in files, if they need more memory than ``targets_memory``.

    Raises:
        ValueError: counted targets of cameras with a lens, or not enough room for the files.
    """
    if spec.mode == "counting":
        refuse_distortion(
            scene.root, scene.train, "counted spikes are compared in the sensor's pixels; use --recipe timing"
        )
    width, height = scene.size
    needed = spec.bytes_per_pixel() * width * height * len(scene.train)
    if not c.run.targets_memory or needed <= 1e9 * c.run.targets_memory or device.type != "cpu":
        return Recording.of_spikes(scene, spec, device)
    folder = Path(c.scene.model_path or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: the targets of {len(scene.train)} views need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            "are free there"
        )
    return Recording.of_spikes(scene, spec, device, folder)


def initial_gaussians(c: GaussianSettings, recording: Recording) -> GaussianField:
    """Gaussians on the scene's points, with more points added along the views' rays."""
    options, device = c.gaussians, recording.device
    pictures = _Pictures(recording)
    rgb = recording.scene.rgb
    if rgb is not None and len(pictures[0].image) == 1:
        rgb = rgb @ rgb.new_tensor(LUMA)[:, None]
    points, colors = fill_points(recording.scene.points, rgb, pictures, options.init_num_pts, c.run.seed)
    if c.densification.cap_max:
        points, colors = thinned(points, colors, c.densification.cap_max, c.run.seed)
    _refuse_nearness(recording, points)
    low_pass = LowPass(options.low_pass, options.antialiased)
    gaussians = GaussianModel.from_points(points, colors, options.sh_degree, options.init_opa, low_pass=low_pass)
    return GaussianField(
        gaussians.to(device),
        get_rasterizer(c.run.rasterizer, device),
        options.sh_degree_interval,
        screen_gradients=c.densification.strategy == "default",
    )


def _refuse_nearness(recording: Recording, points: Tensor) -> None:
    """Raise an error if much of the scene is nearer to the cameras than anything that is drawn, as in kilometers."""
    depth = median_depth(points, recording.w2c)
    if depth < 2 * NEAR_PLANE:
        raise ValueError(
            f"{recording.scene.root}: half of the initial points are less than {depth:.2g} units in front of the "
            f"cameras, and nothing nearer than {NEAR_PLANE} is drawn, also by other programs; multiply all positions, "
            f"of cameras and points, by {10.0 ** math.ceil(-math.log10(depth)):.0f}"
        )


class _Pictures(Sequence[Picture]):
    """The middle target of every view as a posed image, read when it is asked for: all of them may not fit."""

    def __init__(self, recording: Recording):
        self._recording = recording

    def __len__(self) -> int:
        return len(self._recording)

    def __getitem__(self, view: Any) -> Any:
        recording, camera = self._recording, self._recording.exposures[view].camera
        return Picture(recording.colors(recording.middle(view)).cpu(), camera.K, camera.w2c)


def empty_field(c: SpikeNerfSettings, recording: Recording) -> RadianceGrid | RadianceNets:
    """A radiance field in the frustum that the cameras share, between the depths of the scene's points."""
    options, points = c.radiance, recording.scene.points
    w2c, k = recording.w2c, recording.K
    near, far = depth_range(points, w2c)
    if points is not None and len(points):
        near *= 3  # initial points may start far in front of the scene; samples there would be lost
    height, width = recording.size
    try:
        frustum = Frustum.around(w2c, k, width, height, near, far).to(recording.device)
    except ValueError as error:
        raise ValueError(f"{recording.scene.root}: {error}") from None
    if options.field == "mlp":
        return RadianceNets(frustum, options.samples, c.run.seed)
    # Half of the final resolution: the grid is refined once.
    slopes = float(k[0, 0, 0]) * frustum.reach[0], float(k[0, 1, 1]) * frustum.reach[1]
    columns, rows = (max(round(options.cells * slope), 2) for slope in slopes)
    return RadianceGrid.empty(frustum, (options.samples // 2, rows, columns), options.samples, c.run.seed)


def means_unit(c: GaussianSettings, state: State) -> float:
    """Unit of the means' learning rate, world units; call it before the first step: it uses the initial Gaussians."""
    if c.rates.means_unit == "extent":
        return state.recording.scene.extent
    return _depth_of(state)


def _depth_of(state: State) -> float:
    """Median depth of the Gaussians in all views, those around a block included, world units."""
    return median_depth(_points_of(state), _middle_poses(state))


def _middle_poses(state: State) -> Tensor:
    """World-to-camera poses [V, 4, 4] at the middles of the exposures in the world of the Gaussians, on the CPU.

    They are not those of the scene if the training started from a model.
    """
    views = torch.arange(len(state.recording), device=state.recording.device)
    with torch.no_grad():
        return state.trajectory(views, torch.full(views.shape, 0.5, device=views.device)).cpu()


def _points_of(state: State) -> Tensor:
    """The means [N, 3] of the Gaussians, those around a block included, on the CPU."""
    field = state.gaussian_field
    parts = [field.gaussians] if field.surroundings is None else [field.gaussians, field.surroundings]
    return torch.cat([part.means.detach() for part in parts]).cpu()


def start_trajectory(c: Settings, scene: SceneData, window: Quadrature) -> Trajectory:
    """Curves through the given poses, with motion estimated from the neighboring views or at rest."""
    motion, views = c.path, scene.train
    poses = torch.stack([view.camera.w2c for view in views])
    moves = motion.motion_init or motion.trajectory == "spline"
    timing = view_timing(views, scene, c.window.exposure, motion.view_spacing) if moves else None
    reach = max(window.reach, window_of(c).reach)
    return Trajectory(poses, motion.trajectory, timing, motion.knot_spacing, reach, motion.curve_degree)


# The scene on which the rates were found had a median depth of three units.
_DEPTH = 3.0


def pose_preconditioners(c: GaussianSettings, state: State) -> Tensor | None:
    """Preconditioners of the knots [Q, 6, 6], None for none (see ``Optimizers``); call it before the first step."""
    if not c.motion.pose_precondition:
        unit = length_unit(c, state)
        scaled = torch.diag(torch.tensor([unit, unit, unit, 1, 1, 1], device=state.recording.device))
        return None if unit == 1 else scaled.expand(len(state.trajectory.increments), 6, 6)
    recording = state.recording
    height, width = recording.size
    of_views = preconditioners(_points_of(state), _middle_poses(state), recording.K.cpu(), width, height)
    return state.trajectory.per_knot(of_views.to(recording.device))


def length_unit(c: GaussianSettings, state: State) -> float:
    """Length that MCMC's noise and plain poses count in, world units; call it before the first step."""
    if c.rates.length_unit == "world":
        return 1.0
    return _depth_of(state) / _DEPTH


def densification(c: GaussianSettings, recording: Recording, unit: float = 1.0) -> Strategy | None:
    """The densification strategy that the settings ask for, for a scene with this unit of length."""
    options = c.densification
    common: dict[str, Any] = {
        "start": options.densify_from_iter,
        "stop": options.densify_until_iter,
        "every": options.densification_interval,
        "seed": c.run.seed,
    }
    if options.strategy == "mcmc":
        # A Gaussian moves by its covariance times a rate, which is a length to the third power.
        noise = MCMCStrategy.noise / unit**2
        return MCMCStrategy(options.cap_max, noise, dead_opacity=options.min_opacity, **common)
    if options.strategy == "default":
        return DefaultStrategy(
            options.densify_grad_threshold,
            recording.scene.extent,
            options.min_opacity,
            reset_every=options.opacity_reset_interval,
            cap=options.cap_max,
            last_only=options.densify_subframes == "last",
            **common,
        )
    return None
