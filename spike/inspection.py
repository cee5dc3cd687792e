"""What a recording looks like as a whole: firing rates, pixels that are stuck, light that changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from spike.stream import SpikeStream
from spike.timing import estimate_spurious_rate

# Stretches of the recording that are looked at, and frames of each: minutes of recording in seconds.
_STRETCHES = 16
_STRETCH = 128
# A pixel that fires in as many frames is saturated.
_SATURATED = 0.98
# A pixel is hot or dead where it differs from its neighbours' median by this factor, and more than chance allows.
_FACTOR = 4.0
_SIGMAS = 4.0


@dataclass(frozen=True)
class Inspection:
    """Statistics of the frames that were looked at.

    ``rate`` [H, W] spikes a frame; ``saturated``, ``hot``, ``dead`` [H, W] masks; ``levels`` mean rate of every
    stretch, which begins at ``starts``; ``change`` the mean relative change of a pixel's rate from one
    stretch to the next (motion or flicker); ``blank`` frames without any spike; ``filters`` [2, 2] mean rates of
    the pixels of every 2x2 square, relative to all.
    """

    rate: NDArray[np.float64]
    saturated: NDArray[np.bool_]
    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    starts: list[int]
    levels: list[float]
    change: float
    blank: int
    frames: int
    spurious_rate: float
    filters: NDArray[np.float64]


def inspect(stream: SpikeStream) -> Inspection:
    """Look at stretches spread evenly over a recording (all of a short one).

    Raises:
        ValueError: no spike, or a spike in every pixel of every frame.
    """
    length = min(_STRETCH, max(len(stream) // 2, 1))
    count = min(_STRETCHES, max(len(stream) // length, 1))
    starts = [round(s) for s in np.linspace(0, len(stream) - length, count)]
    rates, blank = [], 0
    middle: NDArray[np.uint8] | None = None
    for i, start in enumerate(starts):
        spikes = stream.unpack(start, start + length)
        rates.append(spikes.mean(0, dtype=np.float64))
        blank += int((~spikes.reshape(length, -1).any(1)).sum())
        if i == count // 2:
            middle = spikes
    assert middle is not None
    rate = np.mean(rates, axis=0)
    frames = length * count
    refuse_stuck(rate, stream.name)
    around = _neighbours(rate, colored=stream.bayer is not None)
    noise = _SIGMAS * np.sqrt(np.maximum(around, 1 / frames) / frames)
    steps = [2 * np.abs(b - a).mean() / max(float(b.mean() + a.mean()), 1e-9) for a, b in pairwise(rates)]
    return Inspection(
        rate,
        rate > _SATURATED,
        rate > _FACTOR * around + noise,
        (rate < around / _FACTOR) & (around - rate > noise),
        starts,
        [float(r.mean()) for r in rates],
        float(np.mean(steps)) if steps else 0.0,
        blank,
        frames,
        estimate_spurious_rate(middle),
        np.array([[rate[y::2, x::2].mean() for x in (0, 1)] for y in (0, 1)]) / rate.mean(),
    )


def _neighbours(rate: NDArray[np.float64], colored: bool) -> NDArray[np.float64]:
    """Median [H, W] of the pixels around each one, of its own colour where they differ."""
    if not colored:
        return np.asarray(median_filter(rate, 5, mode="nearest"))
    around = np.empty_like(rate)
    for y, x in np.ndindex(2, 2):
        around[y::2, x::2] = median_filter(rate[y::2, x::2], 5, mode="nearest")
    return around


def refuse_stuck(rate: NDArray[np.floating], name: str) -> None:
    """An error for firing rates that are all zero or all one."""
    if not rate.any() or rate.min() == 1:
        kind = "all zeros: no pixel ever fires" if not rate.any() else "all ones: every pixel fires in every frame"
        raise ValueError(f"{name}: the stream is {kind}")
