"""What a spike stream says about intensity: over windows by counting, or from the spikes' own times.

*Counting* (the paper): spikes in the window over its length; off by up to one spike.  *Timing*: a pixel's
cumulative charge is one apart at successive spikes, so it is interpolated linearly between their times and
differenced over the window, which removes most of that error at no cost in light.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike.sensor import SensorModel
from spike.window import WindowSpec

Mode = Literal["counting", "timing"]


def tfp(spikes: NDArray[np.uint8] | Tensor, start: int, stop: int) -> Tensor:
    """Texture from playback: firing rate [H, W] counted over the frames [start, stop) of [T, H, W]."""
    return torch.as_tensor(spikes[start:stop]).float().mean(0)


def tfi(spikes: NDArray[np.uint8] | Tensor, frame: int) -> Tensor:
    """Texture from interval: 1 / (interval between the spikes around ``frame``) [H, W] of [T, H, W].

    A pixel without a spike on one side gets the reciprocal of the frames it is known to have waited.
    """
    previous, following, _ = _neighbours(torch.as_tensor(spikes))
    before, after = previous[frame + 1].float(), following[frame + 1].float()
    before = torch.where(before < 0, torch.full_like(before, -1.0), before)
    return 1 / (after - before)


def long_input(
    spikes: NDArray[np.uint8] | Tensor, spec: WindowSpec, grouping: Literal["adjacent", "strided"] = "adjacent"
) -> Tensor:
    """Recon-Net's long input [34, H, W] of a context [137, H, W]: its middle left out, summed in fours.

    ``adjacent`` sums neighbours (supplement E); ``strided`` sums frames 34 apart (the released program).
    """
    context = torch.as_tensor(spikes)
    if len(context) != spec.context:
        raise ValueError(f"the long input needs {spec.context} frames, not {len(context)}")
    middle = spec.context // 2
    rest = torch.cat([context[:middle], context[middle + 1 :]]).float()
    if grouping == "adjacent":
        return rest.unflatten(0, (spec.long_channels, spec.long_group)).sum(1)
    return rest.unflatten(0, (spec.long_group, spec.long_channels)).sum(0)


def short_windows(spikes: NDArray[np.uint8] | Tensor, spec: WindowSpec) -> Tensor:
    """Short windows [M, 41, H, W] about every sub-frame of a context [137, H, W]: a view, nothing copied."""
    context = torch.as_tensor(spikes)
    if len(context) != spec.context:
        raise ValueError(f"the short windows need {spec.context} frames, not {len(context)}")
    return context.unfold(0, spec.short, spec.stride).permute(0, 3, 1, 2)


def _neighbours(spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes around every frame boundary 0..T, each [T + 1, H, W] int16.

    Frame of the last spike before the boundary (-1: none), of the first after it (T: none), and the number
    of spikes before it.
    """
    t = len(spikes)
    fired = spikes.bool()
    frames = torch.arange(t, dtype=torch.int16).view(-1, 1, 1)
    edge = spikes.new_zeros((1, *spikes.shape[1:]), dtype=torch.int16)
    last = torch.where(fired, frames, torch.tensor(-1, dtype=torch.int16)).cummax(0).values
    previous = torch.cat([edge - 1, last])
    ahead = torch.where(fired, frames, torch.tensor(t, dtype=torch.int16)).flip(0).cummin(0).values.flip(0)
    following = torch.cat([ahead, edge + t])
    count = torch.cat([edge, spikes.cumsum(0, dtype=torch.int16)])
    return previous, following, count


