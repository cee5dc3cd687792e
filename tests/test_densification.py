import pytest
import torch

from gaussians.densification import DefaultStrategy, MCMCStrategy, append, keep, rotations
from gaussians.model import PARAMETERS, GaussianModel


def scene(n: int = 20, seed: int = 0) -> tuple[GaussianModel, torch.optim.Adam]:
    generator = torch.Generator().manual_seed(seed)
    model = GaussianModel.from_points(torch.rand(n, 3, generator=generator), torch.rand(n, 1, generator=generator))
    optimizer = torch.optim.Adam([{"params": [model.raw[k]], "lr": 1e-3, "name": k} for k in PARAMETERS], fused=True)
    sum((p * p).sum() for p in model.parameters()).backward()
    optimizer.step()
    return model, optimizer


def info(gradient: torch.Tensor, visible: torch.Tensor | None = None) -> dict:
    means2d = torch.zeros_like(gradient, requires_grad=True)
    means2d.grad = gradient
    radii = torch.ones((*gradient.shape[:2], 2), dtype=torch.int32)
    if visible is not None:
        radii[~visible] = 0
    return {"means2d": means2d, "radii": radii, "width": 2, "height": 2}


def test_append_and_keep_carry_the_moments():
    model, optimizer = scene(5)
    before = {k: optimizer.state[model.raw[k]]["exp_avg"].clone() for k in PARAMETERS}
    append(model, optimizer, {k: v.detach()[:2] for k, v in model.raw.items()})
    mask = torch.tensor([True, False, True, True, True, True, True])
    keep(model, optimizer, mask)
    assert len(model) == 6
    for k in PARAMETERS:
        moment = optimizer.state[model.raw[k]]["exp_avg"]
        assert torch.equal(moment[:4], before[k][mask[:5]])
        assert (moment[4:] == 0).all()
        assert len(optimizer.state) == len(PARAMETERS)
    sum((p * p).sum() for p in model.parameters()).backward()
    optimizer.step()


def strategy(**options) -> DefaultStrategy:
    return DefaultStrategy(0.5, 1.0, start=0, every=1, reset_every=0, **options)


def test_small_gaussians_are_cloned_and_wide_ones_split():
    model, optimizer = scene(6)
    with torch.no_grad():
        model.raw["log_scales"].fill_(-9)
        model.raw["log_scales"][1] = -2
    wide = model.means[1].detach().clone()
    gradient = torch.zeros(3, 6, 2)
    gradient[:, :2] = 1
    strategy().step(model, optimizer, info(gradient), 1)
    assert len(model) == 8  # one clone; one parent became two children
    assert not (model.means == wide).all(-1).any()
    assert float(model.scales.detach().amax()) == pytest.approx(float(torch.tensor(-2.0).exp()) / 1.6, rel=1e-4)


def test_gaussians_that_are_only_rendered_do_not_count():
    found = []
    for more in (0, 3):
        model, optimizer = scene(6)
        gradient = torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(1))
        gradient = torch.cat([gradient, torch.ones(3, more, 2)], 1)
        strategy().step(model, optimizer, info(gradient), 1)
        found.append(model.means.detach())
    assert len(found[0]) > 6 and torch.equal(*found)


def test_all_subframes_count_in_the_statistics():
    """A Gaussian whose gradient shows in the first sub-frame only; the last-only variant misses it."""
    gradient = torch.zeros(3, 6, 2)
    gradient[0, 2] = 2
    for last_only, expected in ((False, 7), (True, 6)):
        model, optimizer = scene(6)
        with torch.no_grad():
            model.raw["log_scales"].fill_(-9)
        strategy(last_only=last_only).step(model, optimizer, info(gradient), 1)
        assert len(model) == expected


def test_invisible_subframes_do_not_dilute_the_mean():
    gradient = torch.zeros(3, 6, 2)
    gradient[0, 2] = 0.6
    visible = torch.ones(3, 6, dtype=torch.bool)
    visible[1:, 2] = False
    model, optimizer = scene(6)
    with torch.no_grad():
        model.raw["log_scales"].fill_(-9)
    strategy().step(model, optimizer, info(gradient, visible), 1)
    assert len(model) == 7


