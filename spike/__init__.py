"""Spike streams: reading, windows, sensor model, targets, simulation (no cameras, no scene)."""

from spike.sensor import SensorModel, Simulator
from spike.stream import SpikeStream, write_dat
from spike.targets import Targets, long_input, short_windows, tfi, tfp
from spike.window import WindowSpec

__all__ = [
    "SensorModel",
    "Simulator",
    "SpikeStream",
    "Targets",
    "WindowSpec",
    "long_input",
    "short_windows",
    "tfi",
    "tfp",
    "write_dat",
]
