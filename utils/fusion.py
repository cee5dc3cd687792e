"""The best picture of a moment: a render, corrected by what the spikes of that moment say against it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

# Pixels either way over which a render's error is taken as alike, and the spikes' noise that it is held
# against: 4 to 16 pixels and 1 to 4 are within 0.3 dB on rendered scenes (benchmarks/recipe.md).
REACH = 8
CAUTION = 2.0


def fuse(render: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
    """Renders [B, C, H, W] moved towards the spikes by a gain of e / (e + 2 v), as a Kalman filter's update.

    e is the residual's energy in the neighbourhood and v the spikes' own noise there.  Where the residual is
    what noise alone makes (e = v), a third of it is real: the scene, which was fitted to those spikes, has
    taken up some of their noise.  Where it is much more, the scene is wrong and the spikes are right.
    The residual is of the spikes' window; adding it to the render at the window's middle leaves that sharp.

    Args:
        render: at the instants, [B, C, H, W].
        residual: the spikes' intensity less the renders' mean over the same window, [B, C, H, W].
        variance: expected variance of the spikes' intensity (``Targets.variance``), [B or 1, C, H, W].
    """
    energy = _around(residual.square())
    noise = CAUTION * _around(variance)
    return render + energy / (energy + noise).clamp_min(1e-12) * residual


def _around(x: Tensor) -> Tensor:
    """Means over squares of ``REACH`` pixels either way, cut at the edges of [B, C, H, W]."""
    side = 2 * REACH + 1
    return F.avg_pool2d(x, side, 1, REACH, count_include_pad=False)
