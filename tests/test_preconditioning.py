"""Coordinates for the optimization of poses, against finite differences and what they promise."""

import math

import numpy as np
import pytest
import torch

from scene import preconditioning
from scene.preconditioning import DAMPING, normal_matrix, preconditioners
from scene.trajectory import Timing, Trajectory
from utils import se3

K = torch.tensor([[200.0, 0, 100], [0, 200, 62], [0, 0, 1]])
SIZE = (200, 124)


def cloud(depth: float, spread: float = 1.0, count: int = 400) -> torch.Tensor:
    """Points around the optical axis, ``depth`` in front of the camera."""
    random = torch.Generator().manual_seed(2)
    points = spread * (2 * torch.rand(count, 3, generator=random) - 1) * torch.tensor([1.0, 0.6, 1.0])
    return points + torch.tensor([0, 0, depth])


def images(points: torch.Tensor, increment: torch.Tensor | None = None) -> torch.Tensor:
    """Images [N, 2] of the points after an increment of the pose, at the focal length 1."""
    moved = se3.exp(torch.zeros(6) if increment is None else increment).double()
    points = points.double() @ moved[:3, :3].T + moved[:3, 3]
    return points[:, :2] / points[:, 2:]


def shift(points: torch.Tensor, increment: torch.Tensor) -> float:
    """Root mean square of how far the images of points move, radians, per unit of an increment."""
    step = 1e-4
    moved = (images(points, step * increment.double()) - images(points)) / step
    return float(moved.square().sum(-1).mean().sqrt())


def test_the_motion_of_the_image_is_that_of_finite_differences():
    points = cloud(6.0)
    step = 1e-6 * torch.eye(6, dtype=torch.float64)
    jacobian = torch.stack([(images(points, s) - images(points)) / 1e-6 for s in step], -1)  # [N, 2, 6]
    expected = torch.einsum("nki,nkj->ij", jacobian, jacobian) / len(points)
    torch.testing.assert_close(normal_matrix(points, K, *SIZE), expected, atol=1e-5, rtol=1e-4)


def test_only_points_in_the_image_count():
    points = cloud(6.0)
    beside, behind = points + torch.tensor([40.0, 0, 0]), points - torch.tensor([0, 0, 40.0])
    above, low = points - torch.tensor([0, 20.0, 0]), points + torch.tensor([0, 20.0, 0])
    expected = normal_matrix(points, K, *SIZE)
    assert torch.equal(normal_matrix(torch.cat([points, beside, behind, above, low, -beside]), K, *SIZE), expected)


def test_a_few_points_in_front_of_the_camera_do_not_decide():
    points = cloud(6.0)
    near = torch.cat([points, torch.tensor([[0, 0, 0.01], [1e-4, 0, 0.02]])])
    torch.testing.assert_close(normal_matrix(near, K, *SIZE), normal_matrix(points, K, *SIZE), atol=0.01, rtol=0.12)


def test_directions_move_the_image_alike_in_size_and_nearly_independently():
    points = cloud(3.0)
    steps = preconditioners(points, torch.eye(4)[None], K[None], *SIZE)[0]
    motion = normal_matrix(points, K, *SIZE)
    together = steps.double().T @ motion @ steps.double()
    sizes = together.diagonal().sqrt()
    # A turn and a sideways step, the most alike, are told apart as far as the damping allows.
    assert 0.7 < float(sizes.min()) and float(sizes.max()) < 1
    before = motion / torch.outer(motion.diagonal(), motion.diagonal()).sqrt()
    after = together / torch.outer(sizes, sizes)
    assert float(before[0, 4]) > 0.98 and float(after[0, 4]) < 0.75
    assert abs(float(after[0, 1])) < 0.05


