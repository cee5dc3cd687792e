"""A corridor for the demo's generator: textured walls with boxes along them, of any length, by a ray caster.

A recording of it is longer than any single view sees, which is what scenes trained in blocks are like.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scene.cameras import look_at, pixel_rays
from simulation.still_life import checker, fractal, soft_step
from utils.se3 import camera_centers

# The camera walks along x, from 0; the corridor goes on for some way at either end.  World units.
HALF_WIDTH, HEIGHT, BEYOND = 1.0, 1.7, 1.5
STEP = 0.15  # of the path, per view
_SPACING = 1.2  # of the boxes along the walls
_RAYS = 2  # across a pixel: the textures have no finer detail
FIRST_RAY = 0.5 / _RAYS


def poses_at(frames: np.ndarray, total: int, seed: int, views: int) -> np.ndarray:
    """World-to-camera poses [F, 4, 4] of a walk that looks at the walls to its left and right, at ``frames`` [F]."""
    rng = np.random.default_rng(seed)
    t = frames * views / total  # in views
    eye = np.stack([STEP * t, 0.25 * np.sin(0.9 * t), 0.85 + 0.12 * np.sin(0.6 * t)], -1)
    yaw = np.deg2rad(70) * np.sin(2 * np.pi * t / 8)
    ahead = np.stack([np.cos(yaw), np.sin(yaw), -0.08 + 0.12 * np.sin(0.7 * t)], -1)
    for _ in range(4):  # hand tremor
        wave = np.sin(2 * np.pi * frames[:, None] / rng.uniform(90, 260) + rng.uniform(0, 2 * np.pi, 3))
        eye += 0.003 * wave * rng.uniform(0.5, 1)
    return look_at(eye, eye + ahead, np.array([0.0, 0.0, 1.0]))


def boxes(length: float) -> tuple[Tensor, Tensor]:
    """Centers [B, 3] and half sizes [B, 3] of the boxes, which stand at alternating walls."""
    along = np.arange(-BEYOND + 0.5, length + BEYOND, _SPACING / 2)
    rng = np.random.default_rng(5)
    half = np.stack([rng.uniform(0.1, 0.2, 400), rng.uniform(0.12, 0.2, 400), rng.uniform(0.15, 0.45, 400)], -1)
    half = half[np.arange(len(along)) % 400]
    side = np.where(np.arange(len(along)) % 2 == 0, 1.0, -1.0) * (HALF_WIDTH - half[:, 1])
    centers = np.stack([along, side, half[:, 2]], -1)
    return torch.as_tensor(centers, dtype=torch.float32), torch.as_tensor(half, dtype=torch.float32)


def trace(origin: Tensor, directions: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Trace rays from one point along unit ``directions`` [R, 3]; returns intensities [R] and distances [R]."""
    low = torch.tensor([-BEYOND, -HALF_WIDTH, 0.0])
    high = torch.tensor([length + BEYOND, HALF_WIDTH, HEIGHT])
    inverse = 1 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    distance, axis = (torch.where(directions < 0, low - origin, high - origin) * inverse).min(1)
    owner = torch.full_like(axis, -1)
    centers, half = boxes(length)
    reach = half.norm(dim=-1)
    offset = centers - origin
    near = offset @ directions.T > ((offset * offset).sum(-1) - reach * reach).clamp_min(0).sqrt()[:, None]
    for i in range(len(centers)):
        rays = torch.nonzero(near[i])[:, 0]
        if not len(rays):
            continue
        middle, extent = offset[i] * inverse[rays], half[i] * inverse[rays].abs()
        enter, face = (middle - extent).max(1)
        hit = torch.nonzero((enter < (middle + extent).amin(1)) & (enter > 0) & (enter < distance[rays]))[:, 0]
        distance[rays[hit]], axis[rays[hit]], owner[rays[hit]] = enter[hit], face[hit], i
    points = origin + distance[:, None] * directions
    others = torch.tensor([[1, 2], [0, 2], [0, 1]])[axis]
    u, v = points.gather(1, others).unbind(-1)
    shade = torch.empty_like(distance)
    for kind in (*range(3), 3):
        rays = torch.nonzero((owner < 0) & (axis == kind) if kind < 3 else owner >= 0)[:, 0]
        shade[rays] = _texture(kind, u[rays], v[rays], owner[rays] + 3 * axis[rays])
    return (shade * (0.75 + 0.25 * (points[:, 2] / 0.4).clamp(0, 1))).clamp(0, 1), distance


def _texture(kind: int, u: Tensor, v: Tensor, face: Tensor) -> Tensor:
    """Intensities of an end wall, a side wall, floor and ceiling, or a face of a box."""
    if kind == 2:
        return 0.25 + 0.45 * fractal(u * 5, v * 5, 3) + 0.2 * checker(u * 2, v * 2)
    if kind == 3:
        stripes = soft_step(torch.sin(2 * torch.pi * (u * 2.5 + v * (1 + face % 3))), 0.5)
        return 0.25 + 0.35 * stripes + 0.35 * fractal(u * 7 + 1.7 * face, v * 7, 11)
    panels = soft_step(torch.sin(2 * torch.pi * u / 0.9).abs() - 0.15, 0.15)
    return 0.2 + 0.15 * panels + 0.6 * fractal(u * 6, v * 6, 21 + kind) ** 1.3


def picture(w2c: np.ndarray, k: np.ndarray, width: int, height: int, views: int) -> tuple[Tensor, Tensor]:
    """Render a sharp image [H, W] of a corridor as long as ``views`` views, and the distance [H, W] along each
    pixel's first ray, which is at ``FIRST_RAY`` in it.
    """
    pose = torch.as_tensor(w2c, dtype=torch.float32)
    rays = torch.nn.functional.normalize(pixel_rays(k, width, height, _RAYS) @ pose[:3, :3], dim=-1)
    shade, distance = trace(camera_centers(pose), rays, STEP * views)
    across = (height, _RAYS, width, _RAYS)
    return shade.reshape(across).mean((1, 3)), distance.reshape(across)[:, 0, :, 0]
