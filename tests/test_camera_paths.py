"""Camera paths: circles and ellipses of known size, upright, and even in time."""

import numpy as np
import pytest
import torch
from posed_views import saved_view, views_from
from scipy.spatial.transform import Rotation

from gaussian_renderer.paths import exposure_path, interpolate, orbit_path, recording_path
from utils import se3

UP = np.array([0.0, 0.0, 1.0])


def eyes_of(path) -> np.ndarray:
    return se3.inverse(path.w2c)[:, :3, 3].numpy()


def ring(radii: list[float], height: float, turn: float = 0.0) -> np.ndarray:
    """Eyes about the z axis at even angles."""
    angle = turn + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([np.cos(angle) * radii, np.sin(angle) * radii, np.full(len(radii), height)], -1)


def assert_upright(path, focus: np.ndarray, up: np.ndarray) -> None:
    """The focus is in the middle of every picture, and what is above it in the scene is above it there (y down)."""
    for w2c in path.w2c.double().numpy():
        middle, above = (w2c[:3, :3] @ point + w2c[:3, 3] for point in (focus, focus + 0.1 * up))
        np.testing.assert_allclose(middle[:2], 0, atol=1e-4)
        assert middle[2] > 0 and above[1] < -0.01 and abs(above[0]) < 1e-4


@pytest.mark.parametrize("height", [0.8, -0.5])
def test_an_orbit_is_a_circle_at_the_cameras_median_distance_and_mean_height(height):
    """Their own heights seen from the point they look at; an outlier does not widen it."""
    focus = np.array([1.0, -2.0, 0.5])
    eyes = focus + ring([2.0, 2.0, 6.0, 2.0, 2.0, 2.0], height)
    views = views_from(eyes, focus, UP)
    path = orbit_path(views, 24)
    found = eyes_of(path) - focus
    # The mean of the cameras' up directions is not quite upright where one is farther away.
    axis = np.mean([-np.linalg.inv(v.w2c[0].double().numpy())[:3, 1] for v in views], axis=0)
    axis /= np.linalg.norm(axis)
    own = (eyes - focus) @ axis
    np.testing.assert_allclose(found @ axis, own.mean(), atol=1e-4)
    around, radii = (np.linalg.norm(x - np.outer(x @ axis, axis), axis=-1) for x in (found, eyes - focus))
    np.testing.assert_allclose(around, np.median(radii), atol=1e-4)
    assert around[0] < 2.2
    assert_upright(path, focus, axis)


@pytest.mark.parametrize("place", [0.05, 1.0, 100.0])
def test_where_the_world_has_its_origin_does_not_matter_to_an_orbit(place):
    """Also of cameras whose axes never meet."""
    eyes = np.array([[x, 0.5 * (x > 0), z] for x in (-1.0, 0, 1) for z in (-1.0, 0, 1)])
    away = np.array([0.0, place, 0])
    ahead = np.array([0.0, 1.0, 0.0])
    one, other = (orbit_path(views_from(e, e + ahead, UP), 8) for e in (eyes, eyes + away))
    np.testing.assert_allclose(eyes_of(other), eyes_of(one) + away, atol=1e-3)
    assert (one.w2c[:, 2, 1] > 0.5).all()  # all look ahead


def test_an_orbit_begins_at_the_side_of_the_first_camera_and_goes_all_round():
    eyes = ring([3.0] * 5, 1.0, turn=0.7)
    found = eyes_of(orbit_path(views_from(eyes, np.zeros(3), UP), 8))
    np.testing.assert_allclose(found[0], eyes[0], atol=1e-3)
    np.testing.assert_allclose(found[4, :2], -eyes[0, :2], atol=1e-3)


