"""Where Gaussians come and go: every threshold and every factor of both strategies, against the papers' formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gaussians.densification import DefaultStrategy, MCMCStrategy
from gaussians.model import PARAMETERS, GaussianModel

RATE = 1e-3


def scene(n: int, opacity: float = 0.5, scale: float = 1e-4) -> tuple[GaussianModel, torch.optim.Adam]:
    """Gaussians one unit apart on a line, with Adam moments of their own."""
    raw = {
        "means": torch.arange(float(n))[:, None] * torch.tensor([1.0, 0, 0]),
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(n, 1),
        "log_scales": torch.full((n, 3), math.log(scale)),
        "opacity_logits": torch.full((n,), opacity).logit(),
        "sh0": torch.zeros(n, 1, 1),
        "shN": torch.zeros(n, 3, 1),
    }
    model = GaussianModel(raw, 1)
    optimizer = torch.optim.Adam([{"params": [model.raw[k]], "lr": RATE, "name": k} for k in PARAMETERS])
    for name in PARAMETERS:
        value = model.raw[name]
        count = torch.arange(1.0, n + 1).view(-1, *[1] * (value.ndim - 1)).expand_as(value).clone()
        optimizer.state[value] = {"step": torch.tensor(1.0), "exp_avg": count, "exp_avg_sq": count + 0.5}
    return model, optimizer


def moments(model: GaussianModel, optimizer: torch.optim.Adam, name: str) -> torch.Tensor:
    """First moments of one parameter, one number a Gaussian."""
    return optimizer.state[model.raw[name]]["exp_avg"].reshape(len(model), -1)[:, 0]


def info(gradient: torch.Tensor, width: int = 2, height: int = 2, visible: torch.Tensor | None = None) -> dict:
    """What the rasterizer tells of screen gradients [M, N, 2]."""
    means2d = torch.zeros_like(gradient, requires_grad=True)
    means2d.grad = gradient
    radii = torch.ones((*gradient.shape[:2], 2), dtype=torch.int32)
    if visible is not None:
        radii[~visible] = 0
    return {"means2d": means2d, "radii": radii, "width": width, "height": height}


def strategy(**options) -> DefaultStrategy:
    """Acts at every iteration, on a scene of extent 2, with a threshold of 0.5."""
    defaults = {"grow_gradient": 0.5, "scene_extent": 2.0, "start": 0, "every": 1, "reset_every": 0}
    return DefaultStrategy(**defaults | options)


# ---- adaptive density control --------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "grows"), [(0.49, False), (0.51, True)])
def test_gaussians_grow_beyond_the_threshold(norm, grows):
    """Whatever the number of cameras: the loss is their mean, so each has its share of the gradient."""
    for cameras in (1, 2, 13):
        model, optimizer = scene(3)
        gradient = torch.zeros(cameras, 3, 2)
        gradient[:, 1] = torch.tensor([0.6, 0.8]) * norm / cameras
        strategy().step(model, optimizer, info(gradient), 1)
        assert len(model) == (4 if grows else 3), cameras


@pytest.mark.parametrize(("axis", "size"), [(0, (400, 100)), (1, (100, 400))])
def test_gradients_are_in_units_of_half_the_image_along_each_axis(axis, size):
    """0.003 a pixel along 400 pixels is 0.6, along 100 it is 0.15."""
    for along, grows in ((axis, True), (1 - axis, False)):
        model, optimizer = scene(1)
        gradient = torch.zeros(1, 1, 2)
        gradient[..., along] = 0.003
        strategy().step(model, optimizer, info(gradient, *size), 1)
        assert (len(model) == 2) == grows


def test_a_scene_that_would_vanish_is_not_left_without_gaussians():
    model, optimizer = scene(3)
    with torch.no_grad():
        model.raw["opacity_logits"].fill_(-9.0)
    with pytest.raises(ValueError, match=r"iteration 1: all 3 Gaussians are too transparent or too large to keep"):
        strategy().step(model, optimizer, info(torch.zeros(1, 3, 2)), 1)
    assert len(model) == 3


def test_what_is_hidden_adds_no_gradient():
    model, optimizer = scene(1)
    gradient = torch.tensor([[[0.2, 0.0]], [[9.0, 0.0]]])
    strategy().step(model, optimizer, info(gradient, visible=torch.tensor([[True], [False]])), 1)
    assert len(model) == 1


def test_the_mean_is_over_the_steps_since_the_last_change():
    """0.4 and 0.4 stay below 0.5, also after a change that changed nothing; 0.2 and 0.9 do not."""
    for norms, count in (((0.4, 0.4, 0.4, 0.4), 1), ((0.2, 0.9), 2), ((0.1, 0.1, 0.2, 0.7), 1), ((0.9, 0.9), 2)):
        model, optimizer = scene(1)
        rules = strategy(every=2)
        for i, norm in enumerate(norms, 1):
            rules.step(model, optimizer, info(torch.tensor([[[norm, 0.0]]])), i)
        assert len(model) == count, norms


def test_an_earlier_interval_s_gradients_are_forgotten():
    model, optimizer = scene(1)
    rules = strategy(every=1, cap=1)
    rules.step(model, optimizer, info(torch.tensor([[[9.0, 0.0]]])), 1)  # no room to grow
    assert len(model) == 1
    rules.cap = 0
    rules.step(model, optimizer, info(torch.tensor([[[0.1, 0.0]]])), 2)
    assert len(model) == 1


def test_wide_is_the_longest_axis_in_units_of_the_scene():
    """Split beyond a hundredth of the extent of 2: 0.019 is cloned, 0.021 is split, along whichever axis."""
    for longest, split in ((0.019, False), (0.021, True)):
        for axis in range(3):
            model, optimizer = scene(1)
            with torch.no_grad():
                model.raw["log_scales"][0, axis] = math.log(longest)
            strategy().step(model, optimizer, info(torch.ones(1, 1, 2)), 1)
            assert len(model) == 2
            assert bool((model.means == 0).all()) != split
            expected = longest / 1.6 if split else longest
            torch.testing.assert_close(model.scales.detach().amax(-1), torch.full((2,), expected))


def test_children_are_drawn_from_their_parent_s_own_density():
    """Long along its own axis, a third of a turn about z: so are its children's places."""
    n = 3000
    model, optimizer = scene(n)
    turn = Rotation.from_rotvec([0, 0, math.pi / 3])
    scales = torch.tensor([0.5, 0.1, 0.05])
    with torch.no_grad():
        model.raw["means"].zero_()
        model.raw["quats"][:] = torch.tensor(turn.as_quat()[[3, 0, 1, 2]]).float()
        model.raw["log_scales"][:] = scales.log()
    strategy().step(model, optimizer, info(torch.ones(1, n, 2)), 1)
    assert len(model) == 2 * n
    found = np.cov(model.means.detach().numpy().T)
    expected = turn.as_matrix() @ np.diag(scales.numpy() ** 2) @ turn.as_matrix().T
    np.testing.assert_allclose(found, expected, atol=0.01)
    torch.testing.assert_close(model.scales.detach()[0], scales / 1.6)


