"""Re-timing: an interval's charge follows the light that a scene shows, and stays one."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from training_runs import TIMING, learned, same, small_training, stepped

from scene.exposure import GUIDE_FLOOR, guide
from simulation import Simulator
from spike import SensorModel, WindowSpec
from spike.targets import Targets
from spike.timing import Guide, _spurious, frame_charge
from training import checkpoint

SPEC = WindowSpec(exposure=49, short=25, subframes=7)


# ---- charge --------------------------------------------------------------------------------------------------


def every_frame(light: np.ndarray) -> Guide:
    """A guide with an image [T, H, W] in every frame."""
    return Guide(light.astype(np.float32), np.arange(float(len(light))))


def pixel(frames: list[int], light: list[float]) -> np.ndarray:
    """The charge [T] of one pixel that fired in ``frames``."""
    spikes = np.zeros((len(light), 1, 1), np.uint8)
    spikes[frames] = 1
    return frame_charge(spikes, guide=every_frame(np.array(light)[:, None, None]))[0]


def test_hand_computed_intervals():
    """A spike's own frame belongs half to each side; at the ends, the nearest interval's ratio continues."""
    between, after = 2 / 2 + 4 + 8 + 2 / 2, 2 / 2 + 2 + 3 / 2  # light from spike to spike
    ratio = 1 / (3 / 2 + 6 + 6)  # no spike came after the last: less than one charge in all of its light
    assert ratio < 1 / after
    expected = [
        1 / between,
        2 / between,
        4 / between,
        8 / between,
        (1 / between + 1 / after) * 2 / 2,
        2 / after,
        (1 / after + ratio) * 3 / 2,
        6 * ratio,
        6 * ratio,
    ]
    np.testing.assert_allclose(pixel([1, 4, 6], [1, 2, 4, 8, 2, 2, 3, 6, 6]), expected, rtol=1e-5)
    # Before the first spike there was more light than an interval needs, and yet no spike.
    np.testing.assert_allclose(pixel([2, 4], [9, 9, 2, 3, 2])[:2], 9 / (9 + 9 + 1), rtol=1e-5)


def test_pixels_without_an_interval():
    light = np.array([1.0, 3.0, 2.0, 2.0])
    np.testing.assert_allclose(pixel([], [*light]), 0.5 * light / 8, rtol=1e-6)
    np.testing.assert_allclose(pixel([1], [*light]), light / 8, rtol=1e-6)


def test_an_intervals_charge_stays_one():
    """The count grows by one from spike to spike, and in between in proportion to the light so far."""
    rng = np.random.default_rng(0)
    spikes = (rng.random((90, 6, 7)) < 0.2).astype(np.uint8)
    light = rng.uniform(0.01, 1, (90, 6, 7))
    charge = frame_charge(spikes, guide=every_frame(light))
    for row, fired, seen in zip(charge, spikes.reshape(90, -1).T, light.reshape(90, -1).T, strict=True):
        frames, sums = np.flatnonzero(fired), np.append(0, np.cumsum(seen))
        at_spikes = np.interp(frames + 0.5, np.arange(91.0), sums)
        count = np.interp(sums, at_spikes, np.arange(len(frames)))
        inside = slice(frames[0] + 1, frames[-1])
        np.testing.assert_allclose(row[inside], np.diff(count)[inside], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rate", [0.004, 0.03, 0.3, 0.9])
def test_a_constant_guide_changes_nothing(rate):
    """Except that it knows what is spurious."""
    spikes = (np.random.default_rng(1).random((80, 9, 9)) < rate).astype(np.uint8)
    constant = Guide(np.full((5, 9, 9), 0.7, np.float32), np.linspace(3, 70, 5))
    np.testing.assert_allclose(frame_charge(spikes, guide=constant), frame_charge(spikes), rtol=1e-4)


def test_blocks_and_scale_do_not_matter():
    rng = np.random.default_rng(2)
    spikes = (rng.random((137, 90, 90)) < 0.2).astype(np.uint8)  # more than one block
    light = rng.uniform(0.1, 1, (12, 90, 90)).astype(np.float32)
    frames = np.linspace(0, 136, 12)
    whole = frame_charge(spikes, guide=Guide(light, frames))
    part = frame_charge(spikes[:, -1:], guide=Guide(light[:, -1:], frames))
    np.testing.assert_allclose(whole[-90:], part, rtol=1e-4)
    np.testing.assert_allclose(frame_charge(spikes, guide=Guide(4 * light, frames)), whole, rtol=1e-4)


def test_a_guide_that_does_not_fit_is_refused():
    spikes = np.zeros((8, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="a guide of 2 images needs as many frames, not 3"):
        Guide(np.ones((2, 2, 3), np.float32), np.arange(3.0))
    with pytest.raises(ValueError, match="light must be positive"):
        Guide(np.zeros((3, 2, 3), np.float32), np.arange(3.0))
    with pytest.raises(ValueError, match="a guide of 3x2 pixels for frames of 2x3"):
        frame_charge(spikes.transpose(0, 2, 1), guide=Guide(np.ones((3, 2, 3), np.float32), np.arange(3.0)))


def moving_edge() -> np.ndarray:
    """A soft edge that moves by 0.4 pixels per frame, over the context and 20 more frames: [T, H, W]."""
    t = np.arange(SPEC.context + 40)[:, None]
    profile = 0.15 + 0.7 / (1 + np.exp(-(np.arange(50)[None] - 0.4 * t - 2) / 0.7))
    return np.repeat(profile[:, None], 60, axis=1)


@pytest.mark.parametrize("dark", [0.0, 0.05])
def test_the_truth_as_guide_beats_even_spreading(dark):
    light = moving_edge()
    simulator = Simulator(gain=0.4, dark_rate=dark)
    spikes, sensor = simulator(light), simulator.sensor()

    def sight(u: torch.Tensor) -> torch.Tensor:
        frames = (20 + SPEC.half + u * (SPEC.exposure - 1)).numpy()
        return torch.from_numpy(light[frames.round().astype(int)]).float()[:, None]

    window = [np.mean(light[20 + a : 20 + b], axis=0) for a, b in (SPEC.window(m, 9) for m in range(7))]

    def error(shape: Guide | None) -> float:
        """Of the mean over rows, which see the same light at different phases: what averaging does not remove."""
        means = Targets(spikes, SPEC, sensor, "timing", 20, shape).subframes(9, smoothing=0).mean(1)
        return float((means - torch.from_numpy(np.stack(window)).mean(1)).square().mean() ** 0.5)

    even, guided = error(None), error(guide(sight, SPEC, sensor, 20))
    assert guided < 0.6 * even


def test_a_guide_tells_spurious_spikes_from_edges():
    """Nearly all spurious spikes go and nearly all others stay, where edges pass over all pixels."""
    light = moving_edge()
    clean = Simulator(gain=0.4)(light)
    noisy = Simulator(gain=0.4, spurious_gap=(140, 50))(light)
    extra = int(noisy.sum()) - int(clean.sum())
    fired = np.ascontiguousarray(noisy.reshape(len(light), -1).T)
    seen = np.ascontiguousarray((0.4 * light).reshape(len(light), -1).T).astype(np.float32)
    spurious = np.zeros_like(fired)
    spurious.reshape(-1)[_spurious(fired, 1 / 140, seen)] = 1
    wrong = clean.reshape(len(light), -1).T & spurious
    assert 0.8 * extra < spurious.sum() < 1.05 * extra and wrong.sum() < 0.15 * extra
    unguided = _spurious(fired, 1 / 140)
    assert clean.reshape(len(light), -1).T.reshape(-1)[unguided].sum() > 3 * wrong.sum()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_guide_neither_takes_nor_makes_light(factor):
    """A scene that is too dark must not make the spikes look spurious, and so become darker still."""
    light = moving_edge()
    spikes = Simulator(gain=0.4, spurious_gap=(140, 50))(light)
    charge = frame_charge(spikes, 1 / 140, every_frame(0.4 * light * factor)).reshape(60, 50, -1)
    inner = slice(30, -30)
    assert charge[..., inner].mean() == pytest.approx(0.4 * light[inner].mean(), rel=0.01)


def test_a_guide_is_in_rates_of_each_pixel():
    """Gain, gain map and dark current, and never less than the floor."""
    images = torch.tensor([[0.5, 0.0], [0.25, 1.0]])[None, None]
    gains, dark = torch.tensor([[1.0, 1.0], [2.0, 0.5]]), torch.tensor([[0.0, 0.0], [0.1, 0.1]])
    sensor = SensorModel(0.4, gain_map=gains, dark_map=dark)
    made = guide(lambda u: images.expand(len(u), -1, -1, -1), SPEC, sensor, 7)
    np.testing.assert_allclose(made.light[0], [[0.2, 0.4 * GUIDE_FLOOR], [0.2 + 0.1, 0.2 + 0.1]], rtol=1e-6)
    assert made.frames[0] == 7 and made.frames[-1] == 7 + SPEC.context - 1


# ---- in training ---------------------------------------------------------------------------------------------

RETIMED = [*TIMING, "--retime_from", "2", "--retime_every", "3"]


def targets(t) -> torch.Tensor:
    return torch.stack([exposure.subframes for exposure in t.state.recording.exposures])


def test_targets_change_when_due_and_by_the_scene(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *RETIMED, "--fixed_pattern_every", "0")
    at = [targets(t)]
    for _ in range(6):
        t.step()
        at.append(targets(t))
    changed = [not torch.equal(a, b) for a, b in pairwise(at)]
    assert changed == [False, True, False, False, True, False]
    # The targets are those of renders along each view's own trajectory.
    state = t.state
    camera = state.recording.scene.train[1].camera
    seen = state.sight(1, torch.tensor([0.0, 1.0]))
    with torch.no_grad():
        own = state.trajectory.view(1, torch.tensor([0.0, 1.0]))
        images = state.field.render(own, camera.K.expand(2, 3, 3), camera.width, camera.height, state.iteration).images
    assert torch.equal(seen, images)


def test_counted_targets_are_never_retimed(scene_folder, tmp_path):
    for flags in (("--targets", "counting", "--no-fuse"), ("--retime_every", "0", "--no-fuse")):
        after = small_training(scene_folder, tmp_path, *RETIMED, *flags).after
        assert [action.name for action in after] == ["fixed_pattern", "averaging"]


def test_a_resumed_run_has_the_same_targets(scene_folder, tmp_path):
    """They are made again from the scene, poses and gains of the latest re-timing, which is not the latest step."""
    straight = stepped(small_training(scene_folder, tmp_path / "a", *RETIMED), 4)
    path = checkpoint.save(straight)
    second = small_training(scene_folder, tmp_path / "a", *RETIMED)
    assert not torch.equal(targets(second), targets(straight))
    checkpoint.load(second, path)
    assert torch.equal(targets(second), targets(straight))
    stepped(straight, 2)
    stepped(second, 2)
    assert same(learned(straight), learned(second)) and torch.equal(targets(second), targets(straight))
