"""Color filter arrays: which channel each pixel of a Bayer spike sensor sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

BayerPattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]


def bayer_channels(height: int, width: int, pattern: BayerPattern = "GBRG") -> Tensor:
    """Channel (0 red, 1 green, 2 blue) of every pixel [H, W] int64.

    Args:
        pattern: colors of the top-left 2x2 pixels, row by row.

    Raises:
        ValueError: unknown pattern.
    """
    if pattern not in get_args(BayerPattern):
        raise ValueError(f"the Bayer pattern must be one of {', '.join(get_args(BayerPattern))}, not {pattern!r}")
    cell = torch.tensor(["RGB".index(color) for color in pattern]).view(2, 2)
    return cell.repeat(-(-height // 2), -(-width // 2))[:height, :width].contiguous()


@dataclass(frozen=True)
class Mosaic:
    """A color filter array: mosaics color images, and demosaics sensor pixels."""

    pattern: BayerPattern

    def of(self, images: Tensor) -> Tensor:
        """Mosaic color images [..., 3, H, W] to sensor pixels [..., 1, H, W]: one channel per pixel, no resampling."""
        height, width = images.shape[-2:]
        channels = bayer_channels(height, width, self.pattern).to(images.device)
        return images.gather(-3, channels.expand(*images.shape[:-3], 1, height, width))

    def colors(self, raw: Tensor) -> Tensor:
        """Demosaic sensor pixels [..., 1, H, W] to color images [..., 3, H, W] for display (bilinear)."""
        height, width = raw.shape[-2:]
        masks = F.one_hot(bayer_channels(height, width, self.pattern), 3).permute(2, 0, 1).to(raw)
        kernel = raw.new_tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3)
        known = (raw * masks).reshape(-1, 3, height, width)
        spread = F.conv2d(known, kernel, padding=1, groups=3) / F.conv2d(masks[None], kernel, padding=1, groups=3)
        return torch.where(masks.bool(), known, spread).reshape(*raw.shape[:-3], 3, height, width)