class CumulativeCharge:
    """Each pixel's charge up to any frame boundary, in spikes, interpolated between spike times.

    A spike read in frame t was fired somewhere in it, so its time is t + 1/2: the unbiased guess.  Before
    the first and after the last spike the charge goes on at the nearest interval's rate, but by less than
    the one spike that did not come; with one spike at one spike a stream, with none at half a spike.

    Args:
        spikes: zeros and ones [T, H, W].
    """

    def __init__(self, spikes: NDArray[np.uint8] | Tensor):
        spikes = torch.as_tensor(spikes)
        self.frames = len(spikes)
        self._previous, self._following, self._count = _neighbours(spikes)
        self._first = self._following[0].float() + 0.5
        self._last = self._previous[-1].float() + 0.5
        self._total = self._count[-1].float()
        self._begin_rate, self._end_rate = self._outer_rates()

    def _outer_rates(self) -> tuple[Tensor, Tensor]:
        """Rates before the first spike and after the last, [H, W]."""
        t = float(self.frames)
        first, last = self._first.long().clamp(max=self.frames - 1), self._last.long().clamp(min=0)
        second = self._following.gather(0, (first + 1)[None])[0].float() + 0.5
        before_last = self._previous.gather(0, last[None])[0].float() + 0.5
        begin = torch.minimum(1 / (second - self._first).clamp_min(1), 1 / self._first.clamp_min(0.5))
        end = torch.minimum(1 / (self._last - before_last).clamp_min(1), 1 / (t - self._last).clamp_min(0.5))
        single = self._total == 1
        return torch.where(single, 1 / t, begin), torch.where(single, 1 / t, end)

    def at(self, boundary: int) -> Tensor:
        """Charge [H, W] at the boundary before frame ``boundary`` (0 at the first spike)."""
        previous = self._previous[boundary].float() + 0.5
        following = self._following[boundary].float() + 0.5
        count = self._count[boundary].float()
        inside = count - 1 + (boundary - previous) / (following - previous)
        before = (boundary - self._first) * self._begin_rate
        after = self._total - 1 + (boundary - self._last) * self._end_rate
        charge = torch.where(count == 0, before, torch.where(count == self._total, after, inside))
        return torch.where(self._total == 0, torch.full_like(charge, 0.5 * boundary / self.frames), charge)


class Targets:
    """Intensity targets of one view.

    Args:
        spikes: the context, with ``margin`` further frames at either end, [context + 2 margin, H, W].
        spec: the window.
        sensor: turns rates into intensities.
        mode: ``counting`` or ``timing``.
        margin: frames beyond the context; timing uses their spikes, so that the ends are as exact as the
            middle.
    """

    def __init__(
        self,
        spikes: NDArray[np.uint8],
        spec: WindowSpec,
        sensor: SensorModel,
        mode: Mode = "counting",
        margin: int = 0,
    ):
        if len(spikes) != spec.context + 2 * margin:
            raise ValueError(
                f"targets need {spec.context} frames and {margin} at either end, not {len(spikes)} in all"
            )
        if mode not in ("counting", "timing"):
            raise ValueError(f"targets are by counting or timing, not {mode!r}")
        self.spec = spec
        self.sensor = sensor
        self.mode = mode
        self.margin = margin
        if mode == "timing":
            self._charge = CumulativeCharge(spikes)
        else:
            totals = torch.as_tensor(spikes).cumsum(0, dtype=torch.int16)
            self._totals = torch.cat([totals.new_zeros(1, *totals.shape[1:]), totals])

    def mean(self, start: int, stop: int) -> Tensor:
        """Mean intensity [H, W] over the context frames [start, stop)."""
        a, b = start + self.margin, stop + self.margin
        if a < 0 or b > self.spec.context + 2 * self.margin or a >= b:
            raise ValueError(f"context frames {start} to {stop} lie outside the {self.spec.context} there are")
        if self.mode == "timing":
            spikes = self._charge.at(b) - self._charge.at(a)
        else:
            spikes = (self._totals[b] - self._totals[a]).float()
        return self.sensor.intensity(spikes / (stop - start))

    def interval(self, a: int, b: int) -> Tensor:
        """Mean intensity [H, W] over the sub-frames a..b, both included."""
        return self.mean(*self.spec.interval(a, b))

    def long_exposure(self) -> Tensor:
        """E(T) [H, W]: the mean over the whole exposure."""
        return self.interval(0, self.spec.subframes - 1)

    def subframes(self, width: int) -> Tensor:
        """Mean intensities [M, H, W] of the ``width`` frames about every sub-frame."""
        return torch.stack([self.mean(*self.spec.window(m, width)) for m in range(self.spec.subframes)])
