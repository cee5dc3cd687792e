"""Bicubic resampling of images at fixed positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.crops import Crop

# Keys' cubic convolution as in torch.nn.functional.grid_sample.
_CUBIC = -0.75


class Remap:
    """Resamples images of one size at fixed positions.

    Args:
        positions: where every pixel of the result lies in the source [h, w, 2], (x, y) in pixels; the center of the
            first pixel is at 0.5.  Positions outside the source, and NaN, show its border.
        height, width: size of the source, pixels.
    """

    def __init__(self, positions: Tensor, height: int, width: int):
        self._positions, self._source = positions, (height, width)
        scale = positions.new_tensor([2 / width, 2 / height])
        self._grid = (positions * scale - 1).nan_to_num(-2.0)[None].float()

    def __call__(self, images: Tensor) -> Tensor:
        """Resample images [..., H, W] to [..., h, w].

        Raises:
            ValueError: images of another size than the source.
        """
        if tuple(images.shape[-2:]) != self._source:
            expected, given = (f"{w}x{h}" for h, w in (self._source, images.shape[-2:]))
            raise ValueError(f"an image of {given} pixels, expected {expected}")
        flat = images.reshape(1, -1, *self._source)
        made = F.grid_sample(flat, self._grid.to(images), "bicubic", padding_mode="border", align_corners=False)
        return made.reshape(*images.shape[:-2], *made.shape[-2:])

    @property
    def inside(self) -> Tensor:
        """Which pixels [h, w] of the result lie in the source."""
        size = self._positions.new_tensor(self._source[::-1])
        return ((self._positions >= 0) & (self._positions <= size)).all(-1)

    @property
    def noise_gain(self) -> float:
        """Variance of the result relative to that of the source, for independent noise of its pixels; the mean."""
        t = (self._positions[self.inside] - 0.5).remainder(1)
        near = torch.stack([t, 1 - t])
        far = near + 1
        near = ((_CUBIC + 2) * near - (_CUBIC + 3)) * near**2 + 1
        far = _CUBIC * (((far - 5) * far + 8) * far - 4)
        squares = near.square().sum(0) + far.square().sum(0)
        return float(squares.prod(-1).mean())

    def cropped(self, crop: Crop) -> tuple[Crop, Remap]:
        """The part of the source that a crop of the result needs, and what resamples that part to the crop."""
        height, width = self._source
        positions = self._positions[crop.top : crop.bottom, crop.left : crop.right]
        low, high = (values.nan_to_num(0.0) - 0.5 for values in positions.flatten(0, 1).aminmax(dim=0))
        (left, top), (right, bottom) = low.floor().long().tolist(), high.floor().long().tolist()
        # Four taps in each direction; positions outside need at least the border.
        source = Crop(
            min(max(top - 1, 0), height - 1), max(min(bottom + 3, height), 1),
            min(max(left - 1, 0), width - 1), max(min(right + 3, width), 1),
        )  # fmt: skip
        moved = positions - positions.new_tensor([source.left, source.top])
        return source, Remap(moved, source.bottom - source.top, source.right - source.left)

    def to(self, device: torch.device) -> Remap:
        """The same on another device."""
        return Remap(self._positions.to(device), *self._source)
