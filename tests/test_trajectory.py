import numpy as np
import pytest
import torch

from scene.cameras import Camera, View
from scene.trajectory import CURVES, Timing, Trajectory, first_guess
from utils import se3


def path(times: np.ndarray) -> np.ndarray:
    """A curved hand-held-like path, world-to-camera [B, 4, 4]."""
    t = torch.as_tensor(times)
    twist = torch.stack([t, (0.7 * t).sin(), 0.2 * t * t, 0.1 * t.sin(), 0.15 * t, 0.05 * t.cos()], dim=-1)
    return se3.inverse(se3.exp(0.3 * twist)).numpy()


def timing(recordings: str, apart: float) -> Timing:
    """Views of recordings named by one letter each, ``apart`` exposures apart."""
    counts = {name: 0 for name in recordings}
    middle = []
    for name in recordings:
        middle.append(counts[name] * apart)
        counts[name] += 1
    return Timing(np.array(middle), np.array([ord(name) for name in recordings]))


TIMING = timing("aaaaaa", 1.8)
POSES = path(TIMING.middle)


@pytest.mark.parametrize("curve", CURVES)
def test_the_first_guess_follows_the_neighbors(curve):
    trajectory = Trajectory(torch.as_tensor(POSES), curve, TIMING)
    u = torch.linspace(0, 1, 5)
    for view in (2, 3):
        true = torch.as_tensor(path(TIMING.middle[view] + u.numpy() - 0.5)).float()
        still = torch.as_tensor(POSES[view]).float().expand_as(true)
        error = (trajectory.view(view, u) - true).abs().max()
        assert error < 0.1 * (still - true).abs().max()


@pytest.mark.parametrize("curve", ["linear", "cubic", "bezier"])
def test_without_timing_every_view_rests_at_its_pose(curve):
    trajectory = Trajectory(torch.as_tensor(POSES), curve)
    assert torch.allclose(trajectory.view(4, torch.linspace(0, 1, 3)), torch.as_tensor(POSES[4]).float(), atol=1e-6)


def test_linear_is_the_geodesic_between_its_knots():
    trajectory = Trajectory(torch.as_tensor(POSES[:1]), "linear")
    end = torch.tensor([0.3, -0.1, 0.2, 0.4, 0.1, -0.3])
    with torch.no_grad():
        trajectory.increments[1] = end
    poses = trajectory.view(0, torch.tensor([0.0, 0.25, 1.0]))
    expected = se3.exp(torch.tensor([0.0, 0.25, 1.0])[:, None] * end) @ torch.as_tensor(POSES[0]).float()
    assert torch.allclose(poses, expected, atol=1e-5)


@pytest.mark.parametrize("curve", CURVES)
def test_poses_are_rigid_and_gradients_reach_every_knot(curve):
    trajectory = Trajectory(torch.as_tensor(POSES), curve, TIMING).double()
    views = torch.arange(6).repeat_interleave(7)
    u = torch.linspace(0, 1, 7, dtype=torch.float64).repeat(6)
    poses = trajectory(views, u)
    rotation = poses[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).double().expand_as(rotation), atol=1e-6)
    (poses * torch.randn_like(poses)).sum().backward()
    assert (trajectory.increments.grad.abs().sum(-1) > 0).all()


def test_gradient_of_the_curve():
    for curve in ("linear", "cubic", "bezier"):
        trajectory = Trajectory(torch.as_tensor(POSES[:2]), curve, timing("aa", 1.5)).double()
        increments = trajectory.increments.detach().clone().requires_grad_()

        def poses(x, trajectory=trajectory):
            u = torch.tensor([0.2, 0.9], dtype=torch.float64)
            return torch.func.functional_call(trajectory, {"increments": x}, (torch.tensor([0, 1]), u))

        assert torch.autograd.gradcheck(poses, (increments,))


def test_the_spline_is_continuous_over_the_recording():
    touching = timing("aaaaaa", 1.0)
    trajectory = Trajectory(torch.as_tensor(POSES), "spline", touching, knot_spacing=0.7)
    with torch.no_grad():
        trajectory.increments += 0.05 * torch.randn(trajectory.increments.shape)
    ends = trajectory(torch.arange(5), torch.ones(5))
    starts = trajectory(torch.arange(1, 6), torch.zeros(5))
    assert torch.allclose(ends, starts, atol=1e-5)


