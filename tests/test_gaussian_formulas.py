"""First Gaussians, what they draw and how well they are known, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from posed_views import saved_view
from scipy.spatial.transform import Rotation

from gaussian_renderer import render_trajectory, uncertainty
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussians.initialization import EXPLORE, Picture, depth_range, fill_points
from gaussians.model import GaussianModel
from gaussians.ply import LowPass
from pictures.colors import UNKNOWN

RASTERIZER = get_rasterizer("cpu", torch.device("cpu"))
C0 = 0.5 / math.sqrt(math.pi)
K = torch.tensor([[40.0, 0, 16], [0, 40.0, 12], [0, 0, 1]])
WIDTH, HEIGHT = 32, 24


# ---- first points --------------------------------------------------------------------------------------------


def picture(w2c: torch.Tensor) -> Picture:
    """A picture whose colors tell each pixel's column and row."""
    row, column = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return Picture(torch.stack([column / WIDTH, row / HEIGHT, torch.zeros(HEIGHT, WIDTH)]), K, w2c)


def elsewhere() -> torch.Tensor:
    """A camera that is turned and moved."""
    w2c = torch.eye(4)
    w2c[:3, :3] = torch.as_tensor(Rotation.from_rotvec([0.4, -0.9, 0.3]).as_matrix())
    w2c[:3, 3] = torch.tensor([0.5, -1.0, 2.0])
    return w2c


def test_depths_go_from_a_fifth_of_the_nearest_to_half_beyond_the_farthest():
    points = torch.zeros(101, 3)
    points[:, 2] = torch.linspace(10, 20, 101)
    assert depth_range(points, torch.eye(4)[None]) == pytest.approx((0.2 * 10.5, 1.5 * 19.5))


def test_without_points_depths_are_of_the_cameras_spread():
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[0, 0, 3], poses[1, 0, 3] = 2.0, -2.0
    assert depth_range(None, poses) == pytest.approx((1.0, 20.0))
    assert depth_range(None, torch.eye(4)[None]) == (0.5, 10.0)


def test_points_lie_on_the_ray_of_the_pixel_whose_color_they_have():
    pictures = [picture(torch.eye(4)), picture(elsewhere())]
    xyz, colors = fill_points(None, None, pictures, 400)
    for points, rgb, shown in zip(xyz.split(200), colors.split(200), pictures, strict=True):
        camera = points @ shown.w2c[:3, :3].T + shown.w2c[:3, 3]
        uv = (camera @ K.T)[:, :2] / camera[:, 2:]
        inside = (rgb[:, :2] * torch.tensor([WIDTH, HEIGHT])).round()
        assert ((uv > inside - 1e-3) & (uv < inside + 1 + 1e-3)).all()


def test_depths_that_nobody_knows_are_even_in_their_inverse():
    xyz, _ = fill_points(None, None, [picture(torch.eye(4))], 20_000)
    inverse = (1 / xyz[:, 2] - 1 / 10.0) / (1 / 0.5 - 1 / 10.0)
    quantiles = torch.linspace(0, 1, 11)
    torch.testing.assert_close(inverse.quantile(quantiles), quantiles, atol=0.02, rtol=0)


def test_a_pixel_has_the_depth_of_the_points_beside_it():
    """Four points in the corners of the picture, each at a depth of its own."""
    corners = torch.tensor([[4.0, 4], [28, 4], [4, 20], [28, 20]])
    depths = torch.tensor([2.0, 3, 4, 5])
    given = torch.cat([(corners - torch.tensor([16.0, 12])) / 40, torch.ones(4, 1)], -1) * depths[:, None]
    xyz, colors = fill_points(given, torch.full((4, 3), 0.5), [picture(torch.eye(4))], 8004)
    pixels = colors[4:, :2] * torch.tensor([WIDTH, HEIGHT]) + 0.5
    for corner, depth in zip(corners, depths, strict=True):
        near = (pixels - corner).norm(dim=-1) < 3
        share = float(((xyz[4:, 2] - depth).abs() < 1e-4)[near].float().mean())
        assert share == pytest.approx((1 - EXPLORE) * 0.93, abs=0.08)


def test_first_gaussians_are_as_wide_as_their_neighbors_are_far():
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    colors = torch.tensor([[0.5], [1.0], [0.0], [0.25]])
    model = GaussianModel.from_points(xyz, colors, sh_degree=2, opacity=0.3)
    second = (1 + math.sqrt(5) + math.sqrt(10)) / 3
    torch.testing.assert_close(model.scales[:2].detach(), torch.tensor([[2.0], [second]]).expand(-1, 3))
    torch.testing.assert_close(model.opacities.detach(), torch.full((4,), 0.3))
    assert model.quats.tolist() == [[1, 0, 0, 0]] * 4
    assert [model.coefficients(degree).shape for degree in range(3)] == [(4, 1, 1), (4, 4, 1), (4, 9, 1)]
    torch.testing.assert_close(model.coefficients(2)[:, 0].detach(), (colors - 0.5) / C0)
    assert not model.coefficients(2)[:, 1:].any()


