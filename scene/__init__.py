"""Scenes: readers, cameras, Gaussians, trajectories, densification; no losses are computed, only ``__main__`` talks."""
