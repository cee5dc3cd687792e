"""One view's recorded exposure: all that training compares the renders and Recon-Net with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from scene.cameras import Camera
from spike import SensorModel, SpikeStream, Targets, WindowSpec
from spike.targets import Mode
from utils.crops import Crop


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
        wide: bool = True,
    ) -> Exposure:
        """Turn the central context of ``stream`` into targets once; the spikes stay packed.

        Args:
            intervals: pairs of sub-frames whose means ``interval`` gives.
            wide: make the half-width windows too.
        """
        margin = usable_margin(stream, spec)
        targets = Targets(stream.central(spec, margin), spec, sensor, mode=mode, margin=margin)
        narrow = targets.subframes(subframe_width)
        exposure = cls(
            index,
            camera,
            targets.long_exposure()[None],
            narrow[:, None],
            targets.subframes(spec.half + 1 - spec.half % 2)[:, None] if wide else None,
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

    def spikes(self, crop: Crop) -> Tensor:
        """The context's spikes [T, h, w] on a crop, zeros and ones."""
        assert self._stream is not None and self.spec is not None, "an exposure read from an image has no spikes"
        return crop.of(torch.as_tensor(self._stream.central(self.spec)))

    def middle_image(self, sensor: SensorModel, mode: Mode, width: int) -> Tensor:
        """Intensity [1, H, W] of the ``width`` frames about the middle: counted (TFP), or by the spikes' timing."""
        assert self._stream is not None and self.spec is not None
        margin = usable_margin(self._stream, self.spec) if mode == "timing" else 0
        targets = Targets(self._stream.central(self.spec, margin), self.spec, sensor, mode, margin)
        return targets.subframes(width)[self.spec.subframes // 2][None]
