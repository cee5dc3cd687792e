"""The best estimate of an instant's image: a render, corrected by the spikes recorded around that instant."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Gain 1 - (margin * v / e)^exponent.  Wiener's filter has 1 and 1.  The variance v is known to a few tenths, so where
# noise explains most of a residual, nothing may be added; a higher exponent returns to the spikes where it does not.
_MARGIN = 1.3
_EXPONENT = 2.5
# A pixel is not believed if its residual differs from its neighborhood's by more than this share of the render, of
# white, and times the median difference (four standard deviations).
_OWN_SHARE = 0.5
_OWN_LEAST = 0.15
_OWN_MEDIANS = 6


def fuse(render: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
    """Move renders [B, C, H, W] toward the spikes by a gain of max(1 - (1.3 v / e)^2.5, 0), one gain per image.

    Of the residual's energy e, the spikes explain v by their own noise, and the rest is the render's error.  If e is
    not clearly larger than v, the render stays as it is.  It also stays where a single pixel contradicts it by half of
    its intensity while the neighbors do not: such a pixel is dead, hot, or had a spurious spike.
    The residual belongs to the spikes' window; adding it to the render at the window's middle keeps that render sharp.

    Args:
        render: renders at the instants, [B, C, H, W].
        residual: the spikes' intensity minus the mean of the renders over the same window, [B, C, H, W].
        variance: variance of the spikes' intensity about the truth (``simulation.twin.target_variance``), [B or 1].
    """
    own = (residual - F.avg_pool2d(residual, 3, 1, 1, count_include_pad=False)).abs()
    usual = own.flatten(1).median(1).values[:, None, None, None]
    limit = torch.maximum((_OWN_SHARE * render).clamp_min(_OWN_LEAST), _OWN_MEDIANS * usual)
    believed = (own <= limit).to(residual)
    energy = (residual.square() * believed).sum((1, 2, 3)) / believed.sum((1, 2, 3)).clamp_min(1)
    gain = (1 - (_MARGIN * variance / energy.clamp_min(1e-24)) ** _EXPONENT).clamp_min(0)
    return render + gain[:, None, None, None] * residual * believed
