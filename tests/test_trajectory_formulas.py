"""Curves against their textbook definitions, and the errors of trajectories against sums written out."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from scene.cameras import Camera, View
from scene.trajectory import Timing, Trajectory, _basis, first_guess, interpolate_poses
from utils import se3
from utils.trajectory_metrics import align, centers, trajectory_errors, umeyama

U = torch.linspace(0, 1, 9, dtype=torch.float64)


# ---- curves --------------------------------------------------------------------------------------------------


def casteljau(knots, u):
    """Bezier's curve by repeated division of its control polygon."""
    while len(knots) > 1:
        knots = [(1 - u) * a + u * b for a, b in pairwise(knots)]
    return knots[0]


def test_the_bases_are_the_textbooks():
    for k in range(4):
        knots = np.eye(4)[k]
        spline = BSpline(np.arange(-3.0, 5), knots, 3)(U.numpy())
        np.testing.assert_allclose(_basis("cubic", 3, U)[:, k], spline, atol=1e-12)
        np.testing.assert_allclose(_basis("spline", 3, U)[:, k], spline, atol=1e-12)
    np.testing.assert_allclose(_basis("linear", 1, U), torch.stack([1 - U, U], -1))


@pytest.mark.parametrize("degree", [1, 2, 3, 7])
def test_bezier_s_basis_divides_the_control_polygon(degree):
    for k, knots in enumerate(np.eye(degree + 1)):
        expected = [casteljau(knots.tolist(), float(u)) for u in U]
        np.testing.assert_allclose(_basis("bezier", degree, U)[:, k], expected, atol=1e-12)


@pytest.mark.parametrize(("curve", "degree"), [("linear", 1), ("cubic", 3), ("bezier", 3), ("bezier", 7)])
def test_beyond_its_exposure_a_curve_goes_on_along_its_tangents(curve, degree):
    for end, way in ((0.0, -1), (1.0, 1)):
        at = torch.tensor([end], dtype=torch.float64)
        slope = torch.autograd.functional.jacobian(lambda u: _basis(curve, degree, u)[0], at - 1e-9 * way)[:, 0]
        for beyond in (0.04, 0.2, 1.0):
            expected = _basis(curve, degree, at)[0] + way * beyond * slope
            torch.testing.assert_close(_basis(curve, degree, at + way * beyond)[0], expected, atol=1e-6, rtol=0)


