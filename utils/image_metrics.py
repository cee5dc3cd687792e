"""Comparing images: L1, PSNR, SSIM, and the gain that best matches one image to another."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F


def l1(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, optionally weighted per pixel (weights with mean 1)."""
    difference = (a - b).abs()
    return (difference if weight is None else difference * weight).mean()


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB [B] of images [B, C, H, W] with peak 1."""
    return -10 * torch.log10((image - truth).square().flatten(1).mean(1).clamp_min(1e-12))


@functools.lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    x = torch.arange(size, dtype=dtype, device=device) - size // 2
    window = torch.exp(-x.square() / (2 * sigma**2))
    return window / window.sum()


def _blur(x: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussian means of [B, 1, H, W] with zero padding, as in 3DGS's SSIM: rows, then columns."""
    window = _gaussian(size, sigma, x.device, x.dtype)
    x = F.conv2d(x, window.view(1, 1, 1, -1), padding=(0, size // 2))
    return F.conv2d(x, window.view(1, 1, -1, 1), padding=(size // 2, 0))


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of every pixel [B, C, H, W] (Wang et al. 2004: 11x11 Gaussian, sigma 1.5).

    Args:
        image: images [B, C, H, W].
        truth: the true images [B, C, H, W], or one for all [1, C, H, W].
    """
    size, own, (h, w) = image.shape, truth.shape, image.shape[2:]
    stacked = torch.cat([x.reshape(-1, 1, h, w) for x in (image, image * image, image * truth, truth, truth * truth)])
    n, m = image.shape[:2].numel(), truth.shape[:2].numel()
    parts = _blur(stacked, 11, 1.5).split([n, n, n, m, m])
    (mx, xx, xy), (my, yy) = ([x.reshape(size) for x in parts[:3]], [x.reshape(own) for x in parts[3:]])
    c1, c2 = 0.01**2, 0.03**2
    covariance, vx, vy = xy - mx * my, xx - mx * mx, yy - my * my
    return ((2 * mx * my + c1) * (2 * covariance + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Mean structural similarity of images [B, C, H, W]; differentiable."""
    return ssim_map(image, truth).mean()


def gain_match(image: Tensor, truth: Tensor) -> tuple[Tensor, float]:
    """The image scaled by the factor that minimizes its distance to the truth, and that factor."""
    gain = float((image * truth).sum() / image.square().sum().clamp_min(1e-12))
    return image * gain, gain
