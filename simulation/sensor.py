"""Simulates integrate-and-fire pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spike.sensor import SensorModel


@dataclass(frozen=True)
class Simulator:
    """Integrate-and-fire pixels, read out once per frame.

    Each pixel adds ``gain * intensity + dark_rate`` per frame and fires when the sum reaches one.  A ``soft``
    reset keeps the charge beyond one, a ``hard`` reset starts from zero.  A pixel fires at most once per frame:
    light beyond that is lost (saturation).

    Args:
        gain: spikes per frame for white.
        gain_sigma: relative standard deviation of the gain between pixels.
        dark_rate: charge per frame without light.
        spurious_gap: mean and standard deviation of the frames between spurious spikes, or None.
        shot_photons: photons per full charge (Poisson noise), or None for no noise.
        random_phase: pixels start with a random part of a full charge.
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
            raise ValueError(f"the simulated gain must be positive (spikes per frame for white), not {self.gain}")
        for name in ("gain_sigma", "dark_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the simulated {name} must be at least 0, not {value}")
        if self.spurious_gap is not None and not (self.spurious_gap[0] >= 1 and self.spurious_gap[1] >= 0):
            raise ValueError(f"spurious spikes must be at least 1 frame apart, not {self.spurious_gap}")
        if self.shot_photons is not None and not self.shot_photons > 0:
            raise ValueError(f"the photons per full charge must be positive, not {self.shot_photons}")
        if self.reset not in ("soft", "hard"):
            raise ValueError(f"the reset must be soft or hard, not {self.reset!r}")

    def sensor(self) -> SensorModel:
        """The result of a perfect calibration of the simulated sensor, without variation between pixels."""
        spurious = 0.0 if self.spurious_gap is None else 1 / self.spurious_gap[0]
        return SensorModel(self.gain, self.dark_rate, min(spurious, 0.99))

    def __call__(self, frames: Iterable[NDArray[np.floating[Any]]], view: int = 0) -> NDArray[np.uint8]:
        """Spikes [T, H, W] of the sharp frames [H, W] (intensities in [0, 1]).

        ``view`` selects an independent noise stream; the pixels' gains are the same for all views.
        """
        spikes = list(self.stream(frames, view))
        if not spikes:
            raise ValueError("no frames to simulate")
        return np.stack(spikes)

    def stream(self, frames: Iterable[NDArray[np.floating[Any]]], view: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Yield the same spikes one frame [H, W] at a time, for recordings that do not fit in memory."""
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
                    # A uniform fraction of the first gap: the process started before the recording.
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
