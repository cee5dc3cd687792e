"""Spikes of still pictures that move past the camera: training data for networks that need sharp images.

Every sample has its own motion, contrast and sensor, so that a network does not depend on one gain or one noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.io import load_image

# Pictures that come with packages, by package and folder.
SHIPPED = {
    "skimage": ("data", "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
                "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png motorcycle_right.png page.png retina.jpg "
                "rocket.jpg text.png"),
    "sklearn": ("datasets/images", "china.jpg flower.jpg"),
    "viser": ("_assets/hdri", "dikhololo_night_1k.jpg empty_warehouse_01_1k.jpg forest_slope_1k.jpg "
              "kiara_1_dawn_1k.jpg lebombo_1k.jpg potsdamer_platz_1k.jpg rooitou_park_1k.jpg "
              "st_fagans_interior_1k.jpg studio_small_03_1k.jpg venice_sunset_1k.jpg"),
}  # fmt: skip


def shipped_pictures() -> list[Path]:
    """The files of ``SHIPPED``.

    Raises:
        ValueError: one of the packages or files is missing.
    """
    found = []
    for package, (folder, names) in SHIPPED.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"the pictures need scikit-image, scikit-learn and viser, but there is no {package}")
        files = [Path(spec.submodule_search_locations[0]) / folder / name for name in names.split()]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise ValueError(f"{missing[0]}: no such picture in this version of {package}")
        found += files
    return found


def gray_pictures(files: Sequence[Path]) -> list[Tensor]:
    """The pictures [H, W] in [0, 1], each at full and at half size."""
    pictures = []
    for file in files:
        full = load_image(file)
        half = F.interpolate(full[None], scale_factor=0.5, mode="area")[0]
        pictures += [full[0], half[0]]
    return pictures


@dataclass(frozen=True)
class Batch:
    """Samples for supervised training.

    ``spikes`` [B, T, h, w] zeros and ones, ``images`` [B, T, h, w] the intensities at the frames, ``gain`` [B] in
    spikes per frame for white.
    """

    spikes: Tensor
    images: Tensor
    gain: Tensor


@dataclass(frozen=True)
class MovingPictures:
    """Draws samples.

    Args:
        pictures: [H, W] in [0, 1], larger than a sample.
        frames: spike frames of a sample, odd.
        side: side of a sample, pixels.
        speed: largest speed of most samples, pixels per frame; a share ``fast`` of them move 2.5 times as fast.
    """

    pictures: Sequence[Tensor]
    frames: int = 41
    side: int = 48
    speed: float = 0.3
    fast: float = 0.15

    def batch(self, count: int, random: torch.Generator) -> Batch:
        """``count`` independent samples."""
        samples = [self._sample(random) for _ in range(count)]
        spikes, images, gains = zip(*samples, strict=True)
        return Batch(torch.stack(spikes), torch.stack(images), torch.tensor(gains))

    def _sample(self, random: torch.Generator) -> tuple[Tensor, Tensor, float]:
        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=random))

        picture = self.pictures[int(torch.randint(len(self.pictures), (), generator=random))]
        images = self._toned(self._moved(picture, random, uniform), uniform)
        images = torch.rot90(images, int(uniform(0, 4)), (1, 2))
        if uniform(0, 1) < 0.5:
            images = images.flip(2)
        gain = uniform(0.3, 0.65)
        # Pixels differ in sensitivity, and a part of the recordings has spurious spikes.
        sensitivity = 1 + uniform(0, 0.04) * torch.randn(self.side, self.side, generator=random)
        phase = torch.rand(1, self.side, self.side, generator=random)
        charge = torch.cat([torch.zeros_like(phase), (gain * sensitivity * images).cumsum(0)]) + phase
        spikes = charge.floor().diff(dim=0).clamp(0, 1)
        if uniform(0, 1) < 0.5:
            spurious = torch.rand(spikes.shape, generator=random) < uniform(0, 0.01)
            spikes = torch.maximum(spikes, spurious.float())
        return spikes, images.contiguous(), gain

    def _moved(self, picture: Tensor, random: torch.Generator, uniform: Callable[[float, float], float]) -> Tensor:
        """The picture on a moving camera's pixels [T, h, w]: translation, acceleration, rotation and zoom."""
        t = torch.arange(self.frames) - self.frames // 2
        speed = uniform(0, self.speed) * (2.5 if uniform(0, 1) < self.fast else 1.0)
        heading = uniform(0, 2 * math.pi)
        velocity = speed * torch.tensor([math.cos(heading), math.sin(heading)])
        bend, turn, zoom = (torch.randn(n, generator=random) * s for n, s in ((2, 2e-3), (1, 6e-4), (1, 6e-4)))
        shift = velocity * t[:, None] + bend / 2 * t[:, None] ** 2
        angle, scale = turn * t, (zoom * t).exp()
        size = uniform(1.0, 1.5)  # source pixels per pixel
        pixels = torch.arange(self.side) - (self.side - 1) / 2
        y, x = torch.meshgrid(pixels, pixels, indexing="ij")
        cos, sin = (scale * angle.cos())[:, None, None], (scale * angle.sin())[:, None, None]
        height, width = picture.shape
        row, column = self._place(picture, 0.75 * size * self.side, uniform)
        columns = column + size * (cos * x - sin * y + shift[:, 0, None, None])
        rows = row + size * (sin * x + cos * y + shift[:, 1, None, None])
        grid = torch.stack([2 * columns / width - 1, 2 * rows / height - 1], -1).reshape(1, -1, self.side, 2)
        moved = F.grid_sample(picture[None, None], grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        return moved.reshape(self.frames, self.side, self.side).clamp(0, 1)

    @staticmethod
    def _place(picture: Tensor, reach: float, uniform: Callable[[float, float], float]) -> tuple[float, float]:
        """Row and column of a sample's middle: of three random places, the one with the most contrast around it.

        Much of many pictures is sky or shadow, from which little is learned.
        """
        places = [
            [uniform(min(reach, n / 2), max(n - reach, n / 2)) for n in picture.shape] for _ in range(3)
        ]  # fmt: skip

        def contrast(place: list[float]) -> float:
            rows, columns = (slice(max(int(at - reach / 2), 0), int(at + reach / 2)) for at in place)
            return float(picture[rows, columns].std())

        row, column = max(places, key=contrast)
        return row, column

    @staticmethod
    def _toned(images: Tensor, uniform: Callable[[float, float], float]) -> Tensor:
        """The images with another gamma, contrast and black level."""
        if uniform(0, 1) < 0.5:
            images = images ** uniform(0.6, 1.6)
        return (uniform(0.5, 1.0) * images + uniform(0, 0.1)).clamp(0, 1)
