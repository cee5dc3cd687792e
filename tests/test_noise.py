"""How far targets scatter about the truth, measured by a simulated twin, and what is made of it in any light."""

import dataclasses
import itertools
from functools import partial

import numpy as np
import pytest
import torch

from recon_net import SlimReconNet
from scene.cameras import Camera
from scene.exposure import Exposure, guide
from scene.fusion import fuse
from scene.views import TargetSpec
from simulation.sensor import SENSORS, Simulator, sensor_named
from simulation.twin import target_noise, twin
from spike import SensorModel, SpikeStream, Targets, WindowSpec
from utils.crops import Crop
from utils.image_metrics import psnr

SPEC = WindowSpec()
CAMERA = Camera("", 1, 1, torch.eye(3), torch.eye(4))  # without a lens, its size does not matter
FRAMES = SPEC.context + 40
LESSON = 200  # steps of Recon-Net


def moving(t):
    """Light [30, 40] of a pattern that drifts by a pixel in ten frames; smooth, and never dark."""
    y, x = np.mgrid[:30, :40]
    return 0.5 + 0.35 * np.sin(0.4 * (x - 0.1 * t) + 1.5 * np.sin(0.25 * y))


def sight(times):
    """What a perfect scene would render at the times u of the exposure."""
    frames = 40 + (SPEC.exposure - 1) * times.numpy()
    return torch.stack([torch.as_tensor(moving(t)).float() for t in frames])[:, None]


@pytest.mark.parametrize("name", SENSORS)
def test_the_measured_variance_is_that_of_the_targets(name):
    """Without knowing more of the sensor than its gain, against the error that only the truth shows."""
    simulator = dataclasses.replace(sensor_named(name, 3), dead=0, hot=0)
    light = np.stack([moving(t) for t in range(FRAMES)])
    stream = SpikeStream.from_array(simulator(light))
    sensor = SensorModel(simulator.gain, reset=simulator.reset)
    found = Targets(stream.unpack(0, FRAMES), SPEC, sensor, "timing", 20).subframes(9)
    true = torch.stack([torch.as_tensor(moving(20 + c)).float() for c in SPEC.centers])
    error = float((found - true).square().mean())
    measured = float(target_noise([(CAMERA, stream, sight)], TargetSpec(SPEC), sensor, retimed=False).mean())
    assert 0.5 < measured / error < 1.6


def test_a_twin_has_the_threshold_noise_and_the_spurious_spikes_of_its_model():
    light = np.stack([moving(t) for t in range(FRAMES)])
    for sigma in (0.0, 0.08, 0.16):
        spikes = Simulator(0.4, threshold_sigma=sigma, spurious_gap=(140, 50), seed=2)(light)
        found = twin(spikes, 0.4 * light, SensorModel(0.4))
        assert found.threshold_sigma == pytest.approx(sigma, abs=0.04)
        assert 1 / found.spurious_gap[0] == pytest.approx(1 / 140, rel=0.35)
        assert found.reset == "soft"
    assert twin(Simulator(0.4)(light), 0.4 * light, SensorModel(0.4)).spurious_gap is None


def test_a_twin_of_many_pixels_is_found_in_blocks(monkeypatch):
    light = np.stack([moving(t) for t in range(FRAMES)])
    spikes = Simulator(0.4, threshold_sigma=0.1, spurious_gap=(140, 50), seed=2)(light)
    whole = twin(spikes, 0.4 * light, SensorModel(0.4))
    monkeypatch.setattr("simulation.twin._BLOCK", 7 * FRAMES + 1)  # the last of 172 blocks has three pixels
    assert twin(spikes, 0.4 * light, SensorModel(0.4)).threshold_sigma == pytest.approx(whole.threshold_sigma, rel=1e-6)


def wrong_sight(error, times):
    """Renders with an error of this root mean square, which moves with the scene like its own texture."""
    y, x = np.mgrid[:30, :40]
    frames = 40 + (SPEC.exposure - 1) * times.numpy()
    errors = [2**0.5 * error * np.sin(0.9 * (x - 0.1 * t) + 0.5 * y) for t in frames]
    return sight(times) + torch.as_tensor(np.stack(errors)).float()[:, None]


# Sensor, PSNR of the renders, re-timed: how far fused images fall below the better of renders and spikes, in dB.  At
# 24 dB, re-timing by the renders worsens the spikes, and so does the sharpness that fused images take from the renders:
# even the best gain for a whole image misses by 0.8 dB or more.  In ``dim`` at 40 dB, noise has heavy tails (a kurtosis
# of 7): patches with much of it look like an error of the renders, and knowing its true energies does not help.
MISSES = {
    ("default", 24, True): 0.5, ("dim", 24, True): 0.6, ("dim", 40, True): 0.4,
}  # fmt: skip
GRID = [
    pytest.param(
        *key, marks=[pytest.mark.xfail(strict=True, reason=f"{MISSES[key]} dB below")] if key in MISSES else []
    )
    for key in itertools.product(SENSORS, (24, 30, 40), (False, True))
]


