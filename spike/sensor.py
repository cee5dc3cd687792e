"""The sensor: how light becomes a firing rate, and a simulator of its integrate-and-fire pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
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


@dataclass(frozen=True)
class Simulator:
    """Integrate-and-fire pixels, read out once a frame.

    Each pixel adds ``gain * intensity + dark_rate`` a frame and fires when the sum reaches one.  A ``soft``
    reset keeps what exceeds the full charge, a ``hard`` one starts from zero.  One frame holds one spike at
    most: light beyond that is lost (saturation).

    Args:
        gain: spikes a frame for white.
        gain_sigma: relative standard deviation of the gain between pixels.
        dark_rate: charge a frame without light.
        spurious_gap: mean and standard deviation of the frames between spurious spikes, or None.
        shot_photons: photons a full charge stands for (Poisson noise), or None for none.
        random_phase: pixels start part way through their first charge.
    """

    gain: float = 0.4964
    gain_sigma: float = 0.0
    dark_rate: float = 0.0
    spurious_gap: tuple[float, float] | None = None
    shot_photons: float | None = None
    reset: Literal["soft", "hard"] = "soft"
    random_phase: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"the simulated gain must be positive (spikes a frame for white), not {self.gain}")
        for name in ("gain_sigma", "dark_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the simulated {name} must be at least 0, not {value}")
        if self.spurious_gap is not None and not (self.spurious_gap[0] >= 1 and self.spurious_gap[1] >= 0):
            raise ValueError(f"spurious spikes are at least 1 frame apart, not {self.spurious_gap}")
        if self.shot_photons is not None and not self.shot_photons > 0:
            raise ValueError(f"a full charge stands for a positive number of photons, not {self.shot_photons}")
        if self.reset not in ("soft", "hard"):
            raise ValueError(f"a pixel's reset is soft or hard, not {self.reset!r}")

    def sensor(self) -> SensorModel:
        """What a perfect calibration of the simulated sensor would say, pixels' variation apart."""
        spurious = 0.0 if self.spurious_gap is None else 1 / self.spurious_gap[0]
        return SensorModel(self.gain, self.dark_rate, min(spurious, 0.99))

    def __call__(self, frames: Iterable[NDArray[np.floating[Any]]], view: int = 0) -> NDArray[np.uint8]:
        """Spikes [T, H, W] of the sharp frames [H, W] (intensities in [0, 1]).

        ``view`` picks an independent stream of noise; the pixels' gains stay those of the sensor.
        """
        spikes = list(self.stream(frames, view))
        if not spikes:
            raise ValueError("no frames to simulate")
        return np.stack(spikes)

    def stream(self, frames: Iterable[NDArray[np.floating[Any]]], view: int = 0) -> Iterator[NDArray[np.uint8]]:
        """The same spikes a frame [H, W] at a time, for recordings longer than memory."""
        fixed = np.random.default_rng([self.seed, 0])
        rng = np.random.default_rng([self.seed, 1, view])
        charge = gains = next_spurious = None
        for t, frame in enumerate(frames):
            light = np.asarray(frame, np.float64)
            if light.ndim != 2 or not np.isfinite(light).all() or light.min() < 0:
                raise ValueError(f"frame {t}: expected finite intensities [H, W] of at least 0")
            if charge is not None and charge.shape != light.shape:
                raise ValueError(f"frame {t}: {light.shape[1]}x{light.shape[0]} pixels, unlike those before it")
            if charge is None or gains is None:
                variation = 1 + self.gain_sigma * fixed.standard_normal(light.shape)
                gains = self.gain * np.clip(variation, 0.05, None)
                charge = rng.random(light.shape) if self.random_phase else np.zeros(light.shape)
                if self.spurious_gap is not None:
                    # A uniform fraction of the first gap: the process was running before the recording.
                    next_spurious = rng.random(light.shape) * self._gaps(rng, light.shape)
            step = light * gains + self.dark_rate
            if self.shot_photons is not None:
                step = rng.poisson(step * self.shot_photons) / self.shot_photons
            charge = charge + step
            fired = charge >= 1
            charge = np.where(fired, charge - np.floor(charge) if self.reset == "soft" else 0.0, charge)
            if next_spurious is not None:
                noisy = next_spurious <= t
                fired |= noisy
                next_spurious = np.where(noisy, next_spurious + self._gaps(rng, light.shape), next_spurious)
            yield fired.astype(np.uint8)

    def _gaps(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        assert self.spurious_gap is not None
        mean, sigma = self.spurious_gap
        return np.clip(mean + sigma * rng.standard_normal(shape), 1, None)


def simulate(frames: Iterable[NDArray[np.floating[Any]]], view: int = 0, **sensor: Any) -> NDArray[np.uint8]:
    """Spikes [T, H, W] of sharp frames [H, W] in [0, 1]: ``Simulator(**sensor)(frames, view)``."""
    return Simulator(**sensor)(frames, view)
