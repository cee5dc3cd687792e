"""Targets: counting and timing against the simulator's truth, ends, rare and spurious spikes, expected errors."""

import numpy as np
import pytest
import torch

from simulation import Simulator, simulate
from spike import SensorModel, Targets, WindowSpec, estimate_spurious_rate
from spike.targets import SMOOTHING, window_quadrature, window_weights
from spike.timing import frame_charge

SPEC = WindowSpec()
GAIN = 0.4964
SPURIOUS = 1 / 140


def moving_light(frames=SPEC.context, height=40, width=50, seed=0):
    """Uniform intensities that drift slowly, each pixel at its own pace [T, H, W]."""
    rng = np.random.default_rng(seed)
    start, end = rng.uniform(0.02, 1, (2, height, width))
    t = np.linspace(0, 1, frames)[:, None, None]
    return start + (end - start) * t


def rmse(found, truth):
    return float(((found - torch.as_tensor(truth)) ** 2).mean().sqrt())


def targets(light, mode, margin=0, sensor=None, **faults):
    spikes = Simulator(gain=GAIN, **faults)(light)
    return Targets(spikes, SPEC, sensor or SensorModel(GAIN), mode=mode, margin=margin)


@pytest.mark.parametrize(
    ("width", "counting", "timing"),
    [(25, 0.0327, 0.0074), (41, 0.0203, 0.0046), (97, 0.0085, 0.0020)],
)
def test_errors_of_constant_light_are_the_known_ones(width, counting, timing):
    """RMSE of a window's mean of uniform constant intensities (the table of benchmarks/targets.md)."""
    level = np.random.default_rng(1).uniform(0.02, 1, (60, 60))
    frames, a = [level] * SPEC.context, (SPEC.context - width) // 2
    for mode, expected in (("counting", counting), ("timing", timing)):
        assert rmse(targets(frames, mode).mean(a, a + width), level) == pytest.approx(expected, rel=0.15)


def test_means_are_unbiased():
    light = np.full((SPEC.context, 60, 60), 0.37)
    for mode in ("counting", "timing"):
        assert float(targets(light, mode).long_exposure().mean()) == pytest.approx(0.37, abs=1e-3)


def test_timing_beats_counting_on_moving_light():
    light = moving_light()
    counted, timed = targets(light, "counting"), targets(light, "timing")
    truth = light[20:117].mean(0)
    assert rmse(timed.long_exposure(), truth) < 0.65 * rmse(counted.long_exposure(), truth)
    for k in (3, 6):
        a, b = SPEC.interval(6 - k, 6 + k)
        assert rmse(timed.interval(6 - k, 6 + k), light[a:b].mean(0)) < rmse(
            counted.interval(6 - k, 6 + k), light[a:b].mean(0)
        )
    at = light[SPEC.centers]
    assert rmse(timed.subframes(9), at) < 0.25 * rmse(counted.subframes(9), at)


def test_counting_is_the_plain_mean():
    spikes = simulate(moving_light(height=5, width=6), gain=GAIN)
    found = Targets(spikes, SPEC, SensorModel(GAIN))
    np.testing.assert_allclose(found.long_exposure(), spikes[20:117].mean(0) / GAIN, rtol=1e-5)
    np.testing.assert_allclose(found.interval(3, 9), spikes[44:93].mean(0) / GAIN, rtol=1e-5)
    np.testing.assert_allclose(found.subframes(41)[12], spikes[96:137].mean(0) / GAIN, rtol=1e-5)


def test_stream_ends_gain_from_the_frames_beyond():
    light = moving_light(SPEC.context + 40)
    spikes = simulate(light, gain=GAIN)
    sensor = SensorModel(GAIN)
    inside = Targets(spikes[20:-20], SPEC, sensor, mode="timing")
    beyond = Targets(spikes, SPEC, sensor, mode="timing", margin=20)
    for m in (0, 12):
        truth = light[20 + SPEC.centers[m]]
        assert rmse(beyond.subframes(41)[m], truth) < rmse(inside.subframes(41)[m], truth)
    counted = [Targets(s, SPEC, sensor, margin=n).interval(0, 12) for s, n in ((spikes, 20), (spikes[20:-20], 0))]
    torch.testing.assert_close(*counted)


def pixel(*fired, frames=20):
    spikes = np.zeros((frames, 1, 1), np.uint8)
    spikes[list(fired)] = 1
    return frame_charge(spikes)[0]


def test_charge_between_spikes_is_one():
    charge = pixel(3, 8, 10)
    # Spikes sit at half frames: from 3.5 to 8.5 one spike in five frames, then one in two.
    np.testing.assert_allclose(charge[4:8], 1 / 5)
    np.testing.assert_allclose(charge[8], (1 / 5 + 1 / 2) / 2)
    np.testing.assert_allclose(charge[9], 1 / 2)
    assert charge[3] / 2 + charge[4:8].sum() + charge[8] + charge[9] + charge[10] / 2 == pytest.approx(2, abs=0.2)


