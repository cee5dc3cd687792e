"""Rendering Gaussians for display: without gradients, in front of a background."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gaussian_renderer import Rasterizer, RenderOutput, render_trajectory
from gaussians.model import GaussianModel


@dataclass(frozen=True)
class Drawing:
    """Renders Gaussians in front of a gray ``background``, without gradients.

    ``surroundings`` are rendered, too: what a block of a large scene sees of its neighbors.
    """

    gaussians: GaussianModel
    rasterizer: Rasterizer
    background: float = 0.0
    surroundings: GaussianModel | None = None

    @torch.no_grad()
    def __call__(self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, depth: bool = False) -> RenderOutput:
        """Render from ``w2c`` [M, 4, 4] with ``intrinsics`` [3, 3]; see ``render_trajectory``."""
        device = self.gaussians.means.device
        gray = torch.full((self.gaussians.channels,), self.background, device=device)
        return render_trajectory(
            self.gaussians,
            w2c.to(device),
            intrinsics.to(device),
            width,
            height,
            self.rasterizer,
            background=gray if self.background else None,
            depth=depth,
            surroundings=self.surroundings,
        )
