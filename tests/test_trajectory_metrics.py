"""Trajectory errors against displacements that are known, whatever the frame, scale and direction of time."""

import numpy as np
import pytest
from made_up_paths import elsewhere, path, shifted
from scipy.spatial.transform import Rotation

from utils.trajectory_metrics import trajectory_errors, umeyama

# ---- umeyama ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_similarity_is_recovered_exactly(seed):
    rng = np.random.default_rng(seed)
    points, scale = rng.normal(size=(7, 3)), rng.uniform(0.1, 10)
    rotation, offset = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3)
    found = umeyama(points, scale * points @ rotation.T + offset)
    assert found[0] == pytest.approx(scale)
    assert np.allclose(found[1], rotation)
    assert np.allclose(found[2], offset)


def test_points_in_a_plane_and_no_mirror():
    points = np.random.default_rng(0).normal(size=(6, 3)) * [1, 1, 0]
    rotation = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    assert np.allclose(umeyama(points, points @ rotation.T)[1], rotation)
    mirrored = np.random.default_rng(0).normal(size=(6, 3))
    assert np.linalg.det(umeyama(mirrored, mirrored * [1, 1, -1])[1]) == pytest.approx(1)


def test_scale_is_kept_when_asked():
    points = np.random.default_rng(0).normal(size=(6, 3))
    assert umeyama(points, 3 * points, with_scale=False)[0] == 1


@pytest.mark.parametrize(
    "source, target",
    [
        ([1.0, 0, 0], [1.0, 0, 0]),
        ([1.0, 0, 0], [-1.0, 0, 0]),
        ([1.0, 0, 0], [0.6, 0, -0.8]),
        ([0.48, 0.6, 0.64], [-0.6, 0, 0.8]),
        ([0.48, 0.6, 0.64], [-0.48, -0.6, -0.64]),
        ([0.48, -0.6, 0.64], [0, 0.6, 0.8]),
    ],
)
def test_a_line_turns_the_short_way(source, target):
    along, source, target = np.linspace(-1, 1, 5)[:, None], np.array(source), np.array(target)
    scale, rotation, offset = umeyama(along * source, 2 * along * target + 3)
    assert scale == pytest.approx(2)
    assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.linalg.det(rotation) == pytest.approx(1)
    assert np.allclose(rotation @ source, target)
    assert np.allclose(offset, 3)
    angle = Rotation.from_matrix(rotation).magnitude()
    assert angle == pytest.approx(np.arccos(np.clip(source @ target, -1, 1)), abs=1e-6)


def test_one_place_only_moves():
    scale, rotation, offset = umeyama(np.ones((4, 3)), np.full((4, 3), 3.0))
    assert (scale, offset.tolist()) == (1, [2, 2, 2])
    assert np.array_equal(rotation, np.eye(3))


@pytest.mark.parametrize(
    "source, target, message",
    [
        (np.ones((3, 3)), np.ones((4, 3)), "two equal lists"),
        (np.ones((0, 3)), np.ones((0, 3)), "two equal lists"),
        (np.full((3, 3), np.nan), np.ones((3, 3)), "finite"),
    ],
)
def test_umeyama_refuses(source, target, message):
    with pytest.raises(ValueError, match=message):
        umeyama(source, target)


# ---- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 2, 3, 8])
@pytest.mark.parametrize("subframes", [2, 3, 4, 13])
def test_the_same_path_in_another_world_has_no_error(views, subframes):
    truth = path(views, subframes)
    errors = trajectory_errors(elsewhere(truth), truth)
    assert errors.ate == pytest.approx(0, abs=1e-9)
    assert errors.rpe_translation == pytest.approx(0, abs=1e-9)
    assert errors.rpe_rotation == pytest.approx(0, abs=1e-6)
    assert errors.motion == pytest.approx(0, abs=1e-7)
    assert errors.scale == pytest.approx(1 / 0.3)
    assert errors.flipped == []


@pytest.mark.parametrize("subframes", [2, 3, 4, 13])
@pytest.mark.parametrize("views, back", [(1, [0]), (2, [1]), (2, [0, 1]), (3, [0, 2]), (8, [1, 2, 5, 7])])
def test_reversed_views_are_found_and_listed(views, back, subframes):
    truth = path(views, subframes)
    estimate = elsewhere(truth)
    estimate[back] = estimate[back, ::-1]
    before = estimate.copy()
    errors = trajectory_errors(estimate, truth)
    assert errors.flipped == back
    assert errors.ate == pytest.approx(0, abs=1e-9)
    assert errors.rpe_rotation == pytest.approx(0, abs=1e-6)
    assert np.array_equal(estimate, before), "the caller's poses are left alone"


