"""Spk2ImgNet (Zhao, Xiong, Liu, Zhang, Huang, CVPR 2021): an image from 41 spike frames by a supervised network.

The layers, their names in checkpoints and the loss are those of the authors' repository (Vspacer/Spk2ImgNet), from
which no code is taken: ``Spk2ImgNet`` reads its published weights.  ``SmallSpk2ImgNet`` has the same topology with
fewer features, and starts as the mean of the middle 13 frames; its weights, trained by
``benchmarks/train_spk2imgnet.py``, are in this repository.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.images import color_planes
from recon_net.network import autocast
from spike import SensorModel, SpikeStream, WindowSpec
from utils.checkpoint import read_state
from utils.io import atomic_write

FRAMES = 41
# Overlapping blocks of frames: their starts, length, and the middle frame of each.
STARTS = (0, 7, 14, 21, 28)
BLOCK = 13
CENTERS = tuple(start + BLOCK // 2 for start in STARTS)
# The middle block, to which the others are aligned.
MIDDLE = len(STARTS) // 2
OTHERS = tuple(b for b in range(len(STARTS)) if b != MIDDLE)
# Branches of the extractor; branch k leaves out k frames at either end of a block.
BRANCHES = 4
# Taps of a 3x3 kernel as offsets (row, column) from its center.
_TAPS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
SMALL_WEIGHTS = Path(__file__).parent / "spk2imgnet_small.pth"


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, 1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def deform_conv(x: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Modulated deformable 3x3 convolution (Zhu et al. 2019) with padding 1: [B, C', H, W].

    It samples the displaced taps of each group by one ``grid_sample``, and multiplies them with the weights.  On CPUs
    this is several times faster than torchvision's ``deform_conv2d``, which is scalar.

    Args:
        x: [B, C, H, W].
        offsets: rows and columns by which the taps are displaced, in pixels: [B, G * 9 * 2, H, W], the channels in
            the order of groups, taps, (row, column).
        modulation: factors of the taps [B, G * 9, H, W].
        weight, bias: [C', C, 3, 3] and [C'].
    """
    b, c, h, w = x.shape
    groups = modulation.shape[1] // len(_TAPS)
    taps = x.new_tensor(_TAPS)[None, :, :, None, None]
    pixels = torch.stack(torch.meshgrid(x.new_tensor(range(h)), x.new_tensor(range(w)), indexing="ij"))
    at = offsets.reshape(b * groups, len(_TAPS), 2, h, w) + taps + pixels
    # In grid_sample's coordinates, where -1 and 1 are the outer edges of the image.
    rows, columns = (2 * at[:, :, 0] + 1) / h - 1, (2 * at[:, :, 1] + 1) / w - 1
    grid = torch.stack([columns, rows], dim=-1).reshape(b * groups, len(_TAPS) * h, w, 2)
    sampled = F.grid_sample(x.reshape(b * groups, c // groups, h, w), grid, padding_mode="zeros", align_corners=False)
    sampled = sampled.reshape(b, groups, c // groups, len(_TAPS), h, w)
    sampled = sampled * modulation.reshape(b, groups, 1, len(_TAPS), h, w)
    out = weight.reshape(len(weight), -1) @ sampled.reshape(b, c * len(_TAPS), h * w)
    return out.reshape(b, len(weight), h, w) + bias[:, None, None]


class DeformConv(nn.Module):
    """Deformable convolution whose offsets and modulation are computed from a feature."""

    def __init__(self, features: int, groups: int):
        super().__init__()
        reach = 1 / math.sqrt(features * len(_TAPS))
        self.weight = nn.Parameter(torch.empty(features, features, 3, 3).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.zeros(features))
        self.conv_offset_mask = _conv(features, groups * 3 * len(_TAPS))
        nn.init.zeros_(self.conv_offset_mask.weight)
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """The convolution of ``x`` [B, F, H, W] with the taps that ``feature`` [B, F, H, W] displaces."""
        offsets, mask = self.conv_offset_mask(feature).float().tensor_split([self.split], dim=1)
        # Positions in bfloat16 would be off by pixels.
        with torch.autocast(x.device.type, enabled=False):
            return deform_conv(x.float(), offsets, mask.sigmoid(), self.weight, self.bias)

    @property
    def split(self) -> int:
        """Number of offset channels; the modulation follows them."""
        return self.conv_offset_mask.out_channels * 2 // 3


class _Residual(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (_conv(features, features) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


class _Gate(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.ca_block = nn.Sequential(
            _conv(channels, 2 * channels), nn.ReLU(), _conv(2 * channels, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.ca_block(x)


class _Extractor(nn.Module):
    """A block's feature, and its four estimates of the rate in the middle of the block."""

    def __init__(self, features: int, blocks: int):
        super().__init__()
        for k in range(BRANCHES):
            setattr(self, f"conv0_{k}", _conv(BLOCK - 2 * k, 16))
            setattr(self, f"conv1_{k}", _conv(16, 1))
        self.ca = _Gate(BRANCHES)
        self.conv = _conv(BRANCHES, features)
        self.net = nn.Sequential(*[_Residual(features) for _ in range(blocks)])

    def branch(self, k: int) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The two layers of branch ``k``."""
        return getattr(self, f"conv0_{k}"), getattr(self, f"conv1_{k}")

    def forward(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Feature [B, F, H, W] and estimates [B, 4, H, W] of a block of frames [B, 13, H, W]."""
        found = []
        for k in range(BRANCHES):
            first, second = self.branch(k)
            found.append(second(F.relu(first(block[:, k : BLOCK - k]))))
        estimates = torch.cat(found, dim=1)
        feature = F.relu(self.conv(self.ca(estimates)))
        return feature + self.net(feature), estimates


class _Cascade(nn.Module):
    """Aligns a feature to a reference on three levels, the coarsest first, and once more at the end."""

    def __init__(self, features: int, groups: int):
        super().__init__()
        f = features
        self.L3_offset_conv1_1, self.L3_offset_conv2_1 = _conv(2 * f, f), _conv(f, f)
        self.L3_dcnpack_1 = DeformConv(f, groups)
        for level in ("L2", "L1"):
            setattr(self, f"{level}_offset_conv1_1", _conv(2 * f, f))
            setattr(self, f"{level}_offset_conv2_1", _conv(2 * f, f))
            setattr(self, f"{level}_offset_conv3_1", _conv(f, f))
            setattr(self, f"{level}_dcnpack_1", DeformConv(f, groups))
            setattr(self, f"{level}_fea_conv_1", _conv(2 * f, f))
        self.cas_offset_conv1, self.cas_offset_conv2 = _conv(2 * f, f), _conv(f, f)
        self.cas_dcnpack = DeformConv(f, groups)

    def forward(self, other: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> Tensor:
        """``other`` aligned to ``reference`` [B, F, H, W]; both are pyramids, finest level first."""
        offset = _leaky(self.L3_offset_conv1_1(torch.cat([other[2], reference[2]], 1)))
        offset = _leaky(self.L3_offset_conv2_1(offset))
        aligned = _leaky(self.L3_dcnpack_1(other[2], offset))
        aligned, offset = self._finer("L2", other[1], reference[1], aligned, offset)
        aligned, _ = self._finer("L1", other[0], reference[0], _leaky(aligned), offset)
        offset = _leaky(self.cas_offset_conv1(torch.cat([aligned, reference[0]], 1)))
        offset = _leaky(self.cas_offset_conv2(offset))
        return _leaky(self.cas_dcnpack(aligned, offset))

    def _finer(
        self, level: str, other: Tensor, reference: Tensor, coarse: Tensor, coarse_offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The aligned feature, without its activation, and the offset feature of the next finer level."""
        first, second, third, deform, fuse = (
            getattr(self, f"{level}_{name}_1")
            for name in ("offset_conv1", "offset_conv2", "offset_conv3", "dcnpack", "fea_conv")
        )
        offset = _leaky(first(torch.cat([other, reference], 1)))
        # A displacement by one pixel of the coarse level is one by two pixels of this level.
        offset = _leaky(second(torch.cat([offset, 2 * _enlarged(coarse_offset)], 1)))
        offset = _leaky(third(offset))
        return fuse(torch.cat([deform(other, offset), _enlarged(coarse)], 1)), offset


class _Alignment(nn.Module):
    def __init__(self, features: int, groups: int):
        super().__init__()
        self.fea_L2_conv1, self.fea_L2_conv2 = _conv(features, features, 2), _conv(features, features)
        self.fea_L3_conv1, self.fea_L3_conv2 = _conv(features, features, 2), _conv(features, features)
        self.pcd_align = _Cascade(features, groups)

    def pyramid(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The feature at full, half and quarter resolution."""
        half = _leaky(self.fea_L2_conv2(_leaky(self.fea_L2_conv1(feature))))
        quarter = _leaky(self.fea_L3_conv2(_leaky(self.fea_L3_conv1(half))))
        return feature, half, quarter

    def forward(self, features: Tensor) -> list[Tensor]:
        """The features of all blocks [B, 5, F, H, W], each aligned to the middle block: 5 of [B, F, H, W]."""
        b, blocks = features.shape[:2]
        pyramid = [level.unflatten(0, (b, blocks)) for level in self.pyramid(features.flatten(0, 1))]
        others = tuple(level[:, list(OTHERS)].flatten(0, 1) for level in pyramid)
        reference = tuple(
            level[:, MIDDLE : MIDDLE + 1].expand(-1, len(OTHERS), -1, -1, -1).flatten(0, 1) for level in pyramid
        )
        aligned = list(self.pcd_align(others, reference).unflatten(0, (b, len(OTHERS))).unbind(1))
        return [*aligned[:MIDDLE], features[:, MIDDLE], *aligned[MIDDLE:]]


class _Mask(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.conv0 = _conv(2 * features, features)
        self.conv1, self.conv2 = _conv(features, features), _conv(features, features)
        self.prelu0, self.prelu1 = nn.PReLU(), nn.PReLU()

    def forward(self, aligned: Tensor, reference: Tensor) -> Tensor:
        x = self.prelu0(self.conv0(torch.cat([aligned, reference], 1)))
        return aligned * self.conv2(self.prelu1(self.conv1(x))).sigmoid()


class Spk2ImgNet(nn.Module):
    """The network of the publication: from 41 spike frames to the rate at their middle.

    Args:
        features: channels of the features.
        blocks: residual blocks of the extractor.
        groups: groups of the deformable convolutions.
    """

    # Whether spurious spikes are still counted in the rates.
    spurious_left = True

    def __init__(self, features: int = 64, blocks: int = 10, groups: int = 8):
        super().__init__()
        self.extractor = _Extractor(features, blocks)
        for b in OTHERS:
            setattr(self, f"mask{b}", _Mask(features))
        self.rec_conv0 = _conv(len(STARTS) * features, 3 * features)
        self.rec_conv1, self.rec_conv2 = _conv(3 * features, features), _conv(features, 1)
        self.pcd_align = _Alignment(features, groups)

    def rates(self, spikes: Tensor) -> tuple[Tensor, Tensor]:
        """Rates (spikes per frame) [B, 1, H, W] at the middle frame, and the estimates [B, 5, 4, H, W] of all blocks.

        Args:
            spikes: zeros and ones [B, 41, H, W]; H and W are multiples of 4.
        """
        blocks = torch.stack([spikes[:, start : start + BLOCK] for start in STARTS], 1)
        features, estimates = (
            part.unflatten(0, blocks.shape[:2]) for part in self.extractor(blocks.flatten(0, 1))
        )
        aligned = self.pcd_align(features)
        reference = aligned[MIDDLE]
        for b in OTHERS:
            aligned[b] = getattr(self, f"mask{b}")(aligned[b], reference)
        x = F.relu(self.rec_conv0(torch.cat([part.to(reference.dtype) for part in aligned], 1)))
        rate = self.rec_conv2(F.relu(self.rec_conv1(x)))
        return rate.float() + self.base(spikes), estimates.float()

    def base(self, spikes: Tensor) -> Tensor | float:
        """A rate that the last layer corrects."""
        return 0.0

    def forward(self, spikes: Tensor) -> Tensor:
        """Rates [B, 1, H, W], float32, at the middle of the frames [B, 41, H, W] of any size."""
        height, width = spikes.shape[-2:]
        rows, columns = (_mirrored(size, spikes.device) for size in (height, width))
        padded = spikes.float()[:, :, rows][:, :, :, columns].contiguous(memory_format=torch.channels_last)
        with autocast(spikes.device):
            return self.rates(padded)[0][..., :height, :width]


def _mirrored(size: int, device: torch.device) -> Tensor:
    """Indices of a side of ``size`` pixels, padded to a multiple of 4 by mirroring its end."""
    at = torch.arange(-(-size // 4) * 4, device=device)
    return torch.where(at < size, at, 2 * size - 1 - at).clamp_min(0)


class SmallSpk2ImgNet(Spk2ImgNet):
    """Spk2ImgNet with fewer features, which corrects the mean of the middle block and starts as it.

    Besides, its initial weights keep the size of activations: the published network's take hours to learn anything.
    """

    spurious_left = False  # trained to leave them out

    def __init__(self, features: int = 16, blocks: int = 4, groups: int = 4):
        super().__init__(features, blocks, groups)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                _he_normal(layer)
            if isinstance(layer, DeformConv):
                # The modulation starts as 1/2.
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                _scaled(layer.weight, 2.0)
        for layer in self.modules():
            if isinstance(layer, DeformConv):
                _scaled(layer.conv_offset_mask.weight, 0.0)
            if isinstance(layer, _Residual):
                _scaled(layer.conv3.weight, 0.1)
        for k in range(BRANCHES):
            first, second = self.extractor.branch(k)
            _scaled(first.weight, 0.2)
            _scaled(second.weight, 0.02)
            with torch.no_grad():  # the first channel is the mean of the frames
                first.weight[0] = 0
                first.weight[0, :, 1, 1] = 1 / first.in_channels
                second.weight[0, 0] = 0
                second.weight[0, 0, 1, 1] = 1
        last = self.extractor.ca.ca_block[2]
        assert isinstance(last, nn.Conv2d)
        _scaled(last.weight, 0.0)
        _scaled(self.rec_conv2.weight, 0.0)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def base(self, spikes: Tensor) -> Tensor:
        """The mean of the middle block [B, 1, H, W]."""
        return spikes[:, STARTS[MIDDLE] : STARTS[MIDDLE] + BLOCK].float().mean(1, keepdim=True)


def _he_normal(layer: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(layer.weight, a=0.1)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _scaled(weight: Tensor, factor: float) -> None:
    with torch.no_grad():
        weight.mul_(factor)


# Weight of the estimates in the loss.
ESTIMATES = 0.02


def supervised_loss(rate: Tensor, estimates: Tensor, truth: Tensor, gain: Tensor) -> Tensor:
    """The publication's loss [], with each sample's own gain in place of its fixed one.

    L1 of the middle image, plus 0.02 times the sum of the L1 of all estimates.

    Args:
        rate: [B, 1, H, W].
        estimates: [B, 5, 4, H, W].
        truth: intensities [B, 5, H, W] at the middle frames of the blocks.
        gain: spikes per frame for white, [B].
    """
    middle = (rate[:, 0] / gain[:, None, None] - truth[:, MIDDLE]).abs().mean()
    errors = (estimates / gain[:, None, None, None, None] - truth[:, :, None]).abs()
    return middle + ESTIMATES * errors.mean((0, 3, 4)).sum()


def load_spk2imgnet(path: str | Path) -> Spk2ImgNet:
    """The published network with the weights of a file, on the CPU; no code in the file is executed.

    Names may begin with ``module.``, and the weights may be an entry ``state_dict`` of the file.

    Raises:
        ValueError: missing, damaged, or other names or shapes than the network's.
    """
    return _loaded(path, Spk2ImgNet())


def load_small() -> Spk2ImgNet:
    """``SmallSpk2ImgNet`` with the weights of this repository."""
    return _loaded(SMALL_WEIGHTS, SmallSpk2ImgNet())


def save_weights(path: str | Path, network: Spk2ImgNet) -> None:
    """Write a network's weights in half precision."""
    with atomic_write(path, "wb") as file:
        torch.save({name: value.half() for name, value in network.state_dict().items()}, file)


def _loaded(path: str | Path, network: Spk2ImgNet) -> Spk2ImgNet:
    stored = read_state(path)
    if isinstance(stored, dict) and isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"]
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: a {type(stored).__name__}, expected the weights of Spk2ImgNet by name")
    found = {str(name).removeprefix("module."): value for name, value in stored.items()}
    expected = network.state_dict()
    differences = [
        _listed("lacks", [name for name in expected if name not in found]),
        _listed("has also", [name for name in found if name not in expected]),
        _listed(
            "has another shape of",
            [
                f"{name} {_shape(found[name])} instead of {_shape(expected[name])}" for name in expected
                if name in found and _shape(found[name]) != _shape(expected[name])
            ],
        ),
    ]  # fmt: skip
    if any(differences):
        raise ValueError(f"{path}: not the weights of Spk2ImgNet: {'; '.join(filter(None, differences))}")
    network.load_state_dict({name: value.float() for name, value in found.items()})
    return network.eval()


def _shape(value: object) -> str:
    return str([*value.shape]) if isinstance(value, Tensor) else type(value).__name__


def _listed(what: str, names: list[str]) -> str:
    """A part of a sentence that names the first few; empty if there are none."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}" if names else ""


@dataclass(frozen=True)
class Spk2Img:
    """Images by Spk2ImgNet."""

    network: Spk2ImgNet

    @torch.no_grad()
    def __call__(self, stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> Tensor:
        """See ``baselines.images.ImageProvider``."""
        sensor.check_size(stream.height, stream.width, stream.name)
        frame = (len(stream) - spec.context) // 2 + spec.frame(u)
        frames = torch.from_numpy(stream.unpack(frame - FRAMES // 2, frame + FRAMES // 2 + 1))
        device = next(self.network.parameters()).device
        rate = torch.empty(frames.shape[1:])
        for one_color, spikes in zip(color_planes(rate, stream), color_planes(frames, stream), strict=True):
            one_color.copy_(self.network(spikes[None].to(device))[0, 0])
        return sensor.intensity(rate, spurious_left=self.network.spurious_left)[None]
