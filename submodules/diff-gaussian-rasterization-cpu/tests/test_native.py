"""The native rasterizer against its torch twin, forward and backward, on every instruction set."""

import diff_gaussian_rasterization_cpu as dgr
import pytest
import torch
from diff_gaussian_rasterization_cpu import reference
from scenes import as_float32, make

LEARNED = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")
KINDS = ("mixed", "occluded", "needles", "extreme", "behind", "offscreen")


@pytest.fixture(params=dgr.instruction_sets())
def isa(request):
    before = dgr.instruction_set()
    dgr.set_instruction_set(request.param)
    yield request.param
    dgr.set_instruction_set(before)


def run(function, scene, **options):
    """Renders and the gradients of a fixed random functional of them."""
    scene = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    for name in LEARNED:
        scene[name].requires_grad_()
    renders, alphas, info = function(**scene, **options)
    g = torch.Generator().manual_seed(99)
    weights = torch.randn(renders.shape, generator=g, dtype=torch.float64).to(renders.dtype)
    alpha_weights = torch.randn(alphas.shape, generator=g, dtype=torch.float64).to(renders.dtype)
    ((renders * weights).sum() + (alphas * alpha_weights).sum()).backward()
    gradients = {name: scene[name].grad for name in LEARNED}
    gradients["viewmats"] = gradients["viewmats"][:, :3]
    return renders.detach(), alphas.detach(), gradients, info


def compare(scene, tolerance=2e-3, **options):
    ours = run(dgr.rasterization, as_float32(scene), **options)
    twin = run(reference.rasterization, scene, **options)
    # float32 against float64: a pair at the 1/255 threshold may fall on either side, a pixel at most
    difference = (ours[0].double() - twin[0]).abs()
    assert float(difference.quantile(0.99)) < 2e-5 and float(difference.max()) < 6e-3
    assert float((ours[1].double() - twin[1]).abs().max()) < 6e-3
    for name in LEARNED:
        a, b = ours[2][name].double(), twin[2][name]
        assert torch.isfinite(a).all()
        assert float((a - b).norm()) <= tolerance * float(b.norm()) + 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("seed", range(4))
