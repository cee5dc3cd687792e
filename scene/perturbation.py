"""Seeded noise on initial poses: c2w' = c2w Exp(xi), to measure what a method makes of inaccurate poses.

The noise of a level L has a standard deviation of L degrees per rotation axis and L percent of the median distance
between cameras and points per translation axis, so that one number means the same in scenes of any size.  BARF (Lin et
al. 2021) perturbs poses in this way; the levels are ours, since the paper's supplement does not state its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from utils import se3
from utils.randomness import generator

# Degrees, and percent of the median distance between cameras and points.
LEVELS = (0.25, 0.5, 1.0, 2.0)
# Number of points that the median distance is taken over.
_POINTS = 2000


def median_distance(w2c: Tensor, points: Tensor) -> float:
    """Median distance between the cameras ``w2c`` [V, 4, 4] and the points [N, 3] in front of them, world units.

    Raises:
        ValueError: no point is in front of a camera.
    """
    some = points[:: -(-len(points) // _POINTS) or 1].double()
    seen = some @ w2c[:, :3, :3].double().mT + w2c[:, None, :3, 3].double()
    distances = seen.norm(dim=-1)[seen[..., 2] > 0]
    if not len(distances):
        raise ValueError("no point of the scene is in front of a camera")
    return float(distances.median())


def perturbed(w2c: Tensor, level: float, distance: float, seed: int) -> Tensor:
    """World-to-camera poses [V, 4, 4] with noise of a level.

    The noise of a view depends only on the seed and its index, not on the number of views.

    Args:
        distance: median distance between cameras and points, world units.
    """
    draws = [torch.randn(6, generator=generator("perturbation", seed, i), dtype=torch.float64) for i in range(len(w2c))]
    units = torch.tensor([level / 100 * distance] * 3 + [math.radians(level)] * 3, dtype=torch.float64)
    # c2w' = c2w Exp(xi) is w2c' = Exp(-xi) w2c.
    return (se3.exp(-torch.stack(draws) * units) @ w2c.double()).to(w2c.dtype)
