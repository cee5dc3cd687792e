"""The recipes: each loss does what it says, and a resumed run is the same run."""

import dataclasses
import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from training_runs import IMAGES, PAPER, TIMING, learned, same, small_training, stepped

from arguments import TimingSettings
from gaussian_renderer import RenderOutput
from scene.dataset import read_scene
from scene.fusion import fuse, white
from scene.views import Quadrature
from spike import Mosaic
from training import checkpoint, objectives
from training.losses import subframe_loss
from training.objectives import FusedDistillation, InstantJointLoss, JointLoss, MeanScale, Moment, SubframeLoss
from training.recipes import timing
from training.reconstruction import Frames, InstantFrames
from training.sampling import Instants, Sample
from training.shards import ShardedStep
from training.training import Training
from utils.crops import Crop
from utils.processes import ALONE

# ---- what a step does --------------------------------------------------------------------------------------


def moment_of(t: Training, iteration: int) -> Moment:
    """What the step ``iteration`` would look at, without learning from it."""
    state = t.state
    state.iteration = iteration
    random = state.random()
    sample = t.sample(iteration, random)
    crops = t.reconstruct.crops(state, sample, random) if t.reconstruct.joins(iteration) else None
    step = ShardedStep(state, sample, 1, ALONE, t.reconstruct, crops)
    return Moment(state, sample, step.renders, step.frames)


def test_flip_lets_reversed_frames_pass(scene_folder, tmp_path):
    """Recon-Net's frames equal to the renders in reverse cost nothing with the flip, and something without."""
    t = small_training(scene_folder, tmp_path, *PAPER, "--crop", "0")
    moment = moment_of(t, 1)
    reverse = dataclasses.replace(moment.frames, images=moment.renders.images.flip(0))
    moment = dataclasses.replace(moment, frames=reverse)
    with_flip, without = (float(JointLoss(1.0, flip=flip)(moment).detach()) for flip in (True, False))
    assert with_flip < 1e-7 < without
    for flags, flips in (((), True), (("--no-flip",), False)):
        losses = small_training(scene_folder, tmp_path, *PAPER, *flags).objectives
        assert [loss.flip for loss in losses if loss.name == "joint"] == [flips]


class Reversed:
    """Recon-Net's frames are the renders in reverse, of view 2 in every step."""

    def __init__(self, t: Training):
        self.render = t.state.render
        t.state.render = self.noted
        t.sample = lambda iteration, random: Sample.exposure(2, t.state.recording.window.subframes)

    def noted(self, sample, cameras=slice(None)):
        self.latest = self.render(sample, cameras)
        return self.latest

    def joins(self, iteration):
        return True

    def crops(self, state, sample, random):
        return [Crop.whole(*state.recording.size)] * len(sample.views)

    def inner(self, state, crops):
        return None

    def __call__(self, state, sample, crops):
        return self.latest.images.detach().flip(0)


@pytest.mark.parametrize(
    ("flags", "turned"),
    [((), True), (("--no-flip",), False), (("--trajectory", "spline"), False), (("--no-pose_opt",), False)],
)
def test_a_view_whose_reverse_keeps_winning_is_turned_round(flags, turned, scene_folder, tmp_path, monkeypatch):
    """For good, and no other view; not on a spline, which knows the direction."""
    t = small_training(scene_folder, tmp_path, *PAPER, "--iterations", "60", "--crop", "0", "--no-rec", *flags)
    t.reconstruct = Reversed(t)
    monkeypatch.setattr(t.optimizers, "step", lambda *args, **named: None)  # the knots stay where they are
    u, trajectory = t.state.recording.u, t.state.trajectory
    before, beside = (trajectory.view(view, u).detach() for view in (2, 1))
    for _ in range(16):  # the memory is at -0.79 after 15 steps, at -0.81 after 16
        assert torch.equal(trajectory.view(2, u), before)
        t.step()
    if turned:
        torch.testing.assert_close(trajectory.view(2, u), before.flip(0), atol=1e-5, rtol=0)
        assert float(t.after[0].direction[2]) == 0
    else:
        assert torch.equal(trajectory.view(2, u), before)
    assert torch.equal(trajectory.view(1, u), beside)


