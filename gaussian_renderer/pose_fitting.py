"""Poses of held-out views, fitted with the scene frozen.

A trained scene and its trajectories are determined only up to a similarity.  A held-out view's given pose is first
transformed into the recovered frame, then refined against that view alone.  The scene does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gaussian_renderer import Rasterizer, render_trajectory
from gaussians.model import GaussianModel
from scene.cameras import Camera
from scene.trajectory import Trajectory
from spike import Mosaic
from utils import se3
from utils.image_metrics import l1


def _descend(parameter: Tensor, loss: Callable[[], Tensor], steps: int, rate: float) -> Tensor:
    """Adam with a rate that decays to a hundredth; returns the parameter with the lowest loss."""
    optimizer = torch.optim.Adam([parameter], lr=rate, eps=1e-15)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / max(steps, 1)))
    best, best_value = parameter.detach().clone(), float("inf")
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        if float(value.detach()) < best_value:
            best, best_value = parameter.detach().clone(), float(value.detach())
        value.backward()
        optimizer.step()
        decay.step()
    return best


def _freeze(gaussians: GaussianModel) -> None:
    for parameter in gaussians.parameters():
        parameter.requires_grad_(False)


def fit_pose(
    gaussians: GaussianModel,
    camera: Camera,
    w2c: Tensor,
    image: Tensor,
    rasterizer: Rasterizer,
    *,
    steps: int = 150,
    rate: float = 2e-3,
) -> Tensor:
    """Fit the pose [4, 4], starting at ``w2c``, from which the frozen scene best matches ``image`` [C, H, W] (L1)."""
    _freeze(gaussians)
    twist = torch.zeros(6, device=w2c.device, requires_grad=True)

    def loss() -> Tensor:
        pose = se3.exp(twist) @ w2c
        out = render_trajectory(gaussians, pose[None], camera.K.to(w2c), camera.width, camera.height, rasterizer)
        return l1(out.images[0], image)

    best = _descend(twist, loss, steps, rate)
    return se3.exp(best) @ w2c


def fit_trajectory(
    gaussians: GaussianModel,
    camera: Camera,
    trajectory: Trajectory,
    index: int,
    times: Tensor,
    targets: Tensor,
    rasterizer: Rasterizer,
    *,
    mosaic: Mosaic | None = None,
    steps: int = 150,
    rate: float = 2e-3,
) -> Tensor:
    """Fit the knots of a held-out exposure to its sub-frame targets [M, C, H, W]; returns poses [M, 4, 4].

    With ``mosaic``, the renders' colors are compared as the sensor's pixels see them.
    """
    _freeze(gaussians)

    def loss() -> Tensor:
        out = render_trajectory(
            gaussians,
            trajectory.view(index, times),
            camera.K.to(times),
            camera.width,
            camera.height,
            rasterizer,
        )
        return l1(out.images if mosaic is None else mosaic.of(out.images), targets)

    best = _descend(trajectory.increments, loss, steps, rate)
    with torch.no_grad():
        trajectory.increments.copy_(best)
        return trajectory.view(index, times)


def similarity_of(poses: Iterable[Tensor], scale: float, rotation: Tensor, translation: Tensor) -> list[Tensor]:
    """World-to-camera poses after the world is transformed by ``x -> scale R x + t`` (camera units scale along)."""
    moved = []
    for w2c in poses:
        new = torch.eye(4, dtype=w2c.dtype)
        new[:3, :3] = w2c[:3, :3] @ rotation.T
        new[:3, 3] = -new[:3, :3] @ (scale * rotation @ se3.camera_centers(w2c) + translation)
        moved.append(new)
    return moved
