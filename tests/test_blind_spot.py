"""The blind-spot network: its layers and counts, its blindness, and learning from a recording alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from arguments.parts import BlindSpotOptions, RunOptions
from baselines import providers
from baselines.blind_spot import (
    WIDTH,
    BlindSpot,
    BlindSpotNet,
    _Up,
    blind_loss,
    learn_blind_spot,
    load_blind_spot,
    save_blind_spot,
)
from baselines.providers import blind_spot
from scene.dataset import read_scene
from spike import SensorModel, SpikeStream, WindowSpec

CPU = torch.device("cpu")


def test_names_and_shapes_are_those_of_s_sdm():
    network = BlindSpotNet()
    w = 48
    convs = {"enc1": [1, w, w, w], "enc2": [w] * 4, "enc3": [w, 2 * w, 2 * w, w]}
    convs |= {"dec2": [2 * w] * 5, "dec1": [2 * w + 1, *[2 * w] * 4]}
    expected = {
        f"unet.{name}.conv{i + 1}.conv.weight": (b, a, 3, 3)
        for name, widths in convs.items()
        for i, (a, b) in enumerate(pairwise(widths))
    }
    expected |= {"nin_A.weight": (384, 384, 1, 1), "nin_B.weight": (96, 384, 1, 1), "nin_C.weight": (1, 96, 1, 1)}
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == expected
    assert sum(p.numel() for p in network.parameters()) == 1_118_832
    assert sum(p.numel() for p in BlindSpotNet(24).parameters()) == 280_056


def test_a_layer_sees_its_own_row_and_those_above():
    """All weights 1: the sum over rows i-2 to i and three columns, whose border pixels are repeated."""
    layer = _Up(1, 1)
    torch.nn.init.ones_(layer.conv.weight)
    x = torch.tensor([[1.0, 2], [10, 20], [100, 200]])[None, None]
    assert layer(x)[0, 0].tolist() == [[4, 5], [44, 55], [444, 555]]


@pytest.mark.parametrize(("height", "width"), [(13, 10), (8, 8), (7, 9), (8, 4)])
def test_no_pixel_sees_itself_and_every_pixel_sees_the_rest(height, width):
    torch.manual_seed(0)
    network = BlindSpotNet(4).double()
    x = torch.rand(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    y = network(x)
    reached = torch.zeros(height * width, height * width)
    for i in range(height * width):
        reached[i] = torch.autograd.grad(y.flatten()[i], x, retain_graph=True)[0].flatten() != 0
    assert not reached.diagonal().any()
    close = torch.cdist(*[torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()] * 2) < 2.5
    close.fill_diagonal_(False)
    assert reached[close].mean() > 0.99  # a few ReLUs are zero
    assert reached.mean() > 0.6


def test_the_loss_is_a_mean_square():
    network = BlindSpotNet(2)
    torch.nn.init.zeros_(network.nin_C.weight)
    assert float(blind_loss(network, torch.tensor([[[[1.0, 2], [3, 4]]]])).detach()) == pytest.approx(7.5)


def recording(frames: int = 60, views: int = 2, light: float = 0.37, side: int = 24) -> list[SpikeStream]:
    """Spikes of a uniform gray, with random phases; gain 0.5."""
    phase = np.random.default_rng(0).random((views, 1, side, side))
    charge = np.floor(0.5 * light * np.arange(frames + 1)[:, None, None] + phase)
    return [SpikeStream.from_array(np.diff(c, axis=0).astype(np.uint8), f"view {i}") for i, c in enumerate(charge)]


def test_it_removes_noise_that_it_never_saw_removed():
    streams = recording(177)
    network = learn_blind_spot(streams, 0.5, 8, 40, 0, CPU)
    image = BlindSpot(network)(streams[0], WindowSpec(), SensorModel(0.5), 0.25)
    noisy = torch.from_numpy(streams[0].unpack(60, 60 + WIDTH)).float().mean(0) / 0.5
    assert image.shape == (1, 24, 24)
    assert (image[0] - 0.37).square().mean() < 0.25 * (noisy - 0.37).square().mean()


def test_learning_depends_on_the_seed_alone():
    first, again, other = (learn_blind_spot(recording(), 0.5, 2, 2, seed, CPU).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    with pytest.raises(ValueError, match="view 0: 8 frames, expected at least 9"):
        learn_blind_spot(recording(8), 0.5, 2, 1, 0, CPU)


def test_the_colors_of_a_color_sensor_are_separate_images():
    """The green pixels fire in every frame, the others never: no color may leak into another."""
    spikes = np.zeros((177, 8, 8), np.uint8)
    spikes[:, 0::2, 1::2] = spikes[:, 1::2, 0::2] = 1
    stream = SpikeStream.from_array(spikes).with_filters("RGGB")
    image = BlindSpot(BlindSpotNet(4))(stream, WindowSpec(), SensorModel())[0]
    assert not image[0::2, 0::2].any() and not image[1::2, 1::2].any() and image[0::2, 1::2].any()


def test_a_scenes_network_is_read_again(scene_folder, tmp_path, monkeypatch):
    scene, path = read_scene(scene_folder), tmp_path / "bsn.pth"
    options, run = BlindSpotOptions(bsn_width=2, bsn_steps=1, bsn_weights=str(path)), RunOptions()
    first = blind_spot(scene, options, run).network.state_dict()
    monkeypatch.setattr(providers, "learn_blind_spot", None)  # reading does not train
    again = blind_spot(scene, options, run).network.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_files_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "bsn.pth"
    save_blind_spot(path, BlindSpotNet(2))
    assert load_blind_spot(path).width == 2
    torch.save({"version": 1, "width": 3, "weights": BlindSpotNet(2).state_dict()}, path)
    with pytest.raises(ValueError, match=r"bsn\.pth: expected a blind-spot network with its width \(.*size mismatch"):
        load_blind_spot(path)
    torch.save({"version": 1, "weights": {}}, path)
    with pytest.raises(ValueError, match=r"bsn\.pth: expected a blind-spot network"):
        load_blind_spot(path)
    path.write_bytes(b"spikes")
    with pytest.raises(ValueError, match=r"bsn\.pth: not a readable checkpoint"):
        load_blind_spot(path)
