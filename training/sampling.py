"""Which cameras a step renders: one view's whole exposure, or single instants of many views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scene.views import Quadrature
from utils.randomness import generator


@dataclass(frozen=True)
class Sample:
    """The cameras of one step: B instants, each rendered at the P times of a quadrature around it.

    ``views`` [B] and ``subframes`` [B] identify the instants; ``whole`` means that they are the sub-frames of one
    view's exposure, in order.
    """

    views: Tensor
    subframes: Tensor
    window: Quadrature
    whole: bool = False

    @classmethod
    def exposure(cls, view: int, subframes: int) -> Sample:
        """All M sub-frames of one view."""
        return cls(torch.full((subframes,), view), torch.arange(subframes), Quadrature.middle(), whole=True)

    @classmethod
    def instant(cls, view: int, subframe: int) -> Sample:
        """One sub-frame of one view."""
        return cls(torch.tensor([view]), torch.tensor([subframe]), Quadrature.middle())

    @property
    def view(self) -> int:
        """The view of a whole exposure."""
        assert self.whole, "single instants belong to several views"
        return int(self.views[0])

    def part(self, instants: slice) -> Sample:
        """Some of the instants."""
        return Sample(self.views[instants], self.subframes[instants], self.window, self.whole)

    def cameras(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Views [P * B] and times [P * B] to render, given the times ``u`` [M] of the sub-frames."""
        offsets = self.window.offsets
        times = offsets[:, None].to(u.device) + u[self.subframes]
        return self.views.repeat(len(offsets)), times.flatten()

    def framed(
        self, intrinsics: Tensor, width: int, height: int, cameras: slice = slice(None)
    ) -> tuple[Tensor, int, int]:
        """Camera matrices [N, 3, 3], width and height of what is rendered, given those of whole images.

        Args:
            cameras: the part of ``cameras`` to which the N matrices belong.
        """
        return intrinsics, width, height

    def averaged(self, images: Tensor) -> Tensor:
        """Average renders [P * B, C, H, W] over the spikes' windows: [B, C, H, W]."""
        weights = self.window.weights
        renders = images.unflatten(0, (len(weights), -1))
        return renders[0] if len(renders) == 1 else torch.einsum("p,pbchw->bchw", weights.to(images), renders)

    def middle(self, images: Tensor) -> Tensor:
        """The renders at the instants themselves [B, C, H, W], out of all renders [P * B, C, H, W]."""
        points = len(self.window.weights)
        return images.unflatten(0, (points, -1))[points // 2]


class Sampler(Protocol):
    """Chooses the cameras of a step as a function of the iteration, so that a resumed run makes the same choices."""

    def __call__(self, iteration: int, random: torch.Generator) -> Sample:
        """The sample of iteration ``iteration`` (1-based)."""


@dataclass(frozen=True)
class WholeExposures:
    """One view's whole exposure per step; the views are in random order, each once per epoch (the paper)."""

    views: int
    subframes: int
    seed: int = 0

    def __call__(self, iteration: int, random: torch.Generator) -> Sample:
        del random
        epoch, position = divmod(iteration - 1, self.views)
        order = torch.randperm(self.views, generator=generator("epoch", self.seed, epoch))
        return Sample.exposure(int(order[position]), self.subframes)


@dataclass(frozen=True)
class Instants:
    """Single instants, drawn over all views and sub-frames.

    Neighboring sub-frames show almost the same image; the same number of cameras is worth more when spread over views.

    Args:
        views, subframes: numbers of views and of sub-frames per view.
        cameras: renders per step; a window of P points uses P of them per instant.
        window: instants across the spikes' window whose renders are averaged.
        window_from: iterations during which only the middle of the window is rendered.
    """

    views: int
    subframes: int
    cameras: int
    window: Quadrature
    window_from: int = 0

    def __call__(self, iteration: int, random: torch.Generator) -> Sample:
        window = self.window if iteration > self.window_from else Quadrature.middle()
        order = torch.randperm(self.views, generator=random)
        count = max(self.cameras // len(window.weights), 1)
        views = order.repeat(count // len(order) + 1)[:count]
        return Sample(views, torch.randint(self.subframes, (count,), generator=random), window)
