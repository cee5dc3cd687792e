"""A step's renders and network images in parts, each by the process that owns it.

The loss of a step is computed from all images at once, by every process alike, so objectives need to know nothing of
shards: the images of all shards are gathered, the loss gives the gradients of the images, and each shard's own
backward pass continues from there to the parameters.  ``Processes.sum`` then adds the parameters' gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gaussian_renderer import RenderOutput
from gaussian_renderer.field import GaussianField
from training.reconstruction import Frames, Reconstruction
from training.sampling import Sample
from training.state import State
from utils.crops import Crop
from utils.processes import Processes, share


@dataclass
class Rendered:
    """All renders of a step [P * B, C, H, W], and after the backward pass the rasterizer's statistics."""

    images: Tensor
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """One shard of a step: some cameras, and some instants of Recon-Net.  None stands for an empty share."""

    cameras: slice
    renders: RenderOutput | None
    instants: slice
    frames: Tensor | None


class ShardedStep:
    """The forward and backward passes of one step, in shards.

    Args:
        shards: the number of parts; a shard has a fixed share of the cameras, whichever process owns it.
        processes: they own the same number of shards each.
        crops: the crop of every instant that Recon-Net reconstructs with ``reconstruct``; None: it does not.

    Attributes:
        renders, frames: the images of all shards, leaves of the graph from which the loss is computed.
    """

    def __init__(
        self, state: State, sample: Sample, shards: int, processes: Processes,
        reconstruct: Reconstruction | None = None, crops: list[Crop] | None = None,
    ):  # fmt: skip
        self._processes, self._shards = processes, shards
        self._screen_gradients = isinstance(state.field, GaussianField) and state.field.screen_gradients
        instants = len(sample.views)
        cameras = instants * len(sample.window.weights)
        self._parts = []
        for shard in processes.own(shards):
            seen, rebuilt = share(cameras, shard, shards), share(instants, shard, shards)
            renders = state.render(sample, seen) if _length(seen) else None
            frames = None
            if reconstruct is not None and crops is not None and _length(rebuilt):
                frames = reconstruct(state, sample.part(rebuilt), crops[rebuilt])
            self._parts.append(_Part(seen, renders, rebuilt, frames))
        self.renders = Rendered(self._leaf([p.renders.images for p in self._parts if p.renders is not None], cameras))
        self.frames = None
        if reconstruct is not None and crops is not None:
            images = self._leaf([p.frames for p in self._parts if p.frames is not None], instants)
            self.frames = Frames(images, crops, reconstruct.inner(state, crops))

    def backward(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Add the gradients of ``loss`` to the ``grad`` of ``parameters``, the same bits on every process."""
        loss.backward()
        direct = [value.grad for value in parameters]
        leaves = []
        for part in self._parts:
            for value in parameters:
                value.grad = None
            reached = [
                (own, whole.grad[cut])
                for own, whole, cut in self._images(part)
                if own.requires_grad and whole.grad is not None
            ]
            if reached:
                outputs, gradients = zip(*reached, strict=True)
                torch.autograd.backward(outputs, gradients)
            leaves.append([torch.zeros_like(value) if value.grad is None else value.grad for value in parameters])
        for value, before, gradient in zip(parameters, direct, self._processes.sum(leaves), strict=True):
            value.grad = gradient if before is None else before.add_(gradient)
        self.renders.info = self._statistics()

    def _images(self, part: _Part) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """A shard's images, the leaves that they are a part of, and which part."""
        if part.renders is not None:
            yield part.renders.images, self.renders.images, part.cameras
        if part.frames is not None and self.frames is not None:
            yield part.frames, self.frames.images, part.instants

    def _statistics(self) -> dict[str, Any]:
        """The rasterizer's statistics; gradients of the projected centers of all cameras, where they were asked for."""
        infos = [part.renders.info for part in self._parts if part.renders is not None]
        if self._shards == 1 or not self._screen_gradients:
            return infos[0] if infos else {}
        cameras, _, height, width = self.renders.images.shape
        own = [info["means2d"] for info in infos]
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in own]
        # As numbers of one kind: a process without a camera does not know which they are.
        radii = [info["radii"].float() for info in infos]
        gradient, radius = (
            self._all([value.reshape(-1, *value.shape[-2:]) for value in values], cameras)
            for values in (gradients, radii)
        )
        means2d = torch.empty_like(gradient)
        means2d.grad = gradient
        return {"width": width, "height": height, "means2d": means2d, "radii": radius.to(torch.int32)}

    def _leaf(self, images: list[Tensor], length: int) -> Tensor:
        return self._all([image.detach() for image in images], length).requires_grad_()

    def _all(self, own: list[Tensor], length: int) -> Tensor:
        """The tensors [n, ...] of all shards as one [length, ...]."""
        lengths = [
            sum(_length(share(length, shard, self._shards)) for shard in shards)
            for shards in self._processes.shares(self._shards)
        ]
        if not own:
            return self._processes.gather(None, lengths)
        return self._processes.gather(own[0] if len(own) == 1 else torch.cat(own), lengths)


def _length(part: slice) -> int:
    return int(part.stop - part.start)
