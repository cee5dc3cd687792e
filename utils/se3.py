"""Rigid motions: the exponential and logarithm of SE(3), batched and differentiable at the identity.

A twist is ``[rho, phi]``: three translation components (world units), then three rotation components
(radians).  Poses are 4x4 matrices.  Formulas: Sola, Deray, Atchuthan, "A micro Lie theory for state
estimation in robotics" (2018), eqs. 132-149 for SO(3) and 171-175 for SE(3).

Every coefficient is a function of the squared angle with a Taylor branch, because trajectories start at zero
motion, where ``sqrt`` has no gradient.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Below this squared angle, the series is used.  Its first dropped term is under 1e-9 there, while the closed
# form of the third coefficient would lose five digits in float32.
_SERIES_BELOW = 0.25


def hat(phi: Tensor) -> Tensor:
    """Skew-symmetric matrices [..., 3, 3] of the vectors ``phi`` [..., 3]: ``hat(a) @ b = a x b``."""
    x, y, z = phi.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*phi.shape[:-1], 3, 3)


# sin(t)/t, (1 - cos t)/t^2 and (t - sin t)/t^3 in powers of t^2, the lowest first.
_SERIES = (
    (1.0, 1 / 2, 1 / 6),
    (-1 / 6, -1 / 24, -1 / 120),
    (1 / 120, 1 / 720, 1 / 5040),
    (-1 / 5040, -1 / 40320, -1 / 362880),
    (1 / 362880, 1 / 3628800, 1 / 39916800),
    (-1 / 39916800, -1 / 479001600, 0.0),
)


@functools.lru_cache(maxsize=8)
def _series(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    return torch.tensor(_SERIES, dtype=dtype, device=device).unbind()


def _coefficients(squared: Tensor) -> Tensor:
    """sin(t)/t, (1 - cos t)/t^2 and (t - sin t)/t^3 [..., 3] as functions of t^2 [...]."""
    small = squared < _SERIES_BELOW
    s = torch.where(small, squared, torch.zeros_like(squared))[..., None]
    *lower, series = _series(squared.dtype, squared.device)
    for term in reversed(lower):
        series = torch.addcmul(term, s, series)
    if bool(small.all()):  # as in nearly every training step; the closed form would take longer than the series
        return series
    big = torch.where(small, torch.ones_like(squared), squared)
    t = big.sqrt()
    sine = t.sin()
    closed = torch.stack([sine / t, (1 - t.cos()) / big, (t - sine) / (big * t)], dim=-1)
    return torch.where(small[..., None], series, closed)


def exp(twist: Tensor) -> Tensor:
    """Poses [..., 4, 4] of the twists ``twist`` [..., 6] (translation first)."""
    rho, phi = twist[..., :3], twist[..., 3:]
    a, b, c = _coefficients((phi * phi).sum(-1))[..., None, None].unbind(-3)
    w = hat(phi)
    ww = w @ w
    eye = torch.eye(3, dtype=twist.dtype, device=twist.device)
    rotation = eye + a * w + b * ww
    left_jacobian = eye + b * w + c * ww
    translation = left_jacobian @ rho[..., None]
    top = torch.cat([rotation, translation], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2)


def log(pose: Tensor) -> Tensor:
    """Twists [..., 6] of the poses ``pose`` [..., 4, 4]; rotation angles must stay below pi."""
    r, translation = pose[..., :3, :3], pose[..., :3, 3]
    axis = 0.5 * torch.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], dim=-1
    )  # = sin(t) * unit axis
    s2 = (axis * axis).sum(-1)
    cosine = 0.5 * (r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2] - 1)
    small = (s2 < 0.01) & (cosine > 0)
    x = torch.where(small, s2, torch.zeros_like(s2))
    # asin(s)/s as a series of s^2
    ratio_series = 1 + x * (1 / 6 + x * (3 / 40 + x * (15 / 336 + x * (105 / 3456 + x * 945 / 42240))))
    ratio = ratio_series
    if not bool(small.all()):
        s = torch.where(small, torch.ones_like(s2), s2).sqrt()
        ratio = torch.where(small, ratio_series, torch.atan2(s, torch.where(small, s, cosine)) / s)
    phi = ratio[..., None] * axis
    return torch.cat([_inverse_left_jacobian(phi, translation), phi], dim=-1)


def _inverse_left_jacobian(phi: Tensor, translation: Tensor) -> Tensor:
    """J_l(phi)^-1 @ translation, [..., 3]."""
    squared = (phi * phi).sum(-1)
    small = squared < _SERIES_BELOW
    s = torch.where(small, squared, torch.zeros_like(squared))
    d_series = 1 / 12 + s * (1 / 720 + s * (1 / 30240 + s * (1 / 1209600 + s / 47900160)))
    d = d_series
    if not bool(small.all()):
        big = torch.where(small, torch.ones_like(squared), squared)
        t = big.sqrt()
        d = torch.where(small, d_series, 1 / big - (1 + t.cos()) / (2 * t * t.sin()))
    first = torch.cross(phi, translation, dim=-1)
    return translation - 0.5 * first + d[..., None] * torch.cross(phi, first, dim=-1)


def inverse(pose: Tensor) -> Tensor:
    """Inverse of the rigid poses ``pose`` [..., 4, 4], by transposition."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    translation = -rotation @ pose[..., :3, 3:]
    return torch.cat([torch.cat([rotation, translation], dim=-1), pose[..., 3:, :]], dim=-2)


def camera_centers(w2c: Tensor) -> Tensor:
    """Camera centers [..., 3] in the world of world-to-camera poses [..., 4, 4]."""
    return -(w2c[..., :3, :3].transpose(-1, -2) @ w2c[..., :3, 3:])[..., 0]
