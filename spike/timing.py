"""Light from spike timing: each pixel's charge in every frame, without spurious spikes.

A pixel's accumulated charge grows by one from spike to spike and is interpolated linearly in between: a frame
inside an interval of d frames holds 1/d of a spike.  Pixels are processed together as flat arrays, pixel after
pixel, in blocks that fit the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass

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
# The same if the light is known, and how far the neighbors may disagree with it: tuned on a moving image at a gain of
# 0.4 and 0.5 with a guide of 32 dB; between 0.1 and 0.15, 14 and 20, 0.05 and 0.1, all was within 0.2 dB.  At 0.05 a
# guide of half the light costs no light.
_GUIDED_CHANGE = 0.13
_GUIDED_LIMIT = 20.0
_TRUSTED = 0.05
# In a clean stream of a moving scene, the quieter quarter of the places stays below this rate, and below this share of
# all spikes.
_LEAST_SPURIOUS_RATE = 1e-3
_LEAST_SPURIOUS_SHARE = 0.015
_PLACE = 32  # pixels of a place


@dataclass(frozen=True)
class Guide:
    """The light that a stream's pixels are believed to have seen.

    Its changes within an interval shape the interval's charge; its amount only helps to recognize spurious spikes.

    Args:
        light: positive rates [K, H, W], spikes per frame.
        frames: the frames [K] of the stream at which ``light`` is given, increasing; linear in between, constant
            beyond.
    """

    light: Floats
    frames: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.light) != len(self.frames):
            raise ValueError(f"a guide of {len(self.light)} images needs as many frames, not {len(self.frames)}")
        if not (self.light > 0).all():
            raise ValueError("a guide's light must be positive")

    def weights(self, count: int) -> Floats:
        """Shares [K, count] of each image in the frames of a stream."""
        identity = np.eye(len(self.frames))
        return np.stack([np.interp(np.arange(count), self.frames, row) for row in identity]).astype(np.float32)


def frame_charge(
    spikes: NDArray[np.uint8], spurious_rate: float = 0.0, guide: Guide | None = None
) -> Floats:
    """Charge that each pixel collects in each frame, in spikes.

    A spike read in frame t was fired at some time within it, so its time is taken as t + 1/2, which is unbiased.
    Before the first spike and after the last, the rate of the nearest interval continues, limited because no
    further spike came.  A pixel with one spike has a rate of one spike per stream, a pixel without spikes half
    of that.  A spike in every frame is a charge of one in every frame.

    Args:
        spikes: zeros and ones [T, H, W].
        spurious_rate: expected spurious spikes per frame; spikes that break their pixel's rhythm are dropped.
        guide: how the light changes within intervals; None: not at all.  An interval's charge is one with any guide.

    Returns:
        [H * W, T]

    Raises:
        ValueError: a guide of another size than the frames.
    """
    frames = len(spikes)
    flat = spikes.reshape(frames, -1)
    if guide is not None and guide.light.shape[1:] != spikes.shape[1:]:
        raise ValueError(f"a guide of {_size(guide.light)} pixels for frames of {_size(spikes)}")
    lights = None if guide is None else guide.light.reshape(len(guide.frames), -1)
    over_time = None if guide is None else guide.weights(frames)
    pixels = flat.shape[1]
    charge = np.empty((pixels, frames), np.float32)
    step = max(_BLOCK // frames, 1)
    for first in range(0, pixels, step):
        fired = np.ascontiguousarray(flat[:, first : first + step].T)
        light = None if lights is None else lights[:, first : first + step].T @ over_time
        if spurious_rate > 0:
            fired.reshape(-1)[_spurious(fired, spurious_rate, light)] = 0
        charge[first : first + step] = _interpolated(fired, light)
    return charge


def estimate_spurious_rate(spikes: NDArray[np.uint8], pixels: int = 20000, light_known: bool = False) -> float:
    """Estimate the spurious spikes per pixel and frame from the share of spikes that break their pixel's rhythm.

    Zero if there are no more than in a clean stream of a moving scene.

    Args:
        spikes: zeros and ones [T, H, W].
        pixels: number of pixels to sample, spread over the image.
        light_known: spikes will be tested with a guide, so that few true ones are taken for spurious.  Then fewer
            spurious spikes are worth a test in little light.
    """
    rate = quiet_spurious_rate(spikes, pixels)
    least = _LEAST_SPURIOUS_RATE
    if light_known:
        least = min(least, _LEAST_SPURIOUS_SHARE * float(spikes.mean()))
    return rate if rate > least else 0.0


def quiet_spurious_rate(spikes: NDArray[np.uint8], pixels: int = 20000, rates: Floats | None = None) -> float:
    """Spikes per pixel and frame that break their pixel's rhythm in the quieter quarter of the places.

    Moving edges break the rhythm in some places, spurious spikes everywhere.

    Args:
        spikes: zeros and ones [T, H, W].
        pixels: number of pixels to sample, spread over the image.
        rates: the light [T, H, W] in spikes per frame, if it is known.
    """
    flat = spikes.reshape(len(spikes), -1)
    step = max(flat.shape[1] // pixels, 1)
    fired = np.ascontiguousarray(flat[:, ::step].T)
    light = None if rates is None else np.ascontiguousarray(rates.reshape(flat.shape)[:, ::step].T, np.float32)
    size = min(_PLACE, len(fired)) * len(spikes)
    rate = 0.005
    for _ in range(4):
        breaks = _spurious(fired, rate, light)
        places = np.bincount(breaks // (_PLACE * len(spikes)), minlength=max(len(fired) // _PLACE, 1))
        rate = float(np.percentile(places, 25)) / size
        if not rate:
            break
    return rate


def _interpolated(fired: NDArray[np.uint8], light: Floats | None = None) -> Floats:
    """Charge per frame [P, T] of the spikes [P, T]: every interval's charge in proportion to ``light`` [P, T].

    Without ``light``, it is constant.
    """
    pixels, frames = fired.shape
    begins = fired.copy()
    begins[:, 0] = 1  # split every pixel's row into pieces that begin at frame 0 and at each spike
    start = np.flatnonzero(begins)
    length = np.diff(start, append=fired.size)
    is_spike = fired.reshape(-1)[start].astype(bool)
    is_first = start % frames == 0
    is_last = np.append(is_first[1:], True)
    # Light from the stream's start to every piece's start, and in the whole stream; spikes sit at half frames.
    if light is None:
        before_start = (start % frames + 0.5).astype(np.float32)
        whole = np.full(len(start), frames, np.float32)
    else:
        sums = np.cumsum(light, axis=1)
        before_start = (sums - 0.5 * light).reshape(-1)[start]
        whole = sums[:, -1].repeat(np.diff(np.flatnonzero(is_first), append=len(start)))
    before_start[~is_spike] = 0
    after_end = np.append(before_start[1:], np.float32(0))
    after_end[is_last] = whole[is_last]
    per_light = 1 / (after_end - before_start)  # charge per light, of a whole interval
    rate = per_light.copy()
    # After the last spike: as in the interval before it, unless the pixel has waited longer already.
    tail = np.flatnonzero(is_last & is_spike)
    before = np.where(is_first[tail] | ~is_spike[tail - 1], 1 / whole[tail], per_light[tail - 1])
    rate[tail] = np.minimum(before, per_light[tail])
    # Before the first spike: likewise.  A piece that is both first and last has no spike.
    head = np.flatnonzero(~is_spike & ~is_last)
    after = np.where(is_last[head + 1], 1 / whole[head], per_light[np.minimum(head + 1, len(per_light) - 1)])
    rate[head] = np.minimum(after, per_light[head])
    rate[is_first & is_last & ~is_spike] *= 0.5
    piece = np.repeat(rate, length).reshape(pixels, frames)
    # A spike's own frame belongs half to each side.
    charge = piece.copy()
    charge[:, 1:] += piece[:, :-1]
    charge[:, 1:] *= 0.5
    return charge if light is None else charge * light


def _spurious(fired: NDArray[np.uint8], rate: float, light: Floats | None = None) -> NDArray[np.int64]:
    """Flat indices of the spikes [P, T] that are more likely spurious than caused by light.

    A spike is tested by the intervals a and b before and after it.  If light caused it, a is like the two intervals
    before it, b is like the two after it, and a is like b.  If it is spurious, a + b is like those neighbors.  The
    likelihood ratio (Gaussian, every term limited) is multiplied by the prior odds ``rate * (a + b)`` of a spurious
    spike in that interval.  Of consecutive spikes that all qualify, only the most likely one is spurious.

    If the light [P, T] is known, in spikes per frame, intervals are measured in the light between the spikes instead of
    frames, so that edges do not break the rhythm; and a spike is expected from a charge of one.  Where the four
    neighbors disagree with the light by more than a few percent, they are believed.
    """
    flat = np.flatnonzero(fired)
    if len(flat) < 3:
        return flat[:0]
    frames = fired.shape[1]
    pixel = flat // frames
    time = flat.astype(np.float64) if light is None else (np.cumsum(light, axis=1) - 0.5 * light).reshape(-1)[flat]
    interval = np.diff(time).astype(np.float32)
    interval[pixel[1:] != pixel[:-1]] = np.nan
    around = np.full(len(flat) + 5, np.nan, np.float32)
    around[3 : 2 + len(flat)] = interval
    left2, left, a, b, right, right2 = (around[k : len(flat) + k] for k in range(6))
    if light is None:
        change, limit = _CHANGE, _EVIDENCE_LIMIT
        left = np.where(np.isnan(left2), left, 0.5 * (left + left2))
        right = np.where(np.isnan(right2), right, 0.5 * (right + right2))
    else:
        change, limit = _GUIDED_CHANGE, _GUIDED_LIMIT
        charges = np.stack([left2, left, right, right2])
        ordered = np.sort(np.where(np.isnan(charges), 1, charges), axis=0)
        excess = 0.5 * (ordered[1] + ordered[2]) - 1
        expected = 1 + np.sign(excess) * np.maximum(np.abs(excess) - _TRUSTED, 0)
        here = light.reshape(-1)[flat]
        a, b, left = a / here, b / here, expected / here  # frames, if the light stayed as it is at the spike
        right = left
    both = a + b

    def misfit(u: Floats, v: Floats) -> Floats:
        variance = change**2 * u * v + np.float32(_READOUT)
        cost = np.minimum((u - v) ** 2 / variance, limit) + np.log(variance)
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


def _size(images: NDArray[np.generic]) -> str:
    return f"{images.shape[2]}x{images.shape[1]}"
