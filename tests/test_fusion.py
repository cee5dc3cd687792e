import math

import pytest
import torch

from utils.fusion import REACH, fuse
from utils.image_metrics import psnr


def scene(noise: float = 0.02, height: int = 60, width: int = 80):
    """A picture, its spikes' intensity with known noise, and a render that is wrong in its right half."""
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, height, width, generator=random)
    spikes = truth + noise * torch.randn(truth.shape, generator=random)
    render = truth.clone()
    render[..., width // 2 :] += 0.1 * torch.randn(2, 1, height, width // 2, generator=random)
    return truth, spikes, render, torch.full((1, 1, height, width), noise**2)


def test_the_spikes_mend_a_wrong_render_and_spare_a_good_one():
    truth, spikes, render, variance = scene()
    fused = fuse(render, spikes - render, variance)
    right, left = (slice(80 // 2 + REACH, None), slice(None, 80 // 2 - REACH))
    assert (psnr(fused[..., right], truth[..., right]) > psnr(spikes[..., right], truth[..., right]) - 0.5).all()
    assert (psnr(fused[..., right], truth[..., right]) > psnr(render[..., right], truth[..., right]) + 10).all()
    assert (psnr(fused[..., left], truth[..., left]) > psnr(spikes[..., left], truth[..., left]) + 9).all()


@pytest.mark.parametrize(("error", "gain"), [(1.0, 1 / 3), (2.0, 2 / 3), (0.1, 0.01 / 2.01)])
def test_the_gain_is_a_third_where_the_residual_is_what_noise_makes(error, gain):
    render, residual = torch.full((1, 1, 30, 40), 0.5), torch.full((1, 1, 30, 40), 0.03 * error)
    fused = fuse(render, residual, torch.full((1, 1, 30, 40), 0.03**2))
    torch.testing.assert_close(fused, render + gain * residual)


def test_without_a_residual_or_noise_nothing_breaks():
    image = torch.rand(3, 1, 12, 9)  # smaller than the neighbourhood
    torch.testing.assert_close(fuse(image, torch.zeros_like(image), torch.zeros(1, 1, 12, 9)), image)
    torch.testing.assert_close(fuse(image, torch.ones_like(image), torch.zeros(1, 1, 12, 9)), image + 1)
    assert math.isfinite(float(fuse(image, torch.ones_like(image), torch.ones(3, 1, 12, 9)).sum()))
