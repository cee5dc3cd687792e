"""How well the training views know what a pixel shows: from how much of each Gaussian they saw."""

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

# Standard deviation of one pixel of one exposure (34 dB).
NOISE = 0.02
# Random signs a pass, and passes over all views together that are enough: each is an unbiased estimate, and their
# mean is within a fifth.
_PROBES, _PASSES = 3, 16


def _constant(gaussians: GaussianModel, sh0: Tensor) -> GaussianModel:
    """The same Gaussians in the same color from everywhere, ``sh0`` [N, 1, C]; without gradients."""
    raw = {name: value.detach() for name, value in gaussians.raw.items()}
    return GaussianModel(raw | {"sh0": sh0, "shN": sh0.new_zeros(len(sh0), 0, sh0.shape[-1])}, 0, gaussians.low_pass)


def seen_weights(drawing: Drawing, views: Sequence[SavedView]) -> Tensor:
    """Sum [N] of the squared blending weights of every Gaussian over all pixels of the views' middles.

    A rendered pixel is linear in the Gaussians' colors, with the blending weights w as coefficients.  So the
    gradient of a picture times random signs s is sum_p s_p w_p, whose square is sum_p w_p^2 on average
    (Hutchinson's estimator): one backward pass a view instead of one a pixel.
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

    The diagonal of the Fisher information, as FisherRF (Jiang et al., ECCV 2024) takes it, of the colors
    alone: every pixel measures the blend of its Gaussians with the error ``NOISE``, and before that an
    intensity is ``UNKNOWN``.  Errors of place and shape, and correlations, are left out.
    """
    return (UNKNOWN**-2 + seen_weights(drawing, views) / NOISE**2).rsqrt()


def uncertain(drawing: Drawing, views: Sequence[SavedView]) -> Drawing:
    """Draws the standard deviation of intensity as intensity, in place of the scene's own.

    Blended like colors over ``UNKNOWN``, the deviations add up as they would if all errors went the same way:
    an upper bound of the pixel's.  Where nothing is, nothing is known.
    """
    deviation = intensity_deviation(drawing, views)
    model = _constant(drawing.gaussians, (deviation - 0.5)[:, None, None] / SH_C0)
    return dataclasses.replace(drawing, gaussians=model, background=UNKNOWN)
