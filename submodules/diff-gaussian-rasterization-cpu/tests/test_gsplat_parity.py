"""The semantics are the field's: our statistics and our twin against gsplat 1.5's own torch functions."""

import diff_gaussian_rasterization_cpu as dgr
import pytest
import torch
from diff_gaussian_rasterization_cpu import reference
from diff_gaussian_rasterization_cpu.rendering import IGNORED, NEUTRAL
from scenes import as_float32, make

gsplat = pytest.importorskip("gsplat.cuda._torch_impl")
DefaultStrategy = pytest.importorskip("gsplat.strategy").DefaultStrategy


def gsplat_projection(scene: dict, eps2d: float = 0.3):
    covariances, _ = gsplat._quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)
    return gsplat._fully_fused_projection(
        scene["means"], covariances, scene["viewmats"], scene["Ks"], scene["width"], scene["height"],
        eps2d=eps2d, calc_compensations=True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["mixed", "needles", "offscreen", "behind"])
@pytest.mark.parametrize("eps2d", [0.3, 0.1])
def test_projection(kind, eps2d):
    scene = make(11, n=200, m=3, kind=kind)
    radii, means2d, depths, conics, compensations = gsplat_projection(scene, eps2d)
    plain, soft = (
        dgr.rasterization(**as_float32(scene), eps2d=eps2d, rasterize_mode=mode)[2]
        for mode in ("classic", "antialiased")
    )
    seen = plain["radii"][..., 0] > 0
    assert int(seen.sum()) > 50
    # gsplat's radius of 3.33 deviations ignores opacity: whatever we see, it sees, but for the rounding.
    assert (radii[seen] > 0).all()
    assert torch.allclose(plain["means2d"][seen].double(), means2d[seen], rtol=1e-4, atol=1e-3)
    assert torch.allclose(plain["depths"][seen].double(), depths[seen], rtol=1e-5)
    size = conics[seen].norm(dim=-1, keepdim=True)
    assert float(((plain["conics"][seen].double() - conics[seen]) / size).abs().max()) < 2e-3
    both = seen & (soft["radii"][..., 0] > 0)
    wanted = scene["opacities"] * compensations
    assert torch.allclose(soft["opacities"][both].double(), wanted[both], rtol=5e-3, atol=1e-5)
    assert torch.allclose(
        plain["opacities"][seen].double(), scene["opacities"].expand_as(seen)[seen], rtol=1e-5
    )


def test_the_twins_projection_and_its_gradients():
    scene = make(12, n=100, m=1)
    outputs = []
    for which in ("gsplat", "ours"):
        s = {
            k: v.clone().requires_grad_() if k in ("means", "quats", "scales", "viewmats") else v
            for k, v in scene.items()
        }
        if which == "gsplat":
            _, centers, depths, conics, compensation = gsplat_projection(s)
            covariance = torch.linalg.inv(conics[0][:, [0, 1, 1, 2]].reshape(-1, 2, 2))
            parts = centers[0], depths[0], covariance, compensation[0]
        else:
            parts = reference.project(
                s["means"],
                s["quats"],
                s["scales"],
                s["viewmats"][0],
                s["Ks"][0],
                s["width"],
                s["height"],
                0.3,
            )
        total = sum(
            (p * torch.linspace(0.5, 1.5, p.numel(), dtype=p.dtype).reshape(p.shape)).sum() for p in parts
        )
        total.backward()
        outputs.append((parts, [s[k].grad for k in ("means", "quats", "scales", "viewmats")]))
    for ours, theirs in zip(outputs[1][0], outputs[0][0], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    for ours, theirs in zip(outputs[1][1], outputs[0][1], strict=True):
        assert torch.allclose(ours[..., :3, :], theirs[..., :3, :], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("degree", range(4))
def test_spherical_harmonics(degree):
    g = torch.Generator().manual_seed(degree)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=g, dtype=torch.float64), dim=-1)
    coefficients = torch.randn(50, (degree + 1) ** 2, 3, generator=g, dtype=torch.float64)
    ours = (reference.sh_basis(degree, directions)[..., None] * coefficients).sum(1)
    assert torch.allclose(ours, gsplat._spherical_harmonics(degree, directions, coefficients), atol=1e-9)


def test_the_call_has_gsplats_parameters():
    """What both name has the same order and default; all else passes by keyword, at gsplat's default but for packed."""
    import inspect

    from gsplat.rendering import rasterization as theirs

    their = inspect.signature(theirs).parameters
    our = inspect.signature(dgr.rasterization).parameters
    common = [name for name in our if name in their]
    assert set(our) - set(their) == {"screen_gradients", "crop", "gsplat"}
    assert common == [name for name in their if name in our]
    for name in common:
        assert our[name].default == their[name].default, name
    others = {name: their[name].default for name in their if name not in our}
    assert set(others) == set(NEUTRAL) | set(IGNORED)
    assert others.pop("packed") is True
    scene = as_float32(make(13))
    plain, full = dgr.rasterization(**scene), dgr.rasterization(**scene, packed=False, **others)
    assert torch.equal(plain[0], full[0])


def test_gsplats_strategy_densifies():
    """gsplat's own densification runs on our ``info``, before and after the Gaussians have become more."""
    scene = as_float32(make(14, n=50))
    names = ("means", "quats", "scales", "opacities", "colors")
    raw = {name: scene.pop(name) for name in names}
    raw["scales"], raw["opacities"] = raw["scales"].log(), raw["opacities"].logit()
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in raw.items()})
    optimizers = {name: torch.optim.Adam([value]) for name, value in params.items()}
    strategy = DefaultStrategy(refine_start_iter=0, refine_every=1, grow_grad2d=1e-9)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    for step in (1, 2):
        before = len(params["means"])
        renders, _, info = dgr.rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
            params["colors"], **scene, packed=False,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        renders.sum().backward()
        strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
        assert len(params["means"]) > before
