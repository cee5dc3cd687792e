"""How precisely the training views determine a pixel's intensity, from how much of each Gaussian they saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from gaussian_renderer import render_trajectory
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView
from gaussians.model import GaussianModel
from gaussians.sh import SH_C0
from pictures.colors import UNKNOWN

# Standard deviation of one pixel in one exposure (34 dB).
NOISE = 0.02
# Random sign images per pass, and a sufficient number of passes over all views together: each pass is an unbiased
# estimate, and the error of their mean is within a fifth.
_PROBES, _PASSES = 3, 16


def _constant(gaussians: GaussianModel, sh0: Tensor) -> GaussianModel:
    """The same Gaussians with the view-independent color ``sh0`` [N, 1, C]; without gradients."""
    raw = {name: value.detach() for name, value in gaussians.raw.items()}
    return GaussianModel(raw | {"sh0": sh0, "shN": sh0.new_zeros(len(sh0), 0, sh0.shape[-1])}, 0, gaussians.low_pass)


def seen_weights(drawing: Drawing, views: Sequence[SavedView]) -> Tensor:
    """Sum [N] of the squared blending weights of every Gaussian over all pixels of the views' middle renders.

    A rendered pixel is linear in the Gaussians' colors; the blending weights w are its coefficients.  The gradient
    of a render multiplied by random signs s is sum_p s_p w_p, and its square is sum_p w_p^2 on average
    (Hutchinson's estimator): one backward pass per view instead of one per pixel.
    """
    random = torch.Generator().manual_seed(0)
    g, rounds = drawing.gaussians, -(-_PASSES // len(views))
    total = torch.zeros(len(g), device=g.means.device)
    for view in views:
        w2c, k = view.at(torch.tensor([0.5])).to(total), view.K.to(total)
        for _ in range(rounds):
            with torch.enable_grad():
                model = _constant(g, total.new_zeros(len(g), 1, _PROBES))
                model.requires_grad_(False).raw["sh0"].requires_grad_()
                images = render_trajectory(
                    model, w2c, k, view.width, view.height, drawing.rasterizer
                ).images
                signs = torch.randint(0, 2, images.shape, generator=random).to(images) * 2 - 1
                (gradient,) = torch.autograd.grad((images * signs).sum(), model.raw["sh0"])
            total += (gradient / SH_C0).square().mean(-1)[:, 0] / rounds
    return total


def intensity_deviation(drawing: Drawing, views: Sequence[SavedView]) -> Tensor:
    """Standard deviation [N] of each Gaussian's intensity, given that the views' pixels were fitted.

    Uses the diagonal of the Fisher information, as in FisherRF (Jiang et al., ECCV 2024), for the colors only:
    every pixel measures the blend of its Gaussians with the error ``NOISE``, and the prior deviation of an
    intensity is ``UNKNOWN``.  Errors of position and shape, and correlations, are ignored.
    """
    return (UNKNOWN**-2 + seen_weights(drawing, views) / NOISE**2).rsqrt()


def uncertain(drawing: Drawing, views: Sequence[SavedView]) -> Drawing:
    """Render the standard deviation of intensity in place of intensity.

    Blended like colors over ``UNKNOWN``, the deviations add up as if all errors had the same sign: an upper bound
    for the pixel's deviation.  Empty space is unknown.
    """
    deviation = intensity_deviation(drawing, views)
    model = _constant(drawing.gaussians, (deviation - 0.5)[:, None, None] / SH_C0)
    return dataclasses.replace(drawing, gaussians=model, background=UNKNOWN)