def test_rare_spikes():
    np.testing.assert_allclose(pixel(), 0.5 / 20)  # none: half a spike a stream
    assert 0.5 < pixel(7).sum() <= 1.05  # one: one a stream
    two = pixel(5, 15)
    np.testing.assert_allclose(two[6:15], 1 / 10)
    np.testing.assert_allclose(two[:5], 1 / 10)  # the interval goes on beyond the ends ...
    np.testing.assert_allclose(two[16:], 1 / 10)
    late = pixel(2, 4)
    np.testing.assert_allclose(late[5:], 1 / (16 - 0.5), rtol=1e-5)  # ... but not past a spike that did not come
    early = pixel(15, 17)
    np.testing.assert_allclose(early[:15], 1 / (15 + 0.5), rtol=1e-5)


def test_saturation_and_darkness():
    assert (frame_charge(np.ones((30, 2, 2), np.uint8)) == 1).all()
    bright = targets(np.full((SPEC.context, 4, 4), 1 / GAIN), "timing")
    torch.testing.assert_close(bright.long_exposure(), torch.full((4, 4), 1 / GAIN))
    dark = targets(np.zeros((SPEC.context, 4, 4)), "timing", random_phase=False)
    assert float(dark.long_exposure().max()) < 1 / SPEC.context / GAIN
    variance = dark.variance(dark.subframes(9), 9)
    assert bool(torch.isfinite(variance).all()) and bool((variance > 0).all())


def test_blocks_do_not_change_the_charge():
    """More pixels than one block: all are treated as if alone."""
    spikes = np.random.default_rng(0).integers(0, 2, (200, 80, 90)).astype(np.uint8)
    whole = frame_charge(spikes)
    assert whole.shape == (7200, 200)
    np.testing.assert_array_equal(whole[-90:], frame_charge(spikes[:, -1:]))


