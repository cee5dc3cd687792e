"""The scene rendered in training: Gaussians, or any other field with the same methods."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from gaussian_renderer import Rasterizer, RenderOutput, render_trajectory
from gaussians.model import GaussianModel
from scene.model_folder import save_gaussians, save_input_points


class Field(Protocol):
    """A scene from which images are rendered, with gradients for itself and the poses."""

    @property
    def pixels(self) -> int | None:
        """How many pixels a gradient is computed from at once (None: those of whole images)."""

    def render(
        self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, iteration: int | None = None
    ) -> RenderOutput:
        """Render images from the poses ``w2c`` [M, 4, 4] with camera matrices ``intrinsics`` [M, 3, 3], in pixels.

        ``iteration`` is the training iteration, for quantities that change during training; None for a finished scene.
        """

    def parameters(self) -> dict[str, Tensor]:
        """The learned tensors, by name; each has a learning rate."""

    def restore(self, stored: dict[str, Tensor]) -> None:
        """Restore stored ``parameters``, which may have another length."""

    def sizes(self) -> dict[str, int]:
        """How large the scene is, for the log: a count by name."""

    def histograms(self) -> dict[str, Tensor]:
        """Quantities whose distribution is worth watching, by name."""

    def save_start(self, model: Path) -> None:
        """Write the initial scene into the folder of a model, if there is something to see."""

    def save(self, folder: Path) -> None:
        """Write the scene into the folder of an iteration."""


def pixel_cameras(intrinsics: Tensor, pixels: Tensor) -> Tensor:
    """Camera matrices [B, 3, 3] whose image of 1x1 pixel is the pixel (column, row) ``pixels`` [B, 2] of a camera."""
    moved = intrinsics.clone()
    moved[:, :2, 2] -= pixels.to(intrinsics)
    return moved


class GaussianField:
    """3D Gaussians as they are rendered during training.

    Args:
        sh_degree_interval: iterations between increments of the active degree of the spherical harmonics (0: all are
            active from the start).
        screen_gradients: keep the gradients of the projected centers (densification by gradient).
        surroundings: Gaussians that are rendered, too, but not learned.
    """

    pixels: int | None = None

    def __init__(
        self, gaussians: GaussianModel, rasterizer: Rasterizer, sh_degree_interval: int = 1,
        screen_gradients: bool = False, surroundings: GaussianModel | None = None,
    ):  # fmt: skip
        self.gaussians = gaussians
        self.surroundings = surroundings if surroundings is None else surroundings.requires_grad_(False)
        self.rasterizer = rasterizer
        self.sh_degree_interval = sh_degree_interval
        self.screen_gradients = screen_gradients

    def render(
        self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, iteration: int | None = None
    ) -> RenderOutput:
        """See ``Field.render``."""
        every = self.sh_degree_interval
        return render_trajectory(
            self.gaussians,
            w2c,
            intrinsics,
            width,
            height,
            self.rasterizer,
            sh_degree=None if iteration is None or not every else iteration // every,
            screen_gradients=self.screen_gradients,
            surroundings=self.surroundings,
        )

    def parameters(self) -> dict[str, Tensor]:
        """The Gaussians' raw parameters (``gaussians.model.PARAMETERS``)."""
        return dict(self.gaussians.raw.items())

    def restore(self, stored: dict[str, Tensor]) -> None:
        """See ``Field.restore``."""
        before = self.gaussians
        self.gaussians = GaussianModel(stored, before.sh_degree, before.low_pass).to(before.means.device)

    def sizes(self) -> dict[str, int]:
        """The numbers of Gaussians."""
        around = {} if self.surroundings is None else {"surroundings": len(self.surroundings)}
        return {"gaussians": len(self.gaussians)} | around

    def histograms(self) -> dict[str, Tensor]:
        """The opacities [N]."""
        return {"opacities": self.gaussians.opacities.detach()}

    def save_start(self, model: Path) -> None:
        """Write the initial points as ``input.ply``."""
        save_input_points(model, self.gaussians.means, self.gaussians.base_colors)

    def save(self, folder: Path) -> None:
        """See ``Field.save``."""
        save_gaussians(folder, self.gaussians, self.surroundings)
