"""Coordinates in which poses are easy to optimize (CamP, Park et al. 2023, section 4).

Seen from far away, a sideways step of a camera and a turn move the image almost alike.  Their gradients are then almost
equal, and an optimizer that scales each by itself soon finds their sum, but hardly ever their difference.  The
coordinates from here move the image alike in size and, as far as the damping allows, independently of each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Added to the diagonal of the correlations between the directions of an increment.  No direction gets steps that are
# more than 1 / sqrt(DAMPING) times as long as it would get by itself.
DAMPING = 0.1
# Fewer points say little about a view.
_FEWEST = 16
# More points say no more, and cost time in every view.
_MOST = 10_000
# Points nearer than this share of the median depth count as if they were there: a few initial points may be just in
# front of the camera, and would decide alone.
_NEAREST = 0.25


def normal_matrix(points: Tensor, intrinsics: Tensor, width: int, height: int) -> Tensor:
    """How an increment of a pose moves the image of points.

    Args:
        points: [N, 3] in the camera's frame.
        intrinsics: camera matrix [3, 3] of images with ``width`` x ``height`` pixels.

    Returns:
        the mean over the points in the image of J^T J [6, 6], for the Jacobian J [2, 6] of a point's image with respect
        to an increment exp(xi) on the left of a world-to-camera pose.  Images have the focal length 1, so that the
        motions are in radians near the middle.  0 if there are too few points.
    """
    points = points[points[:, 2] > 0].double()
    depth = points[:, 2]
    u, v = (points[:, :2] / depth[:, None]).unbind(-1)
    k = intrinsics.double()
    column, row = k[0, 0] * u + k[0, 2], k[1, 1] * v + k[1, 2]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    if int(inside.sum()) < _FEWEST:
        return torch.zeros(6, 6, dtype=torch.float64)
    u, v, depth = u[inside], v[inside], depth[inside]
    near, none = 1 / depth.clamp_min(_NEAREST * depth.median()), torch.zeros_like(u)
    across = torch.stack([near, none, -u * near, -u * v, 1 + u * u, -v], -1)
    down = torch.stack([none, near, -v * near, -1 - v * v, u * v, u], -1)
    return (across.T @ across + down.T @ down) / len(u)


def preconditioners(points: Tensor, w2c: Tensor, intrinsics: Tensor, width: int, height: int) -> Tensor:
    """For each camera, six increments that move the image by about one radian each, nearly independently.

    They are the columns of the symmetric square root of the inverse of ``normal_matrix``, damped, in units in which
    every component of an increment moves the image by the same amount: the world's unit of length does not matter.

    Args:
        points: points of the scene [N, 3].
        w2c: world-to-camera poses [V, 4, 4].
        intrinsics: camera matrices [V, 3, 3].

    Returns:
        [V, 6, 6].  A camera that sees fewer than 16 points gets those of the mean of the cameras that see more; if
        none does, they are identities.
    """
    points = points[:: -(-len(points) // _MOST) or 1]
    motions = torch.stack(
        [
            normal_matrix(points @ pose[:3, :3].T + pose[:3, 3], k, width, height)
            for pose, k in zip(w2c, intrinsics, strict=True)
        ]
    )
    seen = motions.flatten(1).any(-1)
    if not seen.any():
        return torch.eye(6).repeat(len(w2c), 1, 1)
    motions[~seen] = motions[seen].mean(0)
    sizes = motions.diagonal(dim1=-2, dim2=-1)
    # Points on the optical axis do not move when the camera rolls.
    largest = sizes.unflatten(-1, (2, 3)).amax(-1).repeat_interleave(3, -1)
    unit = sizes.clamp_min(1e-6 * largest).rsqrt()
    correlations = unit[:, :, None] * motions * unit[:, None] + DAMPING * torch.eye(6, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(correlations)
    root = vectors @ (values.rsqrt()[..., None] * vectors.mT)
    return (unit[:, :, None] * root).float()
