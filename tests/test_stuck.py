"""Dead and hot pixels: found in the spikes, filled in images, and left out of every loss."""

from dataclasses import replace

import numpy as np
import pytest
import small_scene
import torch
from small_scene import HEIGHT, VIEWS, WIDTH, write_scene
from training_runs import PAPER, SPIKEGS, SPIKENERF, TIMING, small_training, stepped

from scene.dataset import read_scene
from scene.exposure import Exposure
from scene.views import load_picture
from simulation.sensor import sensor_named
from spike import FixedPattern, Mosaic, SensorModel, SpikeStream, StuckPixels, WindowSpec, find_stuck
from spike.calibration import stretches_of
from spike.preview import picture
from spike.stuck import stuck_pixels
from training import checkpoint
from training.objectives import Moment
from training.sampling import Sample
from training.shards import ShardedStep
from training.trained_model import TrainedModel
from utils.image_metrics import psnr
from utils.processes import ALONE


def faulty(name="default"):
    """A sensor with 2 % dead and 1 % hot pixels."""
    return replace(sensor_named(name, 5), dead=0.02, hot=0.01)


def true_mask(simulator):
    dead, hot = simulator.stuck(HEIGHT, WIDTH)
    return torch.from_numpy(dead | hot)


def one(*places, size=(6, 7)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[tuple(zip(*places, strict=True))] = True
    return mask


@pytest.fixture(scope="module")
def dead_scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("dead")
    write_scene(root, simulator=faulty())
    return root


# ---- finding -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def light():
    """What the pixels see in five views, [5, T, H, W]."""
    return [small_scene.picture(small_scene.path(i * 197 + np.arange(177))[0]) for i in range(VIEWS)]


@pytest.mark.parametrize("mosaic", [None, Mosaic("GBRG")])
@pytest.mark.parametrize("name", ["default", "dim", "bright", "jitter"])
def test_stuck_pixels_are_found(name, mosaic, light):
    """At least 95 % of the dead and of the hot ones, and at most 0.1 % false alarms; none on a sensor without any."""
    colors = torch.tensor(small_scene.LEVELS)[:, None, None].expand(3, HEIGHT, WIDTH)
    filters = 1 if mosaic is None else mosaic.of(colors)[0].numpy()

    def found(simulator):
        streams = [SpikeStream.from_array(simulator(frames * filters, i)) for i, frames in enumerate(light)]
        return find_stuck([(stream, 0, len(stream)) for stream in streams], mosaic is not None)

    dead, hot = map(torch.from_numpy, faulty(name).stuck(HEIGHT, WIDTH))
    mask = found(faulty(name)).mask
    assert bool(dead.any() and hot.any())
    assert all(float(mask[kind].double().mean()) >= 0.95 for kind in (dead, hot))
    assert float((mask & ~(dead | hot)).double().mean()) <= 1e-3
    assert found(sensor_named(name, 5)) is None


def counts_of(light, frames=200, views=6):
    return [np.round(light(view) * frames).astype(int) for view in range(views)], [frames] * views


def test_what_the_scene_shows_is_not_stuck():
    """A lamp and a black spot that move over the pixels, a corner that is always dark, and a bright one."""

    def light(view):
        image = np.full((20, 30), 0.25)
        image[:6, :6], image[-6:, -6:] = 0.0, 1.0
        image[10, 5 + view], image[12, 20 - view] = 1.0, 0.0
        return image

    assert not np.any(stuck_pixels(*counts_of(light)))

    def broken(view):
        image = light(view)
        image[5, 15], image[8, 15] = 0.0, 0.6
        return image

    dead, hot = stuck_pixels(*counts_of(broken))
    assert np.argwhere(dead).tolist() == [[5, 15]] and np.argwhere(hot).tolist() == [[8, 15]]
    assert not np.any(stuck_pixels(*counts_of(broken, views=3)))  # too few to tell


def test_a_recording_is_compared_in_stretches():
    spikes = np.random.default_rng(0).random((128 * 5 + 60, 12, 16)) < 0.2
    spikes[:, 3, 4], spikes[:, 7, 8] = 0, 1
    stream = SpikeStream.from_array(spikes)
    stretches = stretches_of(stream, 10, 660)
    assert [b - a for _, a, b in stretches] == [128] * 5 and stretches[0][1] == 10 and stretches[-1][2] == 660
    known = StuckPixels(one((1, 1), size=(12, 16)))
    found = find_stuck(stretches, False, known)
    assert torch.nonzero(found.mask).tolist() == [[1, 1], [3, 4], [7, 8]]
    assert torch.equal(find_stuck([], False, known).mask, known.mask) and find_stuck([], False) is None
    # What was replaced is looked for in the spikes as they were recorded.
    mended = stream.mended(found)
    assert torch.equal(find_stuck(stretches_of(mended), False).mask[3:], found.mask[3:])


# ---- filling -------------------------------------------------------------------------------------------------


def test_a_pixel_is_filled_by_the_mean_of_those_around_it():
    """By hand: four neighbors at distance 1 have weight 1, four at distance 2 ** 0.5 have weight 1/2."""
    values = torch.arange(42.0).reshape(1, 6, 7) ** 2
    filled = StuckPixels(one((2, 3))).fill(values)
    near, diagonal = values[0, [1, 3, 2, 2], [3, 3, 2, 4]], values[0, [1, 1, 3, 3], [2, 4, 2, 4]]
    assert float(filled[0, 2, 3]) == pytest.approx(float(near.sum() + diagonal.sum() / 2) / 6)
    same = ~one((2, 3))
    assert torch.equal(filled[0, same], values[0, same])
    # Stuck neighbors do not take part, at a border either.
    mask = one((0, 0), (0, 1), (1, 0), (1, 1))
    spoiled = torch.where(mask, 1e6, torch.full((6, 7), 0.5))
    assert torch.allclose(StuckPixels(mask).fill(spoiled), torch.tensor(0.5))


def test_colors_are_filled_from_their_own():
    plane = torch.tensor([[0.2, 0.4], [0.6, 0.8]]).repeat(4, 4)
    mask = one((3, 4), (4, 4), size=(8, 8))
    spoiled = plane.masked_fill(mask, 9.0)
    assert torch.allclose(StuckPixels(mask, colored=True).fill(spoiled), plane)
    assert not torch.allclose(StuckPixels(mask).fill(spoiled), plane)
    with pytest.raises(ValueError, match="all pixels are stuck behind one color filter"):
        StuckPixels(plane == 0.2, colored=True)


def test_spikes_are_those_of_the_nearest_pixel():
    spikes = np.random.default_rng(1).integers(0, 2, (20, 6, 7)).astype(np.uint8)
    stream = SpikeStream.from_array(spikes).mended(StuckPixels(one((0, 0))))
    assert any(np.array_equal(stream.unpack(0, 20)[:, 0, 0], spikes[:, y, x]) for y, x in ((0, 1), (1, 0)))
    assert np.array_equal(stream.unpack(0, 20)[:, 1:], spikes[:, 1:])
    assert np.array_equal(stream.mended(None).unpack(0, 20), spikes)
    assert np.array_equal(stream.mended(StuckPixels(one((0, 0), size=(6, 8)))).unpack(0, 20), spikes)


def test_gains_of_stuck_pixels_are_their_neighbors():
    """A gain that a hot pixel's rate gave it would spoil the filled value where gains are divided out."""
    gains = torch.full((6, 7), 1.1)
    gains[2, 3] = 7.0
    sensor = SensorModel(0.5, gain_map=gains).with_stuck(StuckPixels(one((2, 3))))
    assert torch.allclose(sensor.gain_map, torch.tensor(1.1))
    rate = torch.full((6, 7), 0.55 * 0.6)
    rate[2, 3] = 1.0
    assert torch.allclose(sensor.intensity(rate), torch.tensor(0.6))
    with pytest.raises(ValueError, match="calibrated at 7x6"):
        sensor.check_size(6, 8)


def test_stuck_pixels_have_no_fixed_pattern():
    random = torch.Generator().manual_seed(0)
    true = 1 + 0.03 * torch.randn(6, 7, generator=random)
    patterns = []
    for spoiled in (1.0, 3.0):
        pattern = FixedPattern(8, one((2, 3)))
        for _ in range(8):
            light = 0.3 + 0.5 * torch.rand(2, 1, 6, 7, generator=random)
            pattern.add(light * torch.where(one((2, 3)), spoiled, true), light)
        patterns.append(pattern.gain()[0])
    assert float(patterns[1][2, 3]) == 1 and torch.allclose(*patterns, atol=1e-5)


def test_images_from_spikes_are_filled(dead_scene):
    """Targets, counted images and previews of a hot pixel look like what is around it."""
    scene = read_scene(dead_scene)
    stuck = scene.sensor.stuck.mask
    stream = scene.open_stream(scene.train[0])
    spec = WindowSpec()
    exposure = Exposure.from_spikes(scene.train[0].camera, stream, spec, scene.sensor, "timing", 9, [(0, 12)])
    true = load_picture(scene.train[0], scene.train[0].image_path, 1)
    images = {
        "long": exposure.long[0], "timing": exposure.subframe(spec.middle)[0], "interval": exposure.interval(0, 12)[0],
        "counted": exposure.middle_image(scene.sensor, "counting", 41)[0], "wide": exposure.wide[spec.middle, 0],
        "preview": picture(stream, len(stream) // 2, "timing", 9, scene.sensor),
    }  # fmt: skip
    for name, image in images.items():
        assert float((image - true[0])[stuck].abs().mean()) < 0.08, name
    raw = replace(scene, sensor=replace(scene.sensor, stuck=None)).open_stream(scene.train[0])
    plain = picture(raw, len(raw) // 2, "timing", 9, replace(scene.sensor, stuck=None))
    assert float((plain - true[0])[stuck].abs().mean()) > 0.3


# ---- learning ------------------------------------------------------------------------------------------------


def moment_of(t, iteration=2):
    state = t.state
    state.iteration = iteration
    random = state.random()
    sample = t.sample(iteration, random)
    crops = t.reconstruct.crops(state, sample, random) if t.reconstruct is not None else None
    step = ShardedStep(state, sample, 1, ALONE, t.reconstruct, crops)
    return Moment(state, sample, step.renders, step.frames)


@pytest.mark.parametrize(
    ("flags", "terms"),
    [
        (TIMING, {"sub", "joint"}), ([*TIMING, "--no-fuse"], {"sub", "joint"}), (PAPER, {"gs", "rec", "joint"}),
        (SPIKEGS, {"inst", "gs"}),
    ],
)  # fmt: skip
def test_no_gradient_comes_from_a_stuck_pixel(flags, terms, dead_scene, tmp_path):
    t = small_training(dead_scene, tmp_path, *flags, *(["--crop", "0"] if "--crop" in flags else []))
    moment, stuck = moment_of(t), t.state.recording.stuck
    assert torch.equal(stuck, true_mask(faulty()))
    leaves = [moment.renders.images] + ([] if moment.frames is None else [moment.frames.images])
    seen = set()
    for objective in t.objectives:
        value = objective(moment)
        if value is None or not value.requires_grad:
            continue
        gradients = torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None and bool(gradient.any()):
                seen.add(objective.name)
                assert leaf.shape[-2:] == stuck.shape and not bool(gradient[..., stuck].any()), objective.name
                assert float((gradient[..., ~stuck] != 0).double().mean()) > 0.5, objective.name
    assert seen >= terms


def test_rays_of_stuck_pixels_teach_nothing(dead_scene, tmp_path):
    t = small_training(dead_scene, tmp_path, *SPIKENERF)
    sample = t.sample(1, t.state.random())
    y, x = torch.nonzero(t.state.recording.stuck)[0].tolist()
    sample = replace(sample, pixels=torch.tensor([[y, x]]).expand(len(sample.views), 2))
    loss = next(o for o in t.objectives if o.name == "spike")
    assert float(loss(Moment(t.state, sample, t.state.render(sample))).detach()) == 0


def test_a_model_keeps_its_stuck_pixels(dead_scene, tmp_path):
    flags = (*TIMING, "--no-joint")
    t = stepped(small_training(dead_scene, tmp_path, *flags), 4)
    folder = checkpoint.save_model(t)
    path = checkpoint.save(t)
    again = small_training(dead_scene, tmp_path, *flags)
    checkpoint.load(again, path)
    mask = true_mask(faulty())
    for recording in (t.state.recording, again.state.recording):
        assert torch.equal(recording.stuck, mask) and torch.equal(recording.sensor.stuck.mask, mask)
        assert recording.sensor.gain_map is not None and float(recording.sensor.gain_map[mask].std()) < 1e-6
    assert (folder / "sensor_stuck.npy").exists()
    model = TrainedModel.load(tmp_path)
    assert torch.equal(model.learned_scene.sensor.stuck.mask, mask)
    assert t.probe()[0] == pytest.approx(again.probe()[0], abs=1e-4)


def quality(root, tmp_path):
    """PSNR of the middle renders after a short training."""
    flags = "--iterations 100 --init_num_pts 1000 --cap_max 1000 --instants 4 --no-joint --no-pose_opt --quiet"
    flags += " --retime_from 999 --fixed_pattern_every 0"
    t = stepped(small_training(root, tmp_path, *flags.split()), 100)
    assert len(t.state.recording) == VIEWS
    with torch.no_grad():
        found = [
            psnr(t.state.render(Sample.instant(i, 6)).images, load_picture(view, view.image_path, 1)[None])
            for i, view in enumerate(t.state.recording.scene.train)
        ]
    return float(torch.stack(found).mean())


def test_a_scene_is_learned_as_well_as_without_them(tmp_path):
    write_scene(tmp_path / "good", simulator=sensor_named("default", 5))
    write_scene(tmp_path / "dead", simulator=replace(faulty(), dead=0.04, hot=0.02))
    good, masked = (quality(tmp_path / kind, tmp_path / "model") for kind in ("good", "dead"))
    assert masked > good - 0.5