def test_turning_a_view_turns_what_the_optimizer_has_gathered(scene_folder, tmp_path):
    t = stepped(small_training(scene_folder, tmp_path, *PAPER, "--pose_every", "1"), 2)
    increments = t.state.trajectory.increments
    moments = t.optimizers.poses.state[increments]
    rows = torch.arange(60.0).reshape(10, 6)
    increments.grad = rows.clone()
    moments["exp_avg"].copy_(rows)
    moments["exp_avg_sq"].copy_(rows)
    before = increments.detach().clone()
    t.optimizers.reverse(1)
    expected = [0, 6, 18, 12, 24, 30, 36, 42, 48, 54]  # the two knots of view 1 change places
    for values in (increments.grad, moments["exp_avg"], moments["exp_avg_sq"]):
        assert values[:, 0].tolist() == expected
    assert torch.equal(increments[2:4], before[2:4].flip(0)) and torch.equal(increments[4:], before[4:])


def test_a_window_is_the_mean_of_its_renders(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING, "--instants", "6", "--window_points", "3", "--window_from", "0")
    t.state.iteration = 1
    sample = t.sample(1, torch.Generator().manual_seed(1))
    window = sample.window
    assert len(sample.views) == 2 and len(window.offsets) == 3 and float(window.weights.sum()) == pytest.approx(1)
    images = t.state.render(sample).images
    assert len(images) == 6
    middle = t.state.render(dataclasses.replace(sample, window=Quadrature.middle())).images
    torch.testing.assert_close(sample.middle(images), middle)
    expected = sum(float(w) * images[2 * k : 2 * k + 2] for k, w in enumerate(window.weights))
    torch.testing.assert_close(sample.averaged(images), expected)


def test_windows_begin_after_their_iteration():
    window = Quadrature(torch.tensor([-0.1, 0.0, 0.1]), torch.tensor([0.25, 0.5, 0.25]))
    sample = Instants(4, 13, 6, window, window_from=5)
    for iteration, points, instants in ((5, 1, 6), (6, 3, 2)):
        chosen = sample(iteration, torch.Generator().manual_seed(0))
        assert len(chosen.window.weights) == points and len(chosen.views) == instants
    many = sample(1, torch.Generator().manual_seed(3)).views
    assert sorted(many[:4].tolist()) == [0, 1, 2, 3]  # every view once before one comes again


def test_instants_are_of_all_sub_frames():
    sample = Instants(4, 13, 6, Quadrature.middle())
    drawn = torch.cat([sample(i, torch.Generator().manual_seed(i)).subframes for i in range(40)])
    assert set(drawn.tolist()) == set(range(13))


def test_every_image_has_its_own_crop():
    images = torch.arange(2.0 * 8 * 10).reshape(2, 1, 8, 10)
    frames = Frames(torch.zeros(2, 1, 3, 4), [Crop(0, 3, 0, 4), Crop(5, 8, 6, 10)])
    assert torch.equal(frames.of(images), torch.stack([images[0, :, :3, :4], images[1, :, 5:, 6:]]))


def test_poses_move_once_their_gradients_are_gathered(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING, "--pose_every", "3")
    increments = t.state.trajectory.increments
    for moves in (False, False, True, False, False, True):
        before = increments.detach().clone()
        t.step()
        assert torch.equal(before, increments.detach()) != moves


def test_the_unit_of_the_means_rate(scene_folder, tmp_path):
    """The depth of the middle one of all initial points in front of the cameras, or the cameras' extent."""
    units = {}
    for unit in ("depth", "extent"):
        t = small_training(scene_folder, tmp_path, *TIMING, "--means_unit", unit)
        units[unit] = t.optimizers.field_rates["means"].unit
    poses = torch.stack([view.camera.w2c for view in t.state.recording.scene.train])
    depth = t.state.gaussians.means.detach() @ poses[:, 2, :3].T + poses[:, 2, 3]
    assert units["depth"] == pytest.approx(float(depth[depth > 0].median()), rel=1e-3)
    assert units["extent"] == t.state.recording.scene.extent != pytest.approx(units["depth"], rel=0.1)


