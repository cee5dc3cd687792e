"""Rendering Gaussians from camera poses: one call renders all sub-frames of a trajectory."""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gaussian_renderer.backends import Rasterizer
from gaussians.model import GaussianModel

# Gaussians nearer than this are not drawn, world units: gsplat's default.
NEAR_PLANE = 0.01


@dataclass
class RenderOutput:
    """Images of M cameras.

    ``images`` [M, C, H, W] are intensities, ``alphas`` [M, 1, H, W], ``depths`` [M, 1, H, W] the expected depth in
    world units (if requested), ``info`` the rasterizer's per-Gaussian statistics (gsplat's keys).
    """

    images: Tensor
    alphas: Tensor
    depths: Tensor | None = None
    info: dict[str, Any] = field(default_factory=dict)


def render_trajectory(
    gaussians: GaussianModel,
    w2c: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    rasterizer: Rasterizer,
    *,
    background: Tensor | None = None,
    sh_degree: int | None = None,
    depth: bool = False,
    screen_gradients: bool = False,
    surroundings: GaussianModel | None = None,
) -> RenderOutput:
    """Render the Gaussians from M poses in one call; gradients reach the Gaussians and the poses.

    Args:
        w2c: world-to-camera poses [M, 4, 4], OpenCV axes.
        intrinsics: camera matrix [3, 3], or [M, 3, 3], in pixels.
        rasterizer: a backend of ``gaussian_renderer.backends``.
        background: intensity behind the scene [C]; black if None.
        sh_degree: active degree of the spherical harmonics (the model's own if None).
        depth: whether to render the expected depth as well.
        screen_gradients: keep the gradients of the projected centers in ``info`` (densification by gradient).
        surroundings: more Gaussians, of the same degree, with the same low-pass; in ``info`` they follow the others.
    """
    m = len(w2c)
    degree = gaussians.sh_degree if sh_degree is None else min(sh_degree, gaussians.sh_degree)
    parts = [gaussians] if surroundings is None else [gaussians, surroundings]
    renders, alphas, info = rasterizer(
        means=_joined([part.means for part in parts]),
        quats=_joined([part.quats for part in parts]),
        scales=_joined([part.scales for part in parts]),
        opacities=_joined([part.opacities for part in parts]),
        colors=_joined([part.coefficients(degree) for part in parts]),
        viewmats=w2c,
        Ks=intrinsics.expand(m, 3, 3),
        width=width,
        height=height,
        near_plane=NEAR_PLANE,
        sh_degree=degree,
        backgrounds=None if background is None else background.expand(m, -1),
        render_mode="RGB+ED" if depth else "RGB",
        eps2d=gaussians.low_pass.variance,
        rasterize_mode="antialiased" if gaussians.low_pass.compensated else "classic",
        screen_gradients=screen_gradients,
    )
    images = renders.permute(0, 3, 1, 2)
    channels = gaussians.channels
    return RenderOutput(
        images=images[:, :channels],
        alphas=alphas.permute(0, 3, 1, 2),
        depths=images[:, channels:] if depth else None,
        info=info,
    )


def _joined(parts: list[Tensor]) -> Tensor:
    """The tensors as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
