"""Intensity targets from a spike stream: by counting spikes in windows, or from spike timing.

*Counting* (the paper): number of spikes in the window divided by its length; off by up to one spike.  *Timing*:
a pixel's cumulative charge grows by one from spike to spike.  It is interpolated linearly between their times and
differenced over the window, which removes most of that error without a longer window (``spike.timing``).
``benchmarks/targets.py`` prints the errors of both.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike.sensor import SensorModel
from spike.timing import Guide, estimate_spurious_rate, frame_charge
from spike.window import WindowSpec

Mode = Literal["counting", "timing"]
Grouping = Literal["adjacent", "strided"]

# Half-width in frames of the triangle that smooths a sub-frame's window: best on rendered scenes with moving
# cameras, where 6 to 14 stayed within 0.7 dB.
SMOOTHING = 10
# Share of the spurious spikes that the rhythm test misses (simulated, all intensities).
_MISSED_SPURIOUS = 0.3


def tfp(spikes: NDArray[np.uint8] | Tensor, start: int, stop: int) -> Tensor:
    """Texture from playback: firing rate [H, W] counted over the frames [start, stop) of [T, H, W]."""
    if not 0 <= start < stop <= len(spikes):
        raise ValueError(f"frames {start} to {stop} lie outside the stream's {len(spikes)} frames")
    return torch.as_tensor(spikes[start:stop]).float().mean(0)


def tfi(spikes: NDArray[np.uint8] | Tensor, frame: int) -> Tensor:
    """Texture from interval: 1 / (interval between the spikes around ``frame``) [H, W] of [T, H, W].

    A pixel without a spike on one side gets the reciprocal of the frames it has waited so far.  Spurious spikes
    shorten few intervals, so subtracting their mean rate would make most pixels too dark.
    """
    stream = np.asarray(spikes).astype(bool)
    if not 0 <= frame < len(stream):
        raise ValueError(f"frame {frame} lies outside the stream's {len(stream)} frames")
    earlier, later = stream[: frame + 1][::-1], stream[frame + 1 :]
    before = np.where(earlier.any(0), frame - earlier.argmax(0), -1)
    if len(later):
        after = np.where(later.any(0), frame + 1 + later.argmax(0), len(stream))
    else:
        after = np.full_like(before, len(stream))
    return torch.from_numpy(1 / (after - before).astype(np.float32))


def long_input(
    spikes: NDArray[np.uint8] | Tensor,
    spec: WindowSpec,
    grouping: Grouping = "adjacent",
) -> Tensor:
    """Recon-Net's long input [34, H, W] from a context [137, H, W]: frames summed in fours, middle frame left out.

    ``adjacent`` sums neighboring frames (supplement E); ``strided`` sums frames 34 apart (the released program).
    """
    context = torch.as_tensor(spikes)
    if len(context) != spec.context:
        raise ValueError(f"the long input needs {spec.context} frames, not {len(context)}")
    middle = spec.context // 2
    if grouping not in get_args(Grouping):
        raise ValueError(f"the grouping of the long input must be {' or '.join(get_args(Grouping))}, not {grouping!r}")
    rest = torch.cat([context[:middle], context[middle + 1 :]]).float()
    if grouping == "adjacent":
        return rest.unflatten(0, (spec.long_channels, spec.long_group)).sum(1)
    return rest.unflatten(0, (spec.long_group, spec.long_channels)).sum(0)


def short_windows(spikes: NDArray[np.uint8] | Tensor, spec: WindowSpec) -> Tensor:
    """Short windows [M, 41, H, W] around every sub-frame of a context [137, H, W]; a view, without copying."""
    context = torch.as_tensor(spikes)
    if len(context) != spec.context:
        raise ValueError(f"the short windows need {spec.context} frames, not {len(context)}")
    if spec.subframes == 1:
        return context[slice(*spec.window(0, spec.short))][None]
    return context.unfold(0, spec.short, spec.stride).permute(0, 3, 1, 2)


def window_weights(frames: int, start: int, stop: int, smoothing: int) -> NDArray[np.float32]:
    """Weights [T], summing to one, of the window [start, stop) smoothed by a triangle of +-``smoothing`` frames.

    Weight beyond the stream goes to its first or last frame: light there is assumed to be constant.
    """
    box = np.zeros(frames + 2 * smoothing)
    box[start + smoothing : stop + smoothing] = 1 / (stop - start)
    triangle = np.bartlett(2 * smoothing + 1)[1:-1] if smoothing > 1 else np.ones(1)
    wide = np.convolve(box, triangle / triangle.sum(), mode="same")
    weights = wide[smoothing : smoothing + frames].copy()
    weights[0] += wide[:smoothing].sum()
    weights[-1] += wide[smoothing + frames :].sum()
    return weights.astype(np.float32)


def window_quadrature(width: int, mode: Mode, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes [P] (frames from a sub-frame's middle) and weights [P] that approximate the mean over its window.

    Gaussian quadrature for the window's weights (Golub and Welsch 1969): exact if light changes as a polynomial
    in time of degree 2 P - 1 or less.
    """
    smoothing = SMOOTHING if mode == "timing" else 0
    reach = width // 2 + smoothing
    density = window_weights(2 * reach + 1, smoothing, smoothing + width, smoothing).astype(np.float64)
    if not 1 <= points <= np.count_nonzero(density):
        raise ValueError(f"a window of {width} frames allows 1 to {np.count_nonzero(density)} points, not {points}")
    frames = np.arange(-reach, reach + 1.0)
    # Orthogonal polynomials of a symmetric density: p_k+1 = x p_k - b_k p_k-1.
    before, now, norms = np.zeros_like(frames), np.ones_like(frames), [density.sum()]
    for _ in range(points - 1):
        b = norms[-1] / norms[-2] if len(norms) > 1 else 0.0
        before, now = now, frames * now - b * before
        norms.append(float((density * now**2).sum()))
    beside = np.sqrt(np.divide(norms[1:], norms[:-1]))
    nodes, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    return nodes, vectors[0] ** 2


