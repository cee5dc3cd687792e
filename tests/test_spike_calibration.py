"""Calibration from a dark recording and a flat field, and its files."""

import json

import numpy as np
import pytest
import torch

from simulation import Simulator
from spike import SensorModel, SpikeStream, StuckPixels, Targets, WindowSpec, calibrate, load_sensor, save_sensor

SIZE = (24, 30)


def record(level, frames=1500, view=0, **faults):
    simulator = Simulator(seed=4, **({"gain": 0.4, "gain_sigma": 0.05, "dark_rate": 0.006} | faults))
    return SpikeStream.from_array(simulator([np.full(SIZE, level)] * frames, view), f"level{level}")


def test_gain_and_dark_rate_are_found():
    sensor = calibrate(record(0.0), record(0.8, view=1), level=0.8)
    assert sensor.gain == pytest.approx(0.4, rel=0.02)
    assert sensor.dark_rate == pytest.approx(0.006, abs=5e-4)
    assert sensor.spurious_rate == 0
    assert sensor.gain_map is not None and sensor.dark_map is not None
    assert sensor.gain_map.shape == sensor.dark_map.shape == SIZE
    true_gain = record(1.0, view=2).count() / 1500 - 0.006
    error = sensor.gain_map * sensor.gain - torch.from_numpy(true_gain)
    assert float(error.std()) < 0.1 * float(np.std(true_gain))


def test_spurious_spikes_are_told_from_dark_current():
    faults = {"spurious_gap": (140, 50)}
    sensor = calibrate(record(0.0, **faults), record(0.8, view=1, **faults), level=0.8)
    assert sensor.spurious_rate == pytest.approx(1 / 140, rel=0.5)
    assert sensor.dark_rate + sensor.spurious_rate == pytest.approx(0.006 + 1 / 140, rel=0.1)
    assert sensor.gain == pytest.approx(0.4, rel=0.02)


def test_spurious_rate_is_never_more_than_the_dark_shows():
    dark = SpikeStream.from_array(np.zeros((300, *SIZE), np.uint8))
    assert calibrate(dark, record(0.8, 600, spurious_gap=(140, 50)), level=0.8).spurious_rate == 0


def test_either_recording_alone():
    dark = calibrate(record(0.0), None)
    assert (dark.gain, dark.gain_map) == (1.0, None) and dark.dark_rate == pytest.approx(0.006, abs=5e-4)
    flat = calibrate(None, record(1.0, dark_rate=0.0))
    assert flat.dark_map is None and flat.dark_rate == 0 and flat.gain == pytest.approx(0.4, rel=0.02)


def test_hot_and_dead_pixels_do_not_set_the_scale():
    spikes = record(0.8).unpack(0, 1500)
    spikes[:, 0, 0], spikes[:, 0, 1] = 1, 0
    flat = SpikeStream.from_array(spikes)
    sensor = calibrate(None, flat, level=0.8)
    assert sensor.gain == pytest.approx(0.4 + 0.006 / 0.8, rel=0.02)
    assert sensor.gain_map is not None
    assert sensor.stuck is not None and torch.nonzero(sensor.stuck.mask).tolist() == [[0, 0], [0, 1]]
    assert torch.allclose(sensor.gain_map[0, :2], torch.ones(2), atol=0.05)


def test_pixels_that_fire_in_the_dark_are_hot():
    """A dark rate of 0.15 is more than a quarter of the gain of 0.4, one of 0.05 is calibrated."""
    dark, flat = (record(level).unpack(0, 1500) for level in (0.0, 0.8))
    for stream in (dark, flat):
        stream[::7, 3, 4], stream[::20, 5, 6] = 1, 1
    sensor = calibrate(SpikeStream.from_array(dark), SpikeStream.from_array(flat), level=0.8)
    assert sensor.stuck is not None and torch.nonzero(sensor.stuck.mask).tolist() == [[3, 4]]
    assert float(sensor.dark_map[5, 6]) == pytest.approx(0.056, abs=0.01)


def test_the_dark_current_of_a_hard_reset_is_light_as_all_other():
    """Its rate is less than the charge, as at every hard reset."""
    dark, flat = (record(level, gain=0.3, dark_rate=0.1, gain_sigma=0.0, reset="hard") for level in (0.0, 0.8))
    sensor = calibrate(dark, flat, level=0.8, reset="hard")
    darkness = sensor.intensity(torch.from_numpy(dark.count() / len(dark)))
    assert float(darkness.mean()) == pytest.approx(0, abs=1e-3)
    assert sensor.dark_rate == pytest.approx(0.1, rel=0.06)


def test_what_all_pixels_do_in_the_dark_is_not_hot():
    """A warm sensor, whose dark current is a third of the gain."""
    sensor = calibrate(*(record(level, gain=0.3, dark_rate=0.1) for level in (0.0, 0.8)), level=0.8)
    assert sensor.stuck is None and sensor.gain == pytest.approx(0.3, rel=0.02)
    assert sensor.dark_rate == pytest.approx(0.1, abs=2e-3)


