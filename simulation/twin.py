"""A simulated twin of the sensor that made a recording: how far its targets scatter about the truth.

A trained scene says how much light every pixel saw.  Pixels of the same kind are simulated in that light and read like
the recording.  What they miss of the light is the error of the targets: readout, smear within long intervals, spurious
spikes, varying thresholds, photons.  Nothing about it has to be assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene.cameras import Camera
from scene.exposure import GUIDE_FLOOR, Sight, guide, through_lens, usable_margin
from scene.fusion import patch_energies
from scene.views import TargetSpec
from simulation.sensor import Simulator
from spike import SensorModel, SpikeStream, Targets
from spike.targets import SMOOTHING, window_weights
from spike.timing import Guide, quiet_spurious_rate

# Views whose targets are simulated: as many as have this many pixels together, within the limits.
_PIXELS = 200_000
_FEWEST, _MOST = 2, 6
# Spurious gaps vary by this share of their mean.
_GAP_SPREAD = 0.36
# A smaller variance of the threshold is not worth simulating.
_LEAST_THRESHOLD_VARIANCE = 1e-4
# Limits of the levels of brightness, spikes per frame (brighter light fires in a pattern), and the least number of
# intervals at a level.
_LEVELS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.11, 0.14, 0.17, 0.2, 0.25, 0.3, 0.4)
_MIDDLES = [(a + b) / 2 for a, b in pairwise(_LEVELS)]
_ENOUGH = 1000
# Frames x pixels processed at once.
_BLOCK = 1 << 22

Floats = NDArray[np.floating]


def target_noise(
    views: Sequence[tuple[Camera, SpikeStream, Sight]], spec: TargetSpec, sensor: SensorModel, retimed: bool
) -> Tensor:
    """Energies [PATCH, PATCH] of the error of the sub-frame windows' intensities, by frequency (``patch_energies``).

    A few of the ``views`` are simulated.

    Args:
        views: the camera and the stream of each view, and the light that a scene predicts for its pixels.
        retimed: the predicted light also shapes the intervals between spikes when targets are read.  It errs, which is
            an error of the targets too: the twin's intervals are shaped by light that errs as much.
    """
    camera = views[0][0]
    wanted = min(max(_PIXELS // (camera.height * camera.width), _FEWEST), _MOST)
    some = views[:: -(-len(views) // wanted)]
    return torch.stack([_noise(*view, spec, sensor, retimed) for view in some]).mean(0).float()


def _noise(
    camera: Camera, stream: SpikeStream, sight: Sight, spec: TargetSpec, sensor: SensorModel, retimed: bool
) -> Tensor:
    window = spec.window
    margin = usable_margin(stream, window)
    spikes = stream.central(window, margin)
    seen = guide(through_lens(camera, sight), window, sensor, margin)
    rates = over_time(seen, len(spikes))
    smoothing = SMOOTHING if spec.mode == "timing" else 0
    weights = np.stack(
        [
            window_weights(len(spikes), a + margin, b + margin, smoothing)
            for a, b in (window.window(m, spec.width) for m in range(window.subframes))
        ]
    )
    true = np.einsum("mt,thw->mhw", weights, rates)

    def error(recording: NDArray[np.uint8], by: SensorModel, shape: Guide | None) -> Floats:
        found = Targets(recording, window, by, spec.mode, margin, shape).subframes(spec.width)
        return found.numpy() * sensor.gain - true

    # The predicted rates contain the dark current and the pixels' gains: the twin has neither.
    recorded = twin(spikes, rates, sensor)(rates / sensor.gain)
    even = SensorModel(sensor.gain, spurious_rate=sensor.spurious_rate, reset=sensor.reset)
    shape = None
    if retimed:
        # The guide of the recording was wrong by about what the spikes disagree with it, so is that of the twin.
        wrong = error(spikes, even, seen)
        middles = np.array(window.centers, np.float64) + margin
        shape = Guide((seen.light - _between(wrong, middles, seen.frames)).clip(GUIDE_FLOOR * sensor.gain), seen.frames)
    missed = torch.from_numpy(error(recorded, even, shape) / sensor.gain).float()
    return patch_energies(camera.straightened(missed))


def _between(values: Floats, at: Floats, wanted: Floats) -> Floats:
    """Values [M, H, W] at frames ``at`` [M], interpolated at frames ``wanted`` [K]; constant beyond."""
    shares = np.stack([np.interp(wanted, at, row) for row in np.eye(len(at))])
    return np.einsum("mk,mhw->khw", shares, values)


def over_time(seen: Guide, frames: int) -> Floats:
    """The guide's rates in every frame of a stream, [T, H, W]."""
    light = seen.weights(frames).T @ seen.light.reshape(len(seen.light), -1)
    return light.reshape(frames, *seen.light.shape[1:])


def twin(spikes: NDArray[np.uint8], rates: Floats, sensor: SensorModel) -> Simulator:
    """Pixels that scatter as those did which recorded ``spikes`` [T, H, W] of light that causes ``rates`` [T, H, W].

    Whatever makes successive intervals of a pixel differ, beyond the readout and spurious spikes, may be threshold
    noise (Poisson photons have nearly the same effect) or the error of the predicted light.  The latter, as the number
    of spurious spikes, grows with the length of the intervals, so a line is drawn to the length 0.
    """
    spurious = quiet_spurious_rate(spikes, rates=rates)
    gap = (1 / spurious, _GAP_SPREAD / spurious) if spurious else None
    plain = Simulator(sensor.gain, spurious_gap=gap, reset=sensor.reset)
    (found, count), (regular, _) = _scatter(spikes, rates), _scatter(plain(rates / sensor.gain), rates)
    threshold = _at_zero(1 / np.array(_MIDDLES), (found - regular) / 2, count)
    return replace(plain, threshold_sigma=threshold**0.5) if threshold > _LEAST_THRESHOLD_VARIANCE else plain


def _at_zero(lengths: Floats, excess: Floats, count: Floats) -> float:
    """The excess scatter at an interval of length 0, by a line through what is known; 0 for too few lengths."""
    known = np.isfinite(excess)
    if known.sum() < 3:
        return 0.0
    slope, start = np.polyfit(lengths[known], excess[known], 1, w=np.sqrt(count[known]))
    return float(start) if slope > 0 else float(np.average(excess[known], weights=count[known]))


def _scatter(spikes: NDArray[np.uint8], rates: Floats) -> tuple[Floats, Floats]:
    """Mean squared difference of a pixel's successive intervals, in charges, by brightness, and their numbers.

    NaN for few of them.
    """
    frames, pixels = len(spikes), spikes[0].size
    count, total = np.zeros((2, len(_LEVELS) + 1))
    step = max(_BLOCK // frames, 1)
    for first in range(0, pixels, step):
        flat_spikes, flat_rates = (
            np.ascontiguousarray(values.reshape(frames, -1)[:, first : first + step].T) for values in (spikes, rates)
        )
        fired = np.flatnonzero(flat_spikes)
        charge = np.diff(np.cumsum(flat_rates, axis=1, dtype=np.float64).reshape(-1)[fired])
        same = fired[2:] // frames == fired[:-2] // frames
        apart = np.minimum(np.diff(charge)[same] ** 2, 1)
        level = np.digitize(flat_rates.reshape(-1)[fired[1:-1]][same], _LEVELS)
        count += np.bincount(level, minlength=len(count))
        total += np.bincount(level, apart, minlength=len(total))
    return np.where(count >= _ENOUGH, total / np.maximum(count, 1), np.nan)[1:-1], count[1:-1]
