"""Recon-Net in a training step: when it joins, and which crop of the images it reconstructs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recon_net import SpikeToImage, inner_masks, instant_frames, recon_frames
from training.sampling import Sample
from training.state import State
from utils.crops import Crop


@dataclass(frozen=True)
class Frames:
    """Recon-Net's images [B, C, h, w] of the sampled instants, on a crop of each.

    ``inner`` [B, 1, h, w] is 1 where a pixel's value equals that in the full frame, else 0; None means everywhere.
    """

    images: Tensor
    crops: list[Crop]
    inner: Tensor | None = None

    def of(self, images: Tensor) -> Tensor:
        """The same crops of ``images`` [B, C, H, W]."""
        return torch.stack([crop.of(image) for crop, image in zip(self.crops, images, strict=True)])


class Reconstruction(Protocol):
    """Produces Recon-Net's images in a step."""

    def joins(self, iteration: int) -> bool:
        """Whether the network takes part in a step."""

    def crops(self, state: State, sample: Sample, random: torch.Generator) -> list[Crop]:
        """The crop of every sampled instant."""

    def inner(self, state: State, crops: list[Crop]) -> Tensor | None:
        """Mask of the crops' pixels whose value equals that in the full frame (``Frames.inner``)."""

    def __call__(self, state: State, sample: Sample, crops: list[Crop]) -> Tensor:
        """I_rec [B, C, h, w] at the sampled instants, on their crops."""


@dataclass(frozen=True)
class ExposureFrames:
    """A whole exposure on one random crop, computed with enough surround to equal the full frame.

    Args:
        network: Recon-Net.
        crop: side of the crop, pixels; 0 is the full frame.
    """

    network: SpikeToImage
    crop: int = 0

    def joins(self, iteration: int) -> bool:
        return True

    def crops(self, state: State, sample: Sample, random: torch.Generator) -> list[Crop]:
        return [Crop.random(self.crop, *state.recording.size, random)] * len(sample.views)

    def inner(self, state: State, crops: list[Crop]) -> None:
        return None

    def __call__(self, state: State, sample: Sample, crops: list[Crop]) -> Tensor:
        recording = state.recording
        exposure = recording.exposures[sample.view]
        return recon_frames(self.network, exposure, recording.u, crops[0], sample.subframes)


@dataclass(frozen=True)
class InstantFrames:
    """Single instants, each on its own random crop.

    Args:
        network: Recon-Net.
        crop: side of the crops, pixels; 0 is the full frame.
        begins, every: iterations before the network joins, and between its steps.

    Raises:
        ValueError: a crop too small to contain a pixel whose value equals that in the full frame.
    """

    network: SpikeToImage
    crop: int
    begins: int
    every: int = 1

    def __post_init__(self) -> None:
        radius = self.network.receptive_radius
        if 0 < self.crop <= 2 * radius:
            raise ValueError(
                f"--crop {self.crop} has no pixel {radius} from its sides, as far as --recon_net "
                f"{self.network.variant} looks: expected 0 or at least {2 * radius + 1}"
            )

    def joins(self, iteration: int) -> bool:
        return iteration > self.begins and (iteration - self.begins) % self.every == 0

    def crops(self, state: State, sample: Sample, random: torch.Generator) -> list[Crop]:
        return [Crop.random(self.crop, *state.recording.size, random) for _ in sample.views]

    def inner(self, state: State, crops: list[Crop]) -> Tensor:
        return inner_masks(self.network, crops, *state.recording.size).to(state.recording.device)

    def __call__(self, state: State, sample: Sample, crops: list[Crop]) -> Tensor:
        recording = state.recording
        exposures = [recording.exposures[view] for view in sample.views.tolist()]
        return instant_frames(self.network, exposures, sample.subframes, recording.u, crops)
