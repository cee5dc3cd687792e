"""The sensor: how light becomes a firing rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# A pixel with less than this share of the sensor's gain is dead: dividing by its gain would make light of noise.
LEAST_GAIN = 0.1


@dataclass(frozen=True)
class SensorModel:
    """Rates (spikes a frame) to intensities (1 = white): ``(fired - dark) / gain``.

    ``fired`` is the rate without spurious spikes.  A frame holds one spike at most, so of those that no light
    caused only the share ``1 - fired`` adds to it: ``rate = fired + spurious (1 - fired)``.

    Args:
        gain: spikes a frame for white (0.4964 in the authors' synthetic data).
        dark_rate: spikes a frame without light.
        spurious_rate: spikes a frame that no light caused.
        gain_map: each pixel's sensitivity relative to ``gain`` [H, W], or None.
        dark_map: each pixel's own dark rate [H, W] in place of ``dark_rate``, or None.
    """

    gain: float = 1.0
    dark_rate: float = 0.0
    spurious_rate: float = 0.0
    gain_map: Tensor | None = None
    dark_map: Tensor | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"the sensor's gain must be positive (spikes a frame), not {self.gain}")
        for name in ("dark_rate", "spurious_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 1):
                raise ValueError(f"the sensor's {name} must lie in [0, 1) spikes a frame, not {value}")
        if self.gain_map is not None and not bool((self.gain_map > 0).all()):
            raise ValueError("the sensor's gain map must be positive everywhere")

    def check_size(self, height: int, width: int, name: str = "the stream") -> None:
        """Refuse a stream whose frames are not of the maps' size."""
        for values in (self.gain_map, self.dark_map):
            if values is not None and tuple(values.shape) != (height, width):
                raise ValueError(
                    f"{name}: frames of {width}x{height} pixels, but the sensor was calibrated "
                    f"at {values.shape[-1]}x{values.shape[0]}"
                )

    def intensity(self, rate: Tensor, spurious_left: bool = True) -> Tensor:
        """Intensities of the rates [..., H, W]; may fall below zero by noise, so that means stay unbiased.

        Args:
            spurious_left: the rate still holds spurious spikes; their mean is subtracted.
        """
        fired = self.without_spurious(rate) if spurious_left else rate
        light = (fired - self.dark()) / self.gain
        return light if self.gain_map is None else light / self.gain_map.to(light)

    def without_spurious(self, rate: Tensor) -> Tensor:
        """Rates [...] without the expected spurious spikes."""
        return (rate - self.spurious_rate) / (1 - self.spurious_rate)

    def dark(self) -> Tensor | float:
        """Spikes a frame without light: of each pixel [H, W] where calibrated, else of all."""
        return self.dark_rate if self.dark_map is None else self.dark_map

    def to_dict(self) -> dict[str, Any]:
        """The scalar settings as plain numbers (maps are kept in files of their own)."""
        return {"gain": self.gain, "dark_rate": self.dark_rate, "spurious_rate": self.spurious_rate}
