"""What the spikes say, against numbers worked out by hand, slow references and draws of what is assumed."""

import math

import numpy as np
import pytest
import torch

from spike import FixedPattern, SensorModel, SpikeStream, Targets, WindowSpec, calibrate, estimate_spurious_rate
from spike.calibration import assumed_sensor
from spike.inspection import inspect
from spike.targets import SMOOTHING, window_quadrature, window_weights
from spike.timing import _spurious, frame_charge

SPEC = WindowSpec()


# ---- windows and quadrature ----------------------------------------------------------------------------------


def test_a_window_softened_by_a_small_triangle():
    """Three frames, and a triangle of 1/4, 1/2, 1/4."""
    expected = np.zeros(12)
    expected[3:8] = [1 / 12, 3 / 12, 4 / 12, 3 / 12, 1 / 12]
    np.testing.assert_allclose(window_weights(12, 4, 7, 2), expected, rtol=1e-6)


def test_what_reaches_beyond_the_stream_goes_to_its_ends():
    np.testing.assert_allclose(window_weights(5, 0, 1, 2), [3 / 4, 1 / 4, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(window_weights(5, 4, 5, 2), [0, 0, 0, 1 / 4, 3 / 4], atol=1e-7)
    np.testing.assert_allclose(window_weights(3, 1, 3, 0), [0, 1 / 2, 1 / 2], atol=1e-7)


@pytest.mark.parametrize(
    ("width", "nodes", "weights"),
    [
        (3, [-math.sqrt(2 / 3), math.sqrt(2 / 3)], [1 / 2, 1 / 2]),
        (3, [-1, 0, 1], [1 / 3, 1 / 3, 1 / 3]),
        # Moments 2 and 6.8 of the frames -2 ... 2: Gauss's three points.
        (5, [-math.sqrt(3.4), 0, math.sqrt(3.4)], [1 / 3.4, 1 - 2 / 3.4, 1 / 3.4]),
    ],
)
def test_gauss_points_of_a_few_frames(width, nodes, weights):
    found = window_quadrature(width, "counting", len(nodes))
    np.testing.assert_allclose(found[0], nodes, atol=1e-7)
    np.testing.assert_allclose(found[1], weights, atol=1e-7)


def test_two_points_of_a_soft_window_lie_at_its_deviation():
    """Nine frames have the variance (9^2 - 1) / 12; the triangle is two boxes of ten frames, one after the other."""
    deviation = math.sqrt((81 - 1) / 12 + 2 * (SMOOTHING**2 - 1) / 12)
    nodes, weights = window_quadrature(9, "timing", 2)
    np.testing.assert_allclose(nodes, [-deviation, deviation], rtol=1e-5)
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-6)


# ---- variance ------------------------------------------------------------------------------------------------


def made(mode="counting", **sensor):
    """Targets of a stream without anything of interest in it, for their formulas."""
    spikes = np.zeros((SPEC.context, 1, 1), np.uint8)
    return Targets(spikes, SPEC, SensorModel(**sensor), mode=mode)


def variance(found, mean, width, smoothing=SMOOTHING):
    return float(found.variance(torch.full((1, 1, 1), mean), width, smoothing))


def test_the_variance_of_counts_is_that_of_all_phases():
    """n spikes a window come as its floor or one more; over all fractions and phases."""
    rate = np.linspace(0.2, 0.9, 4001)[:, None]
    phase = (np.arange(400) + 0.5) / 400
    for width in (9, 41):
        counts = np.floor(rate * width + phase)
        expected = float(((counts / width - rate) ** 2).mean())
        assert variance(made(), 0.5, width) == pytest.approx(expected, rel=0.03)
        assert variance(made(gain=0.25), 2.0, width) == pytest.approx(16 * expected, rel=0.03)


def drawn_variance(rate, weights, draws=4000):
    """Of the weighted charge of regular spikes whose times are read to a frame: uniformly off by half a frame."""
    rng = np.random.default_rng(0)
    frames = len(weights)
    spikes = int(frames * rate) + 40
    times = (np.arange(spikes) - 20 + rng.random((draws, 1))) / rate
    read = times + rng.uniform(-0.5, 0.5, times.shape)
    read.sort(1)
    edges = np.arange(frames + 1.0)
    charge = np.stack([np.diff(np.interp(edges, row, np.arange(spikes))) for row in read])
    return float(((charge @ weights - rate) ** 2).mean())


@pytest.mark.parametrize(
    ("rate", "width", "smoothing", "near"), [(0.31, 41, 0, 0.1), (0.31, 9, 10, 0.15), (0.42, 25, 10, 0.15)]
)
def test_the_variance_of_timing_is_that_of_times_read_to_a_frame(rate, width, smoothing, near):
    frames = width + 60
    start = (frames - width) // 2
    weights = window_weights(frames, start, start + width, smoothing).astype(np.float64)
    expected = drawn_variance(rate, weights)
    assert variance(made("timing"), rate, width, smoothing) == pytest.approx(expected, rel=near)


def test_a_soft_window_s_variance_of_rare_spikes_is_that_of_a_hard_one():
    """Hard, it falls with the square of the rate; soft, with the rate: rare spikes take the lesser of the two."""
    assert variance(made("timing"), 0.02, 9, 0) == pytest.approx(4 / (3 * 81) * 0.02**2 / 12, rel=1e-5)
    low, half = (variance(made("timing"), rate, 9) for rate in (0.02, 0.01))
    assert low == pytest.approx(4 * half, rel=1e-5)
    high, half = (variance(made("timing"), rate, 9) for rate in (0.8, 0.4))
    assert high == pytest.approx(2 * half, rel=1e-5)


def test_dark_current_and_gain_make_the_rate_that_timing_errs_by():
    plain = variance(made("timing"), 0.4, 9)
    assert variance(made("timing", dark_rate=0.15), 0.25, 9) == pytest.approx(plain, rel=1e-5)
    assert variance(made("timing", gain=0.5), 0.8, 9) == pytest.approx(4 * plain, rel=1e-5)


def test_spurious_spikes_add_their_own_variance():
    """Random ones at a rate s make s / width by counting; three tenths of them go unnoticed by timing."""
    for width in (9, 25):
        counted = variance(made(spurious_rate=0.01), 0.5, width) - variance(made(), 0.5, width)
        assert counted == pytest.approx(0.01 / width, rel=1e-4)
        timed = [variance(made("timing", spurious_rate=s), 0.5, width, 0) for s in (0.0, 0.01)]
        assert timed[1] - timed[0] == pytest.approx(0.3 * 0.01 / width, rel=1e-4)


# ---- charge and spurious spikes ------------------------------------------------------------------------------


def test_charge_is_the_interpolated_count():
    """Each pixel alone: the count grows by one from the middle of a spike's frame to the next one's."""
    spikes = (np.random.default_rng(0).random((60, 5, 5)) < 0.25).astype(np.uint8)
    charge = frame_charge(spikes)
    for row, fired in zip(charge, spikes.reshape(60, -1).T, strict=True):
        frames = np.flatnonzero(fired)
        count = np.interp(np.arange(61.0), frames + 0.5, np.arange(len(frames)))
        inside = slice(frames[0] + 1, frames[-1])
        np.testing.assert_allclose(row[inside], np.diff(count)[inside], atol=1e-6)


def judged_one_by_one(spikes, rate):
    """Flat indices (pixel, frame) of spurious spikes: the likelihood ratio, written out for each spike."""
    gone = []
    for pixel, fired in enumerate(spikes.T):
        frames = np.flatnonzero(fired)
        interval = [None, None, *np.diff(frames).tolist(), None, None]
        score = np.full(len(frames) + 2, -math.inf)

        def misfit(u, v):
            if u is None or v is None:
                return 0.0
            spread = 0.2**2 * u * v + 0.06
            return min((u - v) ** 2 / spread, 12.0) + math.log(spread)

        for k in range(1, len(frames) - 1):
            left2, left, a, b, right, right2 = interval[k - 1 : k + 5]
            if left is None and right is None:
                continue
            near_left = left if left is None or left2 is None else (left + left2) / 2
            near_right = right if right is None or right2 is None else (right + right2) / 2
            by_light = misfit(a, near_left) + misfit(b, near_right) + misfit(a, b)
            by_chance = misfit(a + b, near_left) + misfit(a + b, near_right)
            score[k + 1] = (by_light - by_chance) / 2 + math.log(rate * (a + b))
        for k in range(len(frames)):
            if score[k + 1] > max(0, score[k]) and score[k + 1] >= score[k + 2]:
                gone.append(pixel * len(spikes) + frames[k])
    return gone


def rhythms(pixels=40, frames=240, extra=0.0, seed=0):
    """Spikes [T, pixels] of regular pixels, each with its own interval, and some at random."""
    rng = np.random.default_rng(seed)
    spikes = np.zeros((frames, pixels), np.uint8)
    for pixel in range(pixels):
        interval = rng.uniform(4, 14)
        spikes[(np.arange(rng.uniform(0, interval), frames, interval)).astype(int), pixel] = 1
    return spikes | (rng.random(spikes.shape) < extra)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
def test_every_spike_is_judged_by_its_likelihood(rate):
    spikes = rhythms(extra=0.02)
    found = _spurious(np.ascontiguousarray(spikes.T), rate)
    assert found.tolist() == judged_one_by_one(spikes, rate) and len(found) > 20


def test_one_spike_too_many_is_left_out():
    regular = np.zeros((120, 1, 1), np.uint8)
    regular[5::10] = 1
    for frame in (37, 63, 81):
        spikes = regular.copy()
        spikes[frame] = 1
        np.testing.assert_array_equal(frame_charge(spikes, 0.007), frame_charge(regular))


def test_the_spurious_rate_is_what_breaks_the_rhythm():
    """Most of it: a spike beside another one, or in its very frame, breaks nothing."""
    for extra in (0.005, 0.015):
        found = estimate_spurious_rate(rhythms(2000, extra=extra).reshape(240, 40, 50))
        assert 0.5 * extra < found < 1.1 * extra
    assert estimate_spurious_rate(rhythms(2000).reshape(240, 40, 50)) == 0


def test_spurious_spikes_in_a_few_places_are_the_scene_s():
    """An edge that passes breaks the rhythm of a corner; spurious spikes would be everywhere."""
    spikes = rhythms(2048)
    corner = rhythms(2048, extra=0.05)
    spikes[:, :400] = corner[:, :400]
    assert estimate_spurious_rate(spikes.reshape(240, 32, 64)) == 0


# ---- sensor and calibration ----------------------------------------------------------------------------------


def test_timing_leaves_the_spurious_rate_in_peace_that_counting_subtracts():
    """Regular pixels have no spurious spike to find: a known rate changes nothing by timing."""
    spikes = np.zeros((SPEC.context, 2, 2), np.uint8)
    spikes[3::5] = 1
    found = Targets(spikes, SPEC, SensorModel(0.5, spurious_rate=0.01), mode="timing").long_exposure()
    torch.testing.assert_close(found, torch.full((2, 2), 0.2 / 0.5), rtol=1e-4, atol=0)


def counted(rates, frames=100, name="recording"):
    """A stream whose pixels fire in the first frames, in as many as their rate says."""
    fired = np.arange(frames)[:, None] < np.round(np.ravel(rates) * frames)
    return SpikeStream.from_array(fired.reshape(frames, *np.shape(rates)).astype(np.uint8), name)


RATES = np.array([[0.30, 0.32, 0.28, 0.32], [0.30, 0.30, 0.90, 0.02]])


def test_a_calibration_is_relative_to_the_median_pixel():
    """A hot pixel (0.9) does not set the scale, a dead one (0.02) has its neighbors' gain."""
    sensor = calibrate(None, counted(RATES), level=0.5)
    assert sensor.gain == pytest.approx(0.30 / 0.5) and sensor.dark_rate == 0
    expected = torch.from_numpy(RATES / 0.30).float()
    expected[1, 3] = 1
    torch.testing.assert_close(sensor.gain_map, expected)
    assert sensor.stuck is not None and torch.nonzero(sensor.stuck.mask).tolist() == [[1, 3]]
    # The same in a field of a fifth: it is a share of the median pixel.
    assert int(calibrate(None, counted(RATES), level=0.2).stuck.mask.sum()) == 1


def test_no_more_is_spurious_than_fires_in_the_dark():
    flat = SpikeStream.from_array(rhythms(200, extra=0.02).reshape(240, 10, 20), "flat")
    assert calibrate(None, flat).spurious_rate > 0.005
    dark = counted(np.full((10, 20), 0.01))
    sensor = calibrate(SpikeStream.from_array(np.zeros((100, 10, 20), np.uint8)), flat)
    assert sensor.spurious_rate == 0 and sensor.dark_rate == 0
    assert calibrate(dark, flat).spurious_rate == pytest.approx(min(0.01, calibrate(None, flat).spurious_rate))


def test_white_is_the_brightest_of_an_uncalibrated_recording():
    rates = np.linspace(0.01, 0.8, 200).reshape(10, 20)
    sensor = assumed_sensor([(counted(rates, 1000), 0, 1000)])
    assert sensor.gain == pytest.approx(np.percentile(rates, 99.5), abs=1e-3)


# ---- fixed pattern -------------------------------------------------------------------------------------------


def halves(s, t):
    """Factors [400] of two halves of the views: a pattern of +-s in both, errors of +-t that differ in sign."""
    pattern = np.array([s, s, -s, -s] * 100)
    error = np.array([t, -t, t, -t] * 100)
    return (torch.from_numpy(1 + pattern + sign * error).float().view(1, 1, 1, 400) for sign in (1, -1))


def gathered(s, t):
    """Three views of each half, in even light."""
    found, light = FixedPattern(6), torch.full((1, 1, 1, 400), 0.5)
    for factor in halves(s, t):
        for _ in range(3):
            found.add(factor * light, light)
    return found


def test_a_pattern_is_drawn_towards_one_by_its_share_of_signal():
    """The halves' product has the mean s^2 - t^2, a quarter of their squared difference t^2."""
    s, t = 0.03, 0.01
    gain, deviation = gathered(s, t).gain()
    assert deviation == pytest.approx(math.sqrt(s**2 - t**2), rel=5e-3)
    share = (s**2 - t**2) / s**2
    expected = 1 + share * torch.tensor([s, s, -s, -s] * 100)
    # At the ends, the neighborhood does not hold as many of either kind.
    torch.testing.assert_close(gain[0, 12:-12], expected[12:-12], atol=2e-4, rtol=0)


def test_errors_as_large_as_the_pattern_leave_none():
    gain, deviation = gathered(0.02, 0.02).gain()
    assert deviation == pytest.approx(0, abs=1e-4) and torch.allclose(gain, torch.ones_like(gain), atol=1e-3)


def test_pixels_with_little_light_take_part_and_dark_ones_do_not():
    factor = 1 + 0.03 * torch.randn(1, 1, 1, 400, generator=torch.Generator().manual_seed(0))
    factor[..., 200], factor[..., 201] = 1.05, 3
    light = torch.full((1, 1, 1, 400), 0.5)
    light[..., 200], light[..., 201] = 0.06, 0.04
    found = FixedPattern(4)
    for _ in range(4):
        found.add(factor * light, light)
    gain, _ = found.gain()
    # Relative to the mean of the neighborhood, without the dark pixel.
    weight = torch.exp(-(torch.arange(400.0) - 200).square() / (2 * 3**2))
    weight[201] = 0
    expected = 1.05 * float(weight.sum() / (weight * factor[0, 0, 0]).sum())
    assert float(gain[0, 200]) == pytest.approx(expected, abs=1e-4) and float(gain[0, 201]) == 1


# ---- inspection ----------------------------------------------------------------------------------------------


def test_change_is_relative_to_the_mean_of_both_stretches():
    """Light that flickers between a fifth and three fifths: 2 (0.6 - 0.2) / (0.6 + 0.2)."""
    stretch = np.arange(128)[:, None, None] % 5
    spikes = np.concatenate([np.broadcast_to(stretch < k, (128, 4, 4)) for k in (1, 3, 1, 3)]).astype(np.uint8)
    found = inspect(SpikeStream.from_array(spikes))
    assert found.change == pytest.approx(1.0, rel=0.02)
    np.testing.assert_allclose(found.levels, [0.2, 0.6, 0.2, 0.6], atol=0.01)


def test_hot_pixels_are_more_than_chance():
    """Thirteen spikes where three are usual are more than four times as many, but few; half of all frames are not."""
    spikes = np.zeros((256, 12, 12), np.uint8)
    spikes[::100] = 1
    spikes[:, 6, 6] = 0
    spikes[5:15, 3, 3] = 1
    spikes[::2, 8, 8] = 1
    found = inspect(SpikeStream.from_array(spikes))
    assert np.argwhere(found.hot).tolist() == [[8, 8]]


def test_pixels_of_a_mosaic_are_compared_with_their_own_color():
    spikes = np.zeros((256, 16, 16), np.uint8)
    spikes[::32] = 1
    spikes[::2, ::2, ::2] = 1  # one color sees far more light
    plain = SpikeStream.from_array(spikes)
    assert inspect(plain).hot.sum() > 30
    assert not inspect(plain.with_filters("RGGB")).hot.any()
