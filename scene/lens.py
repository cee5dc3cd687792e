"""Lenses: how a lens moves the image of a pinhole camera on the sensor, in the models of OpenCV and COLMAP.

Binary spikes cannot be resampled, but intensities can: what the pixels of a distorted camera saw is resampled to the
image of a pinhole camera, and everything is learned there.  That image has the sensor's size, principal point and,
if the sensor saw all of it, focal lengths; otherwise the shortest focal lengths with which the sensor saw every
pixel.  So no pixel needs a mask, and what lies beyond the image's sides is not used.

Coefficients have OpenCV's names.  nerfstudio also writes a list ``distortion_params`` (k1, k2, k3, k4, p1, p2) whose
k4, unless the lens is a fisheye, is not OpenCV's; instant-ngp writes ``is_fisheye``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.remapping import Remap

COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4", "omega")
LISTS = ("distortion_params", "dist_params")
IS_FISHEYE = "is_fisheye"
_OF_LISTS = ("k1", "k2", "k3", "k4", "p1", "p2")
# Camera models that are a pinhole camera if their coefficients are negligible; a fisheye never is.
PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "FULL_OPENCV", "SIMPLE_RADIAL", "RADIAL")
FISHEYES = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
# Keys with which instant-ngp's files describe projections that are none of these.
_PROJECTIONS = ("ftheta_p0", "latlong", "equirectangular", "orthographic")
# Pixels at the corner of the image: less is not distortion.
NEGLIGIBLE = 0.01
# Power of the distance from the axis with which a radial coefficient grows.
_POWERS = {"k1": 2, "k2": 4, "k3": 6, "k4": 2, "k5": 4, "k6": 6}
# The most that focal lengths may grow until the sensor sees the whole image.
_LONGEST = 4.0
# Points along a side of the image at which a lens is examined.
_EXAMINED = 65
# Newton steps to an inverse; fewer than ten are needed but near a fold.
_NEWTON = 25


@dataclass(frozen=True)
class Lens(ABC):
    """A lens before a sensor.  Points are (x / z, y / z) in the camera's frame, [..., 2]; OpenCV axes.

    Args:
        intrinsics: fx, fy, cx, cy of the sensor, pixels; the center of the first pixel is at 0.5.
        width, height: size of the sensor, pixels.
        coefficients: in the order of ``names``.
    """

    intrinsics: tuple[float, float, float, float]
    width: int
    height: int
    coefficients: tuple[float, ...]

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def distort(self, points: Tensor) -> Tensor:
        """Where an ideal lens would show what this lens shows of the points."""

    @abstractmethod
    def undistort(self, points: Tensor) -> Tensor:
        """The inverse of ``distort``; NaN where there is none."""

    @abstractmethod
    def keeps_order(self, points: Tensor) -> Tensor:
        """Whether neighbors of the points [..., 2] stay on the same side [...]; beyond a fold they do not."""

    def project(self, points: Tensor) -> Tensor:
        """Positions on the sensor, pixels."""
        return _pixels(self.distort(points), self.intrinsics)

    def unproject(self, pixels: Tensor) -> Tensor:
        """The points that the sensor sees at positions in pixels; NaN where there are none."""
        return self.undistort(_normalized(pixels, self.intrinsics))

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy of the pinhole camera whose image is made from the sensor's, pixels.

        Raises:
            ValueError: the sensor does not see the image of any such camera.
        """
        fx, fy, cx, cy = self.intrinsics
        factor = _lengthening(self)
        return fx * factor, fy * factor, cx, cy

    @property
    def matrix(self) -> Tensor:
        """``pinhole`` as a camera matrix [3, 3], float32."""
        fx, fy, cx, cy = self.pinhole
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)

    def resized(self, width: int, height: int) -> Lens:
        """The same lens before a sensor of the same size with another number of pixels."""
        x, y = width / self.width, height / self.height
        fx, fy, cx, cy = self.intrinsics
        return replace(self, intrinsics=(fx * x, fy * y, cx * x, cy * y), width=width, height=height)

    def straightened(self, images: Tensor) -> Tensor:
        """Images [..., H, W] of the sensor as the pinhole camera sees them."""
        return to_pinhole(self)(images)


