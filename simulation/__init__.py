"""Recordings made on the computer: the sensor's pixels, meshes, camera paths, the demo's scene."""

from simulation.sensor import Simulator, simulate

__all__ = ["Simulator", "simulate"]
