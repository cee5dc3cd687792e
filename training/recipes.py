"""The methods: each is one function that builds a training from its settings and a scene.

    scene = read_scene("data/demo")
    training = timing(TimingSettings.of(iterations=500), scene)
    for _ in range(training.steps):
        training.step()

For an ablation or a new method, change a part of what a recipe returns: leave out an objective, or replace the
sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from arguments import (
    CascadeSettings,
    GaussianSettings,
    ImageSettings,
    PaperSettings,
    PhotoSettings,
    ReleasedSettings,
    Settings,
    SpikeGSSettings,
    SpikeNerfSettings,
    TimingSettings,
)
from arguments.parts import NetworkOptions
from baselines.images import image_of, instants_of
from baselines.providers import blind_spot, prepare
from gaussian_renderer.radiance import RadianceGrid
from recon_net import SpikeToImage, make_network
from scene.cameras import View
from scene.dataset import SceneData, refuse_distortion
from scene.views import Quadrature, TargetSpec, read_exposures
from training.after import Action, Averaging, DirectionVotes, FixedPatternUpdates, NoiseUpdates, Retiming
from training.building import (
    REFINED_AT,
    densification,
    empty_field,
    initial_gaussians,
    length_unit,
    means_unit,
    pose_preconditioners,
    spike_recording,
    start_trajectory,
    target_spec,
    window_of,
)
from training.objectives import (
    ExposureLoss,
    FusedDistillation,
    InstantJointLoss,
    InstantLoss,
    JointLoss,
    MeanOpacity,
    MeanScale,
    Objective,
    ReblurLoss,
    ScaleRatio,
    SubframeLoss,
    present,
)
from training.optimizers import Optimizers, Rate
from training.reconstruction import ExposureFrames, InstantFrames
from training.sampling import Instants, WholeExposures
from training.spiking import GainPrior, GridVariation, RandomPixels, Refinement, SensedField, SensorLayer, SpikeLoss
from training.starting import start_from_model
from training.state import Recording, State
from training.training import Training
from utils.device import pick_device

C = TypeVar("C", bound=Settings)


def timing(c: TimingSettings, scene: SceneData) -> Training:
    """Our method: compare single instants of all views with the intensity given by the spike times.

    After ``recon_from`` iterations, Recon-Net is distilled from fused images.
    """
    device = pick_device(c.run.device)
    c = sized(c, scene)
    window = window_of(c)
    network = recon_net(c, c.network.recon_net, scene, device) if c.network.lambda_joint else None
    spec = target_spec(c, wide=network is not None and network.reads_wide)
    recording = spike_recording(c, scene, spec, device)
    quadrature = spec.quadrature(c.targets.window_points)

    state = State(
        recording,
        field=initial_gaussians(c, recording),
        trajectory=start_trajectory(c, scene, quadrature).to(device),
        network=network,
        seed=c.run.seed,
    )
    start_from_model(c, state)
    distillation = FusedDistillation if c.network.fuse else InstantJointLoss
    return Training(
        c,
        state,
        sample=Instants(len(recording), window.subframes, c.targets.instants, quadrature, c.targets.window_from),
        reconstruct=None
        if network is None
        else InstantFrames(network, c.network.crop, c.network.recon_from, c.network.recon_every),
        objectives=present([SubframeLoss(1.0), *regularizers(c), distillation(c.network.lambda_joint)]),
        strategy=densification(c, recording, length_unit(c, state)),
        optimizers=optimizers(c, state, network_rate(c.network), c.network.recon_from),
        after=timing_actions(c, state, spec),
    )


def timing_actions(c: TimingSettings, state: State, spec: TargetSpec) -> list[Action]:
    """What follows the steps of ``timing``: learned gains, then targets that are read with them, then their noise."""
    after: list[Action] = []
    if c.targets.fixed_pattern_every:
        after.append(FixedPatternUpdates(c.targets.fixed_pattern_every))
    if c.retimes:
        after.append(Retiming(state, c.targets.retime_from, c.targets.retime_every))
    if state.network is not None and c.network.fuse:
        begins = c.network.recon_from
        after.append(NoiseUpdates(state.recording, spec, begins, max((c.rates.iterations - begins) // 3, 1)))
    return [*after, *averaging(c)]


def paper(c: PaperSettings, scene: SceneData) -> Training:
    """USP-Gaussian (Chen et al. 2025, supplement D and E): L = L_gs + L_rec + L_joint on whole exposures.

    The initial motion is estimated from the neighboring views by default, or zero.
    """
    device = pick_device(c.run.device)
    c = sized(c, scene)
    window, losses = window_of(c), c.losses
    network = recon_net(c, c.network.recon_net, scene, device) if losses.lambda_rec or losses.lambda_joint else None
    reblur = ReblurLoss(losses.lambda_rec, window.subframes, losses.multi_interval)
    intervals = reblur.intervals if losses.lambda_rec else ()
    spec = target_spec(c, intervals, wide=network is not None and network.reads_wide)
    recording = spike_recording(c, scene, spec, device)

    state = State(
        recording,
        field=initial_gaussians(c, recording),
        trajectory=start_trajectory(c, scene, Quadrature.middle()).to(device),
        network=network,
        seed=c.run.seed,
    )
    start_from_model(c, state)
    can_turn = bool(losses.lambda_joint and losses.flip and c.motion.pose_opt) and c.motion.trajectory != "spline"
    return Training(
        c,
        state,
        sample=WholeExposures(len(recording), window.subframes, c.run.seed),
        reconstruct=None if network is None else ExposureFrames(network, c.network.crop),
        objectives=present(
            [
                ExposureLoss(losses.lambda_gs, losses.lambda_dssim),
                *regularizers(c),
                reblur,
                JointLoss(losses.lambda_joint, losses.flip),
            ]
        ),
        # L_rec alone trains only the network, so no Gaussians need densification.
        strategy=(
            densification(c, recording, length_unit(c, state)) if losses.lambda_gs or losses.lambda_joint else None
        ),
        optimizers=optimizers(c, state, network_rate(c.network)),
        after=[*([DirectionVotes(len(recording))] if can_turn else []), *averaging(c)],
    )


def released(c: ReleasedSettings, scene: SceneData) -> Training:
    """USP-Gaussian as in the authors' released program: the paper's method with other defaults.

    Recon-Net's long input sums frames that are 34 apart, densification uses only the last sub-frame, and motion starts
    at rest.
    """
    return paper(c, scene)


def images(c: ImageSettings, scene: SceneData) -> Training:
    """BAD-Gaussians (Zhao et al. 2024): compare the mean of an exposure's renders with the view's blurred image."""
    return on_images(c, scene, c.losses.lambda_dssim, None)


def photos(c: PhotoSettings, scene: SceneData) -> Training:
    """3DGS (Kerbl et al. 2023) on our schedule: compare one render with one photograph."""
    return images(c, scene)


def cascade(c: CascadeSettings, scene: SceneData) -> Training:
    """3D Gaussian splatting (Kerbl et al. 2023) on one image of every view from its spikes: TFP-3DGS and others."""
    provider = prepare(c.images.image_method, scene, c.images, c.run)
    return on_images(c, scene, c.losses.lambda_dssim, lambda view: image_of(provider, scene, view))


def on_images(
    c: ImageSettings | CascadeSettings, scene: SceneData, dssim: float, read: Callable[[View], Tensor] | None
) -> Training:
    """Compare the mean of an exposure's renders with one image per view: its file, or ``read(view)`` [C, H, W]."""
    device = pick_device(c.run.device)
    c = sized(c, scene)
    window = window_of(c)
    recording = Recording.of_images(scene, window, device, read)
    state = State(
        recording,
        field=initial_gaussians(c, recording),
        trajectory=start_trajectory(c, scene, Quadrature.middle()).to(device),
        seed=c.run.seed,
    )
    start_from_model(c, state)
    return Training(
        c,
        state,
        sample=WholeExposures(len(recording), window.subframes, c.run.seed),
        objectives=present([ExposureLoss(1.0, dssim), *regularizers(c)]),
        strategy=densification(c, recording, length_unit(c, state)),
        optimizers=optimizers(c, state),
        after=averaging(c),
    )


