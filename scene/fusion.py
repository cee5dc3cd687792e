"""The best picture of a moment: a render, corrected by what the spikes of that moment say against it."""

from __future__ import annotations

from torch import Tensor

# The noise that a residual is held against, in its expected standard deviations: 1.5 and 2 are within 0.3 dB
# on rendered scenes (benchmarks/recipe.md).
CAUTION = 1.5


def fuse(render: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
    """Renders [B, C, H, W] moved toward the spikes by a gain of e^2 / (e^2 + (1.5 v)^2), one for each picture.

    A Kalman filter's gain is p / (p + v), p the error of the render and v of the spikes.  Of the residual's
    energy e the share that is the render's error grows with e: while e is what noise alone makes, the scene,
    which was fitted to those very spikes, has taken up some of their noise, and little should be given back
    to it; where e is much more, the scene is wrong and the spikes are right.  The residual is of the spikes'
    window; adding it to the render at the window's middle leaves that sharp.

    Args:
        render: at the instants, [B, C, H, W].
        residual: the spikes' intensity less the renders' mean over the same window, [B, C, H, W].
        variance: expected variance of the spikes' intensity (``Targets.variance``), [B or 1].
    """
    energy = residual.square().mean((1, 2, 3)).square()
    noise = (CAUTION * variance).square()
    gain = energy / (energy + noise).clamp_min(1e-24)
    return render + gain[:, None, None, None] * residual
