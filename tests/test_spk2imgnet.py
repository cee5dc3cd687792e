"""Spk2ImgNet: its layers and counts, the deformable convolution, its loss, and files of weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from baselines.moving_pictures import MovingPictures
from baselines.spk2imgnet import (
    BRANCHES,
    CENTERS,
    FRAMES,
    SmallSpk2ImgNet,
    Spk2Img,
    Spk2ImgNet,
    deform_conv,
    load_spk2imgnet,
    save_weights,
    supervised_loss,
)
from spike import SensorModel, SpikeStream, WindowSpec

# Names and shapes in the published files, by the kind of layer: weights without their biases.
F64 = (64, 64, 3, 3)
PUBLISHED = (
    {f"extractor.conv0_{k}": (16, 13 - 2 * k, 3, 3) for k in range(4)}
    | {f"extractor.conv1_{k}": (1, 16, 3, 3) for k in range(4)}
    | {"extractor.ca.ca_block.0": (8, 4, 3, 3), "extractor.ca.ca_block.2": (4, 8, 3, 3)}
    | {"extractor.conv": (64, 4, 3, 3)}
    | {f"extractor.net.{i}.conv{j}": F64 for i in range(10) for j in (1, 2, 3)}
    | {f"mask{b}.conv0": (64, 128, 3, 3) for b in (0, 1, 3, 4)}
    | {f"mask{b}.conv{j}": F64 for b in (0, 1, 3, 4) for j in (1, 2)}
    | {"rec_conv0": (192, 320, 3, 3), "rec_conv1": (64, 192, 3, 3), "rec_conv2": (1, 64, 3, 3)}
    | {f"pcd_align.fea_L{level}_conv{j}": F64 for level in (2, 3) for j in (1, 2)}
    | {f"pcd_align.pcd_align.L{level}_offset_conv1_1": (64, 128, 3, 3) for level in (1, 2, 3)}
    | {"pcd_align.pcd_align.L3_offset_conv2_1": F64}
    | {f"pcd_align.pcd_align.L{level}_offset_conv2_1": (64, 128, 3, 3) for level in (1, 2)}
    | {f"pcd_align.pcd_align.L{level}_offset_conv3_1": F64 for level in (1, 2)}
    | {f"pcd_align.pcd_align.L{level}_fea_conv_1": (64, 128, 3, 3) for level in (1, 2)}
    | {"pcd_align.pcd_align.cas_offset_conv1": (64, 128, 3, 3), "pcd_align.pcd_align.cas_offset_conv2": F64}
    | {f"pcd_align.pcd_align.{name}": F64 for name in ("L1_dcnpack_1", "L2_dcnpack_1", "L3_dcnpack_1", "cas_dcnpack")}
    | {
        f"pcd_align.pcd_align.{name}.conv_offset_mask": (216, 64, 3, 3)
        for name in ("L1_dcnpack_1", "L2_dcnpack_1", "L3_dcnpack_1", "cas_dcnpack")
    }
)
SLOPES = [f"mask{b}.prelu{j}.weight" for b in (0, 1, 3, 4) for j in (0, 1)]


@pytest.fixture(scope="module")
def full() -> Spk2ImgNet:
    torch.manual_seed(0)
    return Spk2ImgNet()


def test_names_and_shapes_are_the_published_ones(full):
    expected = {f"{name}.weight": shape for name, shape in PUBLISHED.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in PUBLISHED.items()}
    expected |= {name: (1,) for name in SLOPES}
    assert {name: tuple(value.shape) for name, value in full.state_dict().items()} == expected
    assert len(expected) == 168 and sum(p.numel() for p in full.parameters()) == 3_904_185
    assert sum(p.numel() for p in SmallSpk2ImgNet().parameters()) == 241_641


def deformed(x, offsets, modulation, weight, bias):
    """The definition, one pixel after another."""
    b, c, h, w = x.shape
    groups = modulation.shape[1] // 9
    offsets, modulation = offsets.view(b, groups, 9, 2, h, w), modulation.view(b, groups, 9, h, w)
    out = bias[None, :, None, None].repeat(b, 1, h, w)

    def value(n, channel, y, z):
        top, left, total = int(np.floor(y)), int(np.floor(z)), 0.0
        for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= i < h and 0 <= j < w:
                total += float((1 - abs(y - i)) * (1 - abs(z - j)) * x[n, channel, i, j])
        return total

    for n, channel, tap, i, j in np.ndindex(b, c, 9, h, w):
        group = channel // (c // groups)
        dy, dx = offsets[n, group, tap, :, i, j].tolist()
        sample = value(n, channel, i + tap // 3 - 1 + dy, j + tap % 3 - 1 + dx)
        out[n, :, i, j] += weight[:, channel, tap // 3, tap % 3] * sample * modulation[n, group, tap, i, j]
    return out


def deform_inputs(b=1, c=4, groups=2, h=3, w=4):
    random = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(shape, generator=random) for shape in ((b, c, h, w), (3, c, 3, 3), (3,)))
    offsets = 1.5 * torch.randn(b, groups * 18, h, w, generator=random)
    return x, offsets, torch.rand(b, groups * 9, h, w, generator=random), weight, bias


def test_the_deformable_convolution_is_its_definition():
    inputs = deform_inputs()
    torch.testing.assert_close(deform_conv(*inputs), deformed(*inputs), atol=1e-5, rtol=1e-5)
    x, offsets, modulation, weight, bias = inputs
    plain = deform_conv(x, torch.zeros_like(offsets), torch.ones_like(modulation), weight, bias)
    torch.testing.assert_close(plain, F.conv2d(x, weight, bias, padding=1), atol=1e-5, rtol=1e-5)


def test_the_deformable_convolution_is_torchvisions():
    ops = pytest.importorskip("torchvision.ops")
    inputs = [value.requires_grad_() for value in deform_inputs(2, 8, 4, 9, 7)]
    x, offsets, modulation, weight, bias = inputs
    found = deform_conv(*inputs)
    expected = ops.deform_conv2d(x, offsets, weight, bias, padding=1, mask=modulation)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    pairs = [torch.autograd.grad(out, inputs, direction) for out in (found, expected)]
    for name, own, other in zip(("x", "offsets", "modulation", "weight", "bias"), *pairs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_the_branches_see_shorter_and_shorter_windows():
    """With box filters, the estimates are the means of 13, 11, 9 and 7 frames around the middle of each block."""
    network = SmallSpk2ImgNet()
    for k in range(BRANCHES):
        _, second = network.extractor.branch(k)
        with torch.no_grad():
            second.weight[:, 1:] = 0
            second.bias.zero_()
    spikes = torch.randint(0, 2, (1, FRAMES, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    _, estimates = network.rates(spikes)
    for b, center in enumerate(CENTERS):
        for k in range(BRANCHES):
            reach = 6 - k
            mean = spikes[:, center - reach : center + reach + 1].mean(1)
            inner = (..., slice(1, -1), slice(1, -1))  # the other taps of the middle channel remain at the borders
            torch.testing.assert_close(estimates[:, b, k][inner], mean[inner], atol=2e-3, rtol=0)


def centered(weight: torch.Tensor, factor: float) -> None:
    """Make a convolution copy its first channels, times ``factor``."""
    with torch.no_grad():
        weight.zero_()
        for channel in range(len(weight)):
            weight[channel, channel, 1, 1] = factor


def test_blocks_are_aligned_in_their_order():
    """With layers that copy, the aligned features are those of the blocks: the modulation of 1/2 is made up for."""
    network = SmallSpk2ImgNet(features=4, blocks=1, groups=2)
    cascade = network.pcd_align.pcd_align
    centered(cascade.L1_dcnpack_1.weight, 2.0)
    centered(cascade.L1_fea_conv_1.weight, 1.0)
    centered(cascade.cas_dcnpack.weight, 2.0)
    features = torch.rand(2, 5, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    aligned = network.pcd_align(features)
    for b in range(5):
        torch.testing.assert_close(aligned[b], features[:, b])


def test_offsets_are_doubled_from_level_to_level():
    network, seen = SmallSpk2ImgNet(features=4, blocks=1, groups=2), {}
    cascade = network.pcd_align.pcd_align
    for name in ("L3_offset_conv2_1", "L2_offset_conv3_1"):
        getattr(cascade, name).register_forward_hook(lambda layer, given, out, name=name: seen.update({name: out}))
    for name in ("L2_offset_conv2_1", "L1_offset_conv2_1"):
        getattr(cascade, name).register_forward_pre_hook(lambda layer, given, name=name: seen.update({name: given[0]}))
    network.pcd_align(torch.rand(1, 5, 4, 8, 12, generator=torch.Generator().manual_seed(0)))
    for coarse, fine in (("L3_offset_conv2_1", "L2_offset_conv2_1"), ("L2_offset_conv3_1", "L1_offset_conv2_1")):
        expected = 2 * F.interpolate(F.leaky_relu(seen[coarse], 0.1), scale_factor=2, mode="bilinear")
        torch.testing.assert_close(seen[fine][:, 4:], expected)


def test_aligned_features_are_masked_and_the_middle_is_not():
    """Masks of zero leave the middle block alone."""
    network, seen = SmallSpk2ImgNet(features=4, blocks=1, groups=2), []
    for b in (0, 1, 3, 4):
        torch.nn.init.constant_(getattr(network, f"mask{b}").conv2.bias, -1e4)
    network.rec_conv0.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    network.rates(torch.randint(0, 2, (1, FRAMES, 8, 8), generator=torch.Generator().manual_seed(0)).float())
    parts = seen[0].chunk(5, dim=1)
    assert [bool(part.any()) for part in parts] == [False, False, True, False, False]


def test_the_small_network_starts_as_the_middle_block():
    spikes = torch.randint(0, 2, (1, FRAMES, 10, 7), generator=torch.Generator().manual_seed(0)).float()
    torch.testing.assert_close(SmallSpk2ImgNet()(spikes)[:, 0], spikes[:, 14:27].mean(1))


def test_the_loss_is_the_published_one_with_each_samples_gain():
    rate = torch.tensor([0.2, 0.4]).view(2, 1, 1, 1)
    estimates = torch.full((2, 5, 4, 1, 1), 0.2)
    truth = torch.full((2, 5, 1, 1), 0.5)
    gain = torch.tensor([0.4, 0.5])
    # the middle: |.5 - .5| and |.8 - .5|; each of 20 estimates: |.5 - .5| and |.4 - .5|
    assert float(supervised_loss(rate, estimates, truth, gain)) == pytest.approx(0.15 + 0.02 * 20 * 0.05)


def test_any_size_is_padded_by_its_mirror(full):
    """5x6 pixels give the same as 8x8 whose last rows and columns mirror the ones before."""
    spikes = torch.randint(0, 2, (1, FRAMES, 5, 6), generator=torch.Generator().manual_seed(0)).float()
    rows, columns = [0, 1, 2, 3, 4, 4, 3, 2], [0, 1, 2, 3, 4, 5, 5, 4]
    small = SmallSpk2ImgNet()
    torch.nn.init.normal_(small.rec_conv2.weight)
    with torch.no_grad():
        whole = small(spikes[:, :, rows][..., columns])
        torch.testing.assert_close(small(spikes), whole[..., :5, :6])
        assert small(spikes[..., :1, :1]).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("spelling", ["{}", "module.{}"])
@pytest.mark.parametrize("nested", [False, True])
def test_published_files_are_read_in_both_spellings(full, tmp_path, spelling, nested):
    stored = {spelling.format(name): value for name, value in full.state_dict().items()}
    torch.save({"state_dict": stored, "epoch": 61} if nested else stored, tmp_path / "w.pth")
    read = load_spk2imgnet(tmp_path / "w.pth")
    assert all(torch.equal(value, full.state_dict()[name]) for name, value in read.state_dict().items())


def test_files_that_do_not_fit_are_named(full, tmp_path):
    path, weights = tmp_path / "w.pth", full.state_dict()

    def refused(stored: object) -> str:
        torch.save(stored, path)
        with pytest.raises(ValueError) as error:
            load_spk2imgnet(path)
        return str(error.value)

    other = {name: value for name, value in weights.items() if name != "rec_conv2.bias"}
    assert refused(other | {"last.bias": torch.zeros(1)}) == (
        f"{path}: not the weights of Spk2ImgNet: lacks rec_conv2.bias; has also last.bias"
    )
    narrow = weights | {"rec_conv2.weight": torch.zeros(1, 32, 3, 3)}
    assert "has another shape of rec_conv2.weight [1, 32, 3, 3] instead of [1, 64, 3, 3]" in refused(narrow)
    assert "lacks" in refused({}) and "and 165 more" in refused({})
    assert "rec_conv2.bias, of shape [1], has NaN" in refused(weights | {"rec_conv2.bias": torch.tensor([torch.nan])})
    assert refused([1, 2]) == f"{path}: a list, expected the weights of Spk2ImgNet by name"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"w\.pth: not a readable checkpoint"):
        load_spk2imgnet(path)
    with pytest.raises(ValueError, match=r"none\.pth: no such checkpoint"):
        load_spk2imgnet(tmp_path / "none.pth")


def test_images_are_taken_around_the_instant_and_divided_by_the_gain():
    """The untrained small network is TFP(13)."""
    spikes = np.random.default_rng(0).integers(0, 2, (177, 6, 5)).astype(np.uint8)
    image = Spk2Img(SmallSpk2ImgNet())(SpikeStream.from_array(spikes), WindowSpec(), SensorModel(gain=0.5), 0.25)
    expected = torch.from_numpy(spikes[40 + 24 - 6 : 40 + 24 + 7]).float().mean(0) / 0.5
    torch.testing.assert_close(image[0], expected)


def test_the_colors_of_a_color_sensor_are_separate_images():
    spikes = np.zeros((177, 8, 8), np.uint8)
    spikes[:, ::2, ::2] = 1  # red alone fires
    network = SmallSpk2ImgNet()
    torch.nn.init.normal_(network.rec_conv2.weight)
    stream = SpikeStream.from_array(spikes)
    mosaic, plain = (Spk2Img(network)(s, WindowSpec(), SensorModel())[0] for s in (stream.with_filters("RGGB"), stream))
    red = Spk2Img(network)(SpikeStream.from_array(spikes[:, ::2, ::2]), WindowSpec(), SensorModel())[0]
    torch.testing.assert_close(mosaic[::2, ::2], red)
    assert (plain[::2, ::2] - red).abs().max() > 0.1


def pictures() -> MovingPictures:
    x = torch.linspace(0, 12, 90)
    return MovingPictures([0.5 + 0.4 * torch.sin(x) * torch.cos(1.3 * x)[:, None]], side=16)


def test_samples_are_spikes_of_their_images():
    batch = pictures().batch(6, torch.Generator().manual_seed(0))
    assert batch.spikes.shape == batch.images.shape == (6, FRAMES, 16, 16) and batch.gain.shape == (6,)
    assert set(batch.spikes.unique().tolist()) == {0.0, 1.0}
    rates = batch.spikes.mean((1, 2, 3))
    expected = batch.gain * batch.images.mean((1, 2, 3))
    assert (rates - expected).min() > -0.01 and (rates - expected).max() < 0.02  # up to 1 % spurious spikes
    assert (batch.images[:, 0] - batch.images[:, -1]).abs().mean() > 0.02  # they move
    again = pictures().batch(6, torch.Generator().manual_seed(0))
    assert torch.equal(again.spikes, batch.spikes)


def test_a_few_steps_learn():
    torch.manual_seed(0)
    network, data = SmallSpk2ImgNet(features=8, blocks=1), pictures()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    batch = data.batch(2, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(12):
        loss = supervised_loss(*network.rates(batch.spikes), batch.images[:, list(CENTERS)], batch.gain)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_weights_are_written_in_half_precision(tmp_path):
    save_weights(tmp_path / "w.pth", SmallSpk2ImgNet())
    assert (tmp_path / "w.pth").stat().st_size < 600_000
