"""One view's recorded exposure: all that training compares the renders and Recon-Net with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recon_net import AnyReconNet, SlimReconNet
from scene.cameras import Camera
from spike import SensorModel, SpikeStream, Targets, WindowSpec, long_input, short_windows
from spike.targets import Grouping, Mode


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

    def inner(self, by: int, height: int, width: int) -> Tensor:
        """1 where a pixel of the crop lies ``by`` or more from its sides (the image's own edges apart), else 0."""
        mask = torch.zeros(self.bottom - self.top, self.right - self.left)
        top, left = (0 if start == 0 else by for start in (self.top, self.left))
        bottom = len(mask) - (0 if self.bottom == height else by)
        right = mask.shape[1] - (0 if self.right == width else by)
        mask[top:bottom, left:right] = 1
        return mask

    def within(self, outer: Crop) -> Crop:
        """The same rectangle in the coordinates of ``outer``."""
        return Crop(
            self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left
        )


def usable_margin(stream: SpikeStream, spec: WindowSpec) -> int:
    """Frames of ``stream`` on either side of its central context that help to read the context by timing.

    Raises:
        ValueError: the stream is shorter than the context.
    """
    spare = (len(stream) - spec.context) // 2
    if spare < 0:
        raise ValueError(
            f"{stream.name}: a stream of {len(stream)} frames, expected at least {spec.context}: an exposure "
            f"of {spec.exposure} with half a short window of {spec.short} on each side"
        )
    # Frames beyond the context tell the rhythm of dark pixels; more than as many again tell nothing new.
    return min(spare, spec.context // 2)


@dataclass
class Exposure:
    """Targets of one view, from its spikes or (without them) its long-exposure image.

    ``long`` [C, H, W] is E(T), ``subframes`` [M, C, H, W] the narrow windows and ``wide`` [M, C, H, W] the
    half-width ones (spikes only), intensities; ``variance`` [] is expected of ``subframes``, the mean of all.
    """

    index: int
    camera: Camera
    long: Tensor
    subframes: Tensor | None = None
    wide: Tensor | None = None
    variance: Tensor | None = None
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
        mode: Mode,
        subframe_width: int,
        intervals: list[tuple[int, int]],
    ) -> Exposure:
        """Turn the central context of ``stream`` into targets once; the spikes stay packed."""
        margin = usable_margin(stream, spec)
        targets = Targets(stream.central(spec, margin), spec, sensor, mode=mode, margin=margin)
        narrow = targets.subframes(subframe_width)
        exposure = cls(
            index,
            camera,
            targets.long_exposure()[None],
            narrow[:, None],
            targets.subframes(spec.half + 1 - spec.half % 2)[:, None],
            targets.variance(narrow, subframe_width).mean(),
            spec,
            stream,
        )
        exposure._intervals = {ab: targets.interval(*ab)[None] for ab in intervals}
        return exposure

    def to(self, device: torch.device) -> Exposure:
        """The same exposure with its targets on ``device``."""
        self.long = self.long.to(device)
        self.subframes = None if self.subframes is None else self.subframes.to(device)
        self.wide = None if self.wide is None else self.wide.to(device)
        self.variance = None if self.variance is None else self.variance.to(device)
        self._intervals = {key: value.to(device) for key, value in self._intervals.items()}
        return self

    def subframe(self, m: int) -> Tensor:
        """Intensity [C, H, W] of the narrow window about sub-frame ``m``."""
        assert self.subframes is not None, "an exposure read from an image has no sub-frames"
        return self.subframes[m]

    @property
    def noise(self) -> Tensor:
        """Expected variance [] of the narrow windows' intensity."""
        assert self.variance is not None, "an exposure read from an image has no sub-frames"
        return self.variance

    def interval(self, a: int, b: int) -> Tensor:
        """Mean intensity [C, H, W] over the sub-frames a..b."""
        return self._intervals[(a, b)]

    def network_input(self, variant: str, subframes: Tensor, crop: Crop, grouping: Grouping) -> tuple[Tensor, Tensor]:
        """Recon-Net's inputs for some sub-frames [S]: short [1, S, ., h, w] and long [1, ., h, w]."""
        if variant == SlimReconNet.variant:
            assert self.subframes is not None and self.wide is not None
            reach = SlimReconNet.neighbours // 2
            around = (subframes[:, None] + torch.arange(-reach, reach + 1)).clamp(0, len(self.subframes) - 1)
            near = crop.of(self.subframes)[around][:, :, 0]
            return torch.cat([near, crop.of(self.wide)[subframes]], dim=1)[None], crop.of(self.long)[None]
        assert self._stream is not None and self.spec is not None
        spikes = crop.of(torch.as_tensor(self._stream.central(self.spec)))
        short = short_windows(spikes, self.spec)[subframes]
        return short.float()[None], long_input(spikes, self.spec, grouping=grouping)[None].float()

    def middle_image(self, sensor: SensorModel, mode: Mode, width: int) -> Tensor:
        """Intensity [1, H, W] of the ``width`` frames about the middle: counted (TFP), or by the spikes' timing."""
        assert self._stream is not None and self.spec is not None
        margin = usable_margin(self._stream, self.spec) if mode == "timing" else 0
        targets = Targets(self._stream.central(self.spec, margin), self.spec, sensor, mode, margin)
        return targets.subframes(width)[self.spec.subframes // 2][None]


def recon_frames(
    network: AnyReconNet, exposure: Exposure, u: Tensor, crop: Crop, grouping: Grouping
) -> Tensor:
    """I_rec(t_m) [M, C, h, w] on a crop, computed with the surround that makes it equal the full frame's."""
    outer = crop.grown(network.receptive_radius, exposure.camera.height, exposure.camera.width)
    short, long = exposure.network_input(network.variant, torch.arange(len(u)), outer, grouping)
    frames = network(short.to(u.device), long.to(u.device), u[None])[0]
    return crop.within(outer).of(frames)


def instant_frames(
    network: AnyReconNet,
    exposures: Sequence[Exposure],
    subframes: Tensor,
    u: Tensor,
    crops: Sequence[Crop],
    grouping: Grouping,
) -> tuple[Tensor, Tensor]:
    """I_rec at single sub-frames [B] of several exposures, on crops of one size.

    Returns:
        frames [B, C, h, w], and a mask [B, 1, h, w] of the pixels whose value equals the full frame's.
    """
    shorts, longs, masks = [], [], []
    for exposure, m, crop in zip(exposures, subframes, crops, strict=True):
        short, long = exposure.network_input(network.variant, m[None], crop, grouping)
        shorts.append(short)
        longs.append(long)
        masks.append(crop.inner(network.receptive_radius, exposure.camera.height, exposure.camera.width))
    frames = network(torch.cat(shorts).to(u.device), torch.cat(longs).to(u.device), u[subframes][:, None])
    return frames[:, 0], torch.stack(masks)[:, None].to(u.device)
