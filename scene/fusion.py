"""The best estimate of an instant's image: a render, corrected by the spikes recorded around that instant."""

from __future__ import annotations

from torch import Tensor

# Factor on the expected standard deviation of the noise in the fusion gain: 1.5 and 2 are within 0.3 dB on rendered
# scenes (benchmarks/recipe.md).
CAUTION = 1.5


def fuse(render: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
    """Move renders [B, C, H, W] toward the spikes by a gain of e^2 / (e^2 + (1.5 v)^2), one gain per image.

    A Kalman filter's gain is p / (p + v), with p the error of the render and v that of the spikes.  The larger the
    residual's energy e, the larger the share of it that is the render's error.  If e is no more than noise explains,
    the scene, which was fitted to the same spikes, has absorbed some of their noise, and the gain should be small.
    If e is much larger, the scene is wrong and the spikes are right.  The residual belongs to the spikes' window;
    adding it to the render at the window's middle keeps that render sharp.

    Args:
        render: renders at the instants, [B, C, H, W].
        residual: the spikes' intensity minus the mean of the renders over the same window, [B, C, H, W].
        variance: expected variance of the spikes' intensity (``Targets.variance``), [B or 1].
    """
    energy = residual.square().mean((1, 2, 3)).square()
    noise = (CAUTION * variance).square()
    gain = energy / (energy + noise).clamp_min(1e-24)
    return render + gain[:, None, None, None] * residual
