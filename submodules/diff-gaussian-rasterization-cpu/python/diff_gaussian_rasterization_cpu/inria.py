"""The classes of Inria's 3DGS rasterizer (branch ``dr_aa``) on the CPU.

A program written for ``diff_gaussian_rasterization`` runs without CUDA by changing one import::

    from diff_gaussian_rasterization_cpu import GaussianRasterizationSettings, GaussianRasterizer

The README lists the differences.  In addition, ``viewmatrix`` receives a gradient if it requires one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diff_gaussian_rasterization_cpu.rendering import Call

NEAR_PLANE = 0.2  # Inria's in_frustum
FAR_PLANE = 1e10
LOW_PASS = 0.3  # square pixels


class GaussianRasterizationSettings(NamedTuple):
    """One camera, as 3DGS's ``gaussian_renderer`` describes it.

    ``viewmatrix`` and ``projmatrix`` (world to camera, world to clip space) [4, 4] are transposed, for row
    vectors; ``bg`` and ``campos`` [3]; ``prefiltered`` and ``debug`` change nothing here.
    """

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool = False
    debug: bool = False
    antialiasing: bool = False


def _intrinsics(s: GaussianRasterizationSettings) -> Tensor:
    """Camera matrix [3, 3] in pixels: focal lengths from the field of view, center from the projection."""
    projection = torch.linalg.solve(s.viewmatrix.detach().double(), s.projmatrix.detach().double()).T
    k = torch.eye(3)
    k[0, 0], k[1, 1] = s.image_width / (2 * s.tanfovx), s.image_height / (2 * s.tanfovy)
    k[0, 2] = s.image_width * (1 + projection[0, 2]) / 2
    k[1, 2] = s.image_height * (1 + projection[1, 2]) / 2
    return k


class GaussianRasterizer(torch.nn.Module):
    """Renders Gaussians from one camera."""

    def __init__(self, raster_settings: GaussianRasterizationSettings):
        super().__init__()
        self.raster_settings = raster_settings

    def markVisible(self, positions: Tensor) -> Tensor:
        """Which of ``positions`` [N, 3] are beyond the near plane: bool [N]."""
        with torch.no_grad():
            view = self.raster_settings.viewmatrix
            return positions @ view[:3, 2] + view[3, 2] > NEAR_PLANE

    def forward(
        self,
        means3D: Tensor,
        means2D: Tensor,
        opacities: Tensor,
        shs: Tensor | None = None,
        colors_precomp: Tensor | None = None,
        scales: Tensor | None = None,
        rotations: Tensor | None = None,
        cov3D_precomp: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Render an image [3, H, W], radii [N] int32 (0: not visible) and inverse depth [1, H, W].

        Args:
            means3D: centers [N, 3].
            means2D: [N, 3], values unused; receives the gradient of the projected centers, in units of half
                the image size.
            opacities: [N, 1].
            shs: spherical-harmonic coefficients [N, K, 3]; or
            colors_precomp: colors [N, 3].
            scales: [N, 3].
            rotations: quaternions [N, 4], wxyz.
            cov3D_precomp: not supported; give scales and rotations.

        Raises:
            ValueError: a wrong shape, type, device or value, or not exactly one of shs and colors_precomp.
        """
        s = self.raster_settings
        if (shs is None) == (colors_precomp is None):
            raise ValueError("shs, colors_precomp: expected exactly one of them")
        if scales is None or rotations is None or cov3D_precomp is not None:
            raise ValueError("scales, rotations: expected both; cov3D_precomp is not supported on the CPU")
        colors = colors_precomp if shs is None else shs
        assert colors is not None
        viewmats, ks = s.viewmatrix.T[None], _intrinsics(s)[None]
        with torch.no_grad():
            center = -viewmats[0, :3, :3].T @ viewmats[0, :3, 3]
            far_off = float((center - s.campos).abs().max()) > 1e-3 * (1 + float(center.abs().max()))
        if shs is not None and far_off:
            raise ValueError(
                f"campos: expected the center of viewmatrix {center.tolist()}, got {s.campos.tolist()}"
            )
        if means2D.shape[:1] != means3D.shape[:1] or opacities.shape != (len(means3D), 1):
            raise ValueError(
                f"means2D, opacities: expected [{len(means3D)}, 3] and [{len(means3D)}, 1], "
                f"got {list(means2D.shape)} and {list(opacities.shape)}"
            )
        half = means2D.new_tensor([0.5 * s.image_width, 0.5 * s.image_height])
        call = Call(
            means3D, rotations, scales * s.scale_modifier, opacities[:, 0], colors, viewmats, ks,
            s.image_width, s.image_height, NEAR_PLANE, FAR_PLANE, LOW_PASS, None if shs is None else s.sh_degree,
            s.bg.reshape(1, -1), s.antialiasing, "inverse", None,
            means2d=means2D[None, :, :2] * half if means2D.requires_grad and torch.is_grad_enabled() else None,
        )  # fmt: skip
        call.check()
        image, _, info = call.render()
        return image[0, :-1], _radii(info["conics"][0], info["radii"][0]), image[0, -1:]


def _radii(conics: Tensor, seen: Tensor) -> Tensor:
    """Inria's radius [N]: three standard deviations along the longer axis, in whole pixels."""
    a, b, c = conics.double().unbind(-1)
    smaller = 0.5 * (a + c) - (0.25 * (a - c).square() + b.square()).sqrt()  # eigenvalue of the inverse
    radius = 3 / smaller.clamp_min(1e-12).sqrt()
    return torch.where(seen[:, 0] > 0, radius.ceil(), torch.zeros_like(radius)).int()
