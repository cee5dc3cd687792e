"""Held-out poses: found with the scene frozen, never worse than where they started."""

import math

import pytest
import torch

from gaussian_renderer import render_trajectory
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.field import GaussianField
from gaussian_renderer.pose_fitting import _descend, fit_pose, fit_trajectory, similarity_of
from gaussians.model import GaussianModel
from scene.cameras import Camera
from scene.trajectory import Trajectory
from spike import Mosaic
from utils import se3

RASTERIZER = get_rasterizer("cpu", torch.device("cpu"))
CAMERA = Camera("0", 48, 36, torch.tensor([[45.0, 0, 24], [0, 45.0, 18], [0, 0, 1]]), torch.eye(4))


@pytest.fixture
def gaussians() -> GaussianModel:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(120, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.0]) - torch.tensor([2.0, 1.5, -2.0])
    colors = torch.rand(120, 1, generator=generator)
    # Small and half transparent: the picture changes smoothly where they pass each other.
    model = GaussianModel.from_points(points, colors, sh_degree=0, opacity=0.5)
    with torch.no_grad():
        model.raw["log_scales"] += math.log(0.35)
    return model


def drawn(gaussians: GaussianModel, poses: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return render_trajectory(gaussians, poses, CAMERA.K, CAMERA.width, CAMERA.height, RASTERIZER).images


def test_a_pose_is_found_and_the_scene_stays(gaussians):
    true = se3.exp(torch.tensor([0.02, -0.03, 0.02, 0.01, -0.015, 0.01]))
    before = {name: value.detach().clone() for name, value in gaussians.raw.items()}
    image = drawn(gaussians, true[None])[0]
    found = fit_pose(GaussianField(gaussians, RASTERIZER), CAMERA, torch.eye(4), image, steps=200, rate=4e-3)
    # Turning and moving sideways look alike in a small picture, so the picture is the sharper test.
    assert (found - true).abs().max() < 0.6 * (torch.eye(4) - true).abs().max()
    start, end = ((drawn(gaussians, pose[None])[0] - image).abs().mean() for pose in (torch.eye(4), found))
    assert end < 0.1 * start
    assert all(torch.equal(before[name], value) for name, value in gaussians.raw.items())


def test_no_steps_leave_the_pose(gaussians):
    image = drawn(gaussians, torch.eye(4)[None])[0]
    start = se3.exp(torch.full((6,), 0.01))
    assert torch.allclose(fit_pose(GaussianField(gaussians, RASTERIZER), CAMERA, start, image, steps=0), start)


def test_the_best_value_seen_is_kept_and_not_the_last():
    """Steps ten times as long as the way: the first lands beyond the goal, and the last as well."""
    parameter, seen = torch.tensor([0.1], requires_grad=True), []

    def loss():
        seen.append(float(parameter.detach()))
        return parameter.abs().sum()

    best = _descend(parameter, loss, steps=4, rate=1.0)
    assert float(best) == min(seen, key=abs) == pytest.approx(0.1)
    assert float(parameter.detach().abs()) > 3 * float(best), "the last is worse: else nothing was tested"


START = se3.exp(torch.tensor([0.002, -0.003, 0.002, 0.001, -0.001, 0.001]))


def test_a_fit_that_diverges_keeps_the_best_it_saw(gaussians):
    """Near the truth but not at it, where there is no gradient to follow; each step is as long as the scene."""
    image = drawn(gaussians, torch.eye(4)[None])[0]
    found = fit_pose(GaussianField(gaussians, RASTERIZER), CAMERA, START, image, steps=20, rate=1.0)
    torch.testing.assert_close(found, START, atol=1e-6, rtol=0)


def test_a_trajectory_that_diverges_keeps_the_best_it_saw(gaussians):
    u, targets = torch.linspace(0, 1, 3), drawn(gaussians, torch.eye(4).repeat(3, 1, 1))
    trajectory = Trajectory(START[None], "linear")
    found = fit_trajectory(GaussianField(gaussians, RASTERIZER), CAMERA, trajectory, 0, u, targets, steps=20, rate=1.0)
    torch.testing.assert_close(found, START.expand(3, 4, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(trajectory.view(0, u), found)


class Inverted(Mosaic):
    """A sensor that sees the negative of the mosaic: what is compared without it cannot match."""

    def of(self, images: torch.Tensor) -> torch.Tensor:
        return 1 - super().of(images)


def test_with_a_mosaic_renders_are_compared_as_its_pixels_see_them(gaussians):
    raw = {name: value.detach() for name, value in gaussians.raw.items()}
    tint = torch.tensor([1.0, 0.2, -0.8])
    colored = GaussianModel(raw | {"sh0": raw["sh0"] + tint, "shN": torch.zeros(len(gaussians), 0, 3)}, 0)
    mosaic, u, still = Inverted("RGGB"), torch.linspace(0, 1, 2), torch.eye(4).repeat(2, 1, 1)
    targets = mosaic.of(drawn(colored, still))
    trajectory, options = Trajectory(START[None], "linear"), {"steps": 60, "rate": 1e-3}
    field = GaussianField(colored, RASTERIZER)
    found = fit_trajectory(field, CAMERA, trajectory, 0, u, targets, mosaic=mosaic, **options)
    start, end = ((mosaic.of(drawn(colored, poses)) - targets).abs().mean() for poses in (START.expand(2, 4, 4), found))
    assert end < 0.3 * start


def test_a_trajectory_is_found_for_its_view_alone(gaussians):
    u = torch.linspace(0, 1, 5)
    twist = torch.tensor([0.06, -0.02, 0.01, 0.0, 0.02, 0.0])
    true = se3.exp((u[:, None] - 0.5) * twist)
    trajectory = Trajectory(torch.eye(4).repeat(3, 1, 1), "linear")
    other = trajectory.view(0, u).detach().clone()
    targets = drawn(gaussians, true)
    found = fit_trajectory(
        GaussianField(gaussians, RASTERIZER), CAMERA, trajectory, 1, u, targets, steps=200, rate=4e-3
    )
    assert (found - true).abs().max() < 0.6 * (torch.eye(4) - true).abs().max()
    start, end = ((drawn(gaussians, poses) - targets).abs().mean() for poses in (other, found))
    assert end < 0.1 * start
    assert torch.allclose(trajectory.view(1, u), found) and torch.equal(trajectory.view(0, u), other)


def test_poses_move_with_their_world():
    rotation = se3.exp(torch.tensor([0.0, 0, 0, 0.1, 0.4, -0.2]))[:3, :3]
    translation, scale = torch.tensor([1.0, -2, 0.5]), 1.7
    w2c = se3.exp(torch.tensor([0.3, 0.1, -0.2, 0.2, -0.1, 0.3]))
    [moved] = similarity_of([w2c], scale, rotation, translation)
    point = torch.tensor([0.4, 0.7, 2.0])
    before = w2c[:3, :3] @ point + w2c[:3, 3]
    after = moved[:3, :3] @ (scale * rotation @ point + translation) + moved[:3, 3]
    assert torch.allclose(after, scale * before, atol=1e-5)
