"""One view's recorded exposure: all that training compares the renders and Recon-Net with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from recon_net import ReconNet
from scene.cameras import Camera
from spike import SensorModel, SpikeStream, Targets, WindowSpec, long_input, short_windows


@dataclass(frozen=True)
class Crop:
    """Rows ``top:bottom`` and columns ``left:right`` of an image, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, image: Tensor) -> Tensor:
        """The crop of ``image`` [..., H, W]."""
        return image[..., self.top : self.bottom, self.left : self.right]

    def grown(self, by: int, height: int, width: int) -> Crop:
        """The crop with a surround of ``by`` pixels, cut at the image's edges."""
        return Crop(
            max(self.top - by, 0), min(self.bottom + by, height), max(self.left - by, 0), min(self.right + by, width)
        )

    def within(self, outer: Crop) -> Crop:
        """The same rectangle in the coordinates of ``outer``."""
        return Crop(
            self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left
        )


@dataclass
class Exposure:
    """Targets of one view, from its spikes or (without them) its long-exposure image.

    ``long`` [C, H, W] is E(T), ``subframes`` [M, C, H, W] the narrow windows (spikes only), intensities.
    """

    index: int
    camera: Camera
    long: Tensor
    subframes: Tensor | None = None
    spec: WindowSpec | None = None
    _stream: SpikeStream | None = None
    _intervals: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def from_spikes(
        cls,
        index: int,
        camera: Camera,
        stream: SpikeStream,
        spec: WindowSpec,
        sensor: SensorModel,
        mode: str,
        subframe_width: int | None,
        intervals: list[tuple[int, int]],
    ) -> Exposure:
        """Turn the central context of ``stream`` into targets once; the spikes stay packed."""
        margin = (len(stream) - spec.context) // 2
        first = (len(stream) - spec.context) // 2 - margin
        spikes = stream.unpack(first, first + spec.context + 2 * margin)
        targets = Targets(spikes, spec, sensor, mode=mode, margin=margin)
        exposure = cls(
            index,
            camera,
            targets.long_exposure()[None],
            None if subframe_width is None else targets.subframes(subframe_width)[:, None],
            spec,
            stream,
        )
        exposure._intervals = {ab: targets.interval(*ab)[None] for ab in intervals}
        return exposure

    def to(self, device: torch.device) -> Exposure:
        """The same exposure with its targets on ``device``."""
        self.long = self.long.to(device)
        self.subframes = None if self.subframes is None else self.subframes.to(device)
        self._intervals = {key: value.to(device) for key, value in self._intervals.items()}
        return self

    def subframe(self, m: int) -> Tensor:
        """Intensity [C, H, W] of the narrow window about sub-frame ``m``."""
        assert self.subframes is not None, "an exposure read from an image has no sub-frames"
        return self.subframes[m]

    def interval(self, a: int, b: int) -> Tensor:
        """Mean intensity [C, H, W] over the sub-frames a..b."""
        return self._intervals[(a, b)]

    def network_input(self, subframes: Tensor, crop: Crop, grouping: str) -> tuple[Tensor, Tensor]:
        """Recon-Net's inputs for some sub-frames [S]: short [1, S, 41, h, w] and long [1, 34, h, w]."""
        assert self._stream is not None and self.spec is not None
        spikes = torch.as_tensor(self._stream.central(self.spec))
        spikes = crop.of(spikes)
        short = short_windows(spikes, self.spec)[subframes]
        return short.float()[None], long_input(spikes, self.spec, grouping=grouping)[None].float()

    def short_mean(self, sensor: SensorModel) -> Tensor:
        """Short-TFP [C, H, W]: the counted intensity of the short window about the middle."""
        assert self._stream is not None and self.spec is not None
        counts = Targets(self._stream.central(self.spec), self.spec, sensor, mode="counting")
        return counts.subframes(self.spec.short)[self.spec.subframes // 2][None]


def recon_frames(network: ReconNet, exposure: Exposure, u: Tensor, crop: Crop, grouping: str) -> Tensor:
    """I_rec(t_m) [M, C, h, w] on a crop, computed with the surround that makes it equal the full frame's."""
    outer = crop.grown(network.receptive_radius, exposure.camera.height, exposure.camera.width)
    every = torch.arange(len(u))
    short, long = exposure.network_input(every, outer, grouping)
    frames = network(short.to(u.device), long.to(u.device), u[None])[0]
    return crop.within(outer).of(frames)
