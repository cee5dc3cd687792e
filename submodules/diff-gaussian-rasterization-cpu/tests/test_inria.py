"""Inria's classes, used as a 3DGS program uses them."""

import math

import diff_gaussian_rasterization_cpu as dgr
import pytest
import torch
from diff_gaussian_rasterization_cpu import GaussianRasterizationSettings, GaussianRasterizer, reference
from scenes import as_float32, make

CENTERD = torch.tensor([[24.0, 0, 10.5], [0, 25.0, 8.5], [0, 0, 1]], dtype=torch.float64)


def inria_settings(scene: dict, antialiasing: bool = False, **changes) -> GaussianRasterizationSettings:
    """Camera 0 of a scene in 3DGS's terms, made the way its ``scene/cameras.py`` does."""
    width, height, k = scene["width"], scene["height"], scene["Ks"][0]
    tanfovx, tanfovy = width / (2 * float(k[0, 0])), height / (2 * float(k[1, 1]))
    world_view = scene["viewmats"][0].T
    near, far = 0.01, 100.0
    projection = torch.zeros(4, 4, dtype=world_view.dtype)
    projection[0, 0], projection[1, 1] = 1 / tanfovx, 1 / tanfovy
    projection[0, 2] = 2 * k[0, 2] / width - 1
    projection[1, 2] = 2 * k[1, 2] / height - 1
    projection[2, 2], projection[2, 3], projection[3, 2] = far / (far - near), -far * near / (far - near), 1
    fields = {
        "image_height": height, "image_width": width, "tanfovx": tanfovx, "tanfovy": tanfovy,
        "bg": scene["backgrounds"][0], "scale_modifier": 1.0, "viewmatrix": world_view,
        "projmatrix": world_view @ projection.T, "sh_degree": 3, "campos": world_view.inverse()[3, :3],
        "prefiltered": False, "debug": False, "antialiasing": antialiasing,
    }  # fmt: skip
    return GaussianRasterizationSettings(**(fields | changes))


def scene(seed: int) -> dict:
    return as_float32(make(seed, m=1, channels=3) | {"Ks": CENTERD[None]})


def draw(s: dict, settings: GaussianRasterizationSettings, **colors):
    means2d = torch.zeros_like(s["means"], requires_grad=True)
    means2d.retain_grad()
    rasterizer = GaussianRasterizer(raster_settings=settings)
    out = rasterizer(
        means3D=s["means"],
        means2D=means2d,
        opacities=s["opacities"][:, None],
        scales=s["scales"],
        rotations=s["quats"],
        **(colors or {"shs": s["colors"]}),
    )
    return *out, means2d


@pytest.mark.parametrize("antialiasing", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_same_picture_and_gradients_as_the_plain_call(antialiasing, seed):
    ours, theirs = scene(seed), scene(seed)
    learned = ("means", "quats", "scales", "opacities", "colors")
    for s in (ours, theirs):
        for name in learned:
            s[name].requires_grad_()
    mode = "antialiased" if antialiasing else "classic"
    renders, _, info = dgr.rasterization(**ours, rasterize_mode=mode, near_plane=0.2)
    picture, radii, inverse_depth, means2d = draw(theirs, inria_settings(theirs, antialiasing))
    assert picture.shape == (3, 17, 21) and inverse_depth.shape == (1, 17, 21) and radii.dtype == torch.int32
    assert torch.allclose(picture, renders[0].permute(2, 0, 1), atol=1e-6)
    assert torch.equal(radii > 0, info["radii"][0, :, 0] > 0)
    weights = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
    (picture * weights).sum().backward()
    (renders[0].permute(2, 0, 1) * weights).sum().backward()
    for name in learned:
        error = float((theirs[name].grad - ours[name].grad).norm())
        assert error <= 1e-5 * float(ours[name].grad.norm()) + 1e-7, name
    half = torch.tensor([21 / 2, 17 / 2])
    assert torch.allclose(means2d.grad[:, :2], info["means2d"].grad[0] * half, atol=1e-5)
    assert (means2d.grad[:, 2] == 0).all()


def test_inverse_depth_and_its_gradient():
    s = scene(4)
    s["means"].requires_grad_()
    inverse_depth = draw(s, inria_settings(s))[2]
    inverse_depth.square().sum().backward()
    twin = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene(4).items()}
    twin["means"].requires_grad_()
    depths = (twin["means"] @ twin["viewmats"][0, :3, :3].T + twin["viewmats"][0, :3, 3])[:, 2]
    plain = twin | {"colors": (1 / depths)[:, None], "sh_degree": None, "backgrounds": None}
    wanted = reference.rasterization(**plain, near_plane=0.2)[0][0, ..., 0]
    wanted.square().sum().backward()
    assert torch.allclose(inverse_depth[0].double(), wanted, atol=2e-5)
    error = float((s["means"].grad.double() - twin["means"].grad).norm())
    assert error < 2e-3 * float(twin["means"].grad.norm())