@pytest.mark.parametrize("mode", ["counting", "timing"])
def test_dead_pixels_are_filled_and_do_not_spoil_the_noise(mode):
    """Two of them, with spurious spikes: neither dark in the targets nor most of the expected variance."""
    spec, faults = WindowSpec(), {"spurious_gap": (140, 50)}
    spikes = [record(level, 1500, view, **faults).unpack(0, 1500) for view, level in enumerate((0.0, 0.8))]
    view = record(0.6, spec.context, 2, **faults).unpack(0, spec.context)
    means, noise = [], []
    for dead in ([], [(3, 4), (20, 7)]):
        for stream in (*spikes, view):
            for y, x in dead:
                stream[:, y, x] = 0
        sensor = calibrate(*map(SpikeStream.from_array, spikes), level=0.8)
        targets = Targets(view, spec, sensor, mode=mode)
        means.append(targets.subframes(9))
        noise.append(float(targets.variance(means[-1], 9).mean()))
    assert torch.allclose(means[1].mean(0)[[3, 20], [4, 7]], torch.tensor(0.6), atol=0.05)
    assert noise[1] == pytest.approx(noise[0], rel=0.02)


def test_impossible_calibrations():
    small = SpikeStream.from_array(np.zeros((5, 4, 4), np.uint8), "small")
    with pytest.raises(ValueError, match="a dark recording, a flat field, or both"):
        calibrate(None, None)
    with pytest.raises(ValueError, match=r"differ in size: small 4x4 and level0\.8 30x24"):
        calibrate(small, record(0.8, 5))
    with pytest.raises(ValueError, match="positive intensity, not 0"):
        calibrate(small, None, level=0)
    with pytest.raises(ValueError, match=r"level0\.0: the flat field is no brighter than the dark"):
        calibrate(record(0.0, 300), record(0.0, 300, view=1))


def test_a_field_that_leaves_no_good_pixels():
    flat = record(0.8).unpack(0, 600)
    flat[:, ::2, ::2] = 0
    with pytest.raises(ValueError, match=r"^flat: 25% of the pixels seem dead or hot, too many to fill"):
        calibrate(None, SpikeStream.from_array(flat, "flat"))


def test_files_read_back(tmp_path):
    sensor = SensorModel(0.4, 0.01, 0.002, torch.rand(3, 4) + 0.5, torch.rand(3, 4) * 0.1)
    save_sensor(tmp_path / "sensor.json", sensor)
    loaded = load_sensor(tmp_path / "sensor.json")
    assert loaded.to_dict() == sensor.to_dict()
    assert torch.equal(loaded.gain_map, sensor.gain_map) and torch.equal(loaded.dark_map, sensor.dark_map)
    assert {p.name for p in tmp_path.iterdir()} == {"sensor.json", "sensor_gain_map.npy", "sensor_dark_map.npy"}
    stuck = StuckPixels(torch.rand(3, 4) < 0.3)
    save_sensor(tmp_path / "dead.json", SensorModel(0.3, stuck=stuck))
    assert torch.equal(load_sensor(tmp_path / "dead.json").stuck.mask, stuck.mask)
    save_sensor(tmp_path / "plain.json", SensorModel(0.3))
    assert load_sensor(tmp_path / "plain.json") == SensorModel(0.3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not a readable sensor file"),
        ("[1]", r"is \[1\], expected an object"),
        ('{"gane": 1}', "expected an object with any of gain"),
        ('{"gain": "1"}', 'gain is "1", expected a number'),
        ('{"gain": true}', "gain is true, expected a number"),
        ('{"gain": -1}', "gain must be positive"),
        ('{"gain_map": "missing.npy"}', "no such sensor map"),
        ('{"gain_map": "../other/map.npy"}', "expected the name of a file"),
        ('{"gain_map": ""}', "expected the name of a file"),
        ('{"gain_map": 3}', "gain_map is 3, expected text"),
    ],
)
def test_broken_sensor_files(tmp_path, content, expected):
    (tmp_path / "sensor.json").write_text(content)
    with pytest.raises(ValueError, match=expected) as error:
        load_sensor(tmp_path / "sensor.json")
    assert str(tmp_path) in str(error.value)


def test_broken_maps(tmp_path):
    for name, values in (("nan.npy", np.full((2, 2), np.nan)), ("flat.npy", np.ones(3))):
        np.save(tmp_path / name, values)
        (tmp_path / "sensor.json").write_text(json.dumps({"dark_map": name}))
        with pytest.raises(ValueError, match=rf"{name}: expected a map \[H, W\] of finite numbers"):
            load_sensor(tmp_path / "sensor.json")
