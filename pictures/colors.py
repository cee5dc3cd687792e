"""Pictures for people: depths, opacities and errors as colours; two pictures beside or over each other.

Images are float32 arrays [H, W, 3] in [0, 1] unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pictures.comparison import ERROR_TOP

Image = NDArray[np.float32]
# Standard deviation of an intensity of which nothing is known: anything from black to white, equally likely.
UNKNOWN = 12**-0.5
# Standard deviations that are drawn in the darkest and in the brightest colour.
DEVIATIONS = (0.003, UNKNOWN)


def rgb(image: Tensor) -> Image:
    """A picture from intensities [C, H, W]; one channel becomes grey."""
    array = image.detach().cpu().clamp(0, 1).float().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(array)


def _colored(level: NDArray[np.floating], table: int) -> Image:
    """Values [H, W] in 0..1 through one of OpenCV's colour tables."""
    colors = cv2.applyColorMap((np.nan_to_num(level).clip(0, 1) * 255).round().astype(np.uint8), table)
    return (colors[..., ::-1] / np.float32(255)).astype(np.float32)


def depth_range(depth: Tensor, alpha: Tensor) -> tuple[float, float]:
    """Nearest and farthest depth worth a colour (2nd and 98th percentile of what is mostly covered)."""
    solid = depth[(alpha > 0.5) & (depth > 0)].flatten()
    if not len(solid):
        return 1.0, 2.0
    # A sample is enough, and torch.quantile takes no more than 2^24 values.
    values = solid[:: max(len(solid) // 100_000, 1)].float()
    near, far = (float(values.quantile(q)) for q in (0.02, 0.98))
    return near, max(far, near * 1.001)


def depth_colors(depth: Tensor, alpha: Tensor, near: float, far: float) -> Image:
    """Expected depths [1, H, W] as colours, even in 1 / depth: near is bright, uncovered pixels are black."""
    inverse = (1 / depth[0].clamp_min(1e-6) - 1 / far) / (1 / near - 1 / far)
    return _colored(inverse.cpu().numpy(), cv2.COLORMAP_TURBO) * alpha[0].clamp(0, 1).cpu().numpy()[..., None]


def opacity_colors(alpha: Tensor) -> Image:
    """Coverage [1, H, W] as colours: black is a hole, bright is opaque."""
    return _colored(alpha[0].cpu().numpy(), cv2.COLORMAP_VIRIDIS)


def deviation_colors(deviation: Tensor) -> Image:
    """Standard deviations of intensity [1, H, W] as colours, even in their logarithm: dark is well known.

    From ``DEVIATIONS[0]`` (and less) to ``UNKNOWN``, which is what nobody has seen.
    """
    low, high = (math.log(value) for value in DEVIATIONS)
    level = (deviation[0].clamp_min(1e-6).log() - low) / (high - low)
    return _colored(level.cpu().numpy(), cv2.COLORMAP_INFERNO)


def error_colors(image: Image, truth: Image) -> Image:
    """Absolute difference as colours; the brightest stands for ``ERROR_TOP`` and more."""
    return _colored(np.abs(image - truth).mean(-1) / ERROR_TOP, cv2.COLORMAP_MAGMA)


def resized(image: Image, width: int, height: int) -> Image:
    """The picture at another size."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.float32).clip(0, 1)


def side_by_side(images: Sequence[Image]) -> Image:
    """Pictures of equal height in a row, a thin line between them."""
    line = np.ones((images[0].shape[0], 2, 3), np.float32)
    parts: list[Image] = [images[0]]
    for image in images[1:]:
        parts += [line, image]
    return np.concatenate(parts, axis=1)


def wipe(left: Image, right: Image, at: float) -> Image:
    """``left`` up to the share ``at`` (0..1) of the width, ``right`` beyond it, a line on the border."""
    border = round(at * left.shape[1])
    mixed = np.concatenate([left[:, :border], right[:, border:]], axis=1)
    if 0 < border < left.shape[1]:
        mixed[:, border] = (1.0, 0.6, 0.1)
    return mixed


def letterboxed(image: Image, aspect: float, fill: float = 0.05) -> Image:
    """The picture in the middle of a frame of the proportions ``aspect`` = width / height."""
    height, width = image.shape[:2]
    new_width, new_height = max(width, round(height * aspect)), max(height, round(width / aspect))
    framed = np.full((new_height, new_width, 3), fill, np.float32)
    top, left = (new_height - height) // 2, (new_width - width) // 2
    framed[top : top + height, left : left + width] = image
    return framed


def labelled(image: Image, text: str) -> Image:
    """The picture with a word in its lower left corner."""
    drawn = (image.clip(0, 1) * 255).round().astype(np.uint8)
    size = max(0.35, image.shape[0] / 700)
    x, y = 7, image.shape[0] - 8
    # Black around white by shifting: the letters' places depend on their thickness.
    for level, shifts in ((0, [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]), (255, [(0, 0)])):
        for i, j in shifts:
            at, color = (x + i, y + j), (level, level, level)
            cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)
    return (drawn / np.float32(255)).astype(np.float32)
