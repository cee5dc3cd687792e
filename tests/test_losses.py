import pytest
import torch

from utils.losses import (
    exposure_loss,
    half_widths,
    joint_loss,
    l1,
    reblur_loss,
    scale_ratio_penalty,
    subframe_loss,
)


def images(m: int = 13, seed: int = 0) -> torch.Tensor:
    return torch.rand(m, 1, 16, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_papers_intervals():
    """Half-widths 3..6 of 13 sub-frames: 7, 9, 11, 13 sub-frames, or the whole exposure alone."""
    assert half_widths(13) == [3, 4, 5, 6]
    assert half_widths(13, multi_interval=False) == [6]


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
    renders = images()
    assert float(subframe_loss(renders, renders)) == pytest.approx(0, abs=1e-12)
    assert subframe_loss(renders.flip(0), renders) > 0.1
    zero, one = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    small, large = 0.003, 1.0  # quadratic, and absolute
    assert float(subframe_loss(zero, small * one, noise=0.03)) == pytest.approx(small**2 / 0.06, rel=0.01)
    assert float(subframe_loss(zero, large * one, noise=0.03)) == pytest.approx(large - 0.03, rel=0.01)


def test_scale_ratio_penalty_starts_at_ten():
    scales = torch.tensor([[1.0, 1.0, 9.9], [1.0, 2.0, 14.0]])
    assert float(scale_ratio_penalty(scales)) == pytest.approx(2.0)
