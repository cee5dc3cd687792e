"""Colour filter arrays: which channel each pixel of a Bayer spike sensor sees."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

BayerPattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]


def bayer_channels(height: int, width: int, pattern: BayerPattern = "GBRG") -> Tensor:
    """Channel (0 red, 1 green, 2 blue) of every pixel [H, W] int64.

    Args:
        pattern: colours of the top left 2x2 pixels, row by row.

    Raises:
        ValueError: no such pattern.
    """
    if pattern not in get_args(BayerPattern):
        raise ValueError(f"a Bayer pattern is one of {', '.join(get_args(BayerPattern))}, not {pattern!r}")
    cell = torch.tensor(["RGB".index(colour) for colour in pattern]).view(2, 2)
    return cell.repeat(-(-height // 2), -(-width // 2))[:height, :width].contiguous()
