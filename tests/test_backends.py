"""Rasterizers behind one call: the choice, and Inria's glue against our own."""

import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from diff_gaussian_rasterization_cpu import reference
from torch import Tensor

from gaussian_renderer import backends
from gaussian_renderer.backends import get_rasterizer, inria_rasterizer
from utils import se3

ROOT = Path(__file__).resolve().parents[1]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WIDTH, HEIGHT, VIEWS = 24, 18, 3
LEARNED = ("means", "quats", "scales", "opacities", "colors")


class Settings(NamedTuple):
    """The fields of GaussianRasterizationSettings on branch dr_aa."""

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool
    debug: bool
    antialiasing: bool


class Rasterizer:
    """Inria's class on top of the plain torch twin: one camera, three channels, no gradient to the camera."""

    def __init__(self, raster_settings: Settings):
        self.s = raster_settings

    def __call__(self, means3D, means2D, opacities, colors_precomp, scales, rotations):
        s = self.s
        width, height = s.image_width, s.image_height
        projection = s.projmatrix.T  # stored transposed, for row vectors
        k = torch.eye(3, dtype=means3D.dtype)
        k[0, 0], k[1, 1] = width / (2 * s.tanfovx), height / (2 * s.tanfovy)
        # Its projection alone places the centers; its focal lengths come from the field of view.
        half = torch.tensor([width, height]) / 2
        assert torch.allclose(projection[[0, 1], [0, 1]] * half, k.diagonal()[:2])
        k[0, 2], k[1, 2] = width * (projection[0, 2] + 1) / 2, height * (projection[1, 2] + 1) / 2
        assert torch.equal(s.viewmatrix, torch.eye(4))
        project = reference.project

        def shifted(*args):
            centers, *others = project(*args)
            # Inria's means2D are normalized coordinates: half a picture's size is one.
            return centers + means2D[:, :2] * half, *others

        with mock.patch.object(reference, "project", shifted):
            picture, _, info = reference.rasterization(
                means3D, rotations, scales * s.scale_modifier, opacities[:, 0], colors_precomp,
                s.viewmatrix[None], k[None], width, height,
                rasterize_mode="antialiased" if s.antialiasing else "classic",
            )  # fmt: skip
        radii = (info["depths"][0] > 0).int()
        return picture[0].permute(2, 0, 1), radii, None


def arguments(channels: int = 3, n: int = 12, seed: int = 0) -> dict:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g)

    means = normal(n, 3) * torch.tensor([0.6, 0.5, 0.4])
    viewmats = se3.exp(0.15 * normal(VIEWS, 6))
    viewmats[1, :3, :3] = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]) @ viewmats[1, :3, :3]
    viewmats[:, 2, 3] += 4
    tensors = {
        "means": means,
        "quats": normal(n, 4),
        "scales": 0.15 * normal(n, 3).exp().clamp(0.3, 2),
        "opacities": torch.rand(n, generator=g) * 0.8 + 0.1,
        "colors": 0.4 * normal(n, 16, channels),
        "viewmats": viewmats,
    }
    k = torch.tensor([[26.0, 0, 11.0], [0, 25.0, 9.5], [0, 0, 1]])
    return {name: x.requires_grad_(name in LEARNED) for name, x in tensors.items()} | {
        "Ks": k.expand(VIEWS, 3, 3),
        "width": WIDTH,
        "height": HEIGHT,
        "sh_degree": 3,
        "backgrounds": torch.rand(VIEWS, channels, generator=g),
    }


