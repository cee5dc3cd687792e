"""Learn a 3D Gaussian scene, camera trajectories and Recon-Net from spike streams, without ground truth.

    python train.py -s data/tanabata --spike
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import copy
import dataclasses
import json
import math
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from arguments import Config, given_flags, parse_training, resumed_config
from commands.guard import guarded
from gaussian_renderer import RenderOutput, render_trajectory
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import read_views
from gaussian_renderer.viewer.canvas import Canvas
from gaussian_renderer.viewer.server import Viewer
from gaussian_renderer.viewer.sources import RecordedPictures
from gaussians.densification import DefaultStrategy, MCMCStrategy, Strategy
from gaussians.initialization import Picture, fill_points, median_depth, thinned
from gaussians.model import PARAMETERS, GaussianModel
from gaussians.ply import LowPass
from recon_net import AnyReconNet, make_network
from scene.dataset import read_scene
from scene.exposure import Crop, Exposure, instant_frames, recon_frames
from scene.fusion import fuse
from scene.model_folder import camera_entries, save_input_points, save_iteration, set_aside, write_cameras
from scene.trajectory import Trajectory
from scene.views import load_exposures, view_timing, window_spec, window_times
from spike import FixedPattern, SensorModel
from training.losses import (
    exposure_loss,
    half_widths,
    joint_loss,
    l1,
    reblur_loss,
    scale_ratio_penalty,
    subframe_loss,
)
from utils.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from utils.device import pick_device, use_threads
from utils.image_metrics import psnr
from utils.io import LUMA
from utils.run_log import Board, RunLog

# Weight of a step in the memory of a view's direction, and where that memory turns the view round: about twenty
# steps of the view that nearly all say so.
VOTE = 0.1
REVERSED = -0.8


def decayed(start: float, end: float, progress: float) -> float:
    """Learning rate between ``start`` and ``end``, exponential in ``progress`` 0..1."""
    return start * (end / start) ** progress if start > 0 else 0.0


@dataclass(frozen=True)
class Sample:
    """The cameras of one step: ``views`` [B] and ``subframes`` [B], and the exposure where they are all of one.

    Each is rendered at the P times u + ``offsets`` [P], whose mean with ``weights`` [P] stands for the window
    of spikes about its instant.
    """

    views: Tensor
    subframes: Tensor
    exposure: Exposure | None = None
    offsets: Tensor = field(default_factory=lambda: torch.zeros(1))
    weights: Tensor = field(default_factory=lambda: torch.ones(1))

    def window(self, images: Tensor) -> Tensor:
        """What the spikes' windows saw [B, C, H, W], of renders [P * B, C, H, W]."""
        renders = images.unflatten(0, (len(self.weights), -1))
        return renders[0] if len(renders) == 1 else torch.einsum("p,pbchw->bchw", self.weights.to(images), renders)

    def middle(self, images: Tensor) -> Tensor:
        """The renders at the instants themselves [B, C, H, W], of all [P * B, C, H, W]."""
        return images.unflatten(0, (len(self.weights), -1))[len(self.weights) // 2]


class Training:
    """Everything that changes while training, and one step of it."""

    def __init__(self, config: Config):
        self.config = config
        self.device = pick_device(config.run.device)
        torch.manual_seed(config.run.seed)
        self.spec = window_spec(config.data)
        self.scene = read_scene(
            config.data.source_path, config.data.transforms, eval=config.data.eval, llffhold=config.data.llffhold
        )
        self.exposures = load_exposures(self.scene.train, self.scene, config, self.device)
        self.rasterizer = get_rasterizer(config.run.rasterizer, self.device)
        self.u = torch.tensor(self.spec.times, device=self.device)
        data = config.data
        self.window = window_times(data)
        self.trajectory = self._make_trajectory().to(self.device)
        self.gaussians = self._make_gaussians().to(self.device)
        self.network: AnyReconNet | None = None
        if config.data.spike and (config.losses.lambda_rec or config.losses.lambda_joint):
            network = make_network(config.recon.recon_net, self.spec.short, self.spec.long_channels)
            self.network = network.to(self.device)
            self._check_crop(network.receptive_radius)
        # By view, how the pairings of L_joint went: from 1, always in order, to -1, always in reverse.
        self.direction = torch.zeros(len(self.exposures))
        self.strategy = self._make_strategy()
        self._make_optimisers()
        self.iteration = 0

    def _check_crop(self, radius: int) -> None:
        """A crop of a single instant is computed without a surround: only its inside equals the full frame's."""
        crop = self.config.recon.crop
        if self.config.optimisation.instants and not self.config.losses.lambda_rec and 0 < crop <= 2 * radius:
            raise ValueError(
                f"--crop {crop} has no pixel {radius} from its sides, as far as --recon_net "
                f"{self.config.recon.recon_net} looks: expected 0 or at least {2 * radius + 1}"
            )

    def _make_trajectory(self) -> Trajectory:
        motion = self.config.motion
        poses = torch.stack([view.camera.w2c for view in self.scene.train])
        timing = view_timing(self.scene.train, self.scene, self.config)
        moving = motion.motion_init or motion.trajectory == "spline"
        reach = float(self.window[0].abs().max())
        return Trajectory(poses, motion.trajectory, timing if moving else None, motion.knot_spacing, reach)

    def _make_gaussians(self) -> GaussianModel:
        options = self.config.scene
        middle = self.spec.subframes // 2
        pictures = [
            Picture(self.colors(e.long if e.subframes is None else e.subframes[middle]).cpu(), e.camera.K, e.camera.w2c)
            for e in self.exposures
        ]
        channels = len(pictures[0].image)
        rgb = self.scene.rgb
        if rgb is not None and channels == 1:
            rgb = rgb @ rgb.new_tensor(LUMA)[:, None]
        points, colors = fill_points(self.scene.points, rgb, pictures, options.init_points, self.config.run.seed)
        if options.cap:
            points, colors = thinned(points, colors, options.cap, self.config.run.seed)
        self.first_points = points, colors
        by_depth = self.config.optimisation.means_unit == "depth"
        self.means_unit = median_depth(points, pictures) if by_depth else self.scene.extent
        low_pass = LowPass(options.low_pass, options.antialiased)
        return GaussianModel.from_points(points, colors, options.sh_degree, options.init_opacity, low_pass=low_pass)

    def colors(self, raw: Tensor) -> Tensor:
        """Channels of the Gaussians for a target [1 or C, H, W]: three where the sensor has colour filters."""
        mosaic = self.scene.mosaic
        return raw if mosaic is None or not self.config.data.spike else mosaic.colors(raw)

    def _make_strategy(self) -> Strategy | None:
        losses, options = self.config.losses, self.config.scene
        if not (losses.lambda_gs or losses.lambda_sub or losses.lambda_joint):
            return None  # L_rec alone teaches the network: nothing says which Gaussians are needed
        common: dict[str, Any] = {
            "start": options.densify_from,
            "stop": options.densify_until,
            "every": options.densify_every,
        }
        if options.strategy == "mcmc":
            return MCMCStrategy(
                options.cap, dead_opacity=options.min_opacity, seed=self.config.run.seed, **common
            )
        if options.strategy == "default":
            return DefaultStrategy(
                options.densify_grad / self.spec.subframes,
                self.scene.extent,
                options.min_opacity,
                reset_every=options.opacity_reset_every,
                cap=options.cap,
                last_only=options.densify_subframes == "last",
                seed=self.config.run.seed,
                **common,
            )
        return None

    def _make_optimisers(self) -> None:
        o, raw = self.config.optimisation, self.gaussians.raw
        rates = [o.means_lr * self.means_unit, o.rotation_lr, o.scale_lr, o.opacity_lr, o.sh0_lr, o.shN_lr]
        groups = [
            {"params": [raw[name]], "lr": rate, "name": name} for name, rate in zip(PARAMETERS, rates, strict=True)
        ]
        # One fused kernel over all parameters: fifteen times faster than the loop on a CPU.
        self.gaussian_optimiser = torch.optim.Adam(groups, eps=1e-15, fused=True)
        self.pose_optimiser = torch.optim.Adam([self.trajectory.increments], lr=o.pose_lr, eps=1e-15, fused=True)
        self.network_optimiser = (
            torch.optim.Adam(self.network.parameters(), lr=o.recon_lr, eps=1e-15, fused=True)
            if self.network is not None
            else None
        )

    # ---- one step, in the order of the paper -------------------------------------------------------------

    def step(self) -> dict[str, float]:
        """Render the sampled cameras, compare, propagate, update.  Returns the loss terms."""
        self.iteration += 1
        use_threads(heavy=self._network_joins())
        random = torch.Generator().manual_seed(self.config.run.seed * 1_000_003 + self.iteration)
        sample = self._sample(random)
        out = self._render(sample)

        terms = self._gaussian_terms(sample, out)
        if self._network_joins():
            terms |= self._network_terms(sample, out, random)
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        loss.backward()
        total = self._finite(loss, terms)

        self._update(out)
        self._turn_round()
        self._calibrate()
        return {name: float(value.detach()) for name, (_, value) in terms.items()} | {"loss": total}

    def _finite(self, loss: Tensor, terms: dict[str, tuple[float, Tensor]]) -> float:
        """The loss as a number.

        Raises:
            ValueError: it is none; nothing is updated with it, and no checkpoint replaces the last good one.
        """
        total = float(loss.detach())
        if not math.isfinite(total):
            wrong = [name for name, (_, value) in terms.items() if not bool(value.detach().isfinite())]
            names = " + ".join(wrong or terms)
            raise ValueError(f"iteration {self.iteration}: the loss {names} is {total}, expected a finite number")
        return total

    def _sample(self, random: torch.Generator) -> Sample:
        """One view's whole exposure (the paper), or single instants drawn over all views.

        Neighbouring sub-frames show almost the same picture; as many cameras spread over the views tell
        more, and neither ``L_sub`` nor ``L_joint`` needs a whole exposure; ``L_rec`` does.
        """
        data, instants = self.config.data, self.config.optimisation.instants
        if not instants or (self._network_joins() and self.config.losses.lambda_rec):
            return self._whole_exposure(self._view_of(self.iteration))
        offsets, weights = self.window if self.iteration > data.window_from else (torch.zeros(1), torch.ones(1))
        order = torch.randperm(len(self.exposures), generator=random)
        count = max(instants // len(weights), 1)
        views = order.repeat(count // len(order) + 1)[:count]
        subframes = torch.randint(self.spec.subframes, (count,), generator=random)
        return Sample(views, subframes, None, offsets, weights)

    def _whole_exposure(self, view: int) -> Sample:
        m = self.spec.subframes
        return Sample(torch.full((m,), view), torch.arange(m), self.exposures[view])

    def _render(self, sample: Sample) -> RenderOutput:
        """I_gs(t_m): the sampled instants along the trajectories, as the sensor's pixels see them."""
        times = sample.offsets[:, None].to(self.device) + self.u[sample.subframes]
        views = sample.views.repeat(len(sample.offsets))
        cameras = [self.exposures[int(view)].camera for view in views]
        out = render_trajectory(
            self.gaussians,
            self.trajectory(views.to(self.device), times.flatten()),
            torch.stack([camera.K for camera in cameras]).to(self.device),
            cameras[0].width,
            cameras[0].height,
            self.rasterizer,
            sh_degree=self.iteration // self.config.scene.sh_every,
            screen_gradients=self.config.scene.strategy == "default",
        )
        if self.scene.mosaic is not None and self.config.data.spike:
            out.images = self.scene.mosaic.of(out.images)
        return out

    def _gaussian_terms(self, sample: Sample, out: RenderOutput) -> dict[str, tuple[float, Tensor]]:
        """Weighted losses that involve the Gaussians and poses alone."""
        w, exposure = self.config.losses, sample.exposure
        terms: dict[str, tuple[float, Tensor]] = {}
        if w.lambda_gs and exposure is not None:
            terms["gs"] = (w.lambda_gs, exposure_loss(out.images, exposure.long, w.lambda_dssim))
        if w.lambda_sub:
            seen, targets = sample.window(out.images), self._subframe_targets(sample)
            terms["sub"] = (w.lambda_sub, subframe_loss(seen, targets, self._subframe_noise(sample)))
        if w.lambda_scale_ratio and self.iteration % 10 == 0:
            terms["ratio"] = (w.lambda_scale_ratio, scale_ratio_penalty(self.gaussians.scales))
        if w.lambda_opacity:
            terms["opacity"] = (w.lambda_opacity, self.gaussians.opacities.mean())
        if w.lambda_scale:
            terms["scale"] = (w.lambda_scale, self.gaussians.scales.mean() / self.scene.extent)
        return terms

    def _subframe_targets(self, sample: Sample) -> Tensor:
        """The spikes' own intensity at the sampled instants [B, C, H, W]."""
        pairs = zip(sample.views.tolist(), sample.subframes.tolist(), strict=True)
        return torch.stack([self.exposures[view].subframe(m) for view, m in pairs])

    def _subframe_noise(self, sample: Sample) -> Tensor:
        """The expected variance of those [B]."""
        return torch.stack([self.exposures[view].noise for view in sample.views.tolist()])

    def _network_joins(self) -> bool:
        r = self.config.recon
        return (
            self.network is not None
            and self.iteration > r.recon_from
            and (self.iteration - r.recon_from) % r.recon_every == 0
        )

    def _network_terms(
        self, sample: Sample, out: RenderOutput, random: torch.Generator
    ) -> dict[str, tuple[float, Tensor]]:
        """Weighted L_rec and L_joint, on random crops (or full frames)."""
        assert self.network is not None
        w, exposure, grouping = self.config.losses, sample.exposure, self.config.data.long_grouping
        terms: dict[str, tuple[float, Tensor]] = {}
        if exposure is None:
            crops = [self._crop(random) for _ in sample.views]
            exposures = [self.exposures[view] for view in sample.views.tolist()]
            frames, inner = instant_frames(self.network, exposures, sample.subframes, self.u, crops, grouping)
            lessons = self._lessons(sample, out)
            parts = torch.stack([crop.of(image) for crop, image in zip(crops, lessons, strict=True)])
            # Every instant has a time of its own here: there is nothing to flip.
            terms["joint"] = (w.lambda_joint, l1(parts, frames, inner / inner.mean()))
            return terms
        crop = self._crop(random)
        frames = recon_frames(self.network, exposure, self.u, crop, grouping)
        if w.lambda_rec:
            widths = half_widths(len(frames), w.multi_interval)
            terms["rec"] = (
                w.lambda_rec,
                reblur_loss(frames, lambda a, b: crop.of(exposure.interval(a, b)), widths),
            )
        if w.lambda_joint:
            renders = crop.of(out.images)
            terms["joint"] = (w.lambda_joint, joint_loss(renders, frames, w.flip))
            if w.flip and not w.lambda_sub and self.config.motion.trajectory != "spline":
                self._vote(exposure.index, renders.detach(), frames.detach())
        return terms

    def _vote(self, view: int, renders: Tensor, frames: Tensor) -> None:
        """Remember which pairing L_joint took.  (L_sub and a spline over the recording know the direction anyway.)"""
        forward = bool(l1(renders, frames) <= l1(renders, frames.flip(0)))
        self.direction[view] += VOTE * ((1.0 if forward else -1.0) - self.direction[view])

    def _turn_round(self) -> None:
        """Reverse for good the views whose reverse kept winning: Recon-Net's frames have the spikes' own time."""
        for view in torch.nonzero(self.direction < REVERSED).flatten().tolist():
            self.direction[view] = 0.0
            rows = self.trajectory.reverse(view)
            # What the optimiser has gathered turns with the knots.
            state = self.pose_optimiser.state.get(self.trajectory.increments, {})
            for values in (state.get("exp_avg"), state.get("exp_avg_sq"), self.trajectory.increments.grad):
                if values is not None:
                    values[rows] = values[rows].flip(0)

    def _lessons(self, sample: Sample, out: RenderOutput) -> Tensor:
        """What Recon-Net is compared with at the sampled instants [B, C, H, W].

        The renders, which then learn from its frames too (the paper's L_joint), or fused pictures, which no
        gradient passes: they are better than the frames, whose pull would cost the Gaussians 0.3 dB.
        """
        if not self.config.recon.fuse:
            return sample.middle(out.images)
        images = out.images.detach()
        residual = self._subframe_targets(sample) - sample.window(images)
        return fuse(sample.middle(images), residual, self._subframe_noise(sample))

    def _crop(self, random: torch.Generator) -> Crop:
        camera, side = self.exposures[0].camera, self.config.recon.crop
        h, w = (min(side or size, size) for size in (camera.height, camera.width))
        top = int(torch.randint(camera.height - h + 1, (1,), generator=random))
        left = int(torch.randint(camera.width - w + 1, (1,), generator=random))
        return Crop(top, top + h, left, left + w)

    def _update(self, out: RenderOutput) -> None:
        """Optimiser steps, learning rates, densification."""
        o = self.config.optimisation
        progress = self.iteration / o.iterations
        self.gaussian_optimiser.param_groups[0]["lr"] = self.means_unit * decayed(
            o.means_lr, o.means_lr_final, progress
        )
        self.gaussian_optimiser.step()
        if self.strategy is not None:
            self.strategy.step(self.gaussians, self.gaussian_optimiser, out.info, self.iteration)
        self.gaussian_optimiser.zero_grad(set_to_none=True)

        if self.config.motion.optimise_poses and self.iteration % o.pose_every == 0:
            self.pose_optimiser.param_groups[0]["lr"] = decayed(o.pose_lr, o.pose_lr_final, progress)
            self.pose_optimiser.step()
            self.pose_optimiser.zero_grad(set_to_none=True)
        if self.network_optimiser is not None and self._network_joins():
            own = (self.iteration - self.config.recon.recon_from) / (o.iterations - self.config.recon.recon_from)
            self.network_optimiser.param_groups[0]["lr"] = decayed(o.recon_lr, o.recon_lr_final, own)
            self.network_optimiser.step()
            self.network_optimiser.zero_grad(set_to_none=True)

    def _calibrate(self) -> None:
        """Now and then, the pixels' own gains from what the scene predicts: the targets are made anew with them."""
        every = self.config.data.fixed_pattern_every
        if not (every and self.config.data.spike and self.iteration % every == 0):
            return
        pattern = FixedPattern()
        with torch.no_grad():
            for view in range(len(self.exposures)):
                sample = self._whole_exposure(view)
                pattern.add(self._subframe_targets(sample), self._render(sample).images)
        self._use_sensor(pattern.applied_to(self.scene.sensor))

    def _use_sensor(self, sensor: SensorModel) -> None:
        self.scene = dataclasses.replace(self.scene, sensor=sensor)
        self.exposures = load_exposures(self.scene.train, self.scene, self.config, self.device)

    @property
    def learned_sensor(self) -> SensorModel | None:
        """The sensor with the pixels' gains found so far, or None where they are not looked for."""
        return self.scene.sensor if self.config.data.spike and self.config.data.fixed_pattern_every else None

    def _view_of(self, iteration: int) -> int:
        """Views in a random order, each once an epoch; a function of the iteration, so it resumes."""
        epoch, position = divmod(iteration - 1, len(self.exposures))
        random = torch.Generator().manual_seed(self.config.run.seed * 7_919 + epoch)
        return int(torch.randperm(len(self.exposures), generator=random)[position])

    # ---- what is kept --------------------------------------------------------------------------------------

    def probe(self) -> tuple[float, Tensor]:
        """The first training view's middle render [C, H, W], and its PSNR against its own target (not the truth)."""
        exposure = self.exposures[0]
        middle = self.spec.subframes // 2
        with torch.no_grad():
            image = self._render(Sample(torch.tensor([0]), torch.tensor([middle]))).images
        target = exposure.long if exposure.subframes is None else exposure.subframes[middle]
        return float(psnr(image, target[None])), image[0]

    def save_model(self) -> Path:
        """Gaussians, network and trajectories of this iteration, in 3DGS's folder layout."""
        folder = save_iteration(
            self.config.data.model_path,
            self.iteration,
            self.gaussians,
            self.trajectory,
            self.network,
            self.learned_sensor,
        )
        self.save_cameras()
        return folder

    def save_cameras(self) -> None:
        """``cameras.json`` as of this iteration."""
        entries = camera_entries(self.scene.train, self.trajectory, self.u, self.iteration)
        write_cameras(self.config.data.model_path, entries)

    def _learners(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        learners: dict[str, torch.nn.Module | torch.optim.Optimizer] = {
            "trajectory": self.trajectory,
            "gaussian_optimiser": self.gaussian_optimiser,
            "pose_optimiser": self.pose_optimiser,
        }
        if self.network is not None and self.network_optimiser is not None:
            learners |= {"network": self.network, "network_optimiser": self.network_optimiser}
        return learners

    def save_checkpoint(self) -> Path:
        """Everything needed to go on: random numbers are functions of the seed and the iteration."""
        path = Path(self.config.data.model_path) / f"chkpnt{self.iteration}.pth"
        state: dict[str, Any] = {name: learner.state_dict() for name, learner in self._learners().items()}
        state["iteration"] = self.iteration
        state["direction"] = self.direction
        state["gaussians"] = {name: value.detach() for name, value in self.gaussians.raw.items()}
        if self.learned_sensor is not None and self.learned_sensor.gain_map is not None:
            state["gain_map"] = self.learned_sensor.gain_map
        state["strategy"] = self.strategy.state_dict() if self.strategy is not None else {}
        # Gradients of the knots are gathered over several steps, so a checkpoint may fall between.
        gradient = self.trajectory.increments.grad
        state["pose_gradient"] = gradient if gradient is not None else torch.zeros(0)
        save_checkpoint(path, state)
        for old in path.parent.glob("chkpnt*.pth"):
            if old != path and old.stem[6:].isdigit() and int(old.stem[6:]) < self.iteration:
                old.unlink()
        return path

    def load_checkpoint(self, path: Path) -> None:
        """Continue where ``save_checkpoint`` stopped."""
        state = load_checkpoint(path, self.device)
        try:
            self.gaussians = GaussianModel(
                state["gaussians"], self.config.scene.sh_degree, self.gaussians.low_pass
            ).to(self.device)
            self._make_optimisers()
            for name, learner in self._learners().items():
                learner.load_state_dict(state[name])
            if self.strategy is not None:
                self.strategy.load_state_dict(state["strategy"])
            if len(state["pose_gradient"]):
                self.trajectory.increments.grad = state["pose_gradient"]
            if "gain_map" in state:
                self._use_sensor(dataclasses.replace(self.scene.sensor, gain_map=state["gain_map"].cpu()))
            self.direction = state["direction"].cpu()
            self.iteration = int(state["iteration"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(":")
            raise ValueError(f"{path}: does not fit this scene and configuration ({reason})") from None


def open_viewer(training: Training) -> Viewer:
    """The viewer in the browser, on the scene in training."""
    training.save_cameras()
    drawing = Drawing(training.gaussians, training.rasterizer)
    viewer = Viewer(
        Canvas(
            drawing,
            read_views(training.config.data.model_path),
            RecordedPictures(
                training.scene,
                training.spec,
                partial(load_exposures, config=training.config, device=torch.device("cpu")),
                spikes=training.config.data.spike,
                subframe_width=training.config.data.subframe_width,
                grouping=training.config.data.long_grouping,
                network=copy.deepcopy(training.network),
            ),
        ),
        initial=torch.stack([view.camera.w2c for view in training.scene.train]),
        port=training.config.run.viewer_port,
        trajectory=training.trajectory,
        training=True,
    )
    tqdm.write(f"Watch the training at {viewer.url}")
    return viewer


def watch(viewer: Viewer, training: Training, terms: dict[str, float], stop: Event) -> None:
    """Show a step in the viewer; waits while it is paused there, and sets ``stop`` when it is stopped there."""
    now = training.gaussians, training.iteration, terms, training.network, training.learned_sensor
    state = viewer.update(*now)
    while state == "paused" and not stop.wait(0.1):
        state = viewer.update(*now)
    if state == "stopped":
        stop.set()


def run(training: Training) -> int:
    """The loop: steps, progress, checkpoints, and a clean stop on Ctrl-C."""
    config = training.config
    total = config.optimisation.iterations
    log = RunLog(config.data.model_path, training.iteration)
    board = Board(config.data.model_path, training.iteration) if config.run.tensorboard else None
    stop = Event()
    latest: dict[str, float] = {}
    viewer = open_viewer(training) if config.run.viewer else None
    previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    bar = tqdm(
        total=total, initial=training.iteration, disable=config.run.quiet, dynamic_ncols=True, desc="Training"
    )
    started = time.monotonic()
    try:
        while training.iteration < total and not stop.is_set():
            terms = training.step()
            bar.update()
            if viewer is not None:
                watch(viewer, training, terms | latest, stop)
            if training.iteration % config.run.log_every == 0 or training.iteration == total:
                value, image = training.probe()
                latest = {"psnr": value, "gaussians": len(training.gaussians)}
                row = log.add(training.iteration, time.monotonic() - started, **terms, **latest)
                bar.set_postfix(loss=f"{row['loss']:.4f}", psnr=f"{row['psnr']:.2f}", N=row["gaussians"])
                if board is not None:
                    board.add(row, image, training.gaussians.opacities.detach())
                if config.run.json_log:
                    print(json.dumps(row), flush=True)
            if training.iteration in config.run.save_iterations:
                training.save_model()
            every = config.run.checkpoint_every
            if every and training.iteration % every == 0 and training.iteration < total:
                training.save_checkpoint()
    finally:
        bar.close()
        signal.signal(signal.SIGINT, previous)
        for open_one in (viewer, board):
            if open_one is not None:
                open_one.close()
    path = training.save_checkpoint()
    log.finish(training.iteration, time.monotonic() - started)
    if training.iteration < total:
        if viewer is not None:
            training.save_model()  # its button says so
        print(
            f"Stopped after iteration {training.iteration}; {path} has everything. Go on with:\n"
            f"  python train.py -s {config.data.source_path} -m {config.data.model_path} --resume"
        )
        return 130
    folder = training.save_model()
    print(f"{total} iterations in {time.monotonic() - started:.0f} s; the model is in {folder}")
    return 0


def resumed(asked: Config, given: dict[str, Any]) -> tuple[Config, Path]:
    """The configuration to go on with, stored but for the folders and what ``given`` flags may change, and the newest
    checkpoint.
    """
    folder = asked.data.model_path
    path = latest_checkpoint(folder)
    if path is None:
        raise ValueError(f"{folder}: no checkpoint chkpnt<iteration>.pth to resume from")
    config = resumed_config(Config.load(folder), given)
    config.data.source_path, config.data.model_path = asked.data.source_path, folder
    return config, path


def main() -> int:
    config = parse_training(None, torch.cuda.is_available())
    if config.run.resume:
        config, path = resumed(config, given_flags(None))
        training = Training(config)
        training.load_checkpoint(path)
    else:
        training = Training(config)
        aside = set_aside(config.data.model_path)
        if aside is not None:
            print(f"{config.data.model_path} held an earlier run; it is now {aside}")
        config.save(config.data.model_path)
        save_input_points(config.data.model_path, *training.first_points)
    if not config.data.spike and any(view.spike_path for view in training.scene.train):
        source = config.data.source_path
        sys.stderr.write(f"warning: {source} has spike streams; without --spike its sharp images are learned from\n")
    return run(training)


if __name__ == "__main__":
    sys.exit(guarded(main))
