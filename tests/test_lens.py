"""Lenses against OpenCV, and recordings through them against pinhole cameras."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import small_scene
import torch
from training_runs import small_training, stepped

from scene.dataset import SceneData, read_scene
from scene.lens import FisheyeLens, PerspectiveLens, to_pinhole, to_sensor
from scene.views import TargetSpec, load_picture, spike_exposures
from simulation import Simulator
from spike import FixedPattern, SpikeStream, StuckPixels, WindowSpec
from training.state import Recording
from utils.crops import Crop
from utils.image_metrics import psnr
from utils.remapping import Remap

WIDTH, HEIGHT = small_scene.WIDTH, small_scene.HEIGHT
INTRINSICS = (40.0, 41.0, 23.0, 17.0)
MATRIX = np.array([[40.0, 0, 23], [0, 41.0, 17], [0, 0, 1]])
RATIONAL = PerspectiveLens(INTRINSICS, WIDTH, HEIGHT, (-0.12, 0.02, 0.003, -0.002, 0.01, 0.05, -0.01, 0.002))
FISHEYE = FisheyeLens(INTRINSICS, WIDTH, HEIGHT, (-0.05, 0.01, 0.003, -0.002))
CPU = torch.device("cpu")


def radial(k1: float) -> PerspectiveLens:
    """A lens before the sensor of the small scene."""
    return PerspectiveLens((40.0, 40.0, WIDTH / 2, HEIGHT / 2), WIDTH, HEIGHT, (k1, *[0.0] * 7))


def points(count: int = 200) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


# ---- maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lens", [RATIONAL, FISHEYE, radial(-0.3), radial(0.5)])
def test_inverse_undoes_the_lens(lens):
    torch.testing.assert_close(lens.unproject(lens.project(points())), points(), atol=1e-9, rtol=0)


def test_rational_model_is_opencvs():
    coefficients = np.array(RATIONAL.coefficients)
    solid = np.c_[points().numpy(), np.ones(200)]
    pixels, _ = cv2.projectPoints(solid, np.zeros(3), np.zeros(3), MATRIX, coefficients)
    np.testing.assert_allclose(RATIONAL.project(points()), pixels[:, 0], atol=1e-9)
    precise = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    back = cv2.undistortPoints(pixels, MATRIX, coefficients, criteria=precise)
    np.testing.assert_allclose(RATIONAL.unproject(torch.from_numpy(pixels[:, 0])), back[:, 0], atol=1e-7)


def test_fisheye_model_is_opencvs():
    coefficients = np.array(FISHEYE.coefficients)
    pixels = cv2.fisheye.distortPoints(points().numpy()[:, None], MATRIX, coefficients)
    np.testing.assert_allclose(FISHEYE.project(points()), pixels[:, 0], atol=1e-9)
    back = cv2.fisheye.undistortPoints(pixels, MATRIX, coefficients)
    np.testing.assert_allclose(FISHEYE.unproject(torch.from_numpy(pixels[:, 0])), back[:, 0], atol=1e-7)


def test_points_beyond_a_fold_have_no_inverse():
    """x (1 - x^2) is at most 0.385, and a fisheye sees more than a pinhole camera does."""
    on_axis = torch.tensor([[0.38, 0.0], [0.39, 0.0]], dtype=torch.float64)
    assert radial(-1.0).undistort(on_axis).isnan().all(-1).tolist() == [False, True]
    bare = FisheyeLens(INTRINSICS, WIDTH, HEIGHT, (0.0,) * 4)
    angles = torch.tensor([[1.5, 0.0], [1.6, 0.0]], dtype=torch.float64)
    assert bare.undistort(angles).isnan().all(-1).tolist() == [False, True]


@pytest.mark.parametrize("k1", [-1.5, -0.12, 0.12, 0.4])
def test_sensor_sees_the_whole_pinhole_image(k1):
    """With the sensor's focal lengths if they do, else with the shortest that do."""
    lens = radial(k1)
    fx, fy, cx, cy = lens.pinhole
    assert (cx, cy) == (WIDTH / 2, HEIGHT / 2) and fx == fy
    assert (fx == 40) == (k1 == -0.12)
    assert to_pinhole(lens).inside.all()
    corner = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2], dtype=torch.float64)
    if k1 > 0:  # the corner pixel is the sensor's
        assert lens.project(corner / fx)[0] == pytest.approx(WIDTH - 0.5, abs=0.02)
    if k1 == -1.5:  # the corner is at the fold, where the slope 1 + 3 k1 r^2 is 0
        assert 0 < 1 - 4.5 * float((corner / fx).square().sum()) < 0.01
    large = lens.resized(3 * WIDTH, 3 * HEIGHT)
    assert large.pinhole[0] == pytest.approx(3 * fx, rel=0.02)


