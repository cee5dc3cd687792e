"""Dead and hot pixels: found in the recordings themselves, and filled from the pixels around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

# Side of the square whose median tells what a pixel's neighbors see.
_SQUARE = 5
# A dead pixel fires less than this share of its neighbors' spikes: in all recordings together, and in each of them
# (weaker, for few spikes), where they fire at least so often.
_DEAD, _DEAD_ANYWHERE, _TELLING = 0.1, 0.3, 6
# Least spikes of the neighbors, in all recordings together, that make silence conspicuous.
_CONSPICUOUS = 5
# A hot pixel fires more often than its neighbors by this share of their rate (or of what is left to one spike per
# frame), on average; by half of that in nearly every recording, and by so many deviations of all pixels.
_HOT, _NEARLY_ALL, _DEVIATIONS = 0.5, 0.9, 3.0
# So many of the eight pixels around it that look the same make a pixel part of something dark or bright.
_COMPANY = 3
# Fewer recordings cannot distinguish a stuck pixel from a dark or bright spot of the scene.
FEWEST = 4
# Good pixels from which a stuck one is filled.
_SOURCES = 8


@dataclass(frozen=True, eq=False)
class StuckPixels:
    """Pixels whose spikes say nothing about light.

    Args:
        mask: where they are, [H, W] of booleans.
        colored: the sensor has color filters; a pixel is filled from those behind the same filter.

    Raises:
        ValueError: all pixels (behind one filter) are stuck.
    """

    mask: Tensor
    colored: bool = False

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or self.mask.ndim != 2:
            raise ValueError(f"stuck pixels are a mask [H, W] of booleans, not {self.mask.dtype} {[*self.mask.shape]}")
        if any(bool(plane.all()) for plane in self._planes(self.mask) if plane.numel()):
            raise ValueError("all pixels are stuck" + (" behind one color filter" if self.colored else ""))

    def with_filters(self, colored: bool) -> StuckPixels:
        """The same pixels of a sensor with or without color filters."""
        return self if colored == self.colored else StuckPixels(self.mask, colored)

    def fill(self, values: Tensor) -> Tensor:
        """Values [..., H, W] with those of the stuck pixels replaced by a mean of the nearest good ones."""
        stuck, sources, weights = (part.to(values.device) for part in self._filling)
        flat = values.flatten(-2).clone()
        flat[..., stuck] = (flat[..., sources] * weights.to(values)).sum(-1)
        return flat.reshape(values.shape)

    def mend(self, spikes: NDArray[np.uint8]) -> None:
        """Overwrite the spikes [T, H, W] of the stuck pixels by those of the nearest good ones, in place."""
        stuck, sources, _ = self._filling
        flat = spikes.reshape(len(spikes), -1)
        flat[:, stuck.numpy()] = flat[:, sources[:, 0].numpy()]

    def _planes(self, values: Tensor) -> list[Tensor]:
        step = 2 if self.colored else 1
        return [values[y::step, x::step] for y in range(step) for x in range(step)]

    @cached_property
    def _filling(self) -> tuple[Tensor, Tensor, Tensor]:
        """Flat indices [S] of the stuck pixels, those [S, K] of the good ones that replace them, and weights [S, K].

        Weights fall with the square of the distance; the nearest comes first.
        """
        places = torch.arange(self.mask.numel()).reshape(self.mask.shape)
        parts = []
        for place, mask in zip(self._planes(places), self._planes(self.mask.cpu()), strict=True):
            if not mask.any():
                continue
            good = torch.nonzero(~mask).numpy()
            count = min(_SOURCES, len(good))
            distance, index = cKDTree(good).query(torch.nonzero(mask).numpy(), k=range(1, count + 1))
            weights = torch.from_numpy(distance**-2.0)
            found = torch.zeros(len(index), _SOURCES, dtype=torch.long)
            share = torch.zeros(len(index), _SOURCES, dtype=torch.double)
            found[:, :count], share[:, :count] = place[~mask][torch.from_numpy(index)], weights
            parts.append((place[mask], found, share / share.sum(-1, keepdim=True)))
        stuck, sources, shares = (torch.cat(column) for column in zip(*parts, strict=True))
        return stuck, sources, shares


def joined(known: StuckPixels | None, mask: NDArray[np.bool_], colored: bool) -> StuckPixels | None:
    """The pixels in ``known`` or ``mask``; None if there are none."""
    found = torch.from_numpy(mask)
    if known is not None:
        found = found | known.mask
    return StuckPixels(found, colored) if bool(found.any()) else None


def without(stuck: Tensor | None, values: Tensor) -> Tensor:
    """Values [..., H, W] with zeros at the stuck pixels [H, W] (None: there are none), without gradients there."""
    return values if stuck is None else values.masked_fill(stuck, 0)


def stuck_pixels(
    counts: Sequence[NDArray[np.integer]], frames: Sequence[int], colored: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks [H, W] of the dead and the hot pixels, by what their neighbors see.

    A dead pixel hardly fires where its neighbors do, a hot one fires more often than they do, whatever it sees: in all
    recordings, in which the scene moves.  A dark corner of one view or a lamp is neither.  In fewer than ``FEWEST``
    recordings nothing is found.

    Args:
        counts: the pixels' spikes [H, W] in every recording.
        frames: length of every recording.
        colored: compare a pixel only with those behind the same color filter.
    """
    own = np.stack(counts).astype(np.float64)
    lengths = np.asarray(frames, np.float64)[:, None, None]
    if len(own) < FEWEST:
        none = np.zeros(own.shape[1:], bool)
        return none, none.copy()
    around = np.stack([neighbors(count, colored) for count in own])
    expected = around.sum(0)
    telling = around >= _TELLING
    dead = (own.sum(0) < _DEAD * expected) & (expected >= _CONSPICUOUS)
    dead &= ((own < _DEAD_ANYWHERE * around) | ~telling).all(0)
    rate, near = own / lengths, around / lengths
    excess = rate - near
    mean = excess.mean(0)
    deviation = 1.4826 * np.median(np.abs(mean - np.median(mean)))
    large = _HOT * np.minimum(near, 1 - near)
    hot = (mean > large.mean(0)) & (mean > _DEVIATIONS * deviation) & (mean > 0)
    hot &= (excess >= 0.5 * large).mean(0) >= _NEARLY_ALL
    dead &= _company(-own.sum(0), -_DEAD * expected, colored) < _COMPANY
    hot &= _company(rate.mean(0), near.mean(0) + 0.5 * mean, colored) < _COMPANY
    return dead, hot


def _company(values: NDArray[np.float64], limit: NDArray[np.float64], colored: bool) -> NDArray[np.int64]:
    """How many of the eight pixels around each one, of the same color, have values [H, W] over its limit."""
    step, (height, width) = 2 if colored else 1, values.shape
    padded = np.pad(values, step, constant_values=np.nan)
    beside = [(y, x) for y in (0, step, 2 * step) for x in (0, step, 2 * step) if (y, x) != (step, step)]
    return np.sum([padded[y : y + height, x : x + width] > limit for y, x in beside], axis=0)


def neighbors(values: NDArray[np.number], colored: bool) -> NDArray[np.float64]:
    """Median [H, W] of the pixels around each one; on a color sensor, of those with the same color."""
    around = np.empty(values.shape)
    step = 2 if colored else 1
    for y, x in np.ndindex(step, step):
        plane = np.ascontiguousarray(values[y::step, x::step], np.float32)
        if plane.size:
            around[y::step, x::step] = cv2.medianBlur(plane, _SQUARE)
    return around