def test_against_the_twin(isa, kind, mode, seed):
    # A needle's inverse covariance loses digits in float32, the twin's too: run in float32 it is 1 % off.
    compare(make(seed, kind=kind), tolerance=4e-2 if kind == "needles" else 2e-3, rasterize_mode=mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("degree", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("views", [1, 3])
def test_colors_and_views(isa, channels, degree, views):
    compare(make(7, m=views, channels=channels, degree=degree))


@pytest.mark.parametrize("render_mode", ["D", "ED", "RGB+D", "RGB+ED"])
@pytest.mark.parametrize("channels", [1, 3])
def test_depth(isa, render_mode, channels):
    scene = make(3, channels=channels, kind="occluded")
    compare(scene, render_mode=render_mode)


def test_crop_is_the_picture_cut_out(isa):
    scene = as_float32(make(5))
    whole = dgr.rasterization(**scene)[0]
    part = dgr.rasterization(**scene, crop=(3, 2, 11, 13))[0]
    assert torch.equal(part, whole[:, 2:15, 3:14])
    compare(make(5), crop=(3, 2, 11, 13))


@pytest.mark.parametrize("farthest", [1.0, 4.0])
def test_depths_over_orders_of_magnitude(isa, farthest):
    """The sort takes more passes the farther depths lie apart."""
    scene = make(6, n=60, m=2)
    depth = torch.logspace(0, farthest, 60, dtype=torch.float64)[torch.randperm(60, generator=torch.manual_seed(0))]
    scene["means"] = torch.cat([scene["means"][:, :2] / 3, torch.ones(60, 1)], dim=1) * depth[:, None]
    scene["scales"] *= depth[:, None] / 3
    compare(scene)


def test_a_moved_principal_point_is_no_crop():
    """The Jacobian's limits belong to the whole picture: what leans in from far outside would change."""
    scene = as_float32(make(5, kind="offscreen"))
    shifted = scene["Ks"].clone()
    shifted[:, 0, 2] -= 3
    shifted[:, 1, 2] -= 2
    moved = dgr.rasterization(**(scene | {"Ks": shifted, "width": 11, "height": 13}))[0]
    part = dgr.rasterization(**scene, crop=(3, 2, 11, 13))[0]
    assert torch.allclose(moved, part, atol=0.1) and not torch.allclose(moved, part, atol=1e-3)


def test_some_views_are_those_of_all(isa):
    scene = as_float32(make(8, n=500, m=4))
    rows = torch.tensor([2, 0])
    some = scene | {k: scene[k][rows] for k in ("viewmats", "Ks", "backgrounds")}
    assert torch.equal(dgr.rasterization(**some)[0], dgr.rasterization(**scene)[0][rows])


def test_instruction_sets_agree():
    scene = as_float32(make(4, n=3000, m=3, channels=3, kind="occluded"))
    before, results = dgr.instruction_set(), []
    for name in dgr.instruction_sets():
        dgr.set_instruction_set(name)
        results.append(run(dgr.rasterization, scene))
    dgr.set_instruction_set(before)
    for other in results[1:]:
        # a pair at a threshold may fall on either side
        assert float((other[0] - results[0][0]).abs().quantile(0.999)) < 2e-5
        for name in LEARNED:
            difference = float((other[2][name] - results[0][2][name]).norm())
            assert difference < 2e-3 * float(results[0][2][name].norm()), name
    with pytest.raises(ValueError, match="instruction set 'mmx' is not available"):
        dgr.set_instruction_set("mmx")


@pytest.mark.parametrize("seed", range(3))
def test_screen_gradients(isa, seed, monkeypatch):
    """``info["means2d"].grad`` is the gradient of every projected center, ``absgrad`` no smaller."""
    scene = make(seed, m=2)
    probe = torch.zeros(2, len(scene["means"]), 2, dtype=torch.float64, requires_grad=True)
    project, cameras = reference.project, iter(range(2))

    def moved(*arguments):
        centers, *rest = project(*arguments)
        return centers + probe[next(cameras)], *rest

    monkeypatch.setattr(reference, "project", moved)
    run(reference.rasterization, scene)
    *_, info = run(dgr.rasterization, as_float32(scene), absgrad=True)
    got = info["means2d"].grad.double()
    assert float((got - probe.grad).norm()) < 2e-3 * float(probe.grad.norm())
    assert (info["means2d"].absgrad >= info["means2d"].grad.abs() - 1e-3).all()
    silent = run(dgr.rasterization, as_float32(scene), screen_gradients=False)[3]
    assert silent["means2d"].grad is None
    assert torch.allclose(silent["means2d"], info["means2d"].detach())


def test_no_gaussians_and_none_in_sight(isa):
    scene = as_float32(make(0))
    far = scene | {"means": scene["means"] - 100}
    picture, alpha, info = dgr.rasterization(**far)
    assert (alpha == 0).all() and (info["radii"] == 0).all()
    assert torch.allclose(picture, scene["backgrounds"][:, None, None].expand_as(picture))
    empty = scene | {k: scene[k][:0] for k in ("means", "quats", "scales", "opacities", "colors")}
    empty["means"].requires_grad_()
    picture, alpha, _ = dgr.rasterization(**empty)
    picture.sum().backward()
    assert (alpha == 0).all()


def test_invalid_gaussians_are_left_out_and_counted(isa):
    scene = as_float32(make(1))
    good = dgr.rasterization(**scene)[0]
    junk = {
        k: torch.cat([scene[k][:4] * 1.0, scene[k]])
        for k in ("means", "quats", "scales", "opacities", "colors")
    }
    junk["means"][0, 1] = float("nan")
    junk["scales"][1, 0] = float("inf")
    junk["quats"][2] = 0
    junk["colors"][3, 2] = float("nan")
    ours = run(dgr.rasterization, scene | junk)
    assert ours[3]["n_invalid"] == 4
    assert torch.allclose(ours[0], good, atol=1e-6)
    for gradient in ours[2].values():
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_bad_parameter_costs_one_gaussian(name, value):
    scene = as_float32(make(9, m=3))
    bad = {k: scene[k].clone() for k in ("means", "quats", "scales", "opacities", "colors")}
    bad[name].view(len(bad[name]), -1)[7, -1] = float(value)
    picture, _, gradients, info = run(dgr.rasterization, scene | bad)
    others = torch.arange(24) != 7
    wanted = run(dgr.rasterization, scene | {k: scene[k][others] for k in bad})
    assert info["n_invalid"] == 1 and wanted[3]["n_invalid"] == 0
    assert (info["radii"][:, 7] == 0).all()
    assert torch.allclose(picture, wanted[0], atol=1e-6)
    for k in bad:
        assert (gradients[k][7] == 0).all(), k
        assert torch.allclose(gradients[k][others], wanted[2][k], rtol=1e-4, atol=1e-5), k
    assert torch.allclose(gradients["viewmats"], wanted[2]["viewmats"], rtol=1e-4, atol=1e-4)


def test_gradients_of_what_is_culled_are_zero():
    """All gradient memory is written, also that of absolute screen gradients: it held other numbers before."""
    scene = as_float32(make(3, n=400, m=3, kind="behind"))
    for _ in range(2):
        _, _, gradients, info = run(dgr.rasterization, scene, absgrad=True)
        culled = info["radii"][..., 0] == 0
        assert culled.all(0).any()
        assert (info["means2d"].grad[culled] == 0).all() and (info["means2d"].absgrad[culled] == 0).all()
        for name in ("means", "quats", "scales", "opacities", "colors"):
            assert (gradients[name][culled.all(0)] == 0).all(), name


def assert_same_on(scene, *thread_counts):
    """Pictures and gradients are the same bits whatever the number of threads."""
    results = []
    before = dgr.thread_count()
    for threads in thread_counts:
        dgr.set_thread_count(threads)
        results.append(run(dgr.rasterization, scene))
    dgr.set_thread_count(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        for name in LEARNED:
            assert torch.equal(results[0][2][name], other[2][name]), name


@pytest.mark.parametrize("views", [1, 5])
def test_results_do_not_depend_on_threads(isa, views):
    scene = as_float32(make(2, n=3000, m=views))
    assert_same_on(scene, 1, 2, 3)


def test_the_order_does_not_depend_on_threads():
    """Scenes large enough for several threads to sort: many equal depths, which keep the Gaussians' order."""
    scene = as_float32(make(2, n=20_000, m=1, kind="behind"))
    scene["means"][:, 2] = (scene["means"][:, 2] * 50).round() / 50
    assert_same_on(scene, 1, 2, 3, 7)


def test_the_twin_has_correct_gradients():
    """float64 gradcheck of the twin itself, on pictures small enough for finite differences."""
    for seed in range(3):
        scene = make(seed, n=3, m=1) | {"width": 8, "height": 8}

        def picture(*values, scene=scene):
            return reference.rasterization(
                **(scene | dict(zip(LEARNED, values, strict=True))), rasterize_mode="antialiased"
            )[0]

        values = [scene[name].clone().requires_grad_() for name in LEARNED]
        assert torch.autograd.gradcheck(picture, values, eps=1e-7, atol=2e-4, rtol=1e-3, nondet_tol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": [[0.0, 0.0, 0.0]]}, "means: expected a torch tensor, got list"),
        ({"means": torch.zeros(24, 2)}, r"means: expected shape \[any, 3\], got \[24, 2\]"),
        ({"quats": torch.zeros(23, 4)}, r"quats: expected shape \[24, 4\], got \[23, 4\]"),
        ({"scales": torch.zeros(24, 3, dtype=torch.float64)}, "scales: expected float32, got float64"),
        ({"viewmats": torch.full((2, 4, 4), float("nan"))}, "viewmats: expected finite numbers"),
        ({"viewmats": torch.zeros(2, 3, 4)}, r"viewmats: expected shape \[any, 4, 4\], got \[2, 3, 4\]"),
        ({"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3), "backgrounds": None}, "at least one camera"),
        ({"Ks": torch.eye(3)[None]}, r"Ks: expected shape \[2, 3, 3\], got \[1, 3, 3\]"),
        ({"Ks": -torch.eye(3).repeat(2, 1, 1)}, "Ks: expected positive focal lengths"),
        ({"Ks": torch.full((2, 3, 3), float("inf"))}, "Ks: expected finite numbers"),
        ({"opacities": torch.zeros(24, 1)}, r"opacities: expected shape \[24\], got \[24, 1\]"),
        ({"colors": torch.zeros(24, 16, 2)}, "colors: expected 1 or 3 channels, got 2"),
        ({"colors": torch.zeros(24, 9, 1)}, "sh_degree: 3 needs 16 to 16 coefficients, got 9"),
        ({"backgrounds": torch.zeros(2, 3)}, r"backgrounds: expected shape \[2, 1\], got \[2, 3\]"),
        ({"backgrounds": torch.full((2, 1), float("nan"))}, "backgrounds: expected finite numbers"),
        ({"near_plane": 0.0}, "expected 0 < near < far"),
        ({"near_plane": float("nan")}, "expected 0 < near < far"),
        ({"eps2d": -1.0}, "eps2d: expected a variance"),
        ({"rasterize_mode": "soft"}, "rasterize_mode: expected one of classic, antialiased"),
        ({"width": 3.5}, "width: expected a whole number"),
        ({"width": 0}, "width: expected a whole number of pixels from 1 to 65535, got 0"),
        ({"sh_degree": 4}, "sh_degree: expected 0, 1, 2 or 3, got 4"),
        ({"render_mode": "XYZ"}, "render_mode: expected one of"),
        ({"crop": (0, 0, 22, 4)}, "crop: .* does not lie in an image of 21x17"),
        ({"opacities": torch.zeros(24, device="meta")}, "opacities: expected a tensor on the CPU"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dgr.rasterization(**(as_float32(make(0)) | change))