def test_colors_given_and_scale_modifier():
    s = scene(5)
    colors = torch.rand(len(s["means"]), 3, generator=torch.Generator().manual_seed(0))
    picture = draw(s, inria_settings(s, scale_modifier=0.5), colors_precomp=colors)[0]
    smaller = s | {"scales": s["scales"] * 0.5, "colors": colors, "sh_degree": None}
    assert torch.allclose(
        picture, dgr.rasterization(**smaller, near_plane=0.2)[0][0].permute(2, 0, 1), atol=1e-6
    )


def test_radii_are_three_deviations_of_the_longer_axis():
    s = as_float32(make(0, n=1, m=1, channels=3, kind="mixed") | {"Ks": CENTERD[None]})
    s["means"] = torch.tensor([[0.0, 0.0, 4.0]])
    s["viewmats"] = torch.eye(4)[None]
    s["scales"] = torch.tensor([[0.5, 0.1, 0.1]])
    s["quats"] = torch.tensor([[1.0, 0, 0, 0]])
    s["opacities"] = torch.tensor([0.9])
    wanted = math.ceil(3 * math.sqrt((24 * 0.5 / 4) ** 2 + 0.3))
    assert draw(s, inria_settings(s))[1].tolist() == [wanted]


def test_mark_visible():
    s = scene(1)
    s["means"][:5, 2] -= 20
    visible = GaussianRasterizer(inria_settings(s)).markVisible(s["means"])
    depths = (s["means"] @ s["viewmats"][0, :3, :3].T + s["viewmats"][0, :3, 3])[:, 2]
    assert torch.equal(visible, depths > 0.2)


def test_a_pose_learns_where_it_asks():
    s = scene(2)
    world_view = s["viewmats"][0].T.clone().requires_grad_()
    draw(s, inria_settings(s)._replace(viewmatrix=world_view))[0].sum().backward()
    s["viewmats"].requires_grad_()
    dgr.rasterization(**s, near_plane=0.2)[0].sum().backward()
    assert torch.allclose(world_view.grad.T, s["viewmats"].grad[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shs": None}, "shs, colors_precomp: expected exactly one"),
        ({"scales": None}, "scales, rotations: expected both"),
        ({"cov3D_precomp": torch.zeros(24, 6)}, "cov3D_precomp is not supported"),
        ({"opacities": torch.zeros(24)}, r"opacities: expected .* got \[24, 3\] and \[24\]"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    s = scene(0)
    arguments = {
        "means3D": s["means"], "means2D": torch.zeros(24, 3), "opacities": s["opacities"][:, None],
        "shs": s["colors"], "scales": s["scales"], "rotations": s["quats"],
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        GaussianRasterizer(inria_settings(s))(**(arguments | change))
    with pytest.raises(ValueError, match="campos: expected the center"):
        GaussianRasterizer(inria_settings(s, campos=torch.ones(3) * 9))(**arguments)
