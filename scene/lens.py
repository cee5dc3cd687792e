"""Lens distortion as other programs write it down, and how far it moves pixels.

Coefficients have OpenCV's names.  nerfstudio also writes a list ``distortion_params`` (k1, k2, k3, k4, p1, p2),
instant-ngp ``is_fisheye``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4", "omega")
LISTS = ("distortion_params", "dist_params")
FISHEYE = "is_fisheye"
_OF_LISTS = ("k1", "k2", "k3", "k4", "p1", "p2")
# Camera models that are a pinhole camera if their coefficients are negligible; a fisheye never is.
PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "FULL_OPENCV", "SIMPLE_RADIAL", "RADIAL")
# Pixels at the corner of the image: less is not distortion.
NEGLIGIBLE = 0.01
# Power of the distance from the axis with which a radial coefficient grows (a thin prism's too).
_POWERS = {"k1": 2, "k2": 4, "k3": 6, "k4": 2, "k5": 4, "k6": 6, "s1": 2, "s2": 4, "s3": 2, "s4": 4}


def coefficients_of(source: Mapping[str, Any]) -> dict[str, float]:
    """The coefficients other than 0 among the keys of a camera in JSON."""
    found = {name: float(source[name]) for name in COEFFICIENTS if source.get(name)}
    for key in LISTS:
        values = zip(_OF_LISTS, source.get(key) or (), strict=False)
        found |= {name: float(value) for name, value in values if value}
    return found


def corner_shift(coefficients: Mapping[str, float], k: NDArray[np.float64], width: int, height: int) -> float:
    """How far a lens moves the farthest corner of the image at most, pixels: an upper bound.

    Args:
        k: camera matrix [3, 3], pixels.
    """
    if coefficients.get("omega"):
        return math.inf
    x = max(k[0, 2], width - k[0, 2]) / k[0, 0]
    y = max(k[1, 2], height - k[1, 2]) / k[1, 1]
    r = math.hypot(x, y)
    radial = sum(abs(value) * r ** _POWERS[name] for name, value in coefficients.items() if name[0] == "k")
    prism = sum(abs(value) * r ** _POWERS[name] for name, value in coefficients.items() if name[0] == "s")
    tangential = sum(abs(value) for name, value in coefficients.items() if name[0] == "p")
    # The largest factor of a tangential coefficient is r^2 + 2 r^2.
    return float(max(k[0, 0], k[1, 1]) * (radial * r + prism + tangential * 3 * r * r))


def require_pinhole(
    where: str, model: str, coefficients: Mapping[str, float], k: NDArray[np.float64], width: int, height: int,
    is_fisheye: bool = False,
) -> None:  # fmt: skip
    """Raise an error if a lens moves a pixel by more than ``NEGLIGIBLE``.

    Args:
        where: file and view, for the message.
        model: name of the camera model.

    Raises:
        ValueError: another projection than a perspective one, or distortion.
    """
    advice = "binary spikes cannot be undistorted, and photographs are not here: undistort them first"
    if is_fisheye:
        raise ValueError(f"{where} has a fisheye lens ({FISHEYE}); {advice}")
    if model not in PERSPECTIVE:
        raise ValueError(f"{where} has the camera model {model}, expected one of {', '.join(PERSPECTIVE)}; {advice}")
    shift = corner_shift(coefficients, k, width, height)
    if shift > NEGLIGIBLE:
        listed = ", ".join(f"{name}={value:g}" for name, value in coefficients.items())
        raise ValueError(
            f"{where} has lens distortion ({listed}), up to {shift:.2g} pixels at the corner; {advice} or, "
            "with spikes, calibrate to a pinhole camera or crop to where it is negligible"
        )
