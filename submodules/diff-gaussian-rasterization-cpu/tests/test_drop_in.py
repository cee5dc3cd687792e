"""Programs written for gsplat and for Inria's rasterizer run with another module behind their own import lines."""

import importlib
import math
import sys
from types import SimpleNamespace

import diff_gaussian_rasterization_cpu as dgr
import pytest
import torch
from scenes import as_float32, make


def poses(views: int) -> torch.Tensor:
    camtoworlds = torch.eye(4).repeat(views, 1, 1)
    camtoworlds[:, 0, 3] = torch.linspace(-0.4, 0.4, views)
    camtoworlds[:, 2, 3] = -3
    return camtoworlds


def test_a_loop_written_for_gsplat_learns_and_densifies(monkeypatch):
    gsplat = pytest.importorskip("gsplat.rendering")
    pytest.importorskip("gsplat.strategy")
    monkeypatch.setattr(gsplat, "rasterization", dgr.rasterization)
    monkeypatch.delitem(sys.modules, "gsplat_loop", raising=False)
    loop = importlib.import_module("gsplat_loop")
    torch.manual_seed(0)
    n, views, width, height = 60, 4, 40, 30
    Ks = torch.tensor([[40.0, 0, width / 2], [0, 40.0, height / 2], [0, 0, 1]]).repeat(views, 1, 1)
    with torch.no_grad():
        images = dgr.rasterization(
            torch.randn(n, 3) * 0.5, torch.randn(n, 4), torch.rand(n, 3) * 0.3, torch.rand(n), torch.rand(n, 3),
            torch.linalg.inv(poses(views)), Ks, width, height,
        )[0]  # fmt: skip
    runner = loop.Runner(images, poses(views), Ks, torch.randn(100, 3) * 0.5)
    losses = runner.train(120)
    assert sum(losses[-8:]) < 0.35 * sum(losses[:8])
    assert len(runner.splats["means"]) > 120  # grown
    assert float(runner.pose_adjust.detach().abs().max()) > 1e-4


@pytest.fixture
def inria(monkeypatch):
    """The module of 3DGS's layout, with our package behind its import."""
    monkeypatch.setitem(sys.modules, "diff_gaussian_rasterization", dgr)
    monkeypatch.delitem(sys.modules, "inria_layout", raising=False)
    yield importlib.import_module("inria_layout")
    sys.modules.pop("inria_layout", None)


@pytest.mark.parametrize("antialiasing", [False, True])
def test_a_render_function_in_inrias_layout(inria, antialiasing):
    scene = as_float32(make(3, n=60, m=1, channels=3))
    width, height = 32, 24
    fov_x, fov_y = 2 * math.atan(width / (2 * 30)), 2 * math.atan(height / (2 * 30))
    camera = inria.Camera(scene["viewmats"][0], fov_x, fov_y, width, height)
    names = {"get_xyz": "means", "get_scaling": "scales", "get_rotation": "quats", "get_features": "colors"}
    pc = SimpleNamespace(active_sh_degree=3, get_opacity=scene["opacities"][:, None].requires_grad_())
    for theirs, ours in names.items():
        setattr(pc, theirs, scene[ours].clone().requires_grad_())
    pipe = SimpleNamespace(debug=False, antialiasing=antialiasing)
    out = inria.render(camera, pc, pipe, torch.tensor([0.1, 0.2, 0.3]))
    wanted = dgr.rasterization(
        **{name: scene[name] for name in ("means", "quats", "scales", "opacities", "colors", "viewmats")},
        Ks=torch.tensor([[[30.0, 0, 16], [0, 30.0, 12], [0, 0, 1]]]), width=width, height=height, sh_degree=3,
        near_plane=0.2, backgrounds=torch.tensor([[0.1, 0.2, 0.3]]),
        rasterize_mode="antialiased" if antialiasing else "classic",
    )[0]  # fmt: skip
    assert torch.allclose(out["render"], wanted[0].detach().permute(2, 0, 1).clamp(0, 1), atol=1e-5)
    out["render"].sum().backward()
    # what densification in these programs reads
    norms = out["viewspace_points"].grad[out["visibility_filter"][:, 0], :2].norm(dim=-1)
    assert len(norms) and (norms > 0).any() and out["depth"].shape == (1, height, width)
    for tensor in (pc.get_opacity, *(getattr(pc, name) for name in names)):
        assert torch.isfinite(tensor.grad).all() and (tensor.grad != 0).any()
    plain = inria.render(camera, pc, pipe, torch.zeros(3), override_color=torch.rand(60, 3))["render"]
    assert plain.shape == (3, height, width)
