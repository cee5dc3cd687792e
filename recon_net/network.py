"""Recon-Net: from spikes to a sharp image at a chosen instant (paper supplement E and Fig. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ReconNet(nn.Module):
    """The paper's network: 3x3 convolutions on a short spike window and a long voxelised one.

    Args:
        short_channels: frames in the short window (41).
        long_channels: voxel frames of the long input (34).

    The sum of both branches and of the time ``u`` (added to every channel) is the feature.  Layers keep the
    image size; all but the last are followed by a ReLU.
    """

    # How far a pixel's value reaches: one input layer and four body layers of 3x3.  A crop computed with
    # this much surround equals the same crop of the full frame.
    receptive_radius = 5

    def __init__(self, short_channels: int = 41, long_channels: int = 34):
        super().__init__()
        self.short = _conv(short_channels, 64)
        self.long = _conv(long_channels, 64)
        self.body = nn.ModuleList([_conv(64, 128), _conv(128, 64), _conv(64, 16), _conv(16, 1)])
        # Blocked kernels of the CPU and tensor cores both want channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def long_features(self, long: Tensor) -> Tensor:
        """Features [V, 64, h, w] of the long inputs ``long`` [V, 34, h, w]: once a view, not once a frame."""
        return F.relu(self.long(long.contiguous(memory_format=torch.channels_last)))

    def forward(self, short: Tensor, long: Tensor, u: Tensor) -> Tensor:
        """Sharp images.

        Args:
            short: short windows [V, S, 41, h, w], S instants for each of V views.
            long: long inputs [V, 34, h, w].
            u: times in the exposure [V, S], in [0, 1].

        Returns:
            Intensities [V, S, 1, h, w], float32.
        """
        v, s = short.shape[:2]
        with autocast(short.device):
            frames = short.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            features = F.relu(self.short(frames))
            context = self.long_features(long)
            if s > 1:
                context = context.repeat_interleave(s, dim=0)
            x = features + context + u.reshape(-1, 1, 1, 1).to(features.dtype)
            for layer in self.body[:-1]:
                x = F.relu(layer(x))
            x = self.body[-1](x)
        return x.float().unflatten(0, (v, s))


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 convolutions where the hardware multiplies bfloat16, plain float32 elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.backends.mkldnn.is_available()
    return torch.autocast("cpu", torch.bfloat16, enabled=native)
