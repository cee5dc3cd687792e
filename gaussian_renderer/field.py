"""The scene rendered in training: Gaussians, or any other field with the same methods."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from gaussian_renderer import Rasterizer, RenderOutput, render_trajectory
from gaussians.model import GaussianModel


class Field(Protocol):
    """A scene from which images are rendered, with gradients for itself and the poses."""

    def render(self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, iteration: int) -> RenderOutput:
        """Render images from the poses ``w2c`` [M, 4, 4] with camera matrices ``intrinsics`` [M, 3, 3], in pixels.

        ``iteration`` is the training iteration, for quantities that increase during training.
        """

    def parameters(self) -> dict[str, Tensor]:
        """The learned tensors, by name; each has a learning rate."""

    def restore(self, stored: dict[str, Tensor]) -> None:
        """Restore stored ``parameters``, which may have another length."""


class GaussianField:
    """3D Gaussians as they are rendered during training.

    Args:
        sh_degree_interval: iterations between increments of the active degree of the spherical harmonics.
        screen_gradients: keep the gradients of the projected centers (densification by gradient).
    """

    def __init__(
        self, gaussians: GaussianModel, rasterizer: Rasterizer, sh_degree_interval: int, screen_gradients: bool
    ):
        self.gaussians = gaussians
        self.rasterizer = rasterizer
        self.sh_degree_interval = sh_degree_interval
        self.screen_gradients = screen_gradients

    def render(self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, iteration: int) -> RenderOutput:
        """See ``Field.render``."""
        return render_trajectory(
            self.gaussians,
            w2c,
            intrinsics,
            width,
            height,
            self.rasterizer,
            sh_degree=iteration // self.sh_degree_interval,
            screen_gradients=self.screen_gradients,
        )

    def parameters(self) -> dict[str, Tensor]:
        """The Gaussians' raw parameters (``gaussians.model.PARAMETERS``)."""
        return dict(self.gaussians.raw.items())

    def restore(self, stored: dict[str, Tensor]) -> None:
        """See ``Field.restore``."""
        before = self.gaussians
        self.gaussians = GaussianModel(stored, before.sh_degree, before.low_pass).to(before.means.device)
