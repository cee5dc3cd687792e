"""What training minimizes: each objective has its weight, schedule and variant.

An objective is called with the ``Moment`` of a step and returns its value, or None if it does not apply to that
step.  The formulas are in ``training.losses``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from scene.fusion import fuse
from spike.stuck import without
from training.losses import (
    exposure_loss,
    half_widths,
    joint_loss,
    photometric_loss,
    reblur_loss,
    scale_ratio_penalty,
    subframe_loss,
)
from training.reconstruction import Frames
from training.sampling import Sample
from training.shards import Rendered
from training.state import State
from utils.crops import cropped
from utils.image_metrics import l1


@dataclass(frozen=True)
class Moment:
    """The results of a step: the sample, its renders, and Recon-Net's images if the network takes part."""

    state: State
    sample: Sample
    renders: Rendered
    frames: Frames | None = None


class Objective(Protocol):
    """One term of the loss."""

    name: ClassVar[str]

    @property
    def weight(self) -> float:
        """Factor of the term in the loss."""

    def __call__(self, moment: Moment) -> Tensor | None:
        """The value [], or None if the term does not apply."""


def present(objectives: Iterable[Objective]) -> list[Objective]:
    """The objectives whose weight is not 0."""
    return [objective for objective in objectives if objective.weight]


@dataclass(frozen=True)
class Weighted:
    """Base class of the objectives.

    Raises:
        ValueError: a weight that is negative or not finite.
    """

    weight: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"the weight of a loss must be a finite number of at least 0, not {self.weight}")


@dataclass(frozen=True)
class ExposureLoss(Weighted):
    """L_gs: the mean of an exposure's renders is compared with E(T) (eq. 9)."""

    name: ClassVar[str] = "gs"
    dssim: float = 0.2

    def __call__(self, moment: Moment) -> Tensor:
        recording = moment.state.recording
        long = recording.exposures[moment.sample.view].long
        return exposure_loss(recording.seen(moment.renders.images, long), long, self.dssim)


@dataclass(frozen=True)
class InstantLoss(Weighted):
    """L_inst of SpikeGS: renders of single instants are compared with the images of another method there."""

    name: ClassVar[str] = "inst"
    dssim: float = 0.2

    def __call__(self, moment: Moment) -> Tensor:
        recording = moment.state.recording
        targets = recording.targets(moment.sample)
        return photometric_loss(recording.seen(moment.renders.images, targets), targets, self.dssim)


@dataclass(frozen=True)
class SubframeLoss(Weighted):
    """L_sub: renders, averaged over the spikes' window, are compared with the intensity of the spikes there."""

    name: ClassVar[str] = "sub"

    def __call__(self, moment: Moment) -> Tensor:
        recording, sample = moment.state.recording, moment.sample
        targets = recording.targets(sample)
        seen = recording.seen(sample.averaged(moment.renders.images), targets)
        return subframe_loss(seen, targets, recording.variance(sample))


@dataclass(frozen=True)
class ScaleRatio(Weighted):
    """The penalty on elongated Gaussians, every tenth iteration."""

    name: ClassVar[str] = "ratio"
    every: int = 10

    def __call__(self, moment: Moment) -> Tensor | None:
        if moment.state.iteration % self.every:
            return None
        return scale_ratio_penalty(moment.state.gaussians.scales)


@dataclass(frozen=True)
class MeanOpacity(Weighted):
    """The mean opacity (Kheradmand et al. 2024, eq. 10), which makes unneeded Gaussians vanish."""

    name: ClassVar[str] = "opacity"

    def __call__(self, moment: Moment) -> Tensor:
        return moment.state.gaussians.opacities.mean()


@dataclass(frozen=True)
class MeanScale(Weighted):
    """The mean scale (Kheradmand et al. 2024, eq. 10) in units of the scene's extent."""

    name: ClassVar[str] = "scale"

    def __call__(self, moment: Moment) -> Tensor:
        return moment.state.gaussians.scales.mean() / moment.state.recording.scene.extent


@dataclass(frozen=True)
class ReblurLoss(Weighted):
    """L_rec: Recon-Net's images of an exposure are averaged and compared with the mean of the spikes (supplement D)."""

    name: ClassVar[str] = "rec"
    subframes: int = 13
    multi_interval: bool = True

    @property
    def widths(self) -> list[int]:
        """Half-widths of the intervals, in sub-frames."""
        return half_widths(self.subframes, self.multi_interval)

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """First and last sub-frame of each interval."""
        middle = (self.subframes - 1) // 2
        return tuple((middle - k, middle + k) for k in self.widths)

    def __call__(self, moment: Moment) -> Tensor | None:
        if moment.frames is None:
            return None
        recording, crop = moment.state.recording, moment.frames.crops[0]
        exposure, stuck = recording.exposures[moment.sample.view], cropped(recording.stuck, crop)

        def interval(a: int, b: int) -> Tensor:
            return without(stuck, crop.of(exposure.interval(a, b)))

        return reblur_loss(without(stuck, moment.frames.images), interval, self.widths)


@dataclass(frozen=True)
class JointLoss(Weighted):
    """L_joint over a whole exposure: renders are compared with Recon-Net's images, in order and optionally reversed."""

    name: ClassVar[str] = "joint"
    flip: bool = True

    def __call__(self, moment: Moment) -> Tensor | None:
        if moment.frames is None:
            return None
        crop = moment.frames.crops[0]
        stuck = cropped(moment.state.recording.stuck, crop)
        renders, frames = without(stuck, crop.of(moment.renders.images)), without(stuck, moment.frames.images)
        return joint_loss(renders, frames, self.flip)


@dataclass(frozen=True)
class InstantJointLoss(Weighted):
    """L_joint at single instants.  Their time is known, so nothing is flipped.

    Counts only the pixels whose Recon-Net value on the crop equals that on the full frame.
    """

    name: ClassVar[str] = "joint"

    def __call__(self, moment: Moment) -> Tensor | None:
        if moment.frames is None:
            return None
        inner = moment.frames.inner
        assert inner is not None
        weight, stuck = inner / inner.mean(), moment.state.recording.stuck
        if stuck is not None:
            weight = without(moment.frames.of(stuck.expand(len(inner), 1, *stuck.shape)), weight)
        return l1(moment.frames.of(self.targets(moment)), moment.frames.images, weight)

    def targets(self, moment: Moment) -> Tensor:
        """The images [B, C, H, W] to compare with Recon-Net's: the renders, which then also learn from Recon-Net."""
        return moment.sample.middle(moment.renders.images)


@dataclass(frozen=True)
class FusedDistillation(InstantJointLoss):
    """L_joint against a distillation target: renders corrected by the residuals of the spikes (fused images).

    The target has no gradient: it is better than Recon-Net's images, and learning from them would cost the Gaussians
    0.3 dB.
    """

    def targets(self, moment: Moment) -> Tensor:
        """The fused images [B, C, H, W]."""
        recording, sample = moment.state.recording, moment.sample
        images = moment.renders.images.detach()
        residual = without(recording.stuck, recording.targets(sample) - sample.averaged(images))
        return fuse(sample.middle(images), residual, recording.measured_noise)
