"""The sensor model, the simulator and every fault it can be given, Bayer patterns, TFP, TFI and inputs."""

import numpy as np
import pytest
import torch

from simulation import Simulator, simulate
from simulation.sensor import SENSORS, sensor_named, stuck_pixels
from spike import (
    Mosaic,
    SensorModel,
    WindowSpec,
    bayer_channels,
    long_input,
    short_windows,
    tfi,
    tfp,
)

SPEC = WindowSpec()


def constant(level, frames=200, height=4, width=6):
    return [np.full((height, width), level)] * frames


def test_exact_spikes_of_constant_light():
    """Charge 3/8 a frame from zero (exact in binary) fills at 3, 6 and 8 frames and starts over."""
    spikes = simulate(constant(0.75, 16, 1, 1), gain=0.5, random_phase=False)[:, 0, 0]
    assert np.flatnonzero(spikes).tolist() == [2, 5, 7, 10, 13, 15]
    hard = simulate(constant(0.75, 16, 1, 1), gain=0.5, random_phase=False, reset="hard")[:, 0, 0]
    assert np.flatnonzero(hard).tolist() == [2, 5, 8, 11, 14]  # the remainder is lost: three frames a spike


def test_seed_and_view():
    light = np.random.default_rng(0).random((50, 5, 5))
    options = {"gain_sigma": 0.1, "spurious_gap": (20, 5), "shot_photons": 50}
    first = simulate(light, seed=1, **options)
    np.testing.assert_array_equal(first, simulate(light, seed=1, **options))
    assert not np.array_equal(first, simulate(light, seed=2, **options))
    assert not np.array_equal(first, simulate(light, view=1, seed=1, **options))
    np.testing.assert_array_equal(first, np.stack(list(Simulator(seed=1, **options).stream(light))))


def test_phases_are_random_and_pixels_keep_their_gain():
    still = simulate(constant(1.0, 2, 30, 30), gain=0.5)
    assert 0.4 < still[0].mean() < 0.6
    assert simulate(constant(1.0, 2, 30, 30), gain=0.5, random_phase=False)[0].sum() == 0
    rates = [simulate(constant(1.0, 400, 9, 9), view=v, gain=0.5, gain_sigma=0.1, seed=3).mean(0) for v in (0, 1)]
    assert 0.03 < rates[0].std() < 0.07
    assert np.abs(rates[0] - rates[1]).max() <= 1.01 / 400


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_rates_follow_gain_and_dark_current(level):
    rate = simulate(constant(level, 1000), gain=0.4, dark_rate=0.05).mean()
    assert rate == pytest.approx(0.4 * level + 0.05, abs=2e-3)


def test_saturation_fires_once_a_frame_and_recovers():
    bright = simulate(constant(5.0, 10) + constant(0.1, 40), gain=1.0, random_phase=False)
    assert bright[:10].all()
    assert bright[10:].mean() == pytest.approx(0.1, abs=0.03)


def test_spurious_spikes_come_at_their_gaps():
    spikes = simulate(constant(0.0, 1400, 20, 20), spurious_gap=(140, 50))
    assert spikes.mean() == pytest.approx(1 / 140, rel=0.05)
    gaps = np.concatenate([np.diff(np.flatnonzero(s)) for s in spikes.reshape(1400, -1).T])
    assert gaps.mean() == pytest.approx(140, rel=0.05) and 40 < gaps.std() < 60
    # Running before the recording begins: the first stretch holds as many as the last.
    assert spikes[:100].mean() == pytest.approx(spikes[-100:].mean(), rel=0.25)


def test_shot_noise_keeps_the_mean_and_breaks_the_rhythm():
    clean, noisy = (simulate(constant(0.5, 2000, 6, 6), gain=0.5, shot_photons=p) for p in (None, 20))
    assert noisy.mean() == pytest.approx(clean.mean(), rel=0.02)
    spread = [np.concatenate([np.diff(np.flatnonzero(s)) for s in x.reshape(2000, -1).T]).std() for x in (clean, noisy)]
    assert spread[0] < 0.5 < spread[1]


def intervals(spikes):
    return np.concatenate([np.diff(np.flatnonzero(s)) for s in spikes.reshape(len(spikes), -1).T])


def test_thresholds_vary_from_spike_to_spike_and_keep_the_mean():
    noisy = simulate(constant(0.5, 2000), gain=0.1, threshold_sigma=0.08)
    assert intervals(noisy).std() / 20 == pytest.approx(0.08, abs=0.015)
    assert noisy.mean() == pytest.approx(0.05, rel=0.01)
    clean = simulate(constant(0.5, 400), gain=0.1)
    assert intervals(clean).std() < 0.1