def test_another_seed_makes_other_choices(scene_folder, tmp_path):
    drawn = []
    for seed in ("0", "1", "0"):
        state = small_training(scene_folder, tmp_path, *TIMING, "--seed", seed).state
        state.iteration = 1
        drawn.append(torch.rand(3, generator=state.random()).tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_each_view_once_an_epoch(scene_folder, tmp_path):
    sample = small_training(scene_folder, tmp_path, *PAPER).sample
    orders = [[sample(5 * epoch + i + 1, torch.Generator()).view for i in range(5)] for epoch in range(3)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders) and len({tuple(o) for o in orders}) > 1


def test_l_sub_is_in_units_of_its_own_noise(scene_folder, tmp_path):
    """Its value against Charbonnier's formula with the expected variance of the sampled windows."""
    t = small_training(scene_folder, tmp_path, *TIMING)
    moment = moment_of(t, 5)
    recording, sample = t.state.recording, moment.sample
    total = []
    for i, (view, m) in enumerate(zip(sample.views.tolist(), sample.subframes.tolist(), strict=True)):
        exposure = recording.exposures[view]
        noise = 1.4 * float(exposure.noise) ** 0.5
        weights = sample.window.weights
        render = sum(w * moment.renders.images[k * len(sample.views) + i] for k, w in enumerate(weights))
        total.append(((render - exposure.subframes[m]).square() + noise**2).sqrt().mean() - noise)
    expected = float((sum(total) / len(total)).detach())
    assert float(SubframeLoss(1.0)(moment).detach()) == pytest.approx(expected, rel=1e-5)
    # Not the middle alone: with renders that differ across the window the loss is another.
    brighter = torch.linspace(-0.5, 0.5, len(moment.renders.images)).square()  # at the ends of the window
    images = moment.renders.images.detach() + brighter[:, None, None, None]
    apart = dataclasses.replace(moment, renders=RenderOutput(images, torch.zeros(1)))
    seen, middle = sample.averaged(images), sample.middle(images)
    assert (seen - middle).abs().max() > 0.005
    exact = subframe_loss(seen, recording.targets(sample), recording.variance(sample))
    assert float(SubframeLoss(1.0)(apart)) == float(exact)
    # Nine frames of clean timing are good to some percent, and no better than to some thousandths.
    assert all(2e-3 < float(e.noise) ** 0.5 < 5e-2 for e in recording.exposures)


def test_fused_lessons_come_from_the_window(scene_folder, tmp_path):
    """The residual is of the window's mean, the correction goes onto its middle."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--window_from", "0", "--recon_from", "0")
    moment = moment_of(t, 3)
    recording, sample, images = t.state.recording, moment.sample, moment.renders.images.detach()
    assert len(sample.window.weights) == 3
    residual = recording.targets(sample) - sample.averaged(images)
    recording.measured_noise = white(torch.tensor(1e-5))
    expected = fuse(sample.middle(images), residual, recording.measured_noise)
    found = FusedDistillation(1.0).targets(moment)
    torch.testing.assert_close(found, expected)
    wrong = fuse(sample.middle(images), recording.targets(sample) - sample.middle(images), white(torch.tensor(1e-5)))
    assert (found - wrong).abs().max() > 10 * (found - expected).abs().max() + 1e-6


@pytest.mark.parametrize(("flag", "reached"), [("--fuse", False), ("--no-fuse", True)])
def test_fused_lessons_reach_the_network_alone(flag, reached, scene_folder, tmp_path):
    """With plain renders the Gaussians learn from the network as well."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--window_from", "0", flag)
    moment = moment_of(t, 2)
    (joint,) = (objective for objective in t.objectives if objective.name == "joint")
    images = [moment.renders.images, moment.frames.images]
    of_scene, of_network = torch.autograd.grad(joint(moment), images, allow_unused=True)
    assert (of_scene is not None) == reached and of_network.abs().sum() > 0
    assert torch.equal(joint.targets(moment), moment.sample.middle(moment.renders.images)) == reached


