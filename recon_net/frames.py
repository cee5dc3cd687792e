"""Recon-Net's images of an exposure, on the full frame or on crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recon_net.network import Recorded, SpikeToImage
from utils.crops import Crop


def recon_frames(
    network: SpikeToImage, exposure: Recorded, u: Tensor, crop: Crop, subframes: Tensor | None = None
) -> Tensor:
    """I_rec(t_m) [B, C, h, w] on a crop, computed with enough surround to equal the full frame.

    Args:
        u: times [M] of all sub-frames in the exposure, on the network's device.
        subframes: indices [B] of the sub-frames to reconstruct; None means all of them.
    """
    subframes = torch.arange(len(u)) if subframes is None else subframes
    height, width = exposure.long.shape[-2:]
    outer = crop.grown(network.receptive_radius, height, width)
    short, long = network.inputs(exposure, subframes, outer)
    frames = network(short.to(u.device), long.to(u.device), u[None, subframes])[0]
    return crop.within(outer).of(frames)


def instant_frames(
    network: SpikeToImage, exposures: Sequence[Recorded], subframes: Tensor, u: Tensor, crops: Sequence[Crop]
) -> Tensor:
    """I_rec [B, C, h, w] at single sub-frames [B] of several exposures, on crops of one size.

    Args:
        u: times [M] of all sub-frames in the exposure, on the network's device.
    """
    shorts, longs = [], []
    for exposure, m, crop in zip(exposures, subframes, crops, strict=True):
        short, long = network.inputs(exposure, m[None], crop)
        shorts.append(short)
        longs.append(long)
    frames = network(torch.cat(shorts).to(u.device), torch.cat(longs).to(u.device), u[subframes][:, None])
    return frames[:, 0]


def inner_masks(network: SpikeToImage, crops: Sequence[Crop], height: int, width: int) -> Tensor:
    """Mask [B, 1, h, w] of the pixels of crops whose value equals that in the full frame [height, width]."""
    return torch.stack([crop.inner(network.receptive_radius, height, width) for crop in crops])[:, None]
