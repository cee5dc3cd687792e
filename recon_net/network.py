"""Recon-Net: from spikes to a sharp image at a chosen instant.

``ReconNet`` is the paper's network (supplement E and Fig. 3).  ``SlimReconNet`` starts from the intensities given by
the spike times and learns the residual, with less than a quarter of the multiplications.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spike.targets import Grouping, long_input, short_windows
from spike.window import WindowSpec
from utils.crops import Crop


class Recorded(Protocol):
    """The data of a view's exposure that the networks read: intensities and spikes (``scene.exposure.Exposure``)."""

    spec: WindowSpec | None

    @property
    def long(self) -> Tensor:
        """E(T) [1, H, W]."""

    @property
    def subframes(self) -> Tensor | None:
        """Narrow windows around the sub-frames [M, 1, H, W]."""

    @property
    def wide(self) -> Tensor | None:
        """Half-width windows around the sub-frames [M, 1, H, W]."""

    def cropped(self, crop: Crop) -> Recorded:
        """The same on a crop, its spikes excepted."""

    def spikes(self, crop: Crop) -> Tensor:
        """The context's spikes [T, h, w] on a crop."""


class SpikeToImage(nn.Module):
    """Base class of the networks that reconstruct sharp images at chosen instants from a view's spikes.

    Attributes:
        variant: name in settings and files.
        channels: numbers of channels of the short and the long input.
        grouping: how the long input sums frames (``spike.targets.long_input``).
        receptive_radius: radius of the receptive field, pixels.  A crop computed with this much surround equals
            the same crop of the full frame.
        reads_wide: whether the inputs need the half-width windows.
        reads_spikes: whether the inputs are the spikes themselves.
    """

    variant: str
    channels: tuple[int, int]
    grouping: Grouping = "adjacent"
    receptive_radius: int
    reads_wide = False
    reads_spikes = False

    def inputs(self, exposure: Recorded, subframes: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
        """Inputs for some sub-frames [S] of a view, on a crop: short [1, S, ., h, w] and long [1, ., h, w]."""
        raise NotImplementedError

    def frames(self, short: Tensor, long: Tensor, u: Tensor) -> Tensor:
        """``forward`` in the precision of the layers."""
        raise NotImplementedError

    def forward(self, short: Tensor, long: Tensor, u: Tensor) -> Tensor:
        """Intensities [V, S, 1, h, w], float32, at the times ``u`` [V, S] in [0, 1] of V views."""
        with autocast(short.device):
            return self.frames(short, long, u)


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ReconNet(SpikeToImage):
    """The paper's network: 3x3 convolutions on a short spike window and a long voxelized one.

    Args:
        short_channels: frames in the short window (41).
        long_channels: voxel frames of the long input (34).
        grouping: how the long input sums frames (``spike.targets.long_input``).

    The feature is the sum of both branches and of the time ``u`` (added to every channel).  Layers preserve the
    image size; all but the last are followed by a ReLU.
    """

    variant = "paper"
    reads_spikes = True
    receptive_radius = 5  # one input layer and four body layers of 3x3

    def __init__(self, short_channels: int = 41, long_channels: int = 34, grouping: Grouping = "adjacent"):
        super().__init__()
        self.channels = short_channels, long_channels
        self.grouping: Grouping = grouping
        self.short = _conv(short_channels, 64)
        self.long = _conv(long_channels, 64)
        self.body = nn.ModuleList([_conv(64, 128), _conv(128, 64), _conv(64, 16), _conv(16, 1)])
        # Blocked CPU kernels and tensor cores are both fastest with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def inputs(self, exposure: Recorded, subframes: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
        """Inputs for some sub-frames [S] of a view: short [1, S, 41, h, w] and long [1, 34, h, w]."""
        assert exposure.spec is not None, "an exposure read from an image has no spikes"
        spikes = exposure.spikes(crop)
        short = short_windows(spikes, exposure.spec)[subframes]
        return short.float()[None], long_input(spikes, exposure.spec, grouping=self.grouping)[None].float()

    def long_features(self, long: Tensor) -> Tensor:
        """Features [V, 64, h, w] of the long inputs ``long`` [V, 34, h, w]: computed per view, not per frame."""
        return F.relu(self.long(long.contiguous(memory_format=torch.channels_last)))

    def frames(self, short: Tensor, long: Tensor, u: Tensor) -> Tensor:
        """Sharp images [V, S, 1, h, w], in the precision of the layers.

        Args:
            short: short windows [V, S, 41, h, w], S instants for each of V views.
            long: long inputs [V, 34, h, w].
            u: times in the exposure [V, S], in [0, 1].
        """
        v, s = short.shape[:2]
        windows = short.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = F.relu(self.short(windows))
        context = self.long_features(long)
        if s > 1:
            context = context.repeat_interleave(s, dim=0)
        x = features + context + u.reshape(-1, 1, 1, 1).to(features.dtype)
        for layer in self.body[:-1]:
            x = F.relu(layer(x))
        return self.body[-1](x).float().unflatten(0, (v, s))


class SlimReconNet(SpikeToImage):
    """A residual on the intensity of a narrow window, computed from neighboring narrow windows and wider ones.

    If the targets come from spike times, a narrow window is already close to the sharp image.  The rest is noise, which
    neighboring instants and the wider windows help to distinguish from texture.

    Args:
        short_channels: images around the instant; the one in the middle of ``neighbors`` is the base.
        long_channels: images of the whole exposure.
        width: number of features.
    """

    variant = "slim"
    neighbors = 5  # narrow windows of the sub-frames m-2 .. m+2
    receptive_radius = 4
    reads_wide = True

    def __init__(self, short_channels: int = neighbors + 1, long_channels: int = 1, width: int = 48):
        super().__init__()
        self.channels = short_channels, long_channels
        self.layers = nn.ModuleList(
            [
                _conv(short_channels + long_channels + 1, width),
                _conv(width, width),
                _conv(width, width),
                _conv(width, 1),
            ]
        )
        # Start with zero correction: training continues from the base instead of having to find it again.
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def inputs(self, exposure: Recorded, subframes: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
        """Inputs for some sub-frames [S] of a view: short [1, S, 6, h, w] and long [1, 1, h, w]."""
        part = exposure.cropped(crop)
        narrow, wide, reach = part.subframes, part.wide, self.neighbors // 2
        assert narrow is not None and wide is not None, "the exposure has no windows"
        around = (subframes[:, None] + torch.arange(-reach, reach + 1)).clamp(0, len(narrow) - 1)
        near = narrow[around][:, :, 0]
        return torch.cat([near, wide[subframes]], dim=1)[None], part.long[None]

    def frames(self, short: Tensor, long: Tensor, u: Tensor) -> Tensor:
        """Sharp images [V, S, 1, h, w], in the precision of the layers.

        Args:
            short: windows around the instants [V, S, 6, h, w], intensities.
            long: long exposures [V, 1, h, w].
            u: times in the exposure [V, S].
        """
        v, s, _, h, w = short.shape
        base = short[:, :, self.neighbors // 2 : self.neighbors // 2 + 1]
        shared = long[:, None].expand(v, s, -1, h, w)
        time = u[..., None, None, None].expand(v, s, 1, h, w)
        x = torch.cat([short, shared, time], dim=2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for layer in self.layers[:-1]:
            # Leaky: against a good scene, zero correction is so close to optimal that plain ReLUs die.
            x = F.leaky_relu(layer(x), 0.1)
        return base + self.layers[-1](x).float().unflatten(0, (v, s))


def make_network(
    variant: str, short_channels: int, long_channels: int, grouping: Grouping = "adjacent"
) -> SpikeToImage:
    """Create the network ``variant`` (paper or slim); channels and grouping apply to the paper's inputs."""
    if variant == "slim":
        return SlimReconNet()
    if variant == "paper":
        return ReconNet(short_channels, long_channels, grouping)
    raise ValueError(f"Recon-Net {variant!r} is unknown; expected paper or slim")


def autocast(device: torch.device) -> torch.autocast:
    """Use bfloat16 convolutions if the hardware supports bfloat16, float32 otherwise."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.backends.mkldnn.is_available()
    return torch.autocast("cpu", torch.bfloat16, enabled=native)