def test_recordings_do_not_mix():
    other = POSES.copy()
    other[3:] = path(np.arange(3) + 50.0)
    u = np.linspace(0, 1, 3)
    alone = first_guess(POSES[:3], timing("aaa", 1.8), u)
    assert np.allclose(first_guess(other, timing("aaabbb", 1.8), u)[:3], alone)


def test_windows_reach_beyond_a_recording_s_ends():
    """Just outside an exposure the spline goes on, on knots of its own recording."""
    middle = timing("aaabbb", 1.8)
    trajectory = Trajectory(torch.as_tensor(POSES), "spline", middle, knot_spacing=0.4)
    views, u = torch.tensor([0, 2, 3, 5]), torch.tensor([-0.1, 1.1, -0.1, 1.1])
    ends = trajectory(views, u.clamp(0, 1))
    beyond = trajectory(views, u)
    change = se3.log(beyond @ se3.inverse(ends)).norm(dim=-1)
    inside = se3.log(trajectory(views, (u - 0.1).abs().clamp(0, 1)) @ se3.inverse(ends)).norm(dim=-1)
    assert bool((change > 0).all()) and bool((change < 3 * inside.max()).all())
    for index in range(4):
        trajectory.increments.grad = None
        trajectory(views[index : index + 1], u[index : index + 1]).sum().backward()
        touched = trajectory.increments.grad.abs().sum(1).nonzero()[:, 0]
        half = len(trajectory.increments) // 2
        assert bool((touched < half).all()) if index < 2 else bool((touched >= half).all())


def test_a_spline_reaches_as_far_as_it_is_told():
    """To knots of its own recording, also where the farthest instant lies on the last of them."""
    trajectory = Trajectory(torch.as_tensor(POSES), "spline", timing("aaabbb", 1.8), knot_spacing=0.3, reach=0.6)
    half = len(trajectory.increments) // 2
    for view, u in ((0, -0.6), (2, 1.6), (3, -0.6), (5, 1.6)):
        trajectory.increments.grad = None
        trajectory(torch.tensor([view]), torch.tensor([u])).sum().backward()
        touched = trajectory.increments.grad.abs().sum(1).nonzero()[:, 0]
        assert len(touched) and bool(((touched < half) == (view < 3)).all())


def test_an_unknown_curve_is_refused():
    with pytest.raises(ValueError, match="'quartic' is unknown"):
        Trajectory(torch.as_tensor(POSES), "quartic")


def view(i: int, recording: str = "", middle_frame: float | None = None) -> View:
    camera = Camera(str(i), 8, 8, torch.eye(3), torch.eye(4))
    return View(camera, recording=recording, position=i, middle_frame=middle_frame)


def test_held_out_views_leave_a_gap_in_time():
    of = Timing.of([view(1), view(2), view(4)], spacing=48, exposure=97)
    assert np.allclose(of.middle, [0.5, 1.0, 2.0])


def test_a_view_s_own_time_wins_over_the_even_spacing():
    of = Timing.of([view(0, "a", 100), view(1, "a", 388), view(0, "b")], spacing=48, exposure=97)
    assert np.allclose(of.middle, [100 / 96, 388 / 96, 0])
    assert of.recording[0] == of.recording[1] != of.recording[2]


def test_the_order_of_the_views_does_not_matter_to_the_first_guess():
    u = np.linspace(0, 1, 3)
    turned = np.array([3, 0, 5, 1, 4, 2])
    shuffled = Timing(TIMING.middle[turned], TIMING.recording)
    assert np.allclose(first_guess(POSES[turned], shuffled, u), first_guess(POSES, TIMING, u)[turned])