def test_the_transparent_go_and_the_others_keep_their_moments():
    model, optimizer = scene(4)
    with torch.no_grad():
        model.raw["opacity_logits"][1] = torch.tensor(0.0049).logit()
        model.raw["opacity_logits"][2] = torch.tensor(0.0051).logit()
    strategy().step(model, optimizer, info(torch.zeros(1, 4, 2)), 1)
    assert model.means[:, 0].tolist() == [0, 2, 3]
    for name in PARAMETERS:
        if name != "shN":
            assert moments(model, optimizer, name).tolist() == [1, 3, 4]


@pytest.mark.parametrize(("longest", "iteration", "stays"), [(0.19, 7, True), (0.21, 7, False), (0.21, 3, True)])
def test_the_huge_go_after_the_first_reset(longest, iteration, stays):
    """Beyond a tenth of the extent."""
    model, optimizer = scene(2)
    with torch.no_grad():
        model.raw["log_scales"][1, 2] = math.log(longest)
    strategy(reset_every=5).step(model, optimizer, info(torch.zeros(1, 2, 2)), iteration)
    assert (len(model) == 2) == stays


def test_a_reset_leaves_twice_the_opacity_that_is_culled_and_no_moments():
    model, optimizer = scene(3)
    with torch.no_grad():
        model.raw["opacity_logits"][2] = torch.tensor(0.006).logit()
    strategy(every=7, reset_every=5).step(model, optimizer, info(torch.zeros(1, 3, 2)), 5)
    torch.testing.assert_close(model.opacities.detach(), torch.tensor([0.01, 0.01, 0.006]))
    assert moments(model, optimizer, "opacity_logits").tolist() == [0, 0, 0]
    assert moments(model, optimizer, "means").tolist() == [1, 2, 3]


