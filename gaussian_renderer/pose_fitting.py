"""Poses of held-out views, fitted with the scene frozen.

A trained scene and its trajectories are determined only up to a similarity.  A held-out view's given pose is first
transformed into the recovered frame, then refined against that view alone.  The scene does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gaussian_renderer.field import Field, pixel_cameras
from scene.cameras import Camera
from scene.trajectory import Trajectory
from spike import Mosaic
from utils import se3
from utils.image_metrics import l1
from utils.randomness import generator


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


def _freeze(field: Field) -> None:
    for parameter in field.parameters().values():
        parameter.requires_grad_(False)


def _comparison(field: Field, camera: Camera, targets: Tensor, mosaic: Mosaic | None) -> Callable[[Tensor], Tensor]:
    """A function of poses [M, 4, 4] that compares (L1) renders from them with ``targets`` [M, C, H, W].

    A field that computes gradients from some pixels at once is compared at as many pixels, drawn once.
    """
    count, height, width = len(targets), *targets.shape[-2:]
    k = camera.K.to(targets)
    if field.pixels is None or field.pixels >= count * height * width:

        def whole(poses: Tensor) -> Tensor:
            images = field.render(poses, k.expand(count, 3, 3), width, height).images
            return l1(images if mosaic is None else mosaic.of(images), targets)

        return whole
    chosen = torch.randperm(count * height * width, generator=generator("rays", 0, count))[: field.pixels]
    which, rest = chosen // (height * width), chosen % (height * width)
    row, column = rest // width, rest % width
    cameras = pixel_cameras(k.expand(len(chosen), 3, 3), torch.stack([column, row], -1))
    wanted = targets[which, :, row, column][..., None, None]
    return lambda poses: l1(field.render(poses[which], cameras, 1, 1).images, wanted)


def fit_pose(
    field: Field, camera: Camera, w2c: Tensor, image: Tensor, *, steps: int = 150, rate: float = 2e-3
) -> Tensor:
    """Fit the pose [4, 4], starting at ``w2c``, from which the frozen scene best matches ``image`` [C, H, W] (L1)."""
    _freeze(field)
    twist = torch.zeros(6, device=w2c.device, requires_grad=True)
    distance = _comparison(field, camera, image[None], None)
    best = _descend(twist, lambda: distance((se3.exp(twist) @ w2c)[None]), steps, rate)
    return se3.exp(best) @ w2c


def fit_trajectory(
    field: Field,
    camera: Camera,
    trajectory: Trajectory,
    index: int,
    times: Tensor,
    targets: Tensor,
    *,
    mosaic: Mosaic | None = None,
    steps: int = 150,
    rate: float = 2e-3,
) -> Tensor:
    """Fit the knots of a held-out exposure to its sub-frame targets [M, C, H, W]; returns poses [M, 4, 4].

    With ``mosaic``, the renders' colors are compared as the sensor's pixels see them.
    """
    _freeze(field)
    distance = _comparison(field, camera, targets, mosaic)
    best = _descend(trajectory.increments, lambda: distance(trajectory.view(index, times)), steps, rate)
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