def test_a_hard_reset_loses_the_charge_beyond_a_full_one():
    assert set(intervals(simulate(constant(0.7, 300), gain=0.4, reset="hard"))) == {4}  # ceil(1 / 0.28)
    assert intervals(simulate(constant(0.7, 300), gain=0.4)).mean() == pytest.approx(1 / 0.28, rel=0.01)


def test_dead_pixels_are_silent_and_hot_ones_fire_in_the_dark():
    simulator = Simulator(spurious_gap=(50, 5), dead=0.1, hot=0.05, seed=3)
    dead, hot = simulator.stuck(40, 50)
    assert dead.mean() == pytest.approx(0.1, abs=0.02) and hot.mean() == pytest.approx(0.05, abs=0.015)
    assert not (dead & hot).any()
    rate = simulator(constant(0.0, 200, 40, 50)).mean(0)
    assert (rate[dead] == 0).all() and (rate[hot] > 0.28).all() and rate[hot].std() > 0.1
    assert rate[~dead & ~hot].mean() == pytest.approx(0.02, abs=0.003)
    named = stuck_pixels(simulator, 40, 50)
    assert [tuple(place) for place in named["hot_pixels"]] == list(zip(*np.nonzero(hot), strict=True))
    assert len(named["dead_pixels"]) == dead.sum()
    assert not any(mask.any() for mask in Simulator().stuck(40, 50))


def test_named_sensors_differ_from_the_default_as_they_say():
    light, rate = constant(0.5, 400, 30, 40), {}
    for name in SENSORS:
        rate[name] = sensor_named(name, 1)(light).mean()
    assert sensor_named("dim", 7).seed == 7
    assert rate["default"] == pytest.approx(0.5 * 0.4964 + 1 / 140, abs=0.005)
    assert rate["photon"] == pytest.approx(rate["default"], rel=0.02)
    assert rate["dim"] == pytest.approx(0.5 * 0.06 + 1 / 2000, abs=0.002)
    assert rate["jitter"] < 0.5 * 0.35 + 1 / 140  # a hard reset loses charge
    assert sensor_named("bright")(constant(0.9, 20)).all()
    with pytest.raises(ValueError, match="'blind' is unknown; expected one of default, dim"):
        sensor_named("blind")


@pytest.mark.parametrize(
    ("settings", "frames", "expected"),
    [
        ({"gain": 0}, constant(1), "gain must be positive"),
        ({"gain_sigma": -1}, constant(1), "gain_sigma must be at least 0"),
        ({"dark_rate": -1}, constant(1), "dark_rate must be at least 0"),
        ({"spurious_gap": (0, 1)}, constant(1), "at least 1 frame apart"),
        ({"shot_photons": 0}, constant(1), "photons per full charge must be positive"),
        ({"reset": "none"}, constant(1), "soft or hard"),
        ({"threshold_sigma": -0.1}, constant(1), "threshold_sigma must be at least 0"),
        ({"dead": 0.7, "hot": 0.3}, constant(1), "less than 1 together"),
        ({}, [], "no frames"),
        ({}, constant(float("nan")), "frame 0: expected finite"),
        ({}, constant(-1.0), "frame 0: expected finite"),
        ({}, [np.zeros((2, 2)), np.zeros((2, 3))], "frame 1: 3x2 pixels"),
    ],
)
def test_impossible_simulations_are_refused(settings, frames, expected):
    with pytest.raises(ValueError, match=expected):
        simulate(frames, **settings)


def test_intensity_undoes_the_sensor():
    maps = {"gain_map": torch.rand(3, 4) + 0.5, "dark_map": torch.rand(3, 4) * 0.1}
    sensor = SensorModel(gain=0.5, dark_rate=0.02, spurious_rate=0.01)
    light = torch.rand(2, 3, 4)
    fired = light * 0.5 + 0.02
    torch.testing.assert_close(sensor.intensity(1 - (1 - fired) * 0.99), light)  # one spike a frame at most
    torch.testing.assert_close(sensor.intensity(light * 0.5 + 0.02, spurious_left=False), light)
    mapped = SensorModel(gain=0.5, dark_rate=0.9, spurious_rate=0.01, **maps)
    fired = light * 0.5 * maps["gain_map"] + maps["dark_map"]
    torch.testing.assert_close(mapped.intensity(fired + 0.01 * (1 - fired)), light)
    assert sensor.to_dict() == {"gain": 0.5, "dark_rate": 0.02, "spurious_rate": 0.01}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"gain": 0.0}, "gain must be positive"),
        ({"gain": float("inf")}, "gain must be positive"),
        ({"dark_rate": 1.0}, r"dark_rate must lie in \[0, 1\)"),
        ({"spurious_rate": -0.1}, "spurious_rate must lie"),
        ({"gain_map": torch.zeros(2, 2)}, "gain map must be positive"),
    ],
)
def test_impossible_sensors_are_refused(values, expected):
    with pytest.raises(ValueError, match=expected):
        SensorModel(**values)