def test_the_cap_leaves_room_for_the_largest_gradients():
    model, optimizer = scene(4)
    gradient = torch.tensor([0.6, 2.0, 0.1, 3.0]).view(1, 4, 1) * torch.tensor([1.0, 0])
    strategy(cap=6).step(model, optimizer, info(gradient), 1)
    assert model.means[:, 0].tolist() == [0, 1, 2, 3, 1, 3]


def test_growth_begins_after_its_start():
    for iteration, count in ((10, 1), (20, 2)):
        model, optimizer = scene(1)
        strategy(start=10, every=10).step(model, optimizer, info(torch.ones(1, 1, 2)), iteration)
        assert len(model) == count


# ---- relocation ----------------------------------------------------------------------------------------------


def still(**options) -> MCMCStrategy:
    """Relocates at every iteration, without noise."""
    defaults = {"cap": 0, "start": 0, "every": 1, "noise": 0.0}
    return MCMCStrategy(**defaults | options)


def integrals(opacity: float, copies: int) -> tuple[float, float]:
    """Opacity and scale of ``copies`` copies that draw as one did (Kheradmand et al. 2024, eq. 9), by summation."""
    each = 1 - (1 - opacity) ** (1 / copies)
    x, step = np.linspace(-12, 12, 20001, retstep=True)
    # Alpha of all copies along a line through a Gaussian of unit width.
    width = float((1 - (1 - each * np.exp(-(x**2) / 2)) ** copies).sum() * step)
    return each, opacity * math.sqrt(2 * math.pi) / width


@pytest.mark.parametrize("copies", [2, 3, 6])
def test_copies_together_draw_what_the_one_drew(copies):
    model, _ = scene(2, opacity=0.7, scale=0.2)
    with torch.no_grad():
        still()._share(model, torch.zeros(copies - 1, dtype=torch.long))
    opacity, scale = integrals(0.7, copies)
    assert float(model.opacities.detach()[0]) == pytest.approx(opacity, rel=1e-4)
    assert float(model.scales.detach()[0, 0]) == pytest.approx(0.2 * scale, rel=1e-3)
    assert float(model.opacities.detach()[1]) == pytest.approx(0.7)


def test_copies_do_not_become_dead():
    """Half of 0.008 would be under the 0.005 at which Gaussians are moved away again."""
    model, _ = scene(1, opacity=0.008)
    with torch.no_grad():
        still()._share(model, torch.zeros(1, dtype=torch.long))
    assert float(model.opacities.detach()[0]) == pytest.approx(0.005, rel=1e-4)


def test_only_the_dead_are_moved_and_onto_the_living():
    model, optimizer = scene(4)
    with torch.no_grad():
        model.raw["opacity_logits"][:] = torch.tensor([0.0049, 0.0051, 0.04, 0.9]).logit()
    still().step(model, optimizer, {}, 1)
    places = model.means.detach()[:, 0]
    assert float(places[0]) in (1, 2, 3) and places[1:].tolist() == [1, 2, 3]


def test_sources_are_drawn_in_proportion_to_their_opacity():
    """900 dead ones on two living ones of opacity 0.2 and 0.8."""
    model, optimizer = scene(902)
    with torch.no_grad():
        model.raw["opacity_logits"][:] = -9
        model.raw["opacity_logits"][:2] = torch.tensor([0.2, 0.8]).logit()
    still().step(model, optimizer, {}, 1)
    share = float((model.means.detach()[2:, 0] == 1).float().mean())
    assert share == pytest.approx(0.8, abs=0.05)