def test_l_joint_leaves_out_what_the_crop_cuts_off(scene_folder, tmp_path):
    """Pixels nearer to a crop's side than the network looks differ from the full frame's: they have no weight."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--recon_from", "0", "--no-fuse")
    moment = moment_of(t, 1)
    inner, loss = moment.frames.inner, InstantJointLoss(1.0)
    assert 0 < float(inner.mean()) < 1
    wrong = dataclasses.replace(moment.frames, images=moment.frames.images + 100 * (1 - inner))
    found = float(loss(moment).detach())
    assert float(loss(dataclasses.replace(moment, frames=wrong)).detach()) == pytest.approx(found, rel=1e-5)
    parts = moment.frames.of(moment.sample.middle(moment.renders.images))
    expected = (parts - moment.frames.images).abs()[inner.bool().expand_as(parts)].mean()
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_network_joins_when_its_schedule_says():
    frames = InstantFrames(type("Net", (), {"receptive_radius": 4, "variant": "slim"})(), 16, begins=10, every=3)
    assert [i for i in range(20) if frames.joins(i)] == [13, 16, 19]


def test_spherical_harmonics_rise_by_one_an_interval(scene_folder, tmp_path, monkeypatch):
    t, seen = small_training(scene_folder, tmp_path, *TIMING), []
    rasterize = t.state.field.rasterizer
    t.state.field.rasterizer = lambda **named: seen.append(named["sh_degree"]) or rasterize(**named)
    t.sample = lambda iteration, random: Sample.instant(0, 6)
    t.after = []
    stepped(t)
    assert seen == [0, 1, 1, 2, 2, 3]  # every second iteration, as --sh_degree_interval 2 says
    t.state.iteration = 100
    t.state.render(Sample.instant(0, 6))
    assert seen[-1] == 3  # the model's own


def test_the_spline_reaches_as_far_as_the_windows(scene_folder, tmp_path):
    wide = "--exposure 25 --subframe_width 21 --window_points 3 --trajectory spline --knot_spacing 0.2".split()
    t = small_training(scene_folder, tmp_path, *TIMING, *wide)
    reach, trajectory = t.sample.window.reach, t.state.trajectory
    assert reach > 0.3
    first, last = trajectory.first[0], trajectory.first[-1]
    assert first - reach / 0.2 > 0 and last + (1 + reach) / 0.2 < len(trajectory.anchors) - 3


def test_the_cap_holds_for_the_initial_points(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING, "--cap_max", "150")
    assert len(t.state.field.gaussians) == 150
    assert len(stepped(t, 2).state.field.gaussians) == 150


def test_needles_are_punished_every_tenth_iteration(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *PAPER, "--iterations", "20")
    with torch.no_grad():
        t.state.field.gaussians.raw["log_scales"][:, 0] += 4
    t.state.iteration = 9
    assert t.step()["ratio"] > 0 and "ratio" not in t.step()
    t = small_training(scene_folder, tmp_path, *PAPER, "--iterations", "20", "--no-scale-ratio")
    t.state.iteration = 9
    assert "ratio" not in t.step()


def test_mean_scale_is_in_extents(scene_folder, tmp_path):
    """The same scene in other units costs the same."""
    t = small_training(scene_folder, tmp_path, *TIMING)
    moment = moment_of(t, 1)
    before = float(MeanScale(1.0)(moment).detach())
    recording, scales = t.state.recording, t.state.field.gaussians.scales.detach()
    assert before == pytest.approx(float(scales.mean()) / recording.scene.extent)
    recording.scene = dataclasses.replace(recording.scene, extent=1000 * recording.scene.extent)
    with torch.no_grad():
        t.state.field.gaussians.raw["log_scales"] += torch.log(torch.tensor(1000.0))
    assert float(MeanScale(1.0)(moment).detach()) == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_l_rec_alone_teaches_the_network_alone(strategy, scene_folder, tmp_path):
    only = f"--no-gs --no-joint --strategy {strategy} --cap_max 330 --opacity_reset_interval 2".split()
    t = small_training(scene_folder, tmp_path, *PAPER, *only)
    before = learned(t)
    assert all(t.step()["rec"] > 0 for _ in range(6))
    changed = {name for name, value in learned(t).items() if not torch.equal(value, before[name])}
    assert changed and changed == set(t.state.network.state_dict())


def test_fixed_poses_have_no_gradient(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING, "--no-pose_opt")
    before = t.state.trajectory.increments.detach().clone()
    stepped(t)
    assert t.state.trajectory.increments.grad is None and torch.equal(t.state.trajectory.increments, before)
    assert "pose_gradient" not in t.optimizers.state_dict()


def test_poses_are_optimized_in_the_coordinates_of_their_preconditioners(scene_folder, tmp_path):
    """Adam's first step has the rate's length along each coordinate, against the gradient there."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--pose_every", "1")
    increments, steps = t.state.trajectory.increments, t.optimizers.preconditioners
    assert len(steps) == len(increments) and float((steps[0] - torch.diag(steps[0].diagonal())).abs().max()) > 0.1
    before = increments.detach().clone()
    gradient = torch.randn(increments.shape, generator=torch.Generator().manual_seed(1))
    increments.grad, t.state.iteration = gradient.clone(), 1
    t.optimizers.step({}, None, with_network=False)
    rate = t.optimizers.pose_rate.at(1 / t.steps)
    along = torch.stack([rate * (p.T @ g).sign() for p, g in zip(steps, gradient, strict=True)])
    expected = torch.stack([-p @ s for p, s in zip(steps, along, strict=True)])
    torch.testing.assert_close(increments.detach() - before, expected, atol=1e-6, rtol=1e-3)
    assert increments.grad is None