@pytest.mark.parametrize(("curve", "degree"), [("linear", 1), ("cubic", 3), ("bezier", 3), ("bezier", 5)])
def test_a_reversed_view_runs_backwards_and_alone(curve, degree):
    random = torch.Generator().manual_seed(3)
    trajectory = Trajectory(torch.eye(4).repeat(3, 1, 1), curve, degree=degree)
    with torch.no_grad():
        trajectory.increments.add_(0.05 * torch.randn(trajectory.increments.shape, generator=random))
    u = torch.linspace(0, 1, 7)
    before = [trajectory.view(v, u).detach() for v in range(3)]
    rows = trajectory.reverse(1)
    assert rows == slice(degree + 1, 2 * degree + 2)
    # Steps on SE(3) do not commute, so all but the straight line are a little different in reverse.
    near = 1e-6 if curve == "linear" else 3e-3
    torch.testing.assert_close(trajectory.view(1, u), before[1].flip(0), atol=near, rtol=0)
    assert (trajectory.view(1, u) - before[1]).abs().max() > 0.03
    assert torch.equal(trajectory.view(0, u), before[0]) and torch.equal(trajectory.view(2, u), before[2])


def test_a_spline_s_views_cannot_be_reversed():
    timing = Timing(np.arange(3.0), np.zeros(3, int))
    trajectory = Trajectory(torch.eye(4).repeat(3, 1, 1), "spline", timing)
    with pytest.raises(ValueError, match="cannot be reversed alone"):
        trajectory.reverse(1)


@pytest.mark.parametrize("curve", ["linear", "spline"])
def test_a_step_costs_the_knots_it_asks_for_and_not_the_recording(curve):
    """Of 20,000 views, only the knots of the asked ones enter the graph."""
    poses = torch.eye(4).repeat(20_000, 1, 1)
    poses[:, 0, 3] = torch.arange(20_000.0)
    timing = Timing(np.arange(20_000.0) * 2, np.zeros(20_000, int))
    trajectory = Trajectory(poses, curve, timing if curve == "spline" else None)
    sizes = []
    exp = se3.exp
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(se3, "exp", lambda twist: sizes.append(twist.numel()) or exp(twist))
        trajectory(torch.tensor([7, 19_999, 7]), torch.tensor([0.1, 0.5, 0.9])).sum().backward()
    assert sizes and max(sizes) <= 6 * 16
    asked = trajectory.increments.grad.abs().sum(-1).nonzero()[:, 0]
    assert 4 <= len(asked) <= 16


@pytest.mark.parametrize(("curve", "degree"), [("linear", 1), ("cubic", 3), ("bezier", 3)])
def test_curves_of_older_models_are_as_they_were(curve, degree):
    """They were stored without a degree."""
    trajectory = Trajectory(torch.as_tensor(POSES), curve, TIMING)
    older = {name: value for name, value in trajectory.checkpoint().items() if name != "degree"}
    restored = Trajectory.from_checkpoint(older, "model")
    assert restored.degree == degree
    u = torch.linspace(0, 1, 5)
    assert torch.equal(restored.view(1, u), trajectory.view(1, u))


@pytest.mark.parametrize("degree", [0, 2.0, "7", 10**9, 2])
def test_a_stored_degree_that_is_no_curve_s_is_refused(degree):
    trajectory = Trajectory(torch.as_tensor(POSES), "linear")
    with pytest.raises(ValueError, match=r"model: holds no trajectories .*curve linear of the degree"):
        Trajectory.from_checkpoint(trajectory.checkpoint() | {"degree": degree}, "model")


@pytest.mark.parametrize("degree", [3, 7])
def test_a_curve_follows_what_its_degree_allows(degree):
    """A tremor of one period in an exposure: a cubic cannot follow it, a curve of degree 7 nearly does."""
    u = torch.linspace(0, 1, 13)
    wanted = torch.eye(4).repeat(13, 1, 1)
    wanted[:, 0, 3] = 0.01 * torch.sin(2 * torch.pi * u + 0.7)
    trajectory = Trajectory(torch.eye(4)[None], "bezier", degree=degree)
    optimizer = torch.optim.LBFGS(trajectory.parameters(), max_iter=200, tolerance_grad=0, tolerance_change=0)

    def distance():
        optimizer.zero_grad()
        loss = 1e4 * (trajectory.view(0, u) - wanted).square().sum()
        loss.backward()
        return loss

    optimizer.step(distance)
    off = (trajectory.view(0, u) - wanted).detach().abs().max()
    assert (off > 1e-3) if degree == 3 else (off < 1e-4)