def test_a_calibration_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"rec\.dat: frames of 6x4 pixels, but the sensor was calibrated at 4x4"):
        SensorModel(gain_map=torch.ones(4, 4)).check_size(4, 6, "rec.dat")


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_bayer_patterns(pattern):
    channels = bayer_channels(3, 5, pattern)
    assert channels.shape == (3, 5)
    letters = ["".join("RGB"[c] for c in row) for row in channels.tolist()]
    assert letters[0] == (pattern[:2] * 3)[:5] and letters[1] == (pattern[2:] * 3)[:5] and letters[2] == letters[0]


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_a_mosaic_takes_each_pixel_s_own_channel_and_back(pattern):
    mosaic = Mosaic(pattern)
    flat = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(2, 3, 6, 8).contiguous()
    raw = mosaic.of(flat)
    assert raw.shape == (2, 1, 6, 8)
    assert torch.equal(raw[0, 0], torch.tensor([0.2, 0.5, 0.9])[bayer_channels(6, 8, pattern)])
    assert torch.allclose(mosaic.colors(raw), flat)
    raw = torch.rand(1, 6, 8)
    assert torch.equal(mosaic.of(mosaic.colors(raw)), raw)  # what was seen stays what was seen


def test_unknown_bayer_pattern():
    with pytest.raises(ValueError, match="RGGB, BGGR, GRBG, GBRG, not 'RGBG'"):
        bayer_channels(2, 2, "RGBG")  # type: ignore[arg-type]


def test_tfp_is_the_counted_rate():
    spikes = np.random.default_rng(0).integers(0, 2, (9, 2, 3)).astype(np.uint8)
    np.testing.assert_allclose(tfp(spikes, 2, 7).numpy(), spikes[2:7].mean(0), rtol=1e-6)
    for window in ((3, 3), (0, 10), (-1, 3)):
        with pytest.raises(ValueError, match="lie outside the stream's 9 frames"):
            tfp(spikes, *window)


def test_tfi_is_the_reciprocal_interval():
    spikes = np.zeros((10, 1, 4), np.uint8)
    spikes[[2, 6], 0, 0] = 1  # an interval of 4 around frame 4
    spikes[:, 0, 1] = 1  # saturated
    spikes[3, 0, 2] = 1  # one spike: waited from frame 3 to the end
    found = tfi(spikes, 4)[0]
    np.testing.assert_allclose(found.numpy(), [1 / 4, 1, 1 / 7, 1 / 11], rtol=1e-6)
    assert tfi(spikes, 2)[0, 0] == pytest.approx(1 / 4)  # the spike of the frame itself begins the interval
    assert tfi(spikes, 9)[0, 1] == 1
    torch.testing.assert_close(tfi(torch.from_numpy(spikes), 4), tfi(spikes, 4))
    with pytest.raises(ValueError, match="frame 10 lies outside"):
        tfi(spikes, 10)


def test_long_input_groupings():
    context = torch.arange(137.0)[:, None, None].expand(137, 2, 2)
    rest = [t for t in range(137) if t != 68]
    adjacent, strided = (long_input(context, SPEC, grouping=g) for g in ("adjacent", "strided"))
    assert adjacent.shape == strided.shape == (34, 2, 2)
    assert adjacent[:, 0, 0].tolist() == [sum(rest[4 * j : 4 * j + 4]) for j in range(34)]
    assert strided[:, 0, 0].tolist() == [sum(rest[j::34]) for j in range(34)]
    with pytest.raises(ValueError, match="needs 137 frames, not 136"):
        long_input(context[:-1], SPEC)
    with pytest.raises(ValueError, match="adjacent or strided, not 'other'"):
        long_input(context, SPEC, grouping="other")  # type: ignore[arg-type]


def test_short_windows_are_views_about_the_centers():
    context = torch.arange(137)[:, None, None].expand(137, 2, 3).contiguous()
    windows = short_windows(context, SPEC)
    assert windows.shape == (13, 41, 2, 3)
    for m, window in enumerate(windows):
        assert window[:, 1, 2].tolist() == list(range(*SPEC.window(m, 41)))
    assert windows.untyped_storage().data_ptr() == context.untyped_storage().data_ptr()
    with pytest.raises(ValueError, match="need 137 frames, not 100"):
        short_windows(context[:100], SPEC)
    alone = WindowSpec(exposure=33, short=9, subframes=1, long_group=8)
    assert short_windows(context[:41], alone)[:, :, 0, 0].tolist() == [list(range(16, 25))]