def test_a_step_of_the_poses_is_not_rounded_by_how_far_they_have_come(scene_folder, tmp_path):
    """In millimeters, the increments of positions are large, and the steps of Adam are below their rounding."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--pose_every", "1")
    increments = t.state.trajectory.increments
    gradient = torch.randn(increments.shape, generator=torch.Generator().manual_seed(1))
    moved = []
    for far in (0.0, 1e5):
        with torch.no_grad():
            increments[:, :3] = far
        t.optimizers.restart()
        increments.grad, t.state.iteration = gradient.clone(), 1
        before = increments.detach().clone()
        t.optimizers.step({}, None, with_network=False)
        moved.append((increments.detach() - before)[:, 3:])
    assert float(moved[0].abs().min()) > 0
    torch.testing.assert_close(moved[1], moved[0], atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("unit", ["world", "depth"])
def test_without_preconditioning_positions_count_in_the_unit_of_length(unit, scene_folder, tmp_path):
    t = small_training(
        scene_folder, tmp_path, *TIMING, "--pose_every", "1", "--no-pose_precondition", "--length_unit", unit
    )
    before = t.state.trajectory.increments.detach().clone()
    t.step()
    moved = (t.state.trajectory.increments.detach() - before).abs()
    rate, depth = t.optimizers.pose_rate.at(1 / t.steps), t.optimizers.field_rates["means"].unit
    for part, length in ((moved[:, :3], depth / 3 if unit == "depth" else 1), (moved[:, 3:], 1)):
        steps = part[part > 0]
        torch.testing.assert_close(steps, torch.full_like(steps, rate * length), atol=1e-6, rtol=1e-2)


def test_a_spline_reaches_as_far_as_the_renders_that_guide_the_re_timing(scene_folder, tmp_path):
    """The shorter the exposure, the farther the context reaches beyond it."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--trajectory", "spline", "--exposure", "49")
    curves, last = t.state.trajectory, len(t.state.recording) - 1
    for view, u in ((0, -20 / 48), (last, 1 + 20 / 48)):
        curves.increments.grad = None
        curves(torch.tensor([view]), torch.tensor([u])).sum().backward()
        touched = curves.increments.grad.abs().sum(1).nonzero()[:, 0]
        assert len(touched) and int(touched.max() - touched.min()) < 4


