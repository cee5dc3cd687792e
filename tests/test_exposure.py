"""An exposure's targets: gains of the pixels, noise, and what images have."""

import dataclasses
import os
import weakref

import numpy as np
import pytest
import torch

from scene.dataset import SceneData, read_scene
from scene.exposure import Exposure, usable_margin
from scene.views import TargetSpec, image_exposures, spike_exposures
from spike import SensorModel, SpikeStream, Targets, WindowSpec
from utils.crops import Crop

SPEC = TargetSpec(WindowSpec(), intervals=((3, 9),), wide=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scene(scene_folder):
    return read_scene(scene_folder)


@pytest.fixture(scope="module")
def gains() -> torch.Tensor:
    return 1 + 0.3 * torch.rand(32, 48, generator=torch.Generator().manual_seed(0))


def with_map(scene, gains):
    return dataclasses.replace(scene.sensor, gain_map=gains)


def read(scene, sensor=None) -> Exposure:
    return spike_exposures(scene.train[:1], scene, SPEC, CPU, sensor)[0]


def test_gains_that_come_later_are_as_good_as_gains_known_before(scene, gains):
    before, later = read(scene, with_map(scene, gains)), read(scene)
    later.use_gains(gains)
    for name in ("long", "subframes", "wide", "noise"):
        assert torch.equal(getattr(before, name), getattr(later, name)), name
    assert torch.equal(before.interval(3, 9), later.interval(3, 9))
    assert torch.equal(before.subframe(4), later.subframe(4))
    later.use_gains(None)
    assert torch.equal(later.long, read(scene).long)


def test_targets_that_are_read_again_replace_the_earlier_ones_one_by_one(scene, monkeypatch):
    """Two sets of targets may not fit in memory."""
    monkeypatch.setattr("utils.device._processors", lambda: 1)
    views, there, returned = scene.train[:3], [], []
    exposures = spike_exposures(views, scene, SPEC, CPU)
    expected = [exposure.long for exposure in exposures]
    earlier = [weakref.ref(exposure) for exposure in exposures]

    def sight(times):
        there.append([kept() is not None for kept in earlier])
        return torch.full((len(times), 1, 32, 48), 0.5)

    monkeypatch.setattr("scene.views.return_freed", lambda: returned.append(len(there)))
    found = spike_exposures(views, scene, SPEC, CPU, sights=[sight] * 3, earlier=exposures)
    assert returned == [1, 2, 3]  # the memory of each is returned before the next is read
    assert there == [[True, True, True], [False, True, True], [False, False, True]]
    assert found == exposures  # the list itself
    for exposure, long in zip(exposures, expected, strict=True):
        torch.testing.assert_close(exposure.long, long, rtol=0, atol=0.2)


def test_a_pixel_of_twice_the_gain_saw_half_as_much_light(scene):
    plain, doubled = read(scene), read(scene, with_map(scene, torch.full((32, 48), 2.0)))
    for name in ("long", "subframes", "wide"):
        torch.testing.assert_close(getattr(doubled, name), getattr(plain, name) / 2)
    assert float(doubled.noise) == pytest.approx(float(plain.noise) / 4)


def test_targets_are_those_of_the_whole_stream(scene, gains):
    """Frames beyond the context make its ends as exact as its middle."""
    stream, sensor, window = scene.open_stream(scene.train[0]), with_map(scene, gains), SPEC.window
    assert usable_margin(stream, window) == 20
    targets = Targets(stream.central(window, 20), window, sensor, "timing", 20)
    exposure = read(scene, sensor)
    torch.testing.assert_close(exposure.subframes[:, 0], targets.subframes(9))
    torch.testing.assert_close(exposure.long[0], targets.long_exposure())
    torch.testing.assert_close(exposure.interval(3, 9)[0], targets.interval(3, 9))
    assert float(exposure.noise) == pytest.approx(float(targets.variance(targets.subframes(9), 9).mean()), rel=1e-4)
    assert torch.equal(exposure.spikes(Crop(2, 5, 3, 9)), torch.as_tensor(stream.central(window))[:, 2:5, 3:9])


def test_a_crop_of_the_targets_has_their_gains(scene, gains):
    exposure, crop = read(scene, with_map(scene, gains)), Crop(3, 20, 10, 41)
    part = exposure.cropped(crop)
    for name in ("long", "subframes", "wide"):
        assert torch.equal(getattr(part, name), crop.of(getattr(exposure, name))), name
    assert torch.equal(part.interval(3, 9), crop.of(exposure.interval(3, 9)))


def test_half_width_windows_are_made_where_they_are_wanted(scene):
    narrow = spike_exposures(scene.train[:1], scene, dataclasses.replace(SPEC, wide=False), CPU)[0]
    assert narrow.wide is None and narrow.to(CPU).wide is None and read(scene).to(CPU).wide.shape == (13, 1, 32, 48)


def test_a_sensor_of_another_size_is_refused(scene):
    with pytest.raises(ValueError, match="frames of 48x32 pixels, but the sensor was calibrated at 5x4"):
        read(scene, with_map(scene, torch.ones(4, 5)))


def test_a_window_that_the_stream_has_no_room_for(scene):
    spec = dataclasses.replace(SPEC, width=83)
    message = r"\.dat: 177 frames have room for windows of at most 81 around the sub-frames, not of 83 \(--subframe_"
    with pytest.raises(ValueError, match=message):
        spike_exposures(scene.train[:1], scene, spec, CPU)
    spike_exposures(scene.train[:1], scene, dataclasses.replace(spec, width=81), CPU)


def test_images_are_long_exposures(scene):
    own = image_exposures(scene.train[:2], scene, CPU)
    assert own[0].subframes is None and own[0].wide is None and own[0].long.shape == (1, 32, 48)
    given = image_exposures(scene.train[:2], scene, CPU, lambda view: torch.full((3, 32, 48), 0.25))
    assert all(bool((e.long == 0.25).all()) and e.long.shape == (3, 32, 48) for e in given)
    with pytest.raises(ValueError, match="view 001 is 48x32 and gray, expected 48x32 and color as view 000 is"):
        image_exposures(
            scene.train[:2], scene, CPU, lambda view: torch.zeros(3 if view.camera.name == "000" else 1, 32, 48)
        )


def test_targets_have_the_same_bits_on_any_number_of_threads(monkeypatch):
    """Sums over large images depend on the number of threads, if several threads share them."""
    size = (250, 401)
    random = np.random.default_rng(0)
    stream = SpikeStream.from_array(random.random((137, *size)) < 0.4)
    scene = SceneData.from_streams([stream], torch.eye(3), torch.eye(4)[None], sensor=SensorModel(0.5))
    gains = 1 + 0.1 * torch.rand(8, *size, generator=torch.Generator().manual_seed(0))
    read_on = {}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=threads: set(range(n)), raising=False)
            monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
            torch.set_num_threads(threads)
            exposure = spike_exposures(scene.train, scene, SPEC, CPU)[0]
            read_on[threads] = [exposure.noise, exposure.long, exposure.subframes, exposure.interval(3, 9)]
            for gain_map in gains:  # as training does, on any number of threads
                exposure.use_gains(gain_map)
                read_on[threads].append(exposure.noise)
    finally:
        torch.set_num_threads(before)
    for threads in (2, 3):
        assert all(torch.equal(a, b) for a, b in zip(read_on[1], read_on[threads], strict=True)), threads