def draw(rasterizer, channels: int, **options):
    """Pictures, coverage, the gradients of a fixed random loss, and the screen's."""
    inputs = arguments(channels)
    # Motions [M, 6] of the cameras: off the rotations a matrix's gradient is no property of the picture.
    motion = torch.zeros(VIEWS, 6, requires_grad=True)
    inputs["viewmats"] = se3.exp(motion) @ inputs["viewmats"]
    renders, alphas, info = rasterizer(**inputs, **options)
    g = torch.Generator().manual_seed(9)
    loss = (renders * torch.randn(renders.shape, generator=g)).sum()
    loss = loss + (alphas * torch.randn(alphas.shape, generator=g)).sum()
    loss.backward()
    gradients = {name: inputs[name].grad for name in LEARNED}
    gradients |= {"motion": motion.grad, "means2d": info["means2d"].grad}
    return renders.detach(), alphas.detach(), gradients


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_inria_draws_what_the_cpu_draws(channels, mode, render_mode):
    options = {"rasterize_mode": mode, "render_mode": render_mode}
    expected = draw(get_rasterizer("cpu", CPU), channels, **options)
    glued = draw(inria_rasterizer(Settings, Rasterizer), channels, **options)
    torch.testing.assert_close(glued[0], expected[0], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(glued[1], expected[1], atol=2e-4, rtol=1e-3)
    for name, theirs in expected[2].items():
        mine = glued[2][name]
        scale = theirs.abs().max()
        assert scale > 0, name
        # float32 on both sides, sums of a few hundred pixels
        message = f"gradient of {name}"
        torch.testing.assert_close(
            mine / scale, theirs / scale, atol=2e-3, rtol=0, msg=lambda m, name=message: f"{name}: {m}"
        )


def test_inria_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="no absolute screen gradients"):
        inria_rasterizer(Settings, Rasterizer)(**arguments(), absgrad=True)
    with pytest.raises(ValueError, match=r"low-pass of 0.3 square pixels, these Gaussians need 0.1"):
        inria_rasterizer(Settings, Rasterizer)(**arguments(), eps2d=0.1)


def test_rotations_compose_for_every_branch():
    quats = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    # Half turns about each axis take the branches where the quaternion's w is small.
    for twist in ([0, 0, 0], [3.1, 0, 0], [0, 3.1, 0], [0, 0, 3.1], [1, 2, -1]):
        rotation = se3.exp(torch.tensor([[0.0, 0, 0, *map(float, twist)]]))[0, :3, :3]
        turned = reference.rotation_matrices(backends._rotate_quats(rotation, quats))
        torch.testing.assert_close(turned, rotation @ reference.rotation_matrices(quats), atol=1e-5, rtol=0)


def test_auto_takes_what_is_there(monkeypatch):
    import diff_gaussian_rasterization_cpu

    assert get_rasterizer("auto", CPU) is diff_gaussian_rasterization_cpu.rasterization
    monkeypatch.setattr(backends, "_installed", lambda name: name == "gsplat")
    assert get_rasterizer("auto", CUDA) is backends._gsplat
    monkeypatch.setattr(backends, "_installed", lambda name: name == "inria")
    monkeypatch.setattr(backends, "_inria_classes", lambda: (Settings, Rasterizer))
    assert callable(get_rasterizer("auto", CUDA))
    monkeypatch.setattr(backends, "_installed", lambda name: False)
    with pytest.raises(ValueError, match=r"gsplat.*is not installed"):
        get_rasterizer("auto", CUDA)
    with pytest.raises(ValueError, match="diff_gaussian_rasterization is not installed"):
        get_rasterizer("inria", CUDA)


def test_nothing_but_the_cpu_rasterizer_needs_the_cpu_rasterizer():
    """Every command can be imported on a machine where the package was never built, and says what is missing."""
    code = """
import sys
sys.modules["diff_gaussian_rasterization_cpu"] = None
import torch, train, render, metrics, full_eval, convert
from gaussian_renderer.backends import get_rasterizer
try:
    get_rasterizer("auto", torch.device("cpu"))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "the package diff_gaussian_rasterization_cpu is not installed; install it with: pip" in done.stdout


@pytest.mark.parametrize(("name", "device"), [("cpu", CUDA), ("gsplat", CPU), ("inria", CPU), ("magic", CPU)])
def test_a_wrong_choice_is_one_sentence(name, device):
    with pytest.raises(ValueError, match=f"--rasterizer {name}"):
        get_rasterizer(name, device)


def test_an_unknown_name_is_refused_on_cuda():
    with pytest.raises(ValueError, match="--rasterizer magic"):
        get_rasterizer("magic", CUDA)


@pytest.mark.parametrize("depth", [False, True])
def test_gsplat_draws_mono_as_gray(monkeypatch, depth):
    """gsplat itself needs CUDA; what is passed on and taken back is checked with our own in its place."""
    gsplat = pytest.importorskip("gsplat")
    ours = get_rasterizer("cpu", CPU)

    def stand_in(packed, **options):
        assert options["colors"].shape[-1] == 3 and not packed
        return ours(**options)

    monkeypatch.setattr(gsplat, "rasterization", stand_in)
    options = {"render_mode": "RGB+ED" if depth else "RGB"}
    renders, alphas, _ = backends._gsplat(**arguments(1), **options)
    expected, expected_alphas, _ = ours(**arguments(1), **options)
    torch.testing.assert_close(renders, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alphas, expected_alphas)
    assert math.prod(renders.shape) == VIEWS * WIDTH * HEIGHT * (2 if depth else 1)