def test_rates_decay_from_their_start_to_their_end(scene_folder, tmp_path):
    t = stepped(small_training(scene_folder, tmp_path, *TIMING))
    depth = t.optimizers.field_rates["means"].unit
    rates = {group["name"]: group["lr"] for group in t.optimizers.field.param_groups}
    assert rates["means"] == pytest.approx(6e-5 * depth) and rates["log_scales"] == 2e-2 and rates["quats"] == 3e-3
    assert t.optimizers.poses.param_groups[0]["lr"] == pytest.approx(1e-5)
    assert t.optimizers.network.param_groups[0]["lr"] == pytest.approx(1e-4)
    half = t.optimizers.field_rates["means"].at(0.5)
    assert half == pytest.approx((2e-3 * 6e-5) ** 0.5 * depth)


def test_a_loss_that_is_no_number_stops_before_it_is_learned_from(scene_folder, tmp_path, monkeypatch):
    t = small_training(scene_folder, tmp_path, *TIMING)
    monkeypatch.setattr(objectives, "l1", lambda *_: torch.tensor(float("nan")))
    t.step()
    before = learned(t)
    with pytest.raises(ValueError, match="iteration 2: the loss joint is nan, expected a finite number"):
        t.step()
    assert same(learned(t), before)


def test_two_terms_of_one_name_are_refused(scene_folder, tmp_path):
    """One would take the place of the other."""
    t = small_training(scene_folder, tmp_path, *TIMING)
    t.objectives = [SubframeLoss(1.0), SubframeLoss(0.5)]
    with pytest.raises(ValueError, match="two objectives are called sub"):
        t.step()
    t.objectives = [InstantJointLoss(1.0)]  # whose network joins later
    t.state.iteration = 0
    with pytest.raises(ValueError, match="iteration 1: none of the objectives applies"):
        t.step()


def test_a_training_needs_something_to_learn_from(scene_folder, tmp_path):
    with pytest.raises(ValueError, match="nothing to learn from"):
        small_training(scene_folder, tmp_path, *PAPER, "--no-gs", "--no-rec", "--no-joint", "--no-scale-ratio")
    with pytest.raises(ValueError, match="a finite number of at least 0"):
        SubframeLoss(float("nan"))


def test_the_loss_is_the_weighted_sum_of_its_terms(scene_folder, tmp_path):
    weights = "--lambda_gs 0.3 --lambda_joint 2 --opacity_reg 5".split()
    t = small_training(scene_folder, tmp_path, *PAPER, *weights)
    terms = t.step()
    expected = 0.3 * terms["gs"] + 5 * terms["opacity"] + terms["rec"] + 2 * terms["joint"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert terms["opacity"] == pytest.approx(0.1, rel=1e-3)  # as Gaussians begin


def test_the_pixels_gains_are_found_from_the_scene(scene_folder, tmp_path):
    """What the pixels measured over what the scene shows there, in the iterations in which it is due."""
    t = small_training(scene_folder, tmp_path, *TIMING, "--fixed_pattern_every", "3")
    updates = t.after[0]
    recording, pattern = t.state.recording, 1 + 0.05 * torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    # A scene that is right about what pixels without such a pattern would have measured.
    t.state.render = lambda sample: RenderOutput(recording.targets(sample) / pattern, torch.zeros(1))
    moment = Moment(t.state, None, None)
    for iteration, found in ((1, False), (2, False), (3, True)):
        t.state.iteration = iteration
        updates(moment, t.optimizers)
        assert (recording.sensor.gain_map is not None) == found
    around = torch.from_numpy(gaussian_filter(pattern.numpy(), 3))
    torch.testing.assert_close(recording.sensor.gain_map, pattern / around, atol=5e-3, rtol=0)


def test_a_sensor_with_filters_is_compared_through_them(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING)
    sample = Sample.instant(0, 6)
    assert t.state.render(sample).images.shape == (1, 1, 32, 48)
    raw = t.state.gaussians.raw
    colored = {name: value.detach() for name, value in raw.items()}
    colored |= {name: colored[name].repeat(1, 1, 3) * torch.tensor([1.0, 0.0, -1.0]) for name in ("sh0", "shN")}
    t.state.field.restore(colored)
    t.state.recording.mosaic = Mosaic("RGGB")
    seen = t.state.render(sample).images
    t.state.recording.mosaic = None
    red, green, blue = t.state.render(sample).images[0]
    assert seen.shape == (1, 1, 32, 48) and torch.equal(seen[0, 0, ::2, ::2], red[::2, ::2])
    assert torch.equal(seen[0, 0, 1::2, 1::2], blue[1::2, 1::2])
    assert torch.equal(seen[0, 0, ::2, 1::2], green[::2, 1::2])


# ---- whole runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [TIMING, [*TIMING, "--densify_until_iter", "2"], [*PAPER, "--pose_every", "4"], IMAGES],
    ids=["timing", "within the mean", "paper", "images"],
)
def test_a_resumed_run_is_the_same_run(flags, scene_folder, tmp_path):
    straight = stepped(small_training(scene_folder, tmp_path / "a", *flags))
    first = stepped(small_training(scene_folder, tmp_path / "b", *flags), 3)
    path = checkpoint.save(first)
    second = small_training(scene_folder, tmp_path / "b", *flags)
    checkpoint.load(second, path)
    stepped(second, 3)
    assert same(learned(straight), learned(second))
    for a, b in zip(straight.after, second.after, strict=True):
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
    if "paper" in flags:
        assert bool(straight.after[0].direction.any())