@pytest.mark.parametrize(("across", "along"), [(4.0, 2.0), (1.5, 3.0), (4.0, 0.2)])
def test_cameras_that_look_the_same_way_are_circled_by_an_ellipse(across, along):
    """As wide and as tall as they are spread, at least a tenth of the distance to what they look at."""
    eyes = np.array([[x * across, -10.0, y * along] for x in (-1, 1) for y in (-1, 1)])
    path = orbit_path(views_from(eyes, np.zeros(3), UP), 40)
    found = eyes_of(path)
    np.testing.assert_allclose(np.abs(found).max(0), [across, 10, max(along, 1.0)], rtol=1e-2)
    np.testing.assert_allclose((found[:, 0] / across) ** 2 + (found[:, 2] / max(along, 1.0)) ** 2, 1, rtol=2e-2)
    assert_upright(path, np.zeros(3), UP)


def turning(angles: list[float]) -> torch.Tensor:
    """Poses of a camera that turns in its place, about its y axis."""
    w2c = torch.eye(4).repeat(len(angles), 1, 1)
    w2c[:, :3, :3] = torch.as_tensor(Rotation.from_rotvec(np.outer(angles, [0, 1, 0])).as_matrix())
    return w2c


def angles_of(w2c: torch.Tensor) -> np.ndarray:
    return torch.atan2(w2c[:, 0, 2], w2c[:, 0, 0]).numpy()


def test_poses_between_unevenly_timed_ones():
    times = torch.tensor([0.2, 0.6, 0.7])
    w2c = turning([0.0, 0.4, 0.8])
    found = interpolate(w2c, times, torch.tensor([0.0, 0.2, 0.3, 0.6, 0.65, 0.7, 1.0]))
    np.testing.assert_allclose(angles_of(found), [0, 0, 0.1, 0.4, 0.6, 0.8, 0.8], atol=1e-6)


def test_a_recording_is_run_through_at_an_even_turn():
    """Turning in place takes time by its angle; the moments are those of the exposure."""
    view = saved_view(turning([0.0, 0.1, 0.2, 0.6, 1.0]))
    path = recording_path([view], 11)
    np.testing.assert_allclose(angles_of(path.w2c), np.linspace(0, 1, 11), atol=1e-4)
    expected = np.interp(np.linspace(0, 1, 11), [0, 0.1, 0.2, 0.6, 1.0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose([moment[1] for moment in path.moments], expected, atol=1e-3)


def test_a_recording_is_run_through_at_an_even_speed_of_place():
    """Distances are in units of the centers' mean distance from their mean, so that they compare with angles."""
    x = torch.tensor([0.0, 1.0, 4.0, 5.0])
    w2c = torch.eye(4).repeat(4, 1, 1)
    w2c[:, 0, 3] = -x
    found = eyes_of(recording_path([saved_view(w2c)], 11))[:, 0]
    np.testing.assert_allclose(found, np.linspace(0, 5, 11), atol=1e-4)
    # Then as long a stretch in which it turns by the moved distance over that unit: half the time.
    turned = turning([0.0, 5 / 2])
    turned[:, 0, 3] -= 5 * turned[:, 0, 0]
    turned[:, 2, 3] -= 5 * turned[:, 2, 0]
    both = recording_path([saved_view(w2c), saved_view(turned)], 5)
    unit = float(np.abs(np.array([0, 1, 4, 5, 5, 5]) - 20 / 6).mean())
    moving = (5 / unit) / (5 / unit + 5 / 2)
    expected = np.minimum(np.linspace(0, 1, 5) / moving, 1) * 5
    np.testing.assert_allclose(eyes_of(both)[:, 0], expected, atol=1e-3)


def test_slow_motion_spans_the_whole_exposure():
    view = saved_view(turning([0.0, 0.1, 0.2, 0.3, 0.4]))
    path = exposure_path(view, 9)
    np.testing.assert_allclose(angles_of(path.w2c), np.linspace(0, 0.4, 9), atol=1e-6)
    np.testing.assert_allclose([moment[1] for moment in path.moments], np.linspace(0, 1, 9), atol=1e-6)
    assert all(moment[0] is view for moment in path.moments)
