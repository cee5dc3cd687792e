"""PSNR, SSIM and gain against known values and formulas written out."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d

from utils.image_metrics import gain_match, psnr, ssim, ssim_map


def picture(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("error, decibels", [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0), (0.05, 26.0206)])
def test_psnr_of_a_constant_error(error, decibels):
    truth = picture(0, 1, 1, 8, 9) * 0
    assert float(psnr(truth + error, truth)) == pytest.approx(decibels, abs=1e-3)


def test_psnr_of_each_image_and_a_finite_best():
    truth = picture(0, 2, 3, 8, 9)
    values = psnr(torch.stack([truth[0], truth[1] + 0.1]), truth)
    assert values.tolist() == pytest.approx([120, 20])
    half = truth.clone()
    half[:, :, :4] += 0.1
    assert float(psnr(half, truth)[0]) == pytest.approx(20 + 10 * math.log10(2))


def ssim_written_out(x, y):
    """Wang et al. 2004, eq. 13: 11-tap Gaussian of sigma 1.5, zeros outside, as in 3DGS."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(z):
        return convolve1d(convolve1d(z, taps, 0, mode="constant"), taps, 1, mode="constant")

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_ssim_is_the_formula():
    x, y = picture(1, 2, 3, 24, 31), picture(2, 2, 3, 24, 31)
    expected = np.stack([[ssim_written_out(*p) for p in zip(a, b, strict=True)]
                         for a, b in zip(x.numpy(), y.numpy(), strict=True)])  # fmt: skip
    assert np.allclose(ssim_map(x, y).numpy(), expected)
    assert float(ssim(x, y)) == pytest.approx(expected.mean())


def test_ssim_of_equal_and_of_opposite_pictures():
    x = picture(3, 1, 1, 32, 32)
    assert float(ssim(x, x)) == pytest.approx(1)
    assert float(ssim(1 - x, x)) < 0
    assert float(ssim(x, 0.9 * x + 0.05)) == pytest.approx(float(ssim(0.9 * x + 0.05, x)))


def test_ssim_has_the_right_gradient():
    x, y = picture(4, 1, 1, 6, 7).requires_grad_(), picture(5, 1, 1, 6, 7)
    assert torch.autograd.gradcheck(lambda image: ssim(image, y), (x,))


def test_gain_is_the_least_squares_one():
    truth = picture(6, 1, 1, 16, 16)
    matched, gain = gain_match(truth * 0.4, truth)
    assert gain == pytest.approx(2.5)
    assert torch.allclose(matched, truth)
    image = truth + 0.1 * picture(7, 1, 1, 16, 16)
    matched, gain = gain_match(image, truth)
    best = float((matched - truth).square().sum())
    assert all(float((image * (gain + d) - truth).square().sum()) > best for d in (-1e-3, 1e-3))


def test_a_black_picture_has_no_gain():
    matched, gain = gain_match(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert gain == 0 and torch.equal(matched, torch.zeros(1, 1, 4, 4))
