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
    """The cameras of one step: B instants, each rendered at the P times of a quadrature about it.

    ``views`` [B] and ``subframes`` [B] are the instants; ``whole`` says that they are all sub-frames of one view's
    exposure, in order.
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

    def cameras(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Views [P * B] and times [P * B] to render, of the sub-frames' times ``u`` [M]."""
        offsets = self.window.offsets
        times = offsets[:, None].to(u.device) + u[self.subframes]
        return self.views.repeat(len(offsets)), times.flatten()

    def averaged(self, images: Tensor) -> Tensor:
        """What the spikes' windows saw [B, C, H, W], of renders [P * B, C, H, W]."""
        weights = self.window.weights
        renders = images.unflatten(0, (len(weights), -1))
        return renders[0] if len(renders) == 1 else torch.einsum("p,pbchw->bchw", weights.to(images), renders)

    def middle(self, images: Tensor) -> Tensor:
        """The renders at the instants themselves [B, C, H, W], of all [P * B, C, H, W]."""
        points = len(self.window.weights)
        return images.unflatten(0, (points, -1))[points // 2]


class Sampler(Protocol):
    """Chooses the cameras of a step; a function of the iteration, so that a resumed run chooses the same."""

    def __call__(self, iteration: int, random: torch.Generator) -> Sample:
        """The sample of iteration ``iteration`` (1-based)."""


@dataclass(frozen=True)
class WholeExposures:
    """One view's whole exposure a step, the views in a random order, each once an epoch (the paper)."""

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

    Neighboring sub-frames show almost the same image; as many cameras spread over the views tell more.

    Args:
        views, subframes: how many there are.
        cameras: renders of a step; a window of P points takes P of them for an instant.
        window: instants across the spikes' window whose renders are averaged.
        window_from: iterations before which an instant is its middle alone.
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