class Targets:
    """Intensity targets of one view.

    Args:
        spikes: the context with ``margin`` more frames at either end, [context + 2 margin, H, W].
        spec: the window.
        sensor: converts rates to intensities.
        mode: ``counting`` or ``timing``.  Timing drops spikes that break their pixel's rhythm as spurious, if
            the sensor has a spurious rate or one is found in the stream.  Counting subtracts the sensor's rate.
        margin: frames beyond the context at either end; timing uses their spikes, so that the ends are as exact
            as the middle.
        guide: how the pixels' light changes over the given frames, in spikes per frame (timing only); None: constant
            between two spikes.
    """

    def __init__(
        self,
        spikes: NDArray[np.uint8],
        spec: WindowSpec,
        sensor: SensorModel,
        mode: Mode = "counting",
        margin: int = 0,
        guide: Guide | None = None,
    ):
        if len(spikes) != spec.context + 2 * margin:
            raise ValueError(
                f"targets need {spec.context} frames and {margin} at either end, not {len(spikes)} in all"
            )
        if mode not in get_args(Mode):
            raise ValueError(f"the mode of targets must be counting or timing, not {mode!r}")
        sensor.check_size(*spikes.shape[1:])
        self.spec = spec
        self.sensor = sensor
        self.mode = mode
        self.margin = margin
        self._size = spikes.shape[1:]
        if mode == "timing":
            self.spurious_rate = sensor.spurious_rate or estimate_spurious_rate(spikes, light_known=guide is not None)
            self._charge = torch.from_numpy(frame_charge(spikes, self.spurious_rate, guide))  # [H * W, T]
        else:
            self.spurious_rate = sensor.spurious_rate
            kind = torch.int16 if len(spikes) <= torch.iinfo(torch.int16).max else torch.int32
            totals = torch.as_tensor(spikes).cumsum(0, dtype=kind)
            self._totals = torch.cat([totals.new_zeros(1, *totals.shape[1:]), totals])

    def mean(self, start: int, stop: int) -> Tensor:
        """Mean intensity [H, W] over the context frames [start, stop)."""
        return self._means([(start, stop)], smoothing=0)[0]

    def interval(self, a: int, b: int) -> Tensor:
        """Mean intensity [H, W] from sub-frame ``a`` to sub-frame ``b``, both included."""
        return self.mean(*self.spec.interval(a, b))

    def long_exposure(self) -> Tensor:
        """Mean over the whole exposure, E(T) [H, W]."""
        return self.interval(0, self.spec.subframes - 1)

    def subframes(self, width: int, smoothing: int = SMOOTHING) -> Tensor:
        """Mean intensities [M, H, W] of the ``width`` frames around every sub-frame.

        Args:
            width: odd number of frames.
            smoothing: half-width in frames of the triangle that smooths the window (timing only).  It averages
                the readout error of the spikes; 0 for the exact window.
        """
        windows = [self.spec.window(m, width) for m in range(self.spec.subframes)]
        return self._means(windows, smoothing)

    def around(self, frame: int, width: int, smoothing: int = SMOOTHING) -> Tensor:
        """Mean intensity [H, W] of the ``width`` (odd) frames around a context frame; see ``subframes``."""
        return self._means([(frame - width // 2, frame + width // 2 + 1)], smoothing)[0]

    def variance(self, means: Tensor, width: int, smoothing: int = SMOOTHING) -> Tensor:
        """Expected variance [M, H, W] of ``means = subframes(width, smoothing)`` around the true mean intensity.

        Assumes regular spikes with random phase.  Counting n = rate * width spikes has variance f(1 - f), where f
        is the fractional part of n; the average is 1/6.  With timing, each spike's charge is off by its readout
        time, with variance rate^2 / 12, weighted by the window's slope at its ends.  Spurious spikes that were
        not removed add their own variance.
        """
        rate = means * self._gain() + self.sensor.dark()
        rate = rate.clamp(0.5 / (self.spec.context + 2 * self.margin), 1)
        if self.mode == "counting":
            variance = torch.full_like(rate, 1 / (6 * width**2)) + self.spurious_rate / width
        else:
            hard = 4 / (3 * width**2) * rate.square()  # two ends, each between two independent spikes
            weights = window_weights(width + 4 * smoothing + 4, *_centered(width, smoothing), smoothing)
            soft = float(np.square(np.diff(weights)).sum()) * rate
            spread = float(np.square(weights).sum())  # 1 / width of a hard window
            variance = torch.minimum(hard, soft) / 12 + _MISSED_SPURIOUS * self.spurious_rate * spread
        return variance / self._gain().square()

    def _gain(self) -> Tensor:
        gain = torch.tensor(self.sensor.gain)
        return gain if self.sensor.gain_map is None else gain * self.sensor.gain_map

    def _means(self, windows: list[tuple[int, int]], smoothing: int) -> Tensor:
        """Mean intensities [len(windows), H, W] over context frames."""
        frames = self.spec.context + 2 * self.margin
        inner = [(start + self.margin, stop + self.margin) for start, stop in windows]
        for (start, stop), (a, b) in zip(windows, inner, strict=True):
            if not 0 <= a < b <= frames:
                raise ValueError(f"frames {start} to {stop} lie outside the context's {self.spec.context}")
        if self.mode == "counting":
            rate = torch.stack([(self._totals[b] - self._totals[a]).float() / (b - a) for a, b in inner])
            return self.sensor.intensity(rate)
        weights = np.stack([window_weights(frames, a, b, smoothing) for a, b in inner])
        rate = (torch.from_numpy(weights) @ self._charge.T).reshape(-1, *self._size)
        return self.sensor.intensity(rate, spurious_left=False)


def _centered(width: int, smoothing: int) -> tuple[int, int]:
    return 2 * smoothing + 2, 2 * smoothing + 2 + width
