"""Scenes: readers, cameras, trajectories, exposures, and model folders; Gaussians are in ``gaussians``."""
