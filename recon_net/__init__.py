"""Recon-Net: the networks that reconstruct sharp images from spikes (no poses, no scene)."""

from recon_net.frames import inner_masks, instant_frames, recon_frames
from recon_net.network import ReconNet, SlimReconNet, SpikeToImage, make_network

__all__ = ["ReconNet", "SlimReconNet", "SpikeToImage", "inner_masks", "instant_frames", "make_network", "recon_frames"]