def test_the_cap_holds_and_the_transparent_go():
    model, optimizer = scene(6)
    with torch.no_grad():
        model.raw["log_scales"].fill_(-9)
        model.raw["opacity_logits"][5] = -20
    strategy(cap=7).step(model, optimizer, info(torch.ones(2, 6, 2)), 1)
    assert len(model) == 6  # one more allowed, one culled


def test_opacity_reset():
    model, optimizer = scene(6)
    with torch.no_grad():
        model.raw["opacity_logits"].fill_(3)
    DefaultStrategy(0.5, 1.0, start=100, reset_every=2).step(model, optimizer, info(torch.zeros(1, 6, 2)), 2)
    assert float(model.opacities.detach().amax()) <= 0.0101
    assert (optimizer.state[model.raw["opacity_logits"]]["exp_avg"] == 0).all()


def test_densification_ends_before_its_last_iteration():
    """The paper's opacity resets would else fall on it, with nothing after them to bring the opacities back."""
    for iteration, acts in ((29, False), (30, True), (60, False)):
        model, optimizer = scene(6)
        with torch.no_grad():
            model.raw["opacity_logits"].fill_(3)
        options = {"start": 0, "stop": 60, "every": 30, "reset_every": 30}
        DefaultStrategy(0.5, 1.0, **options).step(model, optimizer, info(torch.ones(1, 6, 2)), iteration)
        assert (len(model) > 6) == acts and (float(model.opacities.detach().amax()) < 0.1) == acts


def test_mcmc_relocates_the_dead_and_grows_to_its_cap():
    model, optimizer = scene(40)
    with torch.no_grad():
        model.raw["opacity_logits"].fill_(2)
        model.raw["opacity_logits"][:10] = -9
    mcmc = MCMCStrategy(cap=41, start=0, every=1, noise=0.0)
    mcmc.step(model, optimizer, {}, 1)
    assert len(model) == 41
    assert (model.opacities > 0.005).all()
    for _ in range(3):
        mcmc.step(model, optimizer, {}, 1)
    assert len(model) == 41


def test_relocation_keeps_the_picture():
    """Two copies with the shared opacity and scale integrate to what the one drew (Kheradmand eq. 9)."""
    model, _ = scene(4)
    with torch.no_grad():
        model.raw["opacity_logits"].fill_(1.0)
        model.raw["log_scales"].fill_(0.0)
    before = float(model.opacities[0].detach())
    with torch.no_grad():
        MCMCStrategy(cap=5)._share(model, torch.tensor([0]))
    alpha, sigma = float(model.opacities[0].detach()), float(model.scales[0, 0].detach())
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    one = before * torch.exp(-x * x / 2)
    g = alpha * torch.exp(-x * x / 2 / sigma**2)
    two = g + (1 - g) * g
    assert float(two.sum()) == pytest.approx(float(one.sum()), rel=1e-4)
    assert float(model.opacities[1].detach()) == pytest.approx(before)


def test_noise_moves_the_faint_alone_and_depends_on_the_iteration_only():
    moved = []
    for iteration in (3, 3, 4):
        model, optimizer = scene(10)
        with torch.no_grad():
            model.raw["opacity_logits"][:5] = -8
            model.raw["opacity_logits"][5:] = 8
        start = model.means.detach().clone()
        MCMCStrategy(cap=10, start=99).step(model, optimizer, {}, iteration)
        moved.append(model.means.detach() - start)
    assert (moved[0][:5].abs().sum(-1) > 0).all() and (moved[0][5:] == 0).all()
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], moved[2])


def test_rotations_match_scipy():
    from scipy.spatial.transform import Rotation

    quats = torch.randn(8, 4, dtype=torch.float64)
    expected = Rotation.from_quat(quats[:, [1, 2, 3, 0]].numpy()).as_matrix()
    assert torch.allclose(rotations(quats), torch.as_tensor(expected))