def test_the_means_of_the_last_steps_replace_what_was_learned(scene_folder, tmp_path):
    """An exponential mean from the first counted step on; the steps themselves are as without it."""
    flags = [*TIMING, "--densify_until_iter", "2", "--average_from", "3"]
    plain, averaged = (
        small_training(scene_folder, tmp_path, *flags, "--average_decay", decay) for decay in ("0", "0.6")
    )
    mean: dict[str, torch.Tensor] = {}
    for iteration in range(1, 7):
        stepped(plain, 1)
        stepped(averaged, 1)
        now = {name: value.detach() for name, value in plain.state.field.parameters().items()}
        now["poses"] = plain.state.trajectory.increments.detach()
        if iteration < 6:
            assert same(learned(plain), learned(averaged))
        share = {3: 1.0, 4: 0.5}.get(iteration, 0.4)  # at first the mean of all, later of the last few
        if iteration >= 3:
            mean = {name: (1 - share) * mean.get(name, 0) + share * value for name, value in now.items()}
    for name, value in averaged.state.field.parameters().items():
        torch.testing.assert_close(value.detach(), mean[name])
    torch.testing.assert_close(averaged.state.trajectory.increments.detach(), mean["poses"])
    assert not torch.equal(mean["poses"], now["poses"])


def scaled(scene, factor: float):
    """The scene in other units: positions of cameras and points times ``factor``."""

    def moved(view):
        w2c = view.camera.w2c.clone()
        w2c[:3, 3] *= factor
        return dataclasses.replace(view, camera=dataclasses.replace(view.camera, w2c=w2c))

    return dataclasses.replace(scene, train=[moved(view) for view in scene.train], points=scene.points * factor)


