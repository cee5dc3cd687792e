"""Spike streams: reading, windows, sensor model and targets (no cameras, no scene).

``python -m spike`` is the command-line toolbox.
"""

from spike.bayer import Mosaic, bayer_channels
from spike.calibration import calibrate, find_stuck, load_sensor, save_sensor
from spike.fixed_pattern import FixedPattern
from spike.sensor import SensorModel
from spike.stream import Layout, Packing, SpikeStream, write_array, write_dat
from spike.stuck import StuckPixels
from spike.targets import Targets, long_input, short_windows, tfi, tfp, window_quadrature
from spike.timing import estimate_spurious_rate
from spike.window import WindowSpec

__all__ = [
    "FixedPattern",
    "Layout",
    "Mosaic",
    "Packing",
    "SensorModel",
    "SpikeStream",
    "StuckPixels",
    "Targets",
    "WindowSpec",
    "bayer_channels",
    "calibrate",
    "estimate_spurious_rate",
    "find_stuck",
    "load_sensor",
    "long_input",
    "save_sensor",
    "short_windows",
    "tfi",
    "tfp",
    "window_quadrature",
    "write_array",
    "write_dat",
]
