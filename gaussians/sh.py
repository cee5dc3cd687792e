"""Spherical harmonics outside the rasterizer: the constant term, and colors for backends that need them."""

from __future__ import annotations

import torch
from diff_gaussian_rasterization_cpu.reference import sh_basis
from torch import Tensor

from utils.se3 import camera_centers

# Y_0: the coefficient of a constant color c is (c - 0.5) / SH_C0.
SH_C0 = 0.28209479177387814


def eval_sh(degree: int, coefficients: Tensor, directions: Tensor) -> Tensor:
    """Evaluate colors [N, C], at least 0, along unit ``directions`` [N, 3] from ``coefficients`` [N, K, C]."""
    basis = sh_basis(degree, directions)
    return ((basis[..., None] * coefficients[:, : basis.shape[-1]]).sum(1) + 0.5).clamp_min(0)


def view_directions(means: Tensor, w2c: Tensor) -> Tensor:
    """Unit directions [N, 3] from the camera ``w2c`` [4, 4] to the points ``means`` [N, 3]."""
    return torch.nn.functional.normalize(means - camera_centers(w2c), dim=-1)