def test_what_hardly_moves_the_image_is_reached_in_fewer_steps():
    """A camera on an orbit goes sideways and turns back; a pan goes and turns the same way."""
    points = cloud(20.0)
    orbit, pan = torch.tensor([20.0, 0, 0, 0, -1, 0]), torch.tensor([20.0, 0, 0, 0, 1, 0])
    steps = preconditioners(points, torch.eye(4)[None], K[None], *SIZE)[0]
    plain = torch.diag(normal_matrix(points, K, *SIZE).diagonal().rsqrt()).float()
    assert shift(points, pan) > 20 * shift(points, orbit)

    def needed(coordinates):  # how far an optimizer must go
        return [float(torch.linalg.solve(coordinates, way).norm()) for way in (orbit, pan)]

    assert needed(plain)[0] == pytest.approx(needed(plain)[1])
    longest, shortest = needed(steps)[1] / needed(plain)[1], needed(steps)[0] / needed(plain)[0]
    assert longest == pytest.approx(math.sqrt(2 + DAMPING), rel=0.01)  # the root of the correlations' eigenvalues
    assert shortest == pytest.approx(math.sqrt(DAMPING), rel=0.01)


def test_points_on_the_optical_axis_say_nothing_about_a_roll():
    points = torch.tensor([0, 0, 3.0]) + torch.linspace(0, 1, 20)[:, None] * torch.tensor([0, 0, 1.0])
    steps = preconditioners(points, torch.eye(4)[None], K[None], *SIZE)
    assert bool(steps.isfinite().all())
    assert shift(points, steps[0, :, 4]) == pytest.approx(0.7, abs=0.3)


def test_of_very_many_points_every_nth_counts(monkeypatch):
    points, pose = cloud(5.0), torch.eye(4)[None]
    expected = preconditioners(points[::4], pose, K[None], *SIZE)
    monkeypatch.setattr(preconditioning, "_MOST", 100)
    assert torch.equal(preconditioners(points, pose, K[None], *SIZE), expected)


@pytest.mark.parametrize("scale", [0.01, 50.0])
def test_the_scale_of_the_world_does_not_matter(scale):
    points, pose = cloud(5.0), se3.exp(torch.tensor([0.1, -0.2, 0.3, 0.02, 0.1, -0.05]))
    larger = pose.clone()
    larger[:3, 3] *= scale
    one = preconditioners(points, pose[None], K[None], *SIZE)[0]
    other = preconditioners(scale * points, larger[None], K[None], *SIZE)[0]
    other[:3] /= scale  # of an increment, positions are in world units
    torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


def test_a_camera_that_sees_nothing_takes_after_the_others():
    points = cloud(5.0)
    away = se3.exp(torch.tensor([0, 0, 0, 0, math.pi - 0.1, 0]))
    poses, k = torch.stack([torch.eye(4), away]), K.expand(2, 3, 3)
    steps = preconditioners(points, poses, k, *SIZE)
    torch.testing.assert_close(steps[1], steps[0])
    nothing = preconditioners(points[:3], poses, k, *SIZE)
    assert torch.equal(nothing, torch.eye(6).expand(2, 6, 6))


# ---- knots ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("curve", "degree"), [("linear", 1), ("cubic", 3), ("bezier", 6)])
def test_a_view_s_knots_have_its_values(curve, degree):
    trajectory = Trajectory(torch.eye(4).repeat(3, 1, 1), curve, degree=degree)
    found = trajectory.per_knot(torch.tensor([5.0, 3.0, 4.0]))
    assert found.tolist() == [5.0] * (degree + 1) + [3.0] * (degree + 1) + [4.0] * (degree + 1)


def test_a_spline_s_knots_have_the_values_of_the_nearest_view():
    """Also where the views are in another order than in time."""
    middle = np.array([4.0, 0.0, 2.0])
    trajectory = Trajectory(torch.eye(4).repeat(3, 1, 1), "spline", Timing(middle, np.zeros(3)), 0.5)
    found = trajectory.per_knot(torch.tensor([4.0, 0.0, 2.0]))
    start = -0.5 - 0.25  # of the spline: before the first exposure, by its reach
    times = start + (np.arange(len(found)) - 1) * 0.5
    nearest = np.array([0.0, 2.0, 4.0])[np.abs(times[:, None] - [0.0, 2.0, 4.0]).argmin(1)]
    assert found.tolist() == nearest.tolist()