def spikegs(c: SpikeGSSettings, scene: SceneData) -> Training:
    """SpikeGS (Zhang et al. 2024, arXiv 2407.10062): instants from a self-supervised network, on fixed poses.

    The network is trained on the scene's spikes first (``baselines.blind_spot``).  Renders of the sub-frames are
    compared with its images, and their mean with the counted spikes of the whole exposure.  The poses of the sub-frames
    are interpolated between the views.  Views without motion, each from a separate recording, are compared at their
    middle alone.
    """
    device = pick_device(c.run.device)
    c = sized(c, scene)
    moves = c.motion.motion_init and len({view.recording for view in scene.train}) < len(scene.train)
    if not moves:
        c = c.replaced(subframes=1, lambda_exp=0.0)
    window, losses, network = window_of(c), c.losses, blind_spot(scene, c.images, c.run)
    recording = Recording(
        scene, window, device,
        lambda views, sensor: read_exposures(
            views, scene, device, lambda view: instants_of(network, scene, view, window, sensor)
        ),
        from_spikes=True,
    )  # fmt: skip
    state = State(
        recording,
        field=initial_gaussians(c, recording),
        trajectory=start_trajectory(c, scene, Quadrature.middle()).to(device),
        seed=c.run.seed,
    )
    start_from_model(c, state)
    return Training(
        c,
        state,
        sample=WholeExposures(len(recording), window.subframes, c.run.seed),
        objectives=present(
            [
                InstantLoss(losses.lambda_inst, losses.lambda_dssim),
                ExposureLoss(losses.lambda_exp, losses.lambda_dssim),
                *regularizers(c),
            ]
        ),
        strategy=densification(c, recording, length_unit(c, state)),
        optimizers=optimizers(c, state),
        after=averaging(c),
    )