@pytest.mark.parametrize("factor", [1 / 16, 256.0])
def test_the_unit_of_the_world_does_not_matter(factor, scene_folder):
    """What is learned is the same, in other units, except where rounding decides.

    It decides the sign of a step where a gradient is next to zero, and which Gaussian a dead one joins.
    """
    scene = read_scene(scene_folder)
    settings = TimingSettings.of(
        iterations=12, init_num_pts=300, cap_max=330, lambda_joint=0.0, densify_from_iter=0, densification_interval=4,
        densify_until_iter=10, min_opacity=0.099,  # next to all Gaussians count as dead: they move and explore
    )  # fmt: skip
    one, other = (stepped(timing(settings, s), 12).state for s in (scene, scaled(scene, factor)))
    a, b = ({n: v.detach() for n, v in s.gaussians.raw.items()} for s in (one, other))
    b["means"], b["log_scales"] = b["means"] / factor, b["log_scales"] - math.log(factor)
    start = timing(settings, scene).state.trajectory.increments.detach()
    a["poses"], b["poses"] = (s.trajectory.increments.detach().clone() for s in (one, other))
    b["poses"][:, :3] /= factor
    assert (a["poses"] - start)[:, :3].abs().max() > 3e-3  # they moved
    for name in ("means", "log_scales", "opacity_logits", "poses"):
        off = (a[name] - b[name]).abs().flatten()
        assert off.quantile(0.8) < 5e-3 and off.quantile(0.9) < 0.3, name
    assert (a["poses"] - b["poses"]).abs().max() < 0.3


@pytest.mark.parametrize("factor", [1e-3, 1e-5])
def test_a_scene_nearer_than_the_near_plane_is_refused_with_the_factor(factor, scene_folder):
    """Meters in kilometers: nothing of it would be drawn."""
    scene, settings = read_scene(scene_folder), TimingSettings.of(iterations=6, init_num_pts=300, cap_max=330)
    message = rf"small: half of the initial points are less than .* by {0.1 / factor * 10:.0f}$"
    with pytest.raises(ValueError, match=message):
        timing(settings, scaled(scene, factor))


def test_the_mean_begins_after_densification(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING, "--average_from", "1")
    assert t.after[-1].begins == 5
    none = small_training(scene_folder, tmp_path, *TIMING, "--average_from", "1", "--strategy", "none")
    assert none.after[-1].begins == 1
    late = small_training(scene_folder, tmp_path, *TIMING, "--densify_until_iter", "9")
    assert [action.name for action in late.after] == ["fixed_pattern", "retiming", "noise"]


def test_a_checkpoint_of_other_settings_is_refused(scene_folder, tmp_path):
    path = checkpoint.save(small_training(scene_folder, tmp_path, *TIMING))
    for flags in ("--sh_degree 1", "--trajectory linear"):
        with pytest.raises(ValueError, match=r"chkpnt0.pth: does not fit this scene and configuration \([^\n]+\)$"):
            checkpoint.load(small_training(scene_folder, tmp_path, *TIMING, *flags.split()), path)


def test_learning_brings_the_renders_nearer(scene_folder, tmp_path):
    flags = "--iterations 40 --densification_interval 20 --recon_from 30".split()
    t = small_training(scene_folder, tmp_path, *TIMING, *flags)
    before, image = t.probe()
    assert image.shape == (1, 32, 48)
    first = t.step()["sub"]
    for _ in range(39):
        last = t.step()["sub"]
    assert t.probe()[0] > before + 1 and last < 0.9 * first


def test_images_are_long_exposures(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *IMAGES)
    terms = t.step()
    assert t.state.network is None and terms["gs"] > 0 and terms.keys() == {"gs", "loss"}


@pytest.mark.parametrize("flags", [[*TIMING, "--crop", "9"], [*PAPER, "--crop", "1"], [*PAPER, "--subframes", "1"]])
def test_the_least_that_is_accepted_learns(flags, scene_folder, tmp_path):
    t = stepped(small_training(scene_folder, tmp_path, *flags), 4)
    assert all(bool(value.isfinite().all()) for value in learned(t).values())


def test_a_run_from_python(scene_folder):
    """Without a command line or a folder of results."""
    scene = read_scene(scene_folder)
    training = timing(TimingSettings.of(iterations=4, init_num_pts=300, cap_max=330), scene)
    losses = [training.step()["loss"] for _ in range(training.steps)]
    assert len(losses) == 4 and training.settings.densification.cap_max == 330
    training.objectives = [o for o in training.objectives if o.name != "joint"]  # an ablation
    assert training.step().keys() == {"sub", "loss"}
    psnr, image = training.probe()
    assert psnr > 0 and image.shape == (1, *training.state.recording.size)