# ---- resampling ----------------------------------------------------------------------------------------------


def smooth(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return 0.5 + 0.3 * torch.sin(0.2 * x) * torch.cos(0.25 * y)


def test_resampling_is_exact_where_positions_are_pixels():
    x, y = torch.meshgrid(torch.arange(3.0, 9), torch.arange(2.0, 7), indexing="xy")
    remap = Remap(torch.stack([x, y], -1) + 0.5, HEIGHT, WIDTH)
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(remap(images), images[..., 2:7, 3:9])
    assert remap.noise_gain == 1 and remap.inside.all()
    with pytest.raises(ValueError, match="an image of 7x5 pixels, expected 48x32"):
        remap(images[..., :5, :7])


@pytest.mark.parametrize("lens", [RATIONAL, FISHEYE, radial(0.3)])
def test_there_and_back_again(lens):
    there, back = to_pinhole(lens), to_sensor(lens)
    middle = Crop(4, HEIGHT - 4, 4, WIDTH - 4)
    kept = middle.of(back.inside)
    assert kept.float().mean() > 0.8
    assert (middle.of(back(there(smooth())) - smooth()).abs() * kept).max() < 5e-3


def test_a_crop_is_the_crop_of_the_whole():
    remap, images = to_pinhole(radial(0.3)), torch.rand(2, HEIGHT, WIDTH)
    for crop in (Crop(0, 9, 0, 9), Crop(5, 21, 30, 46), Crop(20, 32, 40, 48), Crop.whole(HEIGHT, WIDTH)):
        source, part = remap.cropped(crop)
        torch.testing.assert_close(part(source.of(images)), crop.of(remap(images)), atol=1e-5, rtol=0)


def test_noise_after_resampling():
    remap = to_pinhole(radial(-0.12))
    noise = torch.randn(2000, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    assert float(remap(noise).var(0).mean()) == pytest.approx(remap.noise_gain, rel=0.02)
    assert 0.6 < remap.noise_gain < 0.9


# ---- recordings ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bent(tmp_path_factory):
    root = tmp_path_factory.mktemp("bent")
    small_scene.write_scene(root, lens=radial(-0.2))
    return root


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    root = tmp_path_factory.mktemp("straight")
    small_scene.write_scene(root)
    return root


def test_targets_are_in_the_pinhole_image(bent, straight):
    spec = TargetSpec(WindowSpec(), intervals=((3, 9),), wide=True)
    scene, twin = read_scene(bent), read_scene(straight)
    exposure, expected = (spike_exposures(s.train[:1], s, spec, CPU)[0] for s in (scene, twin))
    gains = 1 + 0.3 * torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    assert float((exposure.long - expected.long).square().mean()) < 0.1 * float(
        (exposure._long - expected.long).square().mean()
    )
    remap, before = to_pinhole(radial(-0.2)), exposure.measured
    exposure.use_gains(gains)
    torch.testing.assert_close(exposure.measured, before / gains)
    torch.testing.assert_close(exposure.subframe(4), remap(before[4] / gains))
    assert torch.equal(exposure.subframes[4], exposure.subframe(4))
    crop = Crop(4, 20, 25, 48)
    part = exposure.cropped(crop)
    for name in ("long", "subframes", "wide"):
        torch.testing.assert_close(getattr(part, name), crop.of(getattr(exposure, name)), atol=1e-5, rtol=1e-4)
    assert torch.equal(exposure.to(CPU).long, exposure.long)
    # Counted images, and image files.
    counted, known = (e.middle_image(scene.sensor, "counting", 41) for e in (exposure, expected))
    assert psnr(counted, known) > 24
    truth, true = (load_picture(s.train[0], s.train[0].image_path, 1) for s in (scene, twin))
    assert psnr(truth, true) > 35
    with pytest.raises(ValueError, match="view 000 has lens distortion: spikes cannot be undistorted"):
        exposure.spikes(crop)


def test_fixed_pattern_is_found_in_the_sensors_pixels():
    gains = 1 + 0.15 * torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
    lens, images, streams = radial(-0.2), [], []
    for i in range(6):
        images.append(smooth().roll(5 * i, -1))
        light = to_sensor(lens)(images[-1])
        streams.append(SpikeStream.from_array(Simulator()((gains * light).expand(177, -1, -1).numpy(), i)))
    scene = SceneData.from_streams(streams, lens.matrix, torch.eye(4).expand(6, 4, 4), lens=lens)
    pattern = FixedPattern(6)
    for exposure, image in zip(spike_exposures(scene.train, scene, TargetSpec(WindowSpec()), CPU), images, strict=True):
        pattern.add(exposure.measured, exposure.on_sensor(image.expand(13, 1, -1, -1)))
    found, _ = pattern.gain()
    inside = to_sensor(lens).inside
    assert np.corrcoef(found[inside], gains[inside])[0, 1] > 0.95
    assert torch.equal(found[~inside], torch.ones(int((~inside).sum())))


def test_stuck_pixels_are_where_the_pinhole_image_shows_them(bent, tmp_path):
    """The fixed pattern, which is in the sensor's pixels, leaves out those of the sensor."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[3, 4] = mask[HEIGHT - 5, WIDTH // 2] = True
    scene = read_scene(bent)
    scene = replace(scene, sensor=scene.sensor.with_stuck(StuckPixels(mask)))
    recording = Recording.of_spikes(scene, TargetSpec(WindowSpec()), CPU)
    reached = to_pinhole(radial(-0.2))(mask.float()).abs() > 1e-3
    assert torch.equal(recording.stuck, reached) and not torch.equal(reached, mask)
    assert torch.equal(recording.sensor.stuck.mask, mask)
    images = torch.rand(2, 1, HEIGHT, WIDTH)
    assert torch.equal(recording.seen(images, images + 1) > images, reached.expand(2, 1, -1, -1))


FLAGS = (
    "--iterations 200 --quiet --cap_max 600 --init_num_pts 600 --lambda_joint 0 --no-pose_opt --average_from 150 "
    "--densify_until_iter 100 --fixed_pattern_every 100 --retime_from 150 --retime_every 50"
).split()


def quality(root, folder) -> float:
    """PSNR of renders at the training views' middles against what a pinhole camera would have seen (dB)."""
    state = stepped(small_training(root, folder, *FLAGS), 200).state
    step = small_scene.FRAMES + small_scene.GAP
    values = []
    for i in range(len(state.recording)):
        centers, _ = small_scene.path(np.array([i * step + small_scene.FRAMES // 2]))
        true = torch.from_numpy(small_scene.picture(centers)).float()
        values.append(float(psnr(state.sight(i, torch.tensor([0.5]))[0], true)))
    return float(np.mean(values))


def test_a_scene_through_a_lens_is_as_good_as_its_pinhole_twin(bent, straight, tmp_path):
    """Unless the sign of k1 is wrong."""
    twin = quality(straight, tmp_path / "straight")
    assert twin > 22
    assert quality(bent, tmp_path / "bent") > twin - 0.5
    file = bent / "transforms.json"
    original = file.read_text()
    file.write_text(re.sub(r'"k1": -', '"k1": ', original))
    try:
        assert quality(bent, tmp_path / "wrong") < twin - 2
    finally:
        file.write_text(original)


def test_what_reads_spikes_refuses_a_lens(bent, tmp_path):
    for flags, reason in (
        (["--recipe", "paper", "--recon_net", "slim"], "counted spikes are compared in the sensor's pixels"),
        (["--recipe", "spikenerf"], "counted spikes are compared in the sensor's pixels"),
        (["--targets", "counting", "--no-fuse"], "counted spikes are compared in the sensor's pixels"),
        (["--recon_net", "paper"], "--recon_net paper reads the spikes themselves"),
        (["--recipe", "cascade"], r"TFP\(41\) makes images in the sensor's pixels"),
        (["--recipe", "spikegs"], "the blind-spot network makes images in the sensor's pixels"),
    ):
        with pytest.raises(ValueError, match=f"view 000 has lens distortion that cannot be undone: {reason}"):
            small_training(bent, tmp_path, *flags)


def test_a_lens_must_belong_to_the_streams():
    stream = SpikeStream.from_array(np.zeros((177, HEIGHT, WIDTH), np.uint8))
    lens, pose = radial(0.3), torch.eye(4)[None]
    with pytest.raises(ValueError, match="K is not the matrix of the lens"):
        SceneData.from_streams([stream], torch.diag(torch.tensor([40.0, 40, 1])), pose, lens=lens)
    with pytest.raises(ValueError, match="lens is of 24x16 pixels, expected 48x32"):
        SceneData.from_streams([stream], lens.matrix, pose, lens=lens.resized(24, 16))
    with pytest.raises(ValueError, match="a lens before a color sensor"):
        SceneData.from_streams([stream.with_filters("RGGB")], lens.matrix, pose, lens=lens)