def test_sources_start_anew_and_all_others_keep_their_moments():
    model, optimizer = scene(6)
    with torch.no_grad():
        model.raw["opacity_logits"][:] = torch.tensor([0.9, 0.9, 0.9, 0.001, 0.9, 0.9]).logit()
    still().step(model, optimizer, {}, 1)
    source = int(model.means.detach()[3, 0])
    assert source != 3
    expected = [0.0 if i == source else i + 1.0 for i in range(6)]
    for name in PARAMETERS:
        if name != "shN":
            assert moments(model, optimizer, name).tolist() == expected
            assert optimizer.state[model.raw[name]]["exp_avg_sq"][source].abs().sum() == 0
    # A copy looks as its source does, in everything.
    for name in PARAMETERS:
        assert torch.equal(model.raw[name][3], model.raw[name][source])


@pytest.mark.parametrize(("cap", "count"), [(200, 105), (103, 103), (100, 100), (50, 100)])
def test_the_number_grows_by_a_twentieth_up_to_its_cap(cap, count):
    model, optimizer = scene(100)
    still(cap=cap).step(model, optimizer, {}, 1)
    assert len(model) == count
    assert moments(model, optimizer, "means").tolist() == [*range(1, 101), *[0] * (count - 100)]


@pytest.mark.parametrize(("iteration", "acts"), [(500, False), (600, True), (650, False), (25_000, False)])
def test_relocation_keeps_its_times(iteration, acts):
    model, optimizer = scene(100)
    MCMCStrategy(cap=200, noise=0.0).step(model, optimizer, {}, iteration)
    assert (len(model) == 105) == acts


def test_noise_is_shaped_by_the_gaussian_s_covariance():
    """Of standard deviation (rate noise weight) Sigma: twice as long an axis wanders four times as far."""
    n, noise = 4000, 50.0
    model, optimizer = scene(n, opacity=0.005)  # half of the weight
    turn = Rotation.from_rotvec([0.4, -0.8, 0.3]).as_matrix()
    scales = np.array([1.0, 0.5, 0.25])
    with torch.no_grad():
        model.raw["quats"][:] = torch.tensor(Rotation.from_matrix(turn).as_quat()[[3, 0, 1, 2]]).float()
        model.raw["log_scales"][:] = torch.tensor(scales).log().float()
    before = model.means.detach().clone()
    MCMCStrategy(cap=n, noise=noise, start=99).step(model, optimizer, {}, 1)
    moved = (model.means.detach() - before).numpy() / (RATE * noise * 0.5)
    covariance = turn @ np.diag(scales**2) @ turn.T
    np.testing.assert_allclose(moved.T @ moved / n, covariance @ covariance, atol=0.04)


def test_noise_fades_with_opacity_and_goes_with_the_rate():
    """sigmoid(100 (0.005 - opacity)): half at 0.005, a hundredth at 0.05."""
    opacities = torch.tensor([0.001, 0.005, 0.025, 0.05, 0.5])
    lengths = []
    for rate in (RATE, 3 * RATE):
        model, optimizer = scene(5, scale=1.0)
        optimizer.param_groups[0]["lr"] = rate
        with torch.no_grad():
            model.raw["opacity_logits"][:] = opacities.logit()
        before = model.means.detach().clone()
        MCMCStrategy(cap=5, noise=1.0, start=99).step(model, optimizer, {}, 1)
        lengths.append((model.means.detach() - before).norm(dim=-1))
    weights = 1 / (1 + torch.exp(-100 * (0.005 - opacities)))
    weights[4] = 0  # opaque ones stay
    torch.testing.assert_close(lengths[1], 3 * lengths[0], rtol=1e-2, atol=1e-6)
    # The same draws at full weight.
    model, optimizer = scene(5, scale=1.0, opacity=1e-7)
    before = model.means.detach().clone()
    MCMCStrategy(cap=5, noise=1.0, start=99).step(model, optimizer, {}, 1)
    full = (model.means.detach() - before).norm(dim=-1) / (1 / (1 + math.exp(-0.5)))
    torch.testing.assert_close(lengths[0], full * weights, rtol=1e-2, atol=1e-6)
