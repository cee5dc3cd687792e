"""Scenes: readers, cameras, Gaussians, trajectories, densification (no losses, no command line)."""
