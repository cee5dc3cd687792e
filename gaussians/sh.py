"""Spherical harmonics outside the rasterizer: the constant term, and colors for backends that need them."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from utils.se3 import camera_centers

# Y_0: the coefficient of a constant color c is (c - 0.5) / SH_C0.
SH_C0 = 0.28209479177387814


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics [..., (degree + 1)^2], degree 0 to 3, of unit directions [..., 3].

    In the order and with the signs of 3DGS: by degree, then by order from -degree to degree, with the
    Condon-Shortley phase.
    """
    x, y, z = directions.unbind(-1)
    # Real and imaginary parts of (x + iy)^m, for orders m and -m.
    real, imaginary = [torch.ones_like(x), x, x * x - y * y], [torch.zeros_like(x), y, 2 * x * y]
    real.append(x * real[2] - y * imaginary[2])
    imaginary.append(x * imaginary[2] + y * real[2])
    # Associated Legendre functions in z without the factor sin(theta)^m, which the parts above contain.
    legendre = [
        [torch.ones_like(z)],
        [z, torch.ones_like(z)],
        [(3 * z * z - 1) / 2, 3 * z, torch.full_like(z, 3)],
        [(5 * z * z - 3) * z / 2, (15 * z * z - 3) / 2, 15 * z, torch.full_like(z, 15)],
    ]
    basis = []
    for n in range(degree + 1):
        for order in range(-n, n + 1):
            m = abs(order)
            product = 1.0
            for k in range(n - m + 1, n + m + 1):  # (n + m)! / (n - m)!
                product *= k
            scale = (-1) ** m * sqrt((2 * n + 1) / (4 * pi) / product * (1 if m == 0 else 2))
            basis.append(scale * legendre[n][m] * (imaginary if order < 0 else real)[m])
    return torch.stack(basis, dim=-1)


def eval_sh(degree: int, coefficients: Tensor, directions: Tensor) -> Tensor:
    """Evaluate colors [N, C], at least 0, along unit ``directions`` [N, 3] from ``coefficients`` [N, K, C]."""
    basis = sh_basis(degree, directions)
    return ((basis[..., None] * coefficients[:, : basis.shape[-1]]).sum(1) + 0.5).clamp_min(0)


def view_directions(means: Tensor, w2c: Tensor) -> Tensor:
    """Unit directions [N, 3] from the camera ``w2c`` [4, 4] to the points ``means`` [N, 3]."""
    return torch.nn.functional.normalize(means - camera_centers(w2c), dim=-1)
