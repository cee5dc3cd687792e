"""Rectangular crops of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """Rows ``top:bottom`` and columns ``left:right`` of an image, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, image: Tensor) -> Tensor:
        """The crop of ``image`` [..., H, W]."""
        return image[..., self.top : self.bottom, self.left : self.right]

    def grown(self, by: int, height: int, width: int) -> Crop:
        """The crop enlarged by ``by`` pixels on every side, clipped at the image's borders."""
        return Crop(
            max(self.top - by, 0), min(self.bottom + by, height), max(self.left - by, 0), min(self.right + by, width)
        )

    def inner(self, by: int, height: int, width: int) -> Tensor:
        """1 where a pixel is at least ``by`` pixels from the crop's sides (image borders do not count), else 0."""
        mask = torch.zeros(self.bottom - self.top, self.right - self.left)
        top, left = (0 if start == 0 else by for start in (self.top, self.left))
        bottom = len(mask) - (0 if self.bottom == height else by)
        right = mask.shape[1] - (0 if self.right == width else by)
        mask[top:bottom, left:right] = 1
        return mask

    def within(self, outer: Crop) -> Crop:
        """The same rectangle in the coordinates of ``outer``."""
        return Crop(
            self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left
        )

    @classmethod
    def whole(cls, height: int, width: int) -> Crop:
        """The full image."""
        return cls(0, height, 0, width)

    @classmethod
    def random(cls, side: int, height: int, width: int, random: torch.Generator) -> Crop:
        """A random square of ``side`` pixels (0: the full image), smaller if the image is."""
        h, w = (min(side or size, size) for size in (height, width))
        top = int(torch.randint(height - h + 1, (1,), generator=random))
        left = int(torch.randint(width - w + 1, (1,), generator=random))
        return cls(top, top + h, left, left + w)


def cropped(mask: Tensor | None, crop: Crop) -> Tensor | None:
    """The crop of a mask [H, W], or None if there is none."""
    return None if mask is None else crop.of(mask)