@pytest.mark.parametrize(("name", "decibels", "retimed"), GRID)
def test_in_any_light_fused_images_are_no_worse_than_what_they_are_made_of(name, decibels, retimed):
    """At most 0.3 dB below the better of renders and spikes, of pixels whose gains are known."""
    simulator = dataclasses.replace(sensor_named(name, 1), gain_sigma=0)
    light = np.stack([moving(t) for t in range(FRAMES)])
    stream = SpikeStream.from_array(simulator(light))
    sensor = SensorModel(simulator.gain, reset=simulator.reset)
    seen_by = partial(wrong_sight, 10 ** (-decibels / 20))
    noise = target_noise([(CAMERA, stream, seen_by)], TargetSpec(SPEC), sensor, retimed)
    shape = guide(seen_by, SPEC, sensor, 20) if retimed else None
    timing = Targets(stream.unpack(0, FRAMES), SPEC, sensor, "timing", 20, shape).subframes(9)
    u = torch.tensor(SPEC.times)
    window = TargetSpec(SPEC).quadrature(3)
    renders = seen_by(u)
    seen = sum(w * seen_by(u + float(o)) for o, w in zip(window.offsets, window.weights, strict=True))
    fused = fuse(renders, timing[:, None] - seen, noise)
    of_renders, of_spikes, of_fused = (
        float(psnr(images, sight(u)).mean()) for images in (renders, timing[:, None], fused)
    )
    assert of_fused > max(of_renders, of_spikes) - 0.3


def test_the_twin_of_a_retimed_recording_has_a_wrong_guide():
    """A guide that errs is an error of the targets, which the renders cannot show."""
    simulator = dataclasses.replace(sensor_named("dim", 1), gain_sigma=0)
    light = np.stack([moving(t) for t in range(FRAMES)])
    stream, sensor = SpikeStream.from_array(simulator(light)), SensorModel(simulator.gain)
    good, wrong = (
        target_noise([(CAMERA, stream, partial(wrong_sight, error))], TargetSpec(SPEC), sensor, retimed=True).mean()
        for error in (0.001, 0.06)
    )
    assert wrong > 1.5 * good


def test_variance_is_measured_over_a_few_views():
    light = np.stack([moving(t) for t in range(FRAMES)])
    streams = [SpikeStream.from_array(Simulator(0.4, seed=s)(light)) for s in range(2)]
    calls = []

    def counted(k, times):
        calls.append(k)
        return sight(times)

    many = [(CAMERA, streams[k % 2], partial(counted, k)) for k in range(13)]
    measured = target_noise(many, TargetSpec(SPEC), SensorModel(0.4), retimed=True)
    assert calls == [0, 3, 6, 9, 12] and 0 < float(measured.mean()) < 1e-3


def test_large_images_need_fewer_views(monkeypatch):
    calls = []
    monkeypatch.setattr("simulation.twin._noise", lambda camera, *_: calls.append(camera.name) or torch.zeros(8, 8))
    for width, height, expected in ((200, 124, [0, 2, 4, 6, 8, 10]), (300, 200, [0, 4, 8]), (600, 400, [0, 6])):
        cameras = [dataclasses.replace(CAMERA, name=k, width=width, height=height) for k in range(12)]
        target_noise([(camera, None, None) for camera in cameras], TargetSpec(SPEC), SensorModel(0.4), False)
        assert calls == expected
        calls.clear()


def uneven_sight(error, times):
    """Renders with such an error of many waves: from a regular one, a network would learn to predict it."""
    rng = np.random.default_rng(4)
    waves = np.column_stack([rng.uniform(-1.2, 1.2, (24, 2)), rng.uniform(0, 2 * np.pi, 24)])
    y, x = np.mgrid[:30, :40]
    frames = 40 + (SPEC.exposure - 1) * times.numpy()
    errors = [sum(np.sin(a * (x - 0.1 * t) + b * y + phase) for a, b, phase in waves) for t in frames]
    return sight(times) + (error * (2 / len(waves)) ** 0.5 * torch.as_tensor(np.stack(errors)).float())[:, None]


@pytest.mark.parametrize(("name", "decibels"), [("dim", 30), ("dim", 36), ("default", 36), ("bright", 36)])
def test_recon_net_is_no_worse_than_its_input_and_near_the_renders(name, decibels):
    """At least its input, to 0.3 dB, and the renders less 1 dB, having learned from fused images of one exposure."""
    simulator = dataclasses.replace(sensor_named(name, 1), gain_sigma=0)
    stream = SpikeStream.from_array(simulator(np.stack([moving(t) for t in range(FRAMES)])))
    sensor = SensorModel(simulator.gain, reset=simulator.reset)
    seen_by = partial(uneven_sight, 10 ** (-decibels / 20))
    camera = dataclasses.replace(CAMERA, width=40, height=30)
    exposure = Exposure.from_spikes(camera, stream, SPEC, sensor, "timing", 9, sight=seen_by)
    noise = target_noise([(camera, stream, seen_by)], TargetSpec(SPEC), sensor, retimed=True)
    u, window = torch.tensor(SPEC.times), TargetSpec(SPEC).quadrature(3)
    renders = seen_by(u)
    seen = sum(w * seen_by(u + float(o)) for o, w in zip(window.offsets, window.weights, strict=True))
    fused = fuse(renders, exposure.subframes - seen, noise)
    torch.manual_seed(0)
    network, whole = SlimReconNet(), Crop.whole(30, 40)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / LESSON))
    for step in range(LESSON):
        m = torch.tensor([5 * step % SPEC.subframes])
        loss = (network(*network.inputs(exposure, m, whole), u[m][None])[0] - fused[m]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        frames = network(*network.inputs(exposure, torch.arange(SPEC.subframes), whole), u[None])[0]
    of_frames, of_input, of_renders = (
        float(psnr(images, sight(u)).mean()) for images in (frames, exposure.subframes, renders)
    )
    assert of_frames > max(of_input - 0.3, of_renders - 1)
