"""Plots of points and lines."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.colors import Image

Floats = NDArray[np.floating]


def plot(
    lines: Sequence[tuple[Floats, Floats, tuple[float, float, float], bool]],
    size: tuple[int, int],
    square: bool = False,
) -> Image:
    """Plot points and lines [n], given as (x, y, RGB, joined), in one image of ``size`` (width, height)."""
    width, height = size
    page = np.full((height, width, 3), 255, np.uint8)
    # Lines are shown completely, loose points without the far outliers.
    ends = np.array([
        [np.nanpercentile(line[axis], p) for axis in (0, 1)]
        for line in lines if len(line[0]) for p in ((0, 100) if line[3] else (4, 96))
    ])  # fmt: skip
    low = ends.min(0)
    scale = np.array([width - 40, height - 40]) / np.maximum(ends.max(0) - low, 1e-9)
    if square:
        scale[:] = scale.min()
    for xs, ys, color, joined in lines:
        at = (np.stack([xs, ys], -1) - low) * scale
        pixels = np.nan_to_num(np.stack([20 + at[:, 0], height - 20 - at[:, 1]], -1)).clip(-9999, 9999).astype(np.int32)
        shade = tuple(int(255 * c) for c in color)
        if joined:
            cv2.polylines(page, [pixels.reshape(-1, 1, 2)], False, shade, 1, cv2.LINE_AA)
        for px in pixels:
            cv2.circle(page, (int(px[0]), int(px[1])), 3 if joined else 1, shade, -1, cv2.LINE_AA)
    return np.asarray(page / np.float32(255), np.float32)
