"""Light from spike timing: each pixel's charge in every frame, without spurious spikes.

A pixel's accumulated charge grows by one from spike to spike and is interpolated linearly in between: a frame
inside an interval of d frames holds 1/d of a spike.  Pixels are processed together as flat arrays, pixel after
pixel, in blocks that fit the processor's cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Frames x pixels processed at once: 1 MB of spikes, a few MB of temporaries.
_BLOCK = 1 << 20
# Relative change of the interval from spike to spike, and variance of its readout error (frames^2).  Tuned on
# rendered scenes with moving cameras; changing either by a factor of 1.5 costs 0.2 dB at most.
_CHANGE = 0.2
_READOUT = 0.06
# Limit of each term of the evidence (in squared sigmas), because edges do pass over pixels.
_EVIDENCE_LIMIT = 12.0
# In a clean stream, the quieter quarter of the places stays below this rate, however fast the scene moves.
_LEAST_SPURIOUS_RATE = 1e-3
_PLACE = 32  # pixels of a place


def frame_charge(spikes: NDArray[np.uint8], spurious_rate: float = 0.0) -> Floats:
    """Charge that each pixel collects in each frame, in spikes.

    A spike read in frame t was fired at some time within it, so its time is taken as t + 1/2, which is unbiased.
    Before the first spike and after the last, the rate of the nearest interval continues, limited because no
    further spike came.  A pixel with one spike has a rate of one spike per stream, a pixel without spikes half
    of that.  A spike in every frame is a charge of one in every frame.

    Args:
        spikes: zeros and ones [T, H, W].
        spurious_rate: expected spurious spikes per frame; spikes that break their pixel's rhythm are dropped.

    Returns:
        [H * W, T]
    """
    frames = len(spikes)
    flat = spikes.reshape(frames, -1)
    pixels = flat.shape[1]
    charge = np.empty((pixels, frames), np.float32)
    step = max(_BLOCK // frames, 1)
    for first in range(0, pixels, step):
        fired = np.ascontiguousarray(flat[:, first : first + step].T)
        if spurious_rate > 0:
            fired.reshape(-1)[_spurious(fired, spurious_rate)] = 0
        charge[first : first + step] = _interpolated(fired)
    return charge


def estimate_spurious_rate(spikes: NDArray[np.uint8], pixels: int = 20000) -> float:
    """Estimate the spurious spikes per pixel and frame from the share of spikes that break their pixel's rhythm.

    Zero if there are no more than in a clean stream of a moving scene: moving edges break the rhythm in some
    places, spurious spikes everywhere.

    Args:
        spikes: zeros and ones [T, H, W].
        pixels: number of pixels to sample, spread over the image.
    """
    flat = spikes.reshape(len(spikes), -1)
    fired = np.ascontiguousarray(flat[:, :: max(flat.shape[1] // pixels, 1)].T)
    rate = 0.005
    for _ in range(3):
        breaks = _spurious(fired, rate)
        places = np.bincount(breaks // (_PLACE * len(spikes)), minlength=max(len(fired) // _PLACE, 1))
        if np.percentile(places, 25) < _LEAST_SPURIOUS_RATE * min(_PLACE, len(fired)) * len(spikes):
            return 0.0
        rate = len(breaks) / fired.size
    return rate


def _interpolated(fired: NDArray[np.uint8]) -> Floats:
    """Charge per frame [P, T] of the spikes [P, T]: linear interpolation of the cumulative count."""
    pixels, frames = fired.shape
    begins = fired.copy()
    begins[:, 0] = 1  # split every pixel's row into pieces that begin at frame 0 and at each spike
    start = np.flatnonzero(begins)
    length = np.diff(start, append=fired.size).astype(np.float32)
    is_spike = fired.reshape(-1)[start].astype(bool)
    is_first = start % frames == 0
    is_last = np.append(is_first[1:], True)
    interval = 1 / length
    rate = interval.copy()
    # After the last spike: the interval before it, unless the pixel has waited longer already.
    tail = np.flatnonzero(is_last & is_spike)
    before = np.where(is_first[tail] | ~is_spike[tail - 1], 1 / frames, interval[tail - 1])
    rate[tail] = np.minimum(before, 1 / (length[tail] - 0.5))
    # Before the first spike: likewise.  A piece that is both first and last has no spike.
    head = np.flatnonzero(~is_spike & ~is_last)
    after = np.where(is_last[head + 1], 1 / frames, interval[np.minimum(head + 1, len(interval) - 1)])
    rate[head] = np.minimum(after, 1 / (length[head] + 0.5))
    rate[is_first & is_last & ~is_spike] = 0.5 / frames
    piece = np.repeat(rate, length.astype(np.int64)).reshape(pixels, frames)
    # Spikes sit at half frames: a spike's own frame belongs half to each side.
    charge = piece.copy()
    charge[:, 1:] += piece[:, :-1]
    charge[:, 1:] *= 0.5
    return charge


def _spurious(fired: NDArray[np.uint8], rate: float) -> NDArray[np.int64]:
    """Flat indices of the spikes [P, T] that are more likely spurious than caused by light.

    A spike is tested by the intervals a and b before and after it.  If light caused it, a is like the two intervals
    before it, b is like the two after it, and a is like b.  If it is spurious, a + b is like those neighbors.  The
    likelihood ratio (Gaussian, every term limited) is multiplied by the prior odds ``rate * (a + b)`` of a spurious
    spike in that interval.  Of consecutive spikes that all qualify, only the most likely one is spurious.
    """
    flat = np.flatnonzero(fired)
    if len(flat) < 3:
        return flat[:0]
    frames = fired.shape[1]
    pixel = flat // frames
    interval = np.diff(flat).astype(np.float32)
    interval[pixel[1:] != pixel[:-1]] = np.nan
    around = np.full(len(flat) + 5, np.nan, np.float32)
    around[3 : 2 + len(flat)] = interval
    left2, left, a, b, right, right2 = (around[k : len(flat) + k] for k in range(6))
    left = np.where(np.isnan(left2), left, 0.5 * (left + left2))
    right = np.where(np.isnan(right2), right, 0.5 * (right + right2))
    both = a + b

    def misfit(u: Floats, v: Floats) -> Floats:
        variance = _CHANGE**2 * u * v + np.float32(_READOUT)
        cost = np.minimum((u - v) ** 2 / variance, _EVIDENCE_LIMIT) + np.log(variance)
        return np.nan_to_num(cost, copy=False, nan=0.0)

    by_light = misfit(a, left) + misfit(b, right) + misfit(a, b)
    by_chance = misfit(both, left) + misfit(both, right)
    with np.errstate(invalid="ignore"):
        score = 0.5 * (by_light - by_chance) + np.log(np.float32(rate) * both)
    score[np.isnan(both) | (np.isnan(left) & np.isnan(right))] = -np.inf
    # Neighbors in other pixels do not matter: a pixel's first and last spikes are never tested.
    beside = np.full(len(flat) + 2, -np.inf, np.float32)
    beside[1:-1] = score
    return flat[(score > 0) & (score > beside[:-2]) & (score >= beside[2:])]
