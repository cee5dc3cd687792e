import pytest
import torch

from training.losses import (
    BEYOND_NOISE,
    exposure_loss,
    half_widths,
    joint_loss,
    reblur_loss,
    scale_ratio_penalty,
    subframe_loss,
)
from utils.image_metrics import l1


def images(m: int = 13, seed: int = 0) -> torch.Tensor:
    return torch.rand(m, 1, 16, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_papers_intervals():
    """Half-widths 3..6 of 13 sub-frames: 7, 9, 11, 13 sub-frames, or the whole exposure alone."""
    assert half_widths(13) == [3, 4, 5, 6]
    assert half_widths(13, multi_interval=False) == [6]
    assert half_widths(1) == [0] and half_widths(3) == [1]


def test_exposure_loss_compares_the_mean_and_not_the_frames():
    renders = images()
    assert exposure_loss(renders, renders.mean(0)) < 1e-12
    assert exposure_loss(renders.flip(0), renders.mean(0)) < 1e-12
    assert exposure_loss(renders, renders[0]) > 0.1


def test_dssim_weighs_structure():
    renders, target = images(), images(1, seed=3)[0]
    assert exposure_loss(renders, target, dssim=0.0) == pytest.approx(float(l1(renders.mean(0), target)))
    assert exposure_loss(renders, target, dssim=1.0) != pytest.approx(float(l1(renders.mean(0), target)))


def test_reblur_loss_is_zero_for_the_true_intervals_and_sees_each_of_them():
    frames = images()
    truth = {(6 - k, 6 + k): frames[6 - k : 7 + k].mean(0) for k in (3, 4, 5, 6)}
    assert reblur_loss(frames, lambda a, b: truth[(a, b)], [3, 4, 5, 6]) < 1e-12
    for key in truth:
        wrong = truth | {key: truth[key] + 0.4}
        assert float(reblur_loss(frames, lambda a, b, w=wrong: w[(a, b)], [3, 4, 5, 6])) == pytest.approx(0.1)


def test_joint_loss_takes_the_better_direction():
    frames = images()
    assert joint_loss(frames.flip(0), frames) == 0
    assert joint_loss(frames.flip(0), frames, flip=False) > 0.1
    assert joint_loss(frames, frames, flip=False) == 0


def test_joint_loss_reaches_both_sides():
    """Neither the renders nor the network are detached (supplement, eqs. 16 to 20)."""
    renders, frames = images().requires_grad_(), images(seed=1).requires_grad_()
    joint_loss(renders, frames).backward()
    assert renders.grad.abs().sum() > 0 and frames.grad.abs().sum() > 0


def test_subframe_loss_pairs_instants_and_is_calm_within_the_noise():
    renders, quiet = images(), torch.full((13,), 1e-6)
    assert float(subframe_loss(renders, renders, quiet)) == pytest.approx(0, abs=1e-9)
    assert subframe_loss(renders.flip(0), renders, quiet) > 0.1
    zero, one = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    noise = 0.03
    variance = torch.tensor([(noise / BEYOND_NOISE) ** 2])
    small, large = 0.003, 1.0  # quadratic, and absolute
    assert float(subframe_loss(zero, small * one, variance)) == pytest.approx(small**2 / (2 * noise), rel=0.01)
    assert float(subframe_loss(zero, large * one, variance)) == pytest.approx(large - noise, rel=0.01)


def test_each_target_has_its_own_noise():
    zero, one = torch.zeros(2, 1, 4, 4), 0.1 * torch.ones(2, 1, 4, 4)
    variances = torch.tensor([1e-4, 1.0])
    alone = [float(subframe_loss(zero[:1], one[:1], v[None])) for v in variances]
    assert alone[0] > 5 * alone[1]
    assert float(subframe_loss(zero, one, variances)) == pytest.approx(sum(alone) / 2)


def test_counts_are_met_by_their_mean():
    """Counts of 9 frames are ninths: their median is another value than their mean."""
    counts = torch.tensor([0.0] * 6 + [1 / 9] * 3 + [2 / 9]).view(1, 1, 1, -1)
    guess = torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.Adam([guess], lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        subframe_loss(guess.expand_as(counts), counts, counts.var().view(1)).backward()
        optimizer.step()
    assert float(guess.detach()) == pytest.approx(float(counts.mean()), abs=0.01)


def test_scale_ratio_penalty_starts_at_ten():
    scales = torch.tensor([[1.0, 1.0, 9.9], [1.0, 2.0, 14.0]])
    assert float(scale_ratio_penalty(scales)) == pytest.approx(2.0)
