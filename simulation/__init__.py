"""Simulated recordings: sensor pixels, meshes, camera paths and the demo scene."""

from simulation.sensor import Simulator, simulate

__all__ = ["Simulator", "simulate"]
