"""Images from the spikes of one view: the interface, and the methods that learn nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from arguments.parts import ImageOptions
from baselines.images import ImageProvider, Interval, WindowMean, image_of
from baselines.providers import PROVIDERS, prepare
from baselines.spk2imgnet import Spk2ImgNet
from scene.dataset import SceneData, read_scene
from spike import Mosaic, SensorModel, SpikeStream, WindowSpec
from utils.image_metrics import psnr
from utils.io import load_image

SENSOR = SensorModel(gain=0.5)


def steps(frames: int = 177) -> SpikeStream:
    """One pixel that fires every 10th frame until the middle and every 2nd after it, and one that never fires."""
    spikes = np.zeros((frames, 1, 2), np.uint8)
    spikes[: frames // 2 : 10, 0, 0] = 1
    spikes[frames // 2 :: 2, 0, 0] = 1
    return SpikeStream.from_array(spikes)


def test_counts_are_taken_around_the_instant():
    spec = WindowSpec()
    early, middle, late = (WindowMean(41)(steps(), spec, SENSOR, u)[0, 0] for u in (0.0, 0.5, 1.0))
    assert early.tolist() == pytest.approx([5 / 41 / 0.5, 0])  # frames 20 to 60
    assert middle[0] == pytest.approx((2 + 11) / 41 / 0.5)
    assert late[0] == pytest.approx(21 / 41 / 0.5)


def test_the_interval_is_the_one_around_the_instant():
    spec = WindowSpec()
    assert Interval()(steps(), spec, SENSOR, 0.0)[0, 0, 0] == pytest.approx(0.1 / 0.5)
    assert Interval()(steps(), spec, SENSOR, 1.0)[0, 0, 0] == pytest.approx(0.5 / 0.5)


def test_a_stream_that_is_too_short_is_named():
    with pytest.raises(ValueError, match=r"array: a stream of 100 frames, expected at least 137"):
        WindowMean(41)(steps(100), WindowSpec(), SENSOR)
    with pytest.raises(ValueError, match=r"frames -28 to 69 lie outside"):
        WindowMean(97)(steps(), WindowSpec(), SENSOR, 0.0)


def test_methods_are_prepared_by_name(scene_folder, tmp_path):
    scene = read_scene(scene_folder)
    options = ImageOptions(bsn_width=2, bsn_steps=1, spk2imgnet_weights=str(tmp_path / "w.pth"))
    torch.save(Spk2ImgNet().state_dict(), tmp_path / "w.pth")
    for name, method in PROVIDERS.items():
        assert method.title and image_of(prepare(name, scene, options), scene, scene.train[0]).shape == (1, 32, 48)
    with pytest.raises(ValueError, match="no image method 'sharp'; expected one of tfp, "):
        prepare("sharp", scene)


def test_a_color_sensor_gives_color_images(scene_folder):
    scene = replace(read_scene(scene_folder), mosaic=Mosaic("RGGB"))
    assert scene.open_stream(scene.train[0]).bayer == "RGGB"
    assert image_of(WindowMean(41), scene, scene.train[0]).shape == (3, 32, 48)


def bad_size(stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> torch.Tensor:
    return torch.zeros(1, 3, 4)


def not_finite(stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> torch.Tensor:
    image = torch.zeros(1, stream.height, stream.width)
    image[0, 1, :2] = torch.tensor([torch.nan, torch.inf])
    return image


def test_images_of_a_wrong_size_or_without_values_are_refused(scene_folder):
    scene: SceneData = read_scene(scene_folder)
    with pytest.raises(ValueError, match=r"000\.dat: bad_size made .* shape \[1, 3, 4\], expected \[1, 32, 48\]"):
        image_of(bad_size, scene, scene.train[0])
    with pytest.raises(ValueError, match=r"000\.dat: not_finite made an image with 2 values that are not finite"):
        image_of(not_finite, scene, scene.train[0])


def test_the_shipped_network_is_better_than_its_start(scene_folder):
    scene = read_scene(scene_folder)
    truth = torch.stack([load_image(view.image_path) for view in scene.train])

    def quality(provider: ImageProvider) -> float:
        images = torch.stack([image_of(provider, scene, view) for view in scene.train])
        return float(psnr(images.clamp(0, 1), truth).mean())

    assert quality(prepare("spk2imgnet-s", scene)) > quality(WindowMean(13)) + 3
