"""Sensor model: converts between light and firing rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from spike.stuck import StuckPixels

Reset = Literal["soft", "hard"]

# A pixel with less than this share of the sensor's gain is dead: dividing by its gain would amplify noise.
LEAST_GAIN = 0.1


@dataclass(frozen=True)
class SensorModel:
    """Converts rates (spikes per frame) to intensities (1 = white): ``(fired - dark) / gain``.

    ``fired`` is the rate without spurious spikes.  A pixel fires at most once per frame, so only the share
    ``1 - fired`` of the spurious spikes adds to the rate: ``rate = fired + spurious (1 - fired)``.

    Args:
        gain: spikes per frame for white (0.4964 in the authors' synthetic data).
        dark_rate: spikes per frame without light.
        spurious_rate: spikes per frame that are not caused by light.
        gain_map: each pixel's sensitivity relative to ``gain`` [H, W], or None.
        dark_map: each pixel's dark rate [H, W], which replaces ``dark_rate``, or None.
        reset: whether a pixel keeps the charge beyond a full one (``soft``) or loses it (``hard``).  A hard reset
            costs half a frame's charge per spike on average: of the light x (full charges per frame) it fires at the
            rate x / (1 + x / 2), which is inverted.
        stuck: dead and hot pixels, or None.  Their intensities are means of the good pixels around them.
    """

    gain: float = 1.0
    dark_rate: float = 0.0
    spurious_rate: float = 0.0
    gain_map: Tensor | None = None
    dark_map: Tensor | None = None
    reset: Reset = "soft"
    stuck: StuckPixels | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"the sensor's gain must be positive (spikes per frame), not {self.gain}")
        for name in ("dark_rate", "spurious_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 1):
                raise ValueError(f"the sensor's {name} must lie in [0, 1) spikes per frame, not {value}")
        if self.reset not in get_args(Reset):
            raise ValueError(f"the sensor's reset must be soft or hard, not {self.reset!r}")
        if self.gain_map is not None and not bool((self.gain_map > 0).all()):
            raise ValueError("the sensor's gain map must be positive everywhere")

    def with_stuck(self, stuck: StuckPixels | None) -> SensorModel:
        """The sensor with these dead and hot pixels, whose gains are then their neighbors'."""
        gains = self.gain_map if self.gain_map is None or stuck is None else stuck.fill(self.gain_map)
        return replace(self, gain_map=gains, stuck=stuck)

    def check_size(self, height: int, width: int, name: str = "the stream") -> None:
        """Raise a ``ValueError`` if frames of this size do not match the calibrated maps."""
        for values in (self.gain_map, self.dark_map, None if self.stuck is None else self.stuck.mask):
            if values is not None and tuple(values.shape) != (height, width):
                raise ValueError(
                    f"{name}: frames of {width}x{height} pixels, but the sensor was calibrated "
                    f"at {values.shape[-1]}x{values.shape[0]}"
                )

    def intensity(self, rate: Tensor, spurious_left: bool = True) -> Tensor:
        """Convert rates [..., H, W] to intensities; noise can make them negative, which keeps means unbiased.

        Args:
            spurious_left: the rate still contains spurious spikes; their expected number is subtracted.
        """
        fired = self.without_spurious(rate) if spurious_left else rate
        if self.reset == "hard":
            fired = (fired / (1 - fired / 2)).clamp_max(1)
        light = (fired - self.dark()) / self.gain
        light = light if self.gain_map is None else light / self.gain_map.to(light)
        return light if self.stuck is None else self.stuck.fill(light)

    def without_spurious(self, rate: Tensor) -> Tensor:
        """Rates [...] without the expected spurious spikes."""
        return (rate - self.spurious_rate) / (1 - self.spurious_rate)

    def dark(self) -> Tensor | float:
        """Spikes per frame without light: per pixel [H, W] if calibrated, else one number."""
        return self.dark_rate if self.dark_map is None else self.dark_map

    def to_dict(self) -> dict[str, Any]:
        """The settings without the maps, which are stored in separate files; a soft reset is not mentioned."""
        numbers = {"gain": self.gain, "dark_rate": self.dark_rate, "spurious_rate": self.spurious_rate}
        return numbers if self.reset == "soft" else numbers | {"reset": self.reset}
