"""A sensor's fixed pattern from the scene itself: no flat field needed.

Pixels differ in sensitivity by some percent.  A trained scene predicts what every pixel saw in every view;
what its measurements have in common against those predictions, over views that show it different things, is
the pixel's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from spike.sensor import LEAST_GAIN, SensorModel

# Renders err by some hundredths; a pixel that only ever saw less light than this says nothing of its gain.
_LEAST_LIGHT = 0.05


@dataclass
class FixedPattern:
    """Relative gain of each pixel, gathered view by view in their order, shrunk by how far two halves of them agree."""

    _moments: list[Tensor] = field(default_factory=list)

    def add(self, measured: Tensor, predicted: Tensor) -> None:
        """One view's measured intensities and predictions [M, 1, H, W]."""
        cross, power = (measured * predicted).sum((0, 1)), predicted.square().sum((0, 1))
        self._moments.append(torch.stack([cross, power]) / len(measured))

    def gain(self) -> tuple[Tensor, float]:
        """Relative gain [H, W], mean near 1, and the standard deviation between pixels that the views agree on.

        Every pixel's least-squares factor is drawn toward 1 by the share of its variance that is signal
        (Wiener).  The first and the second half of the views tell the two apart: their errors are independent
        (neighboring views', which show the same things in the same pixels, are not), the pattern is the same.
        No pattern, fewer than four views, or no pixel with light in both halves: 1 everywhere and 0.  Dead
        pixels have 1.
        """
        moments = torch.stack(self._moments)
        if len(moments) < 4:
            return torch.ones_like(moments[0, 0]), 0.0
        middle = len(moments) // 2
        halves = torch.stack([self._factor(moments[:middle]), self._factor(moments[middle:])])
        clear = halves.isfinite().all(0)
        if not clear.any():
            return torch.ones_like(halves[0]), 0.0
        a, b = (half[clear] - half[clear].median() for half in halves)
        # A few pixels see an edge that the scene renders wrongly; they must not pass for the pattern of all.
        limit = 4 * 1.4826 * torch.cat([a, b]).abs().median()
        a, b = a.clamp(-limit, limit), b.clamp(-limit, limit)
        signal = float((a * b).mean())
        noise = float((a - b).square().mean()) / 4  # of the mean of both halves
        if signal <= 0:
            return torch.ones_like(halves[0]), 0.0
        factor = self._factor(moments)
        factor = factor / factor[clear].median()
        factor = torch.where(clear & (factor >= LEAST_GAIN), factor, torch.ones_like(factor))
        return 1 + (factor - 1) * signal / (signal + noise), signal**0.5

    @staticmethod
    def _factor(moments: Tensor) -> Tensor:
        """Measured over predicted [H, W] of some views' moments [V, 2, H, W]; NaN where there was no light."""
        cross, power = moments.sum(0)
        dark = power < len(moments) * _LEAST_LIGHT**2
        return torch.where(dark, torch.nan, cross / power)

    def applied_to(self, sensor: SensorModel) -> SensorModel:
        """``sensor`` with this pattern on top of its own gain map."""
        gain, _ = self.gain()
        own = torch.ones_like(gain) if sensor.gain_map is None else sensor.gain_map.to(gain)
        return replace(sensor, gain_map=(own * gain).cpu())