def test_a_straight_motion_of_one_view_is_told_by_its_cameras_axes():
    truth = np.tile(np.eye(4), (1, 5, 1, 1))
    truth[0, :, 0, 3] = np.linspace(0, 1, 5)
    estimate = elsewhere(truth)
    assert trajectory_errors(estimate, truth).flipped == []
    errors = trajectory_errors(estimate[:, ::-1], truth)
    assert errors.flipped == [0] and errors.motion == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("views", [1, 4])
def test_a_camera_that_only_turns_is_told_too(views):
    truth = path(views, 6, motion=0).astype(np.float32)
    errors = trajectory_errors(elsewhere(truth)[:, ::-1], truth)
    assert errors.flipped == list(range(views))
    assert errors.rpe_rotation == pytest.approx(0, abs=1e-4)
    assert errors.motion is None, "the truth stands still: there is nothing to be relative to"


def test_flips_survive_errors_of_pose():
    truth = path(16, 13)
    estimate = elsewhere(truth)
    shake = path(16, 1, seed=9)  # unrelated orientations, made small
    small = Rotation.from_matrix(shake[:, 0, :3, :3]).as_rotvec() * np.deg2rad(1)
    estimate[..., :3, :] = np.einsum("vij,vmjk->vmik", Rotation.from_rotvec(small).as_matrix(), estimate[..., :3, :])
    estimate[..., :3, 3] += 0.01 * np.random.default_rng(2).normal(size=(16, 1, 3))
    estimate[[3, 8]] = estimate[[3, 8], ::-1]
    assert trajectory_errors(estimate, truth).flipped == [3, 8]


def test_ate_of_known_offsets():
    """Offsets that no similarity explains: +- d at the four corners of a tetrahedron's dual pattern."""
    truth = np.tile(np.eye(4), (4, 2, 1, 1))
    corners = np.array([[1, 1, 0], [-1, -1, 0], [1, -1, 0], [-1, 1, 0]], float)
    truth = shifted(truth, corners[:, None] + np.array([[[0, 0, 0], [0, 0, 0.1]]]))
    bump = np.zeros((4, 2, 3))
    bump[:, :, 2] = np.array([1, 1, -1, -1])[:, None] * 0.01
    errors = trajectory_errors(shifted(truth, bump), truth)
    assert errors.ate == pytest.approx(0.01, rel=1e-4)
    assert errors.rpe_translation == pytest.approx(0, abs=1e-4)
    assert errors.motion == pytest.approx(0, abs=1e-3)


def test_rpe_and_motion_of_a_known_change():
    truth = np.tile(np.eye(4), (6, 3, 1, 1))
    places = np.random.default_rng(0).normal(size=(6, 1, 3)) * 10
    truth = shifted(truth, places + np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]])[None])
    longer = shifted(truth, np.array([[-0.02, 0, 0], [0, 0, 0], [0.02, 0, 0]])[None])
    errors = trajectory_errors(longer, truth)
    assert errors.rpe_translation == pytest.approx(0.02, rel=1e-2)
    assert errors.motion == pytest.approx(0.04 / 0.2, rel=1e-2)
    assert errors.rpe_rotation == pytest.approx(0, abs=1e-6)
    turned = truth.copy()
    spin = Rotation.from_rotvec(np.deg2rad(2) * np.arange(3)[:, None] * [0, 0, 1]).as_matrix()
    turned[..., :3, :] = np.einsum("mij,vmjk->vmik", spin, truth[..., :3, :])
    assert trajectory_errors(turned, truth).rpe_rotation == pytest.approx(2)


def test_one_instant_has_no_motion():
    truth = path(5, 1)
    errors = trajectory_errors(elsewhere(truth), truth)
    assert errors.ate == pytest.approx(0, abs=1e-9)
    assert (errors.rpe_translation, errors.rpe_rotation, errors.motion) == (None, None, None)
    assert errors.flipped == []


@pytest.mark.parametrize(
    "estimate, truth",
    [
        (np.zeros((2, 3, 4, 4)), np.zeros((2, 5, 4, 4))),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4))),
        (np.zeros((2, 3, 3, 4)), np.zeros((2, 3, 3, 4))),
        (np.zeros((0, 3, 4, 4)), np.zeros((0, 3, 4, 4))),
    ],
)
def test_other_shapes_are_refused_with_both(estimate, truth):
    with pytest.raises(ValueError, match=r"expected poses \[V, M, 4, 4\]"):
        trajectory_errors(estimate, truth)


def test_nan_is_refused():
    truth = path(2, 3)
    broken = truth.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        trajectory_errors(broken, truth)
