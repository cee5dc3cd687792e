"""The best estimate of an instant's image: a render, corrected by the spikes recorded around that instant."""

from __future__ import annotations

from torch import Tensor

# Exponent of v / e in the gain.  1 is Wiener's filter; on rendered scenes the best gains, which only the truth shows,
# lay between 1.3 and 1.5, because the scene has absorbed a part of the noise.
_EXPONENT = 1.5


def fuse(render: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
    """Move renders [B, C, H, W] toward the spikes by a gain of max(1 - (v / e)^1.5, 0), one gain per image.

    Of the residual's energy e, the spikes explain v by their own noise, and the rest is the render's error.  If e is
    no larger than v, the render stays as it is.  The residual belongs to the spikes' window; adding it to the render
    at the window's middle keeps that render sharp.

    Args:
        render: renders at the instants, [B, C, H, W].
        residual: the spikes' intensity minus the mean of the renders over the same window, [B, C, H, W].
        variance: variance of the spikes' intensity about the truth (``simulation.twin.target_variance``), [B or 1].
    """
    energy = residual.square().mean((1, 2, 3))
    gain = (1 - (variance / energy.clamp_min(1e-24)) ** _EXPONENT).clamp_min(0)
    return render + gain[:, None, None, None] * residual