class PerspectiveLens(Lens):
    """OpenCV's rational model: radial k1 to k6 and tangential p1, p2 (COLMAP's OPENCV, FULL_OPENCV, RADIAL)."""

    names = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")

    def _radial(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of points at a squared distance from the axis, and its derivative by that."""
        k1, k2, _, _, k3, k4, k5, k6 = self.coefficients
        above = 1 + square * (k1 + square * (k2 + square * k3))
        below = 1 + square * (k4 + square * (k5 + square * k6))
        slope = k1 + square * (2 * k2 + square * 3 * k3)
        slope_below = k4 + square * (2 * k5 + square * 3 * k6)
        return above / below, (slope * below - above * slope_below) / below.square()

    def _derivatives(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of ``distort``: of x by x, of y by y, and of either by the other."""
        _, _, p1, p2, *_ = self.coefficients
        x, y = points.unbind(-1)
        radial, slope = self._radial(x * x + y * y)
        return (
            radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x,
            radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x,
            2 * x * y * slope + 2 * p1 * x + 2 * p2 * y,
        )

    def keeps_order(self, points: Tensor) -> Tensor:
        """See ``Lens``."""
        xx, yy, xy = self._derivatives(points)
        return (xx * yy - xy * xy > 0) & (xx > 0)

    def distort(self, points: Tensor) -> Tensor:
        """See ``Lens``."""
        _, _, p1, p2, *_ = self.coefficients
        x, y = points.unbind(-1)
        square, cross = x * x + y * y, x * y
        radial, _ = self._radial(square)
        return torch.stack(
            [
                x * radial + 2 * p1 * cross + p2 * (square + 2 * x * x),
                y * radial + p1 * (square + 2 * y * y) + 2 * p2 * cross,
            ],
            -1,
        )

    def undistort(self, points: Tensor) -> Tensor:
        """See ``Lens``."""
        # Newton's method approaches the root from the axis's side for barrels, and from outside for pincushions.
        found = points.clone()
        for _ in range(_NEWTON):
            xx, yy, xy = self._derivatives(found)
            x, y = (self.distort(found) - points).unbind(-1)
            found = found - torch.stack([yy * x - xy * y, xx * y - xy * x], -1) / (xx * yy - xy * xy)[..., None]
        exact = (self.distort(found) - points).abs().amax(-1) < 1e-9
        return torch.where((exact & self.keeps_order(found))[..., None], found, torch.nan)


class FisheyeLens(Lens):
    """OpenCV's fisheye model: k1 to k4 of powers of the angle from the axis (COLMAP's OPENCV_FISHEYE)."""

    names = ("k1", "k2", "k3", "k4")

    def _bent(self, angle: Tensor) -> Tensor:
        k1, k2, k3, k4 = self.coefficients
        square = angle * angle
        return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))

    def _bent_slope(self, angle: Tensor) -> Tensor:
        k1, k2, k3, k4 = self.coefficients
        square = angle * angle
        return 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * 9 * k4)))

    def keeps_order(self, points: Tensor) -> Tensor:
        """See ``Lens``."""
        angle = points.square().sum(-1).sqrt().atan()
        return (self._bent(angle) >= 0) & (self._bent_slope(angle) > 0)

    def distort(self, points: Tensor) -> Tensor:
        """See ``Lens``."""
        radius = points.square().sum(-1, keepdim=True).clamp_min(1e-20).sqrt()
        return points * self._bent(radius.atan()) / radius

    def undistort(self, points: Tensor) -> Tensor:
        """See ``Lens``."""
        radius = points.square().sum(-1, keepdim=True).clamp_min(1e-20).sqrt()
        angle = radius.clone()
        for _ in range(_NEWTON):
            angle = angle - (self._bent(angle) - radius) / self._bent_slope(angle)
        exact = (self._bent(angle) - radius).abs() < 1e-9
        # A pinhole camera sees less than a half-space.
        seen = exact & (angle >= 0) & (angle < math.pi / 2) & (self._bent_slope(angle) > 0)
        return torch.where(seen, points * angle.tan() / radius, torch.nan)


def _pixels(points: Tensor, intrinsics: tuple[float, float, float, float]) -> Tensor:
    fx, fy, cx, cy = intrinsics
    return points * points.new_tensor([fx, fy]) + points.new_tensor([cx, cy])


def _normalized(pixels: Tensor, intrinsics: tuple[float, float, float, float]) -> Tensor:
    fx, fy, cx, cy = intrinsics
    return (pixels - pixels.new_tensor([cx, cy])) / pixels.new_tensor([fx, fy])


def _centers(width: int, height: int, columns: int, rows: int) -> Tensor:
    """Positions [rows, columns, 2] from the center of the first to that of the last pixel, float64."""
    x, y = (torch.linspace(0.5, n - 0.5, count, dtype=torch.float64) for n, count in ((width, columns), (height, rows)))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


@lru_cache(maxsize=256)
def _lengthening(lens: Lens) -> float:
    """The least factor of at least 1 by which focal lengths must grow for the sensor to see the whole image."""
    at = _normalized(_centers(lens.width, lens.height, _EXAMINED, _EXAMINED), lens.intrinsics)
    last = at.new_tensor([lens.width, lens.height]) - 0.5

    def is_seen(factor: float) -> bool:
        positions = lens.project(at / factor)
        inside = (positions >= 0.5 - NEGLIGIBLE) & (positions <= last + NEGLIGIBLE)
        return bool(inside.all() and lens.keeps_order(at / factor).all())

    if is_seen(1.0):
        return 1.0
    low, high = 1.0, _LONGEST
    if not is_seen(high):
        raise ValueError(f"no pinhole camera of up to {_LONGEST:g} times its focal length has an image that it shows")
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


