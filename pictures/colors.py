"""Converts values to images for display: intensities, depths, opacities and errors, in gray or in color.

Images are float32 arrays [H, W, 3] in [0, 1] unless stated otherwise.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.float32]
# Absolute error that is shown in the brightest color.
ERROR_TOP = 0.25
# Standard deviation of an unknown intensity: uniform from black to white.
UNKNOWN = 12**-0.5
# Standard deviations that are shown in the darkest and in the brightest color.
DEVIATIONS = (0.003, UNKNOWN)


def rgb(image: Tensor) -> Image:
    """Convert intensities [C, H, W] to an image; one channel becomes gray."""
    array = image.detach().cpu().clamp(0, 1).float().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(array)


def limits(image: Tensor | NDArray[np.floating]) -> tuple[float, float]:
    """Values to show as black and as white; the darkest and the brightest half percent lie outside."""
    low, high = np.percentile(np.asarray(image, np.float32), [0.5, 99.5])
    return float(low), float(high)


def stretched(
    image: Tensor | NDArray[np.floating], between: tuple[float, float] | None = None, gamma: float = 0.7
) -> NDArray[np.float32]:
    """Stretch an image [H, W] or [H, W, 3] from ``between`` (default: its ``limits``) to [0, 1] and apply ``gamma``."""
    low, high = limits(image) if between is None else between
    array = np.asarray(image, np.float32)
    return np.asarray(((array - low) / max(high - low, 1e-6)).clip(0, 1) ** gamma, np.float32)


def three_channels(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """An image [H, W], [H, W, 1] or [H, W, 3] as [H, W, 3]."""
    image = image[..., None] if image.ndim == 2 else image
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def _colored(level: NDArray[np.floating], table: int) -> Image:
    """Map values [H, W] in [0, 1] to colors with one of OpenCV's color maps."""
    colors = cv2.applyColorMap((np.nan_to_num(level).clip(0, 1) * 255).round().astype(np.uint8), table)
    return (colors[..., ::-1] / np.float32(255)).astype(np.float32)


def depth_range(depth: Tensor, alpha: Tensor) -> tuple[float, float]:
    """Nearest and farthest depth to show in color (2nd and 98th percentile of the mostly covered pixels)."""
    solid = depth[(alpha > 0.5) & (depth > 0)].flatten()
    if not len(solid):
        return 1.0, 2.0
    # A sample is enough, and torch.quantile accepts at most 2^24 values.
    values = solid[:: max(len(solid) // 100_000, 1)].float()
    near, far = (float(values.quantile(q)) for q in (0.02, 0.98))
    return near, max(far, near * 1.001)


def depth_colors(depth: Tensor, alpha: Tensor, near: float, far: float) -> Image:
    """Expected depths [1, H, W] as colors, linear in 1 / depth: near is bright, uncovered pixels are black."""
    inverse = (1 / depth[0].clamp_min(1e-6) - 1 / far) / (1 / near - 1 / far)
    return _colored(inverse.cpu().numpy(), cv2.COLORMAP_TURBO) * alpha[0].clamp(0, 1).cpu().numpy()[..., None]


def opacity_colors(alpha: Tensor) -> Image:
    """Coverage [1, H, W] as colors: black is a hole, bright is opaque."""
    return _colored(alpha[0].cpu().numpy(), cv2.COLORMAP_VIRIDIS)


def deviation_colors(deviation: Tensor) -> Image:
    """Standard deviations of intensity [1, H, W] as colors, linear in their logarithm: dark means certain.

    The range is from ``DEVIATIONS[0]`` (or less) to ``UNKNOWN``, the value of pixels that no view has seen.
    """
    low, high = (math.log(value) for value in DEVIATIONS)
    level = (deviation[0].clamp_min(1e-6).log() - low) / (high - low)
    return _colored(level.cpu().numpy(), cv2.COLORMAP_INFERNO)


def error_colors(image: Image, truth: Image) -> Image:
    """Absolute difference of two images, [H, W] or [H, W, 3], as colors; the brightest is ``ERROR_TOP`` or more."""
    error = np.abs(three_channels(image) - three_channels(truth)).mean(-1)
    return _colored(error / ERROR_TOP, cv2.COLORMAP_MAGMA)
