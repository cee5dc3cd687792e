"""A sensor's fixed pattern, estimated from the scene itself: no flat field needed.

Pixels differ in sensitivity by a few percent.  A trained scene predicts what every pixel saw in every view.
A deviation from the prediction that a pixel shows in all views, whatever they show it, is its fixed pattern.

Only differences between neighboring pixels count.  While it is being trained, a scene may be a percent too bright in
one part of all images and too dark in another.  Taken for a pattern, such an error would stay, because the scene is
then compared with targets that have it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from spike.sensor import LEAST_GAIN, SensorModel
from spike.stuck import without

# Renders are off by a few hundredths; pixels that never saw more light than this say nothing about their gain.
_LEAST_LIGHT = 0.05
# A pixel is compared with a Gaussian mean of its neighborhood of this standard deviation, pixels.
_NEIGHBORHOOD = 3.0


class FixedPattern:
    """Gain of each pixel relative to its neighborhood, accumulated view by view, shrunk by how well two halves agree.

    Args:
        views: number of views that will be added.
        stuck: mask [H, W] of the dead and hot pixels, which have gain 1; None: there are none.
    """

    def __init__(self, views: int, stuck: Tensor | None = None):
        self.views = views
        self._stuck = stuck
        self._added = 0
        # Sums of the moments [2, H, W] over each half of the views.
        self._halves = [torch.zeros(2, 1, 1), torch.zeros(2, 1, 1)]

    def add(self, measured: Tensor, predicted: Tensor) -> None:
        """Add one view's measured intensities and predictions [M, 1, H, W]."""
        cross, power = (measured * predicted).sum((0, 1)), predicted.square().sum((0, 1))
        half = int(self._added >= self.views // 2)
        self._halves[half] = self._halves[half] + torch.stack([cross, power]).cpu() / len(measured)
        self._added += 1

    def gain(self) -> tuple[Tensor, float]:
        """Relative gain [H, W] with a mean near 1, and the pattern's standard deviation over pixels.

        Every pixel's least-squares factor is shrunk toward 1 according to the signal's share of the variance
        (Wiener).  Comparing the first and the second half of the views separates signal from noise: both halves
        have the same pattern and independent errors.  (Neighboring views show the same content in the same
        pixels, so their errors are not independent.)  With no pattern, fewer than four views, or no pixel with
        light in both halves, the gain is 1 everywhere and the deviation 0.  Dead pixels have gain 1.

        Raises:
            ValueError: not all views were added.
        """
        if self._added != self.views:
            raise ValueError(f"{self._added} of {self.views} views were added")
        # No power: as if there were no light.
        self._halves = [without(self._stuck, half) for half in self._halves]
        moments, early = self._halves[0] + self._halves[1], self.views // 2
        if self.views < 4:
            return torch.ones_like(moments[0]), 0.0
        counts = (early, self.views - early)
        halves = torch.stack([self._factor(half, n) for half, n in zip(self._halves, counts, strict=True)])
        clear = halves.isfinite().all(0)
        if not clear.any():
            return torch.ones_like(halves[0]), 0.0
        a, b = ((_local(half, clear) - 1)[clear] for half in halves)
        # A few pixels see an edge that the scene renders wrongly; these outliers must not count as the pattern.
        limit = 4 * 1.4826 * torch.cat([a, b]).abs().median()
        a, b = a.clamp(-limit, limit), b.clamp(-limit, limit)
        signal = float((a * b).mean())
        noise = float((a - b).square().mean()) / 4  # of the mean of both halves
        if signal <= 0:
            return torch.ones_like(halves[0]), 0.0
        factor = _local(self._factor(moments, self.views), clear)
        factor = torch.where(clear & (factor >= LEAST_GAIN), factor, torch.ones_like(factor))
        return 1 + (factor - 1) * signal / (signal + noise), signal**0.5

    @staticmethod
    def _factor(moments: Tensor, views: int) -> Tensor:
        """Ratio of measured to predicted intensity [H, W] from the sums [2, H, W] of some views' moments.

        NaN where there was no light.
        """
        cross, power = moments
        dark = power < views * _LEAST_LIGHT**2
        return torch.where(dark, torch.nan, cross / power)

    def applied_to(self, sensor: SensorModel) -> SensorModel:
        """``sensor`` with its gain map multiplied by this pattern."""
        gain, _ = self.gain()
        own = torch.ones_like(gain) if sensor.gain_map is None else sensor.gain_map.to(gain)
        return replace(sensor, gain_map=(own * gain).cpu())


def _local(factor: Tensor, clear: Tensor) -> Tensor:
    """Factors [H, W] divided by the mean of their neighborhoods, in which only the pixels ``clear`` [H, W] count."""
    known = torch.where(clear, factor, torch.zeros_like(factor)).numpy()
    total, count = (gaussian_filter(values, _NEIGHBORHOOD) for values in (known, clear.to(factor).numpy()))
    return factor * torch.from_numpy(count / total.clip(1e-12))