@lru_cache(maxsize=64)
def to_pinhole(lens: Lens) -> Remap:
    """Resamples images of the sensor to images of the pinhole camera."""
    pixels = _centers(lens.width, lens.height, lens.width, lens.height)
    return Remap(lens.project(_normalized(pixels, lens.pinhole)), lens.height, lens.width)


@lru_cache(maxsize=64)
def to_sensor(lens: Lens) -> Remap:
    """Resamples images of the pinhole camera to images of the sensor."""
    pixels = _centers(lens.width, lens.height, lens.width, lens.height)
    return Remap(_pixels(lens.unproject(pixels), lens.pinhole), lens.height, lens.width)


# ---- what other programs write ---------------------------------------------------------------------------


def coefficients_of(source: Mapping[str, Any]) -> dict[str, float]:
    """The coefficients other than 0 among the keys of a camera in JSON."""
    found = {name: float(source[name]) for name in COEFFICIENTS if source.get(name)}
    is_fisheye = source.get(IS_FISHEYE) or source.get("camera_model") in FISHEYES
    for key in LISTS:
        names = _OF_LISTS if is_fisheye else tuple(f"{key}[3]" if name == "k4" else name for name in _OF_LISTS)
        found |= {name: float(value) for name, value in zip(names, source.get(key) or (), strict=False) if value}
    return found


def refuse_projections(where: str, source: Mapping[str, Any]) -> None:
    """Refuse the keys of a camera in JSON that make it another one than a pinhole camera behind a lens.

    Args:
        where: file and view, for the message.
    """
    for key in _PROJECTIONS:
        if source.get(key) not in (None, False):
            raise ValueError(
                f"{where} has the projection {key} of instant-ngp, expected a perspective or fisheye camera "
                f"({', '.join(PERSPECTIVE + FISHEYES)})"
            )


def _corner_shift(coefficients: Mapping[str, float], k: NDArray[np.float64], width: int, height: int) -> float:
    """How far a perspective lens moves the farthest corner of the image at most, pixels: an upper bound.

    Args:
        k: camera matrix [3, 3], pixels.
    """
    x = max(k[0, 2], width - k[0, 2]) / k[0, 0]
    y = max(k[1, 2], height - k[1, 2]) / k[1, 1]
    r = math.hypot(x, y)
    radial = sum(abs(value) * r ** _POWERS[name] for name, value in coefficients.items() if name[0] == "k")
    tangential = sum(abs(value) for name, value in coefficients.items() if name[0] == "p")
    # The largest factor of a tangential coefficient is r^2 + 2 r^2.
    return float(max(k[0, 0], k[1, 1]) * (radial * r + tangential * 3 * r * r))


def lens_of(
    where: str, model: str, coefficients: Mapping[str, float], k: NDArray[np.float64], width: int, height: int,
    is_fisheye: bool = False,
) -> Lens | None:  # fmt: skip
    """The lens of a camera; None if it moves no pixel by more than ``NEGLIGIBLE``.

    Args:
        where: file and view, for messages.
        model: name of the camera model.
        k: camera matrix [3, 3] of the sensor, pixels.
        is_fisheye: whether it is a fisheye whatever ``model`` says.

    Raises:
        ValueError: a projection or a coefficient that is not supported, or a lens that no pinhole camera's image fits.
    """
    if model not in PERSPECTIVE + FISHEYES:
        raise ValueError(
            f"{where} has the camera model {model}, expected one of {', '.join(PERSPECTIVE + FISHEYES)}; fit one of "
            "these"
        )
    kind: type[Lens] = FisheyeLens if is_fisheye or model in FISHEYES else PerspectiveLens
    listed = ", ".join(f"{name}={value:g}" for name, value in coefficients.items())
    unknown = [name for name in coefficients if name not in kind.names]
    if unknown:
        raise ValueError(
            f"{where} has lens distortion ({listed}), expected no coefficients but {', '.join(kind.names)}; fit a "
            "model without the others"
        )
    if kind is PerspectiveLens and _corner_shift(coefficients, k, width, height) <= NEGLIGIBLE:
        return None
    intrinsics = (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
    lens = kind(intrinsics, width, height, tuple(coefficients.get(name, 0.0) for name in kind.names))
    try:
        lens.pinhole  # noqa: B018
    except ValueError as error:
        raise ValueError(f"{where} has lens distortion ({listed}) that cannot be undone: {error}") from None
    return lens