def knots_of(trajectory: Trajectory, scale: float = 0.3) -> torch.Tensor:
    """Random knots of a trajectory of one view."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        trajectory.increments.copy_(scale * torch.randn(trajectory.increments.shape, generator=random))
    return trajectory.knots.detach().double()


@pytest.mark.parametrize(("curve", "degree"), [("linear", 1), ("cubic", 3), ("bezier", 3), ("bezier", 6)])
def test_a_pose_is_the_cumulative_product_from_the_first_knot(curve, degree):
    """exp(b_3 d_3) exp(b_2 d_2) exp(b_1 d_1) T_0, b_k the sum of the weights from k on."""
    trajectory = Trajectory(torch.eye(4)[None], curve, degree=degree)
    knots = knots_of(trajectory)
    assert len(knots) == degree + 1
    for u in (0.0, 0.3, 1.0):
        weights = _basis(curve, degree, torch.tensor([u], dtype=torch.float64))[0]
        pose = knots[0]
        for k in range(1, len(knots)):
            step = se3.log(knots[k] @ torch.linalg.inv(knots[k - 1]))
            pose = se3.exp(weights[k:].sum() * step) @ pose
        torch.testing.assert_close(trajectory.view(0, torch.tensor([u]))[0].double(), pose, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("curve", "degree"), [("linear", 1), ("bezier", 3), ("bezier", 8)])
def test_curves_with_knots_at_their_ends_begin_and_end_there(curve, degree):
    trajectory = Trajectory(torch.eye(4)[None], curve, degree=degree)
    knots = knots_of(trajectory).float()
    ends = trajectory.view(0, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, knots[[0, -1]], atol=1e-5, rtol=0)


def sideways(times: np.ndarray, speed: float = 0.2, turn: float = 0.1) -> np.ndarray:
    """World-to-camera poses of a camera at (speed t, 0, 0) that turns about its y axis."""
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(times, [0, turn, 0])).inv().as_matrix()
    poses[:, :3, 3] = -np.einsum("bij,bj->bi", poses[:, :3, :3], np.outer(times, [speed, 0, 0]))
    return poses


@pytest.mark.parametrize("curve", ["linear", "cubic", "bezier", "spline"])
@pytest.mark.parametrize("spacing", [0.4, 1.0])
@pytest.mark.parametrize("degree", [3, 7])
def test_even_motion_is_guessed_exactly_in_every_view(curve, spacing, degree):
    """Also of the first and the last view, and wherever the knots lie."""
    middle = np.array([0.0, 1.5, 3.0, 4.5])
    poses, timing = torch.as_tensor(sideways(middle, turn=0)), Timing(middle, np.zeros(4))
    trajectory = Trajectory(poses, curve, timing, spacing, degree=degree)
    for view, time in enumerate(middle):
        expected = torch.as_tensor(sideways(time - 0.5 + U.numpy(), turn=0)).float()
        torch.testing.assert_close(trajectory.view(view, U.float()), expected, atol=1e-4, rtol=0)


def test_the_guess_is_taken_in_the_order_of_time_and_about_each_middle():
    middle = np.array([3.0, 0.0, 1.5])
    found = first_guess(sideways(middle), Timing(middle, np.zeros(3)), U.numpy())
    for poses, time in zip(found, middle, strict=True):
        np.testing.assert_allclose(poses, sideways(time - 0.5 + U.numpy()), atol=1e-9)


def test_a_path_bends_no_more_beyond_its_last_pose_than_at_it():
    """A natural spline: no acceleration at either end."""
    times = np.arange(4.0)
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = -np.array([0.0, 1.0, 0.0, 2.0])
    step = 1e-3
    for end in (0.0, 3.0):
        x = -interpolate_poses(times, poses, end + step * np.array([-1.0, 0, 1]))[:, 0, 3]
        assert (x[0] - 2 * x[1] + x[2]) / step**2 == pytest.approx(0, abs=0.02)
    np.testing.assert_allclose(interpolate_poses(times, poses, times), poses, atol=1e-12)


def test_a_spline_s_recordings_keep_their_own_knots():
    """Two recordings far apart: each view is where its own recording says."""
    middle = np.array([0.0, 1.5, 0.0, 1.5])
    poses = sideways(middle, turn=0)
    poses[2:, 1, 3] += 50
    trajectory = Trajectory(torch.as_tensor(poses), "spline", Timing(middle, np.array([0, 0, 1, 1])), 0.5)
    for view in range(4):
        found = trajectory.view(view, torch.tensor([0.5]))[0]
        torch.testing.assert_close(found, torch.as_tensor(poses[view]).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("reach", [0.1, 0.6, 1.5])
def test_a_spline_has_knots_as_far_as_it_reaches(reach):
    """Four knots about the earliest and the latest instant that may be asked for."""
    middle = np.array([0.0, 1.5])
    timing = Timing(middle, np.zeros(2))
    trajectory = Trajectory(torch.as_tensor(sideways(middle, turn=0)), "spline", timing, 0.5, reach)
    views, ends = torch.tensor([0, 1]), torch.tensor([-reach, 1 + reach])
    expected = torch.as_tensor(sideways(np.array([-0.5 - reach, 2 + reach]), turn=0)).float()
    torch.testing.assert_close(trajectory(views, ends), expected, atol=1e-4, rtol=0)


def test_one_unit_of_time_is_from_the_first_to_the_last_frame_of_an_exposure():
    views = [View(Camera(str(f), 8, 8, torch.eye(3), torch.eye(4)), middle_frame=float(f)) for f in (48, 144, 240)]
    np.testing.assert_allclose(Timing.of(views, spacing=1, exposure=97).middle, [0.5, 1.5, 2.5])


# ---- errors --------------------------------------------------------------------------------------------------


def test_umeyama_of_mirrored_points_is_the_least_squares_one():
    """No rotation undoes a mirror: the best scale is smaller than 1, found here by search."""
    points = np.random.default_rng(0).normal(size=(9, 3)) * [3, 2, 1]
    mirrored = points * [1, 1, -1]

    def cost(scale, rotation, offset):
        return float(((scale * points @ rotation.T + offset - mirrored) ** 2).sum())

    scale, rotation, offset = umeyama(points, mirrored)
    least = cost(scale, rotation, offset)
    assert scale < 0.99 and np.linalg.det(rotation) == pytest.approx(1)
    rng = np.random.default_rng(1)
    for size in (1e-3, 0.1, 3):
        for _ in range(100):
            turned = Rotation.from_rotvec(size * rng.normal(size=3)).as_matrix() @ rotation
            assert cost(scale * (1 + 0.1 * size * rng.normal()), turned, offset + size * rng.normal(size=3)) > least


def noisy(seed: int, size: float) -> tuple[np.ndarray, np.ndarray]:
    """True poses [V, M, 4, 4] of cameras that move, and poses near them."""
    rng = np.random.default_rng(seed)
    start, motion = rng.normal(size=(2, 6, 1, 6))
    truth = se3.exp(torch.as_tensor(start + np.linspace(0, 0.3, 4)[:, None] * motion))
    shake = se3.exp(torch.as_tensor(size * rng.normal(size=(6, 4, 6))))
    return (shake @ truth).numpy(), truth.numpy()


@pytest.mark.parametrize("seed", [0, 1])
def test_errors_are_the_sums_written_out(seed):
    """ATE of the aligned centers; RPE of the steps (Sturm et al. 2012), each a root mean square."""
    estimate, truth = noisy(seed, 0.02)
    found = trajectory_errors(estimate, truth)
    aligned, flipped, _ = align(estimate, truth)
    assert flipped == found.flipped == []
    square, angles, steps, missed, moved = [], [], [], [], []
    for ours, theirs in zip(aligned, truth, strict=True):
        gaps = [np.linalg.inv(a)[:3, 3] - np.linalg.inv(b)[:3, 3] for a, b in zip(ours, theirs, strict=True)]
        square += [float(gap @ gap) for gap in gaps]
        missed.append(math.dist(gaps[-1], gaps[0]))
        moved.append(math.dist(np.linalg.inv(theirs[-1])[:3, 3], np.linalg.inv(theirs[0])[:3, 3]))
        for m in range(3):
            error = np.linalg.inv(theirs[m + 1] @ np.linalg.inv(theirs[m])) @ ours[m + 1] @ np.linalg.inv(ours[m])
            steps.append(float(error[:3, 3] @ error[:3, 3]))
            angles.append(math.acos(min(1, (np.trace(error[:3, :3]) - 1) / 2)))
    assert found.ate == pytest.approx(math.sqrt(np.mean(square)))
    assert found.rpe_translation == pytest.approx(math.sqrt(np.mean(steps)))
    assert found.rpe_rotation == pytest.approx(math.degrees(math.sqrt(np.mean(np.square(angles)))))
    assert found.motion == pytest.approx(np.mean(missed) / np.mean(moved))


def test_the_world_that_fits_the_axes_is_no_mirror():
    """Cameras whose axes are best matched by a mirror: the alignment stays a rotation."""
    estimate, truth = noisy(2, 1.5)
    aligned, _, scale = align(estimate, truth)
    assert scale > 0
    np.testing.assert_allclose(np.linalg.det(aligned[..., :3, :3]), 1, atol=1e-9)


def test_a_single_view_that_turns_in_place_is_told_by_its_turning():
    truth = np.tile(np.eye(4), (1, 5, 1, 1))
    turn = Rotation.from_rotvec(np.linspace(0, 0.3, 5)[:, None] * [0.2, 1, 0.1]).as_matrix()
    truth[0, :, :3, :3] = turn
    truth[0, :, :3, 3] = -turn @ [1.0, 2, 3]
    assert np.ptp(centers(truth), axis=1).max() < 1e-9
    assert trajectory_errors(truth[:, ::-1], truth).flipped == [0]
    assert trajectory_errors(truth, truth).flipped == []
