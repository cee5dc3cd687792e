"""Preview images of a recording at any frame."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from spike.bayer import BayerPattern, Mosaic
from spike.sensor import SensorModel
from spike.stream import SpikeStream
from spike.targets import SMOOTHING, tfi, tfp, window_weights
from spike.timing import frame_charge
from utils.io import LUMA

Method = Literal["timing", "tfp", "tfi"]

# Frames on either side whose spikes are used: most pixels fire within this many.
_REACH = 60


def picture(
    stream: SpikeStream,
    frame: int,
    method: Method = "timing",
    width: int = 9,
    sensor: SensorModel | None = None,
    spurious_rate: float = 0.0,
) -> Tensor:
    """Intensities [H, W] at ``frame`` of a recording, or [H, W, 3] for a color sensor.

    At the ends of the recording the window is clipped.

    Args:
        method: ``timing`` (from spike times), ``tfp`` (counted over ``width`` frames) or ``tfi`` (from the interval
            around the frame).
        width: window length in frames, odd (not used by ``tfi``).
        sensor: converts rates to intensities (default: the rates themselves).
        spurious_rate: expected spurious spikes per frame; ``timing`` drops spikes that break their pixel's rhythm.

    Raises:
        ValueError: unknown method, no such frame, or an even window.
    """
    if method not in get_args(Method):
        raise ValueError(f"the method must be one of {', '.join(get_args(Method))}, not {method!r}")
    if not 0 <= frame < len(stream):
        raise ValueError(f"{stream.name}: frame {frame} requested, but the stream has {len(stream)} frames")
    if width < 1 or width % 2 == 0:
        raise ValueError(f"the length of a window around a frame must be odd, not {width}")
    sensor = sensor or SensorModel()
    sensor.check_size(stream.height, stream.width, stream.name)
    return colored(_intensities(stream, frame, method, width, sensor, spurious_rate), stream.bayer)


def _intensities(
    stream: SpikeStream, frame: int, method: Method, width: int, sensor: SensorModel, spurious_rate: float
) -> Tensor:
    """Intensity [H, W] at every pixel, whatever its color filter."""
    reach = width // 2 + (0 if method == "tfp" else _REACH)
    first = max(frame - reach, 0)
    spikes = stream.unpack(first, min(frame + reach + 1, len(stream)))
    middle = frame - first
    if method == "tfi":
        return sensor.intensity(tfi(spikes, middle), spurious_left=False)
    start, stop = max(middle - width // 2, 0), min(middle + width // 2 + 1, len(spikes))
    if method == "tfp":
        return sensor.intensity(tfp(spikes, start, stop))
    charge = torch.from_numpy(frame_charge(spikes, spurious_rate))
    rate = charge @ torch.from_numpy(window_weights(len(spikes), start, stop, SMOOTHING))
    return sensor.intensity(rate.reshape(stream.height, stream.width), spurious_left=spurious_rate == 0)


def colored(pixels: Tensor, bayer: BayerPattern | None) -> Tensor:
    """The pixels [H, W] unchanged, or demosaiced to [H, W, 3] for a color sensor."""
    return pixels if bayer is None else Mosaic(bayer).colors(pixels[None]).permute(1, 2, 0)


def gray(image: Tensor) -> Tensor:
    """Convert an image from ``picture`` to gray [H, W]: the luma of colors [H, W, 3]."""
    return image if image.ndim == 2 else image @ image.new_tensor(LUMA)
