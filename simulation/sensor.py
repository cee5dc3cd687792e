"""Simulates integrate-and-fire pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike.sensor import Reset, SensorModel

# Range of the charge that a hot pixel collects per frame in addition to the light's.
_HOT_CHARGE = (0.3, 1.0)


@dataclass(frozen=True)
class Simulator:
    """Integrate-and-fire pixels, read out once per frame.

    Each pixel adds ``gain * intensity + dark_rate`` per frame and fires when the sum reaches one.  A ``soft``
    reset keeps the charge beyond one, a ``hard`` reset starts from zero.  A pixel fires at most once per frame:
    light beyond that is lost (saturation).  Dead pixels never fire.  Hot pixels collect 0.3 to 1 of a full charge per
    frame in addition to the light's.

    Args:
        gain: spikes per frame for white.
        gain_sigma: relative standard deviation of the gain between pixels.
        dark_rate: charge per frame without light.
        spurious_gap: mean and standard deviation of the frames between spurious spikes, or None.
        shot_photons: photons per full charge (Poisson noise), or None for no noise.
        threshold_sigma: standard deviation of the full charge from spike to spike, relative to its mean.
        dead, hot: shares of the pixels that are dead or hot.
        random_phase: pixels start with a random part of a full charge.
    """

    gain: float = 0.4964
    gain_sigma: float = 0.0
    dark_rate: float = 0.0
    spurious_gap: tuple[float, float] | None = None
    shot_photons: float | None = None
    reset: Reset = "soft"
    random_phase: bool = True
    seed: int = 0
    threshold_sigma: float = 0.0
    dead: float = 0.0
    hot: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"the simulated gain must be positive (spikes per frame for white), not {self.gain}")
        for name in ("gain_sigma", "dark_rate", "threshold_sigma", "dead", "hot"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the simulated {name} must be at least 0, not {value}")
        if self.dead + self.hot >= 1:
            total = self.dead + self.hot
            raise ValueError(f"the shares of dead and hot pixels must be less than 1 together, not {total}")
        if self.spurious_gap is not None and not (self.spurious_gap[0] >= 1 and self.spurious_gap[1] >= 0):
            raise ValueError(f"spurious spikes must be at least 1 frame apart, not {self.spurious_gap}")
        if self.shot_photons is not None and not self.shot_photons > 0:
            raise ValueError(f"the photons per full charge must be positive, not {self.shot_photons}")
        if self.reset not in ("soft", "hard"):
            raise ValueError(f"the reset must be soft or hard, not {self.reset!r}")

    def sensor(self) -> SensorModel:
        """The result of a perfect calibration of the simulated sensor, without variation between pixels."""
        spurious = 0.0 if self.spurious_gap is None else 1 / self.spurious_gap[0]
        return SensorModel(self.gain, self.dark_rate, min(spurious, 0.99), reset=self.reset)

    def stuck(self, height: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks [H, W] of the dead and the hot pixels."""
        place = np.random.default_rng([self.seed, 2]).random((height, width))
        return place < self.dead, place >= 1 - self.hot

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
        charge = gains = dead = next_spurious = None
        dark, threshold = np.zeros(()), np.ones(())
        for t, frame in enumerate(frames):
            light = np.asarray(frame, np.float64)
            if light.ndim != 2 or not np.isfinite(light).all() or light.min() < 0:
                raise ValueError(f"frame {t}: expected finite intensities [H, W] of at least 0")
            if charge is not None and charge.shape != light.shape:
                raise ValueError(f"frame {t}: {light.shape[1]}x{light.shape[0]} pixels, unlike those before it")
            if charge is None or gains is None or dead is None:
                variation = 1 + self.gain_sigma * fixed.standard_normal(light.shape)
                gains = self.gain * np.clip(variation, 0.05, None)
                dead, hot = self.stuck(*light.shape)
                dark = self.dark_rate + hot * fixed.uniform(*_HOT_CHARGE, light.shape)
                charge = rng.random(light.shape) if self.random_phase else np.zeros(light.shape)
                if self.spurious_gap is not None:
                    # A uniform fraction of the first gap: the process started before the recording.
                    next_spurious = rng.random(light.shape) * self._gaps(rng, light.shape)
                threshold = self._thresholds(rng, light.shape)
            step = light * gains + dark
            if self.shot_photons is not None:
                step = rng.poisson(step * self.shot_photons) / self.shot_photons
            charge = charge + step
            fired = charge >= threshold
            kept = charge - threshold * np.floor(charge / threshold) if self.reset == "soft" else 0.0
            charge = np.where(fired, kept, charge)
            if self.threshold_sigma:
                threshold = np.where(fired, self._thresholds(rng, light.shape), threshold)
            if next_spurious is not None:
                noisy = next_spurious <= t
                fired |= noisy
                next_spurious = np.where(noisy, next_spurious + self._gaps(rng, light.shape), next_spurious)
            yield (fired & ~dead).astype(np.uint8)

    def _thresholds(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Full charges; without variation, no random numbers are drawn."""
        if not self.threshold_sigma:
            return np.ones(shape)
        return np.clip(1 + self.threshold_sigma * rng.standard_normal(shape), 0.05, None)

    def _gaps(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        assert self.spurious_gap is not None
        mean, sigma = self.spurious_gap
        return np.clip(mean + sigma * rng.standard_normal(shape), 1, None)


def stuck_pixels(simulator: Simulator, height: int, width: int) -> dict[str, list[list[int]]]:
    """Row and column of every dead and every hot pixel, for a file."""
    dead, hot = simulator.stuck(height, width)
    return {"dead_pixels": np.argwhere(dead).tolist(), "hot_pixels": np.argwhere(hot).tolist()}


# The sensor of the demo scene, and real sensors' deviations from it, each alone.
_DEFAULT = Simulator(spurious_gap=(140, 50))
SENSORS: dict[str, Simulator] = {
    "default": _DEFAULT,
    # Little light: about as many spikes as in Spike-Zoo's recording uhsr.npz (0.03 per frame and pixel).
    "dim": replace(_DEFAULT, gain=0.06, gain_sigma=0.02, spurious_gap=(2000, 700)),
    # Thresholds that differ from spike to spike, and a reset that loses the charge beyond them.
    "jitter": replace(_DEFAULT, gain=0.35, reset="hard", threshold_sigma=0.08),
    "photon": replace(_DEFAULT, shot_photons=200),
    "dead": replace(_DEFAULT, dead=0.02, hot=0.005),
    # White is brighter than a spike in every frame.
    "bright": replace(_DEFAULT, gain=1.15),
}


def sensor_named(name: str, seed: int = 0) -> Simulator:
    """The sensor ``name`` of ``SENSORS``, with its random numbers.

    Raises:
        ValueError: there is no such sensor.
    """
    if name not in SENSORS:
        raise ValueError(f"the sensor {name!r} is unknown; expected one of {', '.join(SENSORS)}")
    return replace(SENSORS[name], seed=seed)


def simulate(frames: Iterable[NDArray[np.floating[Any]]], view: int = 0, **sensor: Any) -> NDArray[np.uint8]:
    """Spikes [T, H, W] of sharp frames [H, W] in [0, 1]: ``Simulator(**sensor)(frames, view)``."""
    return Simulator(**sensor)(frames, view)
