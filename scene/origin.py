"""Scenes far from the origin of their world, for example in UTM coordinates: learned around a nearby origin.

32-bit numbers near five million are half a unit apart.  So coordinates are read with 64 bits and, if the cameras are
very far from the origin, counted from the middle of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from utils.se3 import camera_centers

# Cameras are remote if they are this many times farther from the origin than from each other: 32-bit numbers then move
# a pixel's ray visibly.
_REMOTE = 1e4


def origin_of(w2c: Tensor) -> Tensor:
    """Where to count coordinates from, world units [3], float64; 0 unless the cameras ``w2c`` [V, 4, 4] are far away.

    It is a round number next to the median of the cameras.
    """
    centers = camera_centers(w2c.double())
    middle = centers.quantile(0.5, dim=0)
    usual = float((centers - middle).norm(dim=-1).median())
    if not 0 < _REMOTE * usual < float(middle.norm()):
        return torch.zeros(3, dtype=torch.float64)
    step = 10.0 ** math.ceil(math.log10(usual))
    return (middle / step).round() * step


def poses_from(origin: Tensor, w2c: Tensor) -> Tensor:
    """World-to-camera poses [..., 4, 4], float32, in a world that is moved so that ``origin`` [3] is its origin."""
    moved = w2c.double().clone()
    moved[..., :3, 3] += moved[..., :3, :3] @ origin
    return moved.float()


def points_from(origin: Tensor, points: Tensor) -> Tensor:
    """Points [..., 3], float32, in that world."""
    return (points.double() - origin).float()


def shown(origin: Tensor) -> str:
    """The origin in words."""
    return ", ".join(f"{value:.12g}" for value in origin.tolist())