def test_edges_that_move_fast_are_no_spurious_spikes():
    """They break the rhythm where they are; spurious spikes do everywhere."""
    blocks = 0.1 + 0.8 * np.kron(np.random.default_rng(0).integers(0, 2, (20, 60)), np.ones((4, 4)))
    light = [np.hstack([np.roll(blocks, 3 * t // 4, axis=1)[:, :60], np.full((80, 60), 0.5)]) for t in range(150)]
    assert estimate_spurious_rate(simulate(light, gain=0.45)) == 0
    assert estimate_spurious_rate(simulate(light, gain=0.45, spurious_gap=(140, 50))) > 0.5 * SPURIOUS


@pytest.mark.parametrize("mode", ["counting", "timing"])
def test_dark_current_is_subtracted(mode):
    light = moving_light()
    sensor = SensorModel(GAIN, dark_rate=0.05)
    found = targets(light, mode, sensor=sensor, dark_rate=0.05).long_exposure()
    assert float(found.mean()) == pytest.approx(light[20:117].mean(), abs=2e-3)
    assert float(targets(light, mode, dark_rate=0.05).long_exposure().mean()) > light[20:117].mean() + 0.05


def test_spurious_rate_is_subtracted_by_counting():
    light = moving_light()
    known = targets(light, "counting", sensor=SensorModel(GAIN, spurious_rate=SPURIOUS), spurious_gap=(140, 50))
    ignored = targets(light, "counting", spurious_gap=(140, 50))
    truth = light[20:117].mean(0)
    assert float(known.long_exposure().mean()) == pytest.approx(truth.mean(), abs=1.5e-3)
    assert float(ignored.long_exposure().mean()) > truth.mean() + 0.008
    assert rmse(known.long_exposure(), truth) < rmse(ignored.long_exposure(), truth)


def test_timing_finds_spurious_spikes_by_itself():
    light = moving_light()
    found = targets(light, "timing", spurious_gap=(140, 50))
    assert 0.3 * SPURIOUS < found.spurious_rate < 1.5 * SPURIOUS
    kept = Targets(simulate(light, gain=GAIN, spurious_gap=(140, 50)), SPEC, SensorModel(GAIN), mode="timing")
    kept._charge = torch.from_numpy(frame_charge(simulate(light, gain=GAIN, spurious_gap=(140, 50))))
    at = light[SPEC.centers]
    assert rmse(found.subframes(9), at) < 0.7 * rmse(kept.subframes(9), at)


def test_clean_streams_lose_nothing():
    spikes = simulate(moving_light(), gain=GAIN)
    assert estimate_spurious_rate(spikes) == 0
    noisy = simulate(moving_light(), gain=GAIN, spurious_gap=(140, 50))
    extra, left = (frame_charge(noisy, rate).sum() - frame_charge(spikes).sum() for rate in (0.0, SPURIOUS))
    assert abs(left) < 0.6 * extra
    assert estimate_spurious_rate(np.zeros((50, 4, 4), np.uint8)) == 0


@pytest.mark.parametrize("mode", ["counting", "timing"])
@pytest.mark.parametrize("spurious", [False, True])
def test_expected_variance_is_the_measured_one(mode, spurious):
    level = np.random.default_rng(2).uniform(0.1, 1, (60, 60))
    faults = {"spurious_gap": (140, 50)} if spurious else {}
    sensor = SensorModel(GAIN, spurious_rate=SPURIOUS if spurious else 0.0)
    found = targets([level] * SPEC.context, mode, sensor=sensor, **faults)
    for width in (9, 41):
        measured = rmse(found.subframes(width)[6], level)
        # A rhythm as perfect as this one's gives away more spurious spikes than the model reckons with.
        most = 3 if spurious and mode == "timing" else 2
        assert 0.5 < float(found.variance(found.subframes(width), width)[6].mean().sqrt()) / measured < most


def test_variance_weighs_pixels_by_their_gain():
    gain_map = torch.full((40, 50), 1.0)
    gain_map[:, :25] = 0.5
    found = targets(moving_light(), "counting", sensor=SensorModel(GAIN, gain_map=gain_map))
    variance = found.variance(found.subframes(41), 41)
    torch.testing.assert_close(variance[:, :, :25], 4 * variance[:, :, 25:])


def test_a_calibrated_sensor_flattens_its_pixels():
    simulator = Simulator(gain=0.4, gain_sigma=0.1, seed=5)
    light = np.full((SPEC.context, 30, 30), 0.8)
    gains = simulator([np.full((30, 30), 1.0)] * 1000).mean(0) / 0.4
    spikes = simulator(light, view=1)
    plain = Targets(spikes, SPEC, SensorModel(0.4), mode="timing").long_exposure()
    sensor = SensorModel(0.4, gain_map=torch.from_numpy(gains).float())
    assert float(Targets(spikes, SPEC, sensor, mode="timing").long_exposure().std()) < 0.1 * float(plain.std())


def test_soft_windows_are_normalized_and_wider():
    found = targets(moving_light(height=10, width=10), "timing")
    hard, soft = found.subframes(9, smoothing=0), found.subframes(9, smoothing=10)
    assert not torch.allclose(hard, soft)
    torch.testing.assert_close(hard[6], found.mean(*SPEC.window(6, 9)))
    level = targets(np.full((SPEC.context, 3, 3), 1 / GAIN), "timing")
    for smoothing in (0, 1, 5, 30):
        torch.testing.assert_close(level.subframes(41, smoothing), torch.full((13, 3, 3), 1 / GAIN))


@pytest.mark.parametrize("mode", ["counting", "timing"])
@pytest.mark.parametrize("points", [1, 2, 3, 5])
def test_a_few_instants_stand_for_a_window(mode, points):
    """Light that changes as a polynomial: its mean over the window is that of the instants, weighted."""
    frames, weights = window_quadrature(9, mode, points)
    assert weights.sum() == pytest.approx(1) and np.allclose(frames, -frames[::-1]) and bool((weights > 0).all())
    smoothing = SMOOTHING if mode == "timing" else 0
    density = window_weights(101, 46, 55, smoothing).astype(np.float64)
    errors = [
        float((weights * (frames / 10) ** degree).sum() - (density * ((np.arange(101) - 50) / 10) ** degree).sum())
        for degree in range(2 * points + 1)
    ]
    assert np.abs(errors[:-1]).max() < 1e-5
    if points < 4:  # beyond, what is left drowns in rounding
        assert abs(errors[-1]) > 1e-5


def test_a_window_is_worth_no_more_instants_than_frames():
    with pytest.raises(ValueError, match="a window of 9 frames allows 1 to 9 points, not 10"):
        window_quadrature(9, "counting", 10)


def test_what_targets_refuse():
    spikes = np.zeros((137, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="need 137 frames and 2 at either end, not 137"):
        Targets(spikes, SPEC, SensorModel(), margin=2)
    with pytest.raises(ValueError, match="must be counting or timing, not 'guessing'"):
        Targets(spikes, SPEC, SensorModel(), mode="guessing")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="calibrated at 2x2"):
        Targets(spikes, SPEC, SensorModel(gain_map=torch.ones(2, 2)))
    with pytest.raises(ValueError, match="frames 100 to 138 lie outside"):
        Targets(spikes, SPEC, SensorModel()).mean(100, 138)


def test_long_contexts_do_not_overflow():
    spec = WindowSpec(exposure=33001, short=5, subframes=3)
    found = Targets(np.ones((spec.context, 1, 1), np.uint8), spec, SensorModel())
    assert float(found.long_exposure()) == 1
