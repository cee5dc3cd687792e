"""Every loss against numbers worked out by hand."""

import math

import pytest
import torch

from training.losses import (
    exposure_loss,
    half_widths,
    joint_loss,
    l1,
    reblur_loss,
    scale_ratio_penalty,
    subframe_loss,
)
from utils.image_metrics import ssim


def level(*values: float) -> torch.Tensor:
    """Even pictures [M, 1, 4, 5] of these intensities."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 4, 5)


def test_l1_weighs_each_pixel():
    a, b = torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([[0.0, 2.0, 5.0]])
    assert float(l1(a, b)) == pytest.approx((1 + 2 + 3) / 3)
    assert float(l1(a, b, torch.tensor([[0.0, 1.0, 2.0]]))) == pytest.approx((0 + 2 + 2 * 3) / 3)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_exposure_loss_mixes_l1_and_ssim(share):
    random = torch.Generator().manual_seed(0)
    renders = torch.rand(5, 1, 12, 14, generator=random, dtype=torch.float64)
    target = torch.rand(1, 12, 14, generator=random, dtype=torch.float64)
    blurred = renders.sum(0) / 5
    likeness = float(ssim(blurred[None], target[None]))
    expected = (1 - share) * float((blurred - target).abs().mean()) + share * (1 - likeness)
    assert float(exposure_loss(renders, target, share)) == pytest.approx(expected)


def test_a_fifth_of_the_exposure_loss_is_structure():
    renders, target = level(0.2, 0.4), level(0.5)[0]
    expected = 0.8 * 0.2 + 0.2 * (1 - float(ssim(level(0.3), level(0.5))))
    assert float(exposure_loss(renders, target)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("subframes", "widths"),
    [(1, [0]), (3, [1]), (5, [1, 2]), (9, [2, 3, 4]), (13, [3, 4, 5, 6]), (17, [4, 5, 6, 7, 8])],
)
def test_intervals_go_from_a_quarter_of_the_sub_frames_to_all(subframes, widths):
    assert half_widths(subframes) == widths
    assert half_widths(subframes, multi_interval=False) == widths[-1:]


def test_reblur_loss_is_the_mean_over_symmetric_intervals():
    frames, asked = level(0.0, 0.1, 0.5, 0.2, 0.9), []

    def interval(a, b):
        asked.append((a, b))
        return level(0.3)[0]

    # Means 0.8 / 3 and 1.7 / 5 of three and of five frames.
    expected = (abs(0.8 / 3 - 0.3) + abs(1.7 / 5 - 0.3)) / 2
    assert float(reblur_loss(frames, interval, [1, 2])) == pytest.approx(expected)
    assert asked == [(1, 3), (0, 4)]


def test_joint_loss_is_the_smaller_of_both_directions():
    renders, frames = level(0.1, 0.5, 0.8), level(0.9, 0.5, 0.3)
    forward, backward = (0.8 + 0 + 0.5) / 3, (0.2 + 0 + 0.1) / 3
    assert float(joint_loss(renders, frames)) == pytest.approx(backward)
    assert float(joint_loss(renders.flip(0), frames)) == pytest.approx(backward)
    assert float(joint_loss(renders, frames, flip=False)) == pytest.approx(forward)


@pytest.mark.parametrize(("difference", "deviation"), [(0.01, 0.03), (0.2, 0.03), (0.05, 0.05), (0.3, 0.002)])
def test_subframe_loss_is_charbonnier_s(difference, deviation):
    """sqrt(d^2 + n^2) - n, the noise n at 1.4 standard deviations of the targets."""
    noise = 1.4 * deviation
    expected = math.sqrt(difference**2 + noise**2) - noise
    found = subframe_loss(level(0.5 + difference), level(0.5), torch.tensor([deviation**2], dtype=torch.float64))
    assert float(found) == pytest.approx(expected)


def test_the_ratio_s_excess_is_of_the_longest_over_the_shortest_axis():
    scales = torch.tensor([[24.0, 3.0, 2.0], [1.0, 10.0, 5.0], [0.5, 10.0, 0.5]])
    assert float(scale_ratio_penalty(scales)) == pytest.approx((2 + 0 + 10) / 3)
    assert float(scale_ratio_penalty(scales, largest=4.0)) == pytest.approx((8 + 6 + 16) / 3)
