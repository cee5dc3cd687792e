"""Recon-Net's images of an exposure, on the full frame or on crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recon_net.network import Recorded, SpikeToImage
from utils.crops import Crop


def recon_frames(network: SpikeToImage, exposure: Recorded, u: Tensor, crop: Crop) -> Tensor:
    """I_rec(t_m) [M, C, h, w] on a crop, computed with enough surround to equal the full frame.

    Args:
        u: times [M] of all sub-frames in the exposure, on the network's device.
    """
    height, width = exposure.long.shape[-2:]
    outer = crop.grown(network.receptive_radius, height, width)
    short, long = network.inputs(exposure, torch.arange(len(u)), outer)
    frames = network(short.to(u.device), long.to(u.device), u[None])[0]
    return crop.within(outer).of(frames)


def instant_frames(
    network: SpikeToImage, exposures: Sequence[Recorded], subframes: Tensor, u: Tensor, crops: Sequence[Crop]
) -> tuple[Tensor, Tensor]:
    """I_rec at single sub-frames [B] of several exposures, on crops of one size.

    Args:
        u: times [M] of all sub-frames in the exposure, on the network's device.

    Returns:
        frames [B, C, h, w], and a mask [B, 1, h, w] of the pixels whose value equals the full frame's.
    """
    shorts, longs, masks = [], [], []
    for exposure, m, crop in zip(exposures, subframes, crops, strict=True):
        short, long = network.inputs(exposure, m[None], crop)
        shorts.append(short)
        longs.append(long)
        masks.append(crop.inner(network.receptive_radius, *exposure.long.shape[-2:]))
    frames = network(torch.cat(shorts).to(u.device), torch.cat(longs).to(u.device), u[subframes][:, None])
    return frames[:, 0], torch.stack(masks)[:, None].to(u.device)
