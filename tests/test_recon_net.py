"""Recon-Net: the paper's layers, crops that equal the full frame, the long branch, the slim variant."""

import contextlib

import pytest
import torch

from recon_net import ReconNet, SlimReconNet, inner_masks, instant_frames, make_network, recon_frames
from scene.cameras import Camera
from scene.exposure import Exposure
from spike import SensorModel, SpikeStream, WindowSpec
from utils.crops import Crop

SPEC = WindowSpec()
H, W = 24, 30


@pytest.fixture(scope="module")
def exposure():
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(177, H, W, generator=generator) < 0.3).to(torch.uint8).numpy()
    camera = Camera("000", W, H, torch.eye(3), torch.eye(4))
    stream = SpikeStream.from_array(spikes)
    return Exposure.from_spikes(camera, stream, SPEC, SensorModel(0.5), "timing", 9, [(0, 12)])


def network(variant: str) -> ReconNet | SlimReconNet:
    torch.manual_seed(1)
    made = make_network(variant, SPEC.short, SPEC.long_channels)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.01 * torch.randn_like(parameter)  # the slim network starts as no correction
    return made.eval()


def test_the_papers_parameters():
    assert sum(p.numel() for p in ReconNet().parameters()) == 200_353


def test_the_slim_network_costs_less_than_a_quarter():
    count = {v: sum(p.numel() for p in make_network(v, 41, 34).parameters()) for v in ("paper", "slim")}
    # 3x3 layers at the image's size: weights are multiplications a pixel; the long branch is shared by 13 frames.
    assert count["slim"] < 0.25 * (count["paper"] - 34 * 64 * 9 * 12 / 13)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="'wide' is unknown; expected paper or slim"):
        make_network("wide", 41, 34)


@pytest.mark.parametrize("variant", ["paper", "slim"])
@pytest.mark.parametrize("crop", [Crop(6, 16, 7, 19), Crop(0, 10, 20, 30), Crop(14, 24, 0, 8)], ids=str)
def test_a_crop_equals_the_full_frame(variant, crop, exposure):
    u = torch.tensor(SPEC.times)
    net = network(variant)
    with torch.no_grad():
        full = recon_frames(net, exposure, u, Crop.whole(H, W))
        part = recon_frames(net, exposure, u, crop)
    # bfloat16 where the processor has it: sums of another order differ by its rounding
    assert torch.allclose(crop.of(full), part, atol=2e-2)
    assert (crop.of(full) - part).abs().mean() < 2e-3


@pytest.mark.parametrize("variant", ["paper", "slim"])
def test_a_crop_s_surround_is_as_wide_as_the_network_looks(variant, exposure, monkeypatch):
    """In full precision, where one ring of pixels less shows."""
    monkeypatch.setattr("recon_net.network.autocast", lambda device: contextlib.nullcontext())
    u, net, crop = torch.tensor(SPEC.times), network(variant), Crop(8, 14, 9, 19)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.abs_()  # nothing cancels
        full, part = (recon_frames(net, exposure, u, c) for c in (Crop.whole(H, W), crop))
    torch.testing.assert_close(crop.of(full), part, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "slim"])
def test_instants_equal_the_frames_of_their_exposure(variant, exposure):
    u, net = torch.tensor(SPEC.times), network(variant)
    crops, subframes = [Crop(0, 14, 0, 14), Crop(6, 20, 9, 23), Crop(10, 24, 16, 30)], torch.tensor([0, 6, 11])
    with torch.no_grad():
        full = recon_frames(net, exposure, u, Crop.whole(H, W))
        frames = instant_frames(net, [exposure] * 3, subframes, u, crops)
    inner = inner_masks(net, crops, H, W)
    expected = torch.stack([crop.of(full[m]) for crop, m in zip(crops, subframes, strict=True)])
    assert inner.shape == (3, 1, 14, 14) and 0.1 < inner.mean() < 0.7
    assert inner[0, 0, 0, 0] == 1 and inner[1, 0, 0, 0] == 0 and inner[2, 0, -1, -1] == 1
    error = (frames - expected).abs()
    assert (error * inner).max() < 2e-2
    assert (error * (1 - inner)).max() > 2 * (error * inner).max()


@pytest.mark.parametrize("variant", ["paper", "slim"])
def test_every_input_reaches_the_frame(variant, exposure):
    """Short windows, long input and time each change the picture."""
    net, crop, m = network(variant), Crop.whole(H, W), torch.tensor([4])
    short, long = net.inputs(exposure, m, crop)
    u = torch.tensor([[0.3]])
    with torch.no_grad():
        start = net(short, long, u)
        assert start.shape == (1, 1, 1, H, W) and start.dtype == torch.float32
        for changed in ((short.flip(-1), long, u), (short, long.flip(-1), u), (short, long, u + 0.5)):
            assert (net(*changed) - start).abs().max() > 1e-3


def test_the_long_grouping_reaches_the_network(exposure):
    crop, m = Crop.whole(H, W), torch.tensor([4])
    short, adjacent = ReconNet().inputs(exposure, m, crop)
    _, strided = ReconNet(grouping="strided").inputs(exposure, m, crop)
    assert short.shape == (1, 1, 41, H, W) and adjacent.shape == strided.shape == (1, 34, H, W)
    assert not torch.equal(adjacent, strided) and torch.equal(adjacent.sum(1), strided.sum(1))


def test_the_long_branch_runs_once_a_view(exposure):
    net, calls = ReconNet(), []
    net.long.register_forward_hook(lambda *_: calls.append(1))
    recon_frames(net, exposure, torch.tensor(SPEC.times), Crop.whole(H, W))
    assert len(calls) == 1


def test_the_slim_network_starts_as_the_timing_target(exposure):
    frames = recon_frames(SlimReconNet(), exposure, torch.tensor(SPEC.times), Crop.whole(H, W))
    assert torch.equal(frames.detach(), exposure.subframes)
