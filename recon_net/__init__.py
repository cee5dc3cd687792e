"""Recon-Net: the networks that turn spikes into sharp images (no poses, no scene)."""

from recon_net.network import ReconNet, SlimReconNet, make_network

AnyReconNet = ReconNet | SlimReconNet

__all__ = ["AnyReconNet", "ReconNet", "SlimReconNet", "make_network"]