# ---- drawing -------------------------------------------------------------------------------------------------


def blob(
    opacity: float = 0.6, scale: float = 0.3, shade: float = 0.8, low_pass: LowPass | None = None, degree: int = 0
) -> GaussianModel:
    """One round Gaussian three units in front of the camera."""
    raw = {
        "means": torch.tensor([[0.0, 0, 3]]),
        "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "log_scales": torch.full((1, 3), math.log(scale)),
        "opacity_logits": torch.tensor([opacity]).logit(),
        "sh0": torch.full((1, 1, 1), (shade - 0.5) / C0),
        "shN": torch.zeros(1, (degree + 1) ** 2 - 1, 1),
    }
    return GaussianModel(raw, degree, low_pass or LowPass())


def drawn(model: GaussianModel, width: int, height: int, **options) -> torch.Tensor:
    k = torch.tensor([[20.0, 0, width / 2], [0, 20.0, height / 2], [0, 0, 1]])
    with torch.no_grad():
        return render_trajectory(model, torch.eye(4)[None], k, width, height, RASTERIZER, **options).images[0]


@pytest.mark.parametrize("active", [0, 1, 2, 3, None])
def test_the_active_degree_is_the_number_of_bands(active):
    """A picture of degree n is that of the model without the coefficients of the bands above n."""
    model = blob(degree=3)
    with torch.no_grad():
        model.raw["means"][0] = torch.tensor([0.5, -0.3, 3.0])
        model.raw["shN"][:] = 0.1 * torch.arange(1.0, 16).view(1, 15, 1)
    cut = blob(degree=3)
    bands = 3 if active is None else active
    with torch.no_grad():
        cut.raw["means"].copy_(model.raw["means"])
        cut.raw["shN"][:, : (bands + 1) ** 2 - 1] = model.raw["shN"][:, : (bands + 1) ** 2 - 1]
    torch.testing.assert_close(drawn(model, 16, 12, sh_degree=active), drawn(cut, 16, 12))
    assert drawn(model, 16, 12, sh_degree=9).equal(drawn(model, 16, 12))


@pytest.mark.parametrize("variance", [0.3, 0.1, 0.8])
def test_a_point_is_as_wide_as_its_low_pass(variance):
    """Its alpha falls off as exp(-d^2 / 2 v) from the pixel that it lies on."""
    image = drawn(blob(scale=1e-6, low_pass=LowPass(variance)), 9, 9)[0]
    assert float(image[4, 5] / image[4, 4]) == pytest.approx(math.exp(-1 / (2 * variance)), rel=1e-3)


# ---- uncertainty ---------------------------------------------------------------------------------------------


def one_pixel(views: int):
    """Views of a single pixel, from farther and farther away."""
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, 2, 3] = torch.arange(float(views))
    poses[:, 0, 3] = 0.2 * torch.arange(float(views))
    return [saved_view(pose[None], 1, 1, 1.0) for pose in poses]


@pytest.mark.parametrize("views", [1, 3])
def test_a_single_pixel_s_weight_needs_no_luck(views):
    """Of one pixel the square of the random sign is one: the sum of squared alphas, exactly."""
    drawing, seen = Drawing(blob(), RASTERIZER), one_pixel(views)
    alphas = torch.cat([drawing(v.w2c, v.K, 1, 1).alphas.flatten() for v in seen])
    assert alphas.min() > 0.05 and alphas.max() < 0.95
    torch.testing.assert_close(uncertainty.seen_weights(drawing, seen), alphas.square().sum()[None], rtol=1e-4, atol=0)


def test_the_deviation_is_that_of_all_measurements_together(monkeypatch):
    """One pixel of weight w and error 0.02, and what was known before: 1 / sqrt(12), an even distribution's."""
    monkeypatch.setattr(uncertainty, "seen_weights", lambda *_: torch.tensor([0.0, 1.0, 0.25]))
    found = uncertainty.intensity_deviation(Drawing(blob(), RASTERIZER), [])
    expected = [1 / math.sqrt(12 + weight / 0.02**2) for weight in (0, 1, 0.25)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_picture_of_the_deviation_blends_over_the_unknown():
    drawing, [view] = Drawing(blob(), RASTERIZER), one_pixel(1)
    alpha = float(drawing(view.w2c, view.K, 1, 1).alphas)
    deviation = 1 / math.sqrt(12 + alpha**2 / 0.02**2)
    shown = float(uncertainty.uncertain(drawing, [view])(view.w2c, view.K, 1, 1).images)
    assert shown == pytest.approx(alpha * deviation + (1 - alpha) * UNKNOWN, rel=1e-3)
