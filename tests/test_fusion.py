import math

import pytest
import torch

from scene.fusion import fuse
from utils.image_metrics import psnr

NOISE = 0.02


def scene():
    """Two pictures, their spikes' intensity with known noise, and renders of which the second is wrong."""
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 60, 80, generator=random)
    spikes = truth + NOISE * torch.randn(truth.shape, generator=random)
    render = truth + torch.tensor([0.005, 0.1]).view(2, 1, 1, 1) * torch.randn(truth.shape, generator=random)
    return truth, spikes, render


def test_the_spikes_mend_a_wrong_render_and_spare_a_good_one():
    truth, spikes, render = scene()
    good, wrong = psnr(fuse(render, spikes - render, torch.tensor([NOISE**2])), truth).tolist()
    assert good > float(psnr(spikes, truth)[0]) + 6
    assert wrong > float(psnr(spikes, truth)[1]) - 0.2 and wrong > float(psnr(render, truth)[1]) + 10


@pytest.mark.parametrize(("energy", "gain"), [(1.0, 0), (1.3, 0), (2.6, 1 - 0.5**2.5), (13.0, 1 - 0.1**2.5), (0.1, 0)])
def test_the_gain_is_the_share_of_the_residual_that_noise_does_not_explain(energy, gain):
    render, residual = torch.full((1, 1, 30, 40), 0.5), torch.full((1, 1, 30, 40), 0.03 * math.sqrt(energy))
    fused = fuse(render, residual, torch.tensor([0.03**2]))
    torch.testing.assert_close(fused, render + gain * residual)


def test_a_pixel_that_its_neighbors_contradict_is_not_believed():
    render, residual = torch.full((1, 1, 30, 40), 0.5), torch.full((1, 1, 30, 40), 0.1)
    residual[0, 0, 10, 20] = -0.4  # dead
    residual[0, 0, 20, 5:8] = 0.3  # an edge, rendered in a wrong place
    fused = fuse(render, residual, torch.zeros(1))
    assert fused[0, 0, 10, 20] == 0.5
    fused[0, 0, 10, 20] += residual[0, 0, 10, 20]
    torch.testing.assert_close(fused, render + residual)


def test_without_a_residual_or_noise_nothing_breaks():
    image = torch.rand(3, 1, 12, 9)
    torch.testing.assert_close(fuse(image, torch.zeros_like(image), torch.zeros(1)), image)
    torch.testing.assert_close(fuse(image, torch.ones_like(image), torch.zeros(1)), image + 1)