def spikenerf(c: SpikeNerfSettings, scene: SceneData) -> Training:
    """SpikeNeRF (Zhu et al. 2024): a radiance field, seen by a firing sensor, against the spikes of a window.

    Raises:
        ValueError: a color sensor, or cameras that do not face the same way.
    """
    device = pick_device(c.run.device)
    if scene.mosaic is not None:
        raise ValueError(f"{scene.root}: a color sensor, but --recipe spikenerf learns gray scenes only")
    recording = spike_recording(c, scene, target_spec(c), device)
    height, width = recording.size
    field = empty_field(c, recording)
    sensor = SensorLayer(recording.sensor, c.window.exposure, height, width, c.sensor.fire, device)
    state = State(
        recording,
        field=SensedField(field, sensor),
        trajectory=start_trajectory(c, scene, Quadrature.middle()).to(device),
        seed=c.run.seed,
    )
    long = torch.stack([exposure.long[0] for exposure in recording.exposures])
    penalties: list[Objective] = [GainPrior(c.sensor.lambda_gain, sensor)] if sensor.parameters() else []
    after: list[Action] = []
    if isinstance(field, RadianceGrid):
        penalties.append(GridVariation(c.sensor.lambda_tv, field))
        after.append(Refinement(field, round(REFINED_AT * c.rates.iterations)))
    rates = {name: Rate(c.rates.nets_lr) for name in field.parameters()} | {
        "values": Rate(c.rates.values_lr, c.rates.values_lr_final), "log_gain": Rate(c.rates.gain_lr)
    }  # fmt: skip
    return Training(
        c,
        state,
        sample=RandomPixels(len(recording), height, width, recording.window.middle, c.radiance.rays),
        objectives=present([SpikeLoss(1.0, sensor, long, c.sensor.gamma), *penalties]),
        optimizers=Optimizers(state, c.rates.iterations, rates, poses=None),
        after=after,
    )


RECIPES: dict[str, Callable[[Any, SceneData], Training]] = {
    "timing": timing,
    "paper": paper,
    "released": released,
    "images": images,
    "photos": photos,
    "cascade": cascade,
    "spikegs": spikegs,
    "spikenerf": spikenerf,
}


def build(settings: Settings, scene: SceneData) -> Training:
    """Build the training with the recipe that ``settings`` belong to."""
    return RECIPES[settings.recipe](settings, scene)


# ---- parts that all recipes share --------------------------------------------------------------------------


def sized(c: C, scene: SceneData) -> C:
    """The settings with values that depend on the scene's size filled in."""
    return c.for_scene(len(scene.train), *scene.size)


def recon_net(c: Settings, variant: str, scene: SceneData, device: torch.device) -> SpikeToImage:
    """A new Recon-Net for the settings' window.

    Raises:
        ValueError: cameras with a lens, and a network that reads spikes.
    """
    window = window_of(c)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(c.run.seed)
        network = make_network(variant, window.short, window.long_channels, c.grouping)
    if network.reads_spikes:
        refuse_distortion(scene.root, scene.train, f"--recon_net {variant} reads the spikes themselves (slim does not)")
    return network.to(device)


def regularizers(c: GaussianSettings) -> list[ScaleRatio | MeanOpacity | MeanScale]:
    """Penalties that depend only on the Gaussians."""
    r = c.regularization
    return [ScaleRatio(r.lambda_scale_ratio), MeanOpacity(r.opacity_reg), MeanScale(r.scale_reg)]


def averaging(c: GaussianSettings) -> list[Action]:
    """The mean over the last steps, which begins when the set of Gaussians no longer changes."""
    r, dense = c.rates, c.densification
    begins = max(r.average_from, 0 if dense.strategy == "none" else dense.densify_until_iter)
    return [Averaging(begins, r.average_decay)] if r.average_decay and begins <= r.iterations else []


def network_rate(c: NetworkOptions) -> Rate:
    """The learning rate of Recon-Net."""
    return Rate(c.recon_lr, c.recon_lr_final)


def optimizers(c: GaussianSettings, state: State, network: Rate | None = None, network_from: int = 0) -> Optimizers:
    """Adam with the rates of the settings; the rate of the means is in units of the scene."""
    r = c.rates
    rates = {
        "means": Rate(r.means_lr, r.means_lr_final, means_unit(c, state)),
        "quats": Rate(r.quats_lr),
        "log_scales": Rate(r.scales_lr),
        "opacity_logits": Rate(r.opacities_lr),
        "sh0": Rate(r.sh0_lr),
        "shN": Rate(r.shN_lr),
    }
    poses = Rate(r.pose_opt_lr, r.pose_opt_lr_final) if c.motion.pose_opt else None
    matrices = None if poses is None else pose_preconditioners(c, state)
    return Optimizers(state, r.iterations, rates, poses, r.pose_every, network, network_from, matrices)
