"""The losses of USP-Gaussian, as pure functions of images.

Symbols follow the paper: E(T) is the long exposure, I_gs a render, I_rec a Recon-Net frame, M the number of sub-frames.
Images are [M, C, H, W] (or [C, H, W] for one), intensities in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from utils.image_metrics import l1, ssim


def photometric_loss(images: Tensor, targets: Tensor, dssim: float = 0.2) -> Tensor:
    """``(1 - dssim) L1 + dssim (1 - SSIM)`` of images [B, C, H, W], the 3DGS mixture."""
    loss = (1 - dssim) * l1(images, targets)
    if dssim:
        loss = loss + dssim * (1 - ssim(images, targets))
    return loss


def exposure_loss(renders: Tensor, long_exposure: Tensor, dssim: float = 0.2) -> Tensor:
    """L_gs: compare the mean of the M renders [M, C, H, W] with E(T) [C, H, W] (eq. 9 of the paper)."""
    return photometric_loss(renders.mean(0, keepdim=True), long_exposure[None], dssim)


def half_widths(subframes: int, multi_interval: bool = True) -> list[int]:
    """Half-widths k of the reblur intervals c-k..c+k around the middle sub-frame c: 3..6 for M = 13."""
    widest = (subframes - 1) // 2
    narrowest = min(max(subframes // 4, 1), widest) if multi_interval else widest
    return list(range(narrowest, widest + 1))


def reblur_loss(frames: Tensor, interval: Callable[[int, int], Tensor], widths: Sequence[int]) -> Tensor:
    """L_rec: compare Recon-Net's frames, averaged over sub-intervals, with the mean of the spikes there.

    Args:
        frames: Recon-Net frames [M, C, h, w].
        interval: function that returns the target mean [C, h, w] over sub-frames a to b (inclusive).
        widths: half-widths k; the loss is the mean over them.
    """
    middle = (len(frames) - 1) // 2
    terms = [l1(frames[middle - k : middle + k + 1].mean(0), interval(middle - k, middle + k)) for k in widths]
    return torch.stack(terms).mean()


def joint_loss(renders: Tensor, frames: Tensor, flip: bool = True) -> Tensor:
    """L_joint: compare each render with the Recon-Net frame of the same sub-frame, averaged over M.

    A blurred mean does not determine the direction of time.  With ``flip``, the loss is the smaller of the two
    pairings, in order and reversed; the sub-frames must then be symmetric about the middle.
    """
    forward = l1(renders, frames)
    if not flip:
        return forward
    return torch.minimum(forward, l1(renders, frames.flip(0)))


# Where a difference is no longer noise, in standard deviations of the targets (0.03 for 9 frames of spike timing).
BEYOND_NOISE = 1.4


def subframe_loss(renders: Tensor, targets: Tensor, variance: Tensor) -> Tensor:
    """L_sub: compare every render with the intensity of the spikes in a narrow window around its instant.

    Charbonnier's sqrt(d^2 + n^2) - n (1994).  It is quadratic within the targets' noise n, where the mean is the best
    estimate (for counts the only valid one, since their median differs).  It is absolute beyond the noise, where a
    difference is due to a spurious spike.

    Args:
        renders, targets: [B, C, H, W].
        variance: expected variance of the targets, [B].
    """
    noise = BEYOND_NOISE * variance.sqrt()[:, None, None, None]
    return (((renders - targets).square() + noise.square()).sqrt() - noise).mean()


def scale_ratio_penalty(scales: Tensor, largest: float = 10.0) -> Tensor:
    """Mean excess over ``largest`` of each Gaussian's axis ratio, longest to shortest (PhysGaussian eq. 17).

    ``scales`` [N, 3].
    """
    ratio = scales.amax(-1) / scales.amin(-1)
    return (ratio.clamp_min(largest) - largest).mean()
