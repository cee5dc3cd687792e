"""Initial points of a scene: from SfM, completed along the views' rays, or random ones in the cameras' frustums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from utils.se3 import camera_centers


@dataclass(frozen=True)
class Picture:
    """One posed image: ``image`` [C, H, W], ``K`` [3, 3] in pixels, ``w2c`` [4, 4]."""

    image: Tensor
    K: Tensor
    w2c: Tensor


# Share of the added points that ignore the given ones.  What structure from motion missed, such as a dark object
# close to the camera in a few views, can only start from these.
EXPLORE = 0.25
# Number of random points for a scene without points, as in 3DGS for synthetic scenes (Kerbl et al. 2023).
RANDOM_POINTS = 100_000
# Maximum number of depths for quantiles: more add no precision, need memory for points times views, and older torch
# rejects more than 2^24.
_DEPTHS = 1_000_000


def depth_range(points: Tensor | None, poses: Tensor) -> tuple[float, float]:
    """Near and far limits of random depths: from the depths of the given points, or the spread of the cameras.

    Args:
        poses: world-to-camera poses [V, 4, 4].
    """
    if points is not None and len(points):
        depths = _depths(points, poses)
        if len(depths):
            return 0.2 * float(depths.quantile(0.05)), 1.5 * float(depths.quantile(0.95))
    centers = camera_centers(poses)
    spread = float((centers - centers.mean(0)).norm(dim=-1).max())
    spread = spread if spread > 0 else 1.0
    return 0.5 * spread, 10.0 * spread


def _depths(points: Tensor, poses: Tensor) -> Tensor:
    """Positive depths [n] of points [N, 3] in all views, sampled evenly if there are more than ``_DEPTHS``."""
    every = max(-(-len(points) * len(poses) // _DEPTHS), 1)
    # Another offset in each view: every point takes part if there are enough views.
    sampled = ((points[i % every :: every], w2c) for i, w2c in enumerate(poses))
    depths = torch.cat([some @ w2c[2, :3] + w2c[2, 3] for some, w2c in sampled])
    return depths[depths > 0]


def median_depth(points: Tensor, poses: Tensor) -> float:
    """Median depth over all views, with poses [V, 4, 4], of the points [N, 3] in front of them; 1 if there are none."""
    depths = _depths(points, poses)
    return float(depths.median()) if len(depths) else 1.0


def _pixel_depths(points: Tensor | None, picture: Picture, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth at ``pixels`` [n, 2], from the nearest projected points; NaN if no point is in view."""
    height, width = picture.image.shape[1:]
    if points is not None and len(points):
        camera = points @ picture.w2c[:3, :3].T + picture.w2c[:3, 3]
        camera = camera[camera[:, 2] > 1e-3]
        projected = camera @ picture.K.T
        uv = (projected[:, :2] / projected[:, 2:]).numpy()
        inside = ((uv > -0.1 * width) & (uv < [1.1 * width, 1.1 * height])).all(-1)
        if inside.sum() >= 4:
            distance, index = cKDTree(uv[inside]).query(pixels, k=4)
            # Draw one neighbor with inverse-distance weights: depth edges stay sharp instead of
            # becoming slopes of floating Gaussians.
            weight = 1 / (distance + 1) ** 2
            cumulative = (weight / weight.sum(-1, keepdims=True)).cumsum(-1)
            pick = (rng.random((len(pixels), 1)) > cumulative[:, :-1]).sum(-1)
            return np.asarray(camera[:, 2].numpy()[inside][index[np.arange(len(pixels)), pick]], np.float64)
    return np.full(len(pixels), np.nan)


def thinned(points: Tensor, colors: Tensor, most: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """At most ``most`` of the points [N, 3] and their colors [N, C], sampled evenly, in order."""
    if len(points) <= most:
        return points, colors
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    chosen = order[:most].sort().values
    return points[chosen], colors[chosen]


def fill_points(
    xyz: Tensor | None, rgb: Tensor | None, pictures: Sequence[Picture], count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Complete the given points to ``count`` with pixels of the images, back-projected along their rays.

    A back-projected pixel keeps its color and takes the depth of given points that project near it.  Where there
    are none, and for a share of ``EXPLORE``, its depth is random (uniform in inverse depth over
    ``depth_range``).

    Args:
        xyz, rgb: given points [N, 3] and colors [N, C], or None.
        pictures: posed images, on the CPU.
        count: final number of points; 0 keeps only the given ones (``RANDOM_POINTS`` if there are none).

    Returns:
        points [count or N, 3] and colors [., C].
    """
    rng = np.random.default_rng(seed)
    given = 0 if xyz is None else len(xyz)
    if not given:
        count = count or RANDOM_POINTS
    missing = max(count - given, 0)
    near, far = depth_range(xyz, torch.stack([picture.w2c for picture in pictures]))
    clouds = [] if xyz is None else [xyz]
    gray = torch.full((given, len(pictures[0].image)), 0.5)
    colors = [gray if rgb is None else rgb]
    shares = np.diff(np.linspace(0, missing, len(pictures) + 1).round().astype(int))
    for picture, share in zip(pictures, shares, strict=True):
        height, width = picture.image.shape[1:]
        pixels = rng.random((int(share), 2)) * [width, height]
        depth = _pixel_depths(xyz, picture, pixels, rng)
        blind = np.isnan(depth) | (rng.random(len(pixels)) < EXPLORE)
        depth[blind] = 1 / (1 / far + rng.random(int(blind.sum())) * (1 / near - 1 / far))
        homogeneous = torch.as_tensor(np.c_[pixels, np.ones(len(pixels))], dtype=torch.float32)
        rays = homogeneous @ torch.linalg.inv(picture.K).T
        camera = rays * torch.as_tensor(depth, dtype=torch.float32)[:, None]
        clouds.append((camera - picture.w2c[:3, 3]) @ picture.w2c[:3, :3])
        column, row = pixels[:, 0].astype(int), pixels[:, 1].astype(int)
        colors.append(picture.image[:, row, column].T)
    return torch.cat(clouds), torch.cat(colors).clamp(0, 1)
