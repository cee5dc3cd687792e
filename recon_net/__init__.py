"""Recon-Net: the network that turns spikes into sharp images (no poses, no scene)."""

from recon_net.network import ReconNet

__all__ = ["ReconNet"]
