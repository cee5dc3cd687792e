"""Preview images of a recording at any frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spike.bayer import BayerPattern, Mosaic
from spike.sensor import SensorModel
from spike.stream import SpikeStream
from spike.targets import SMOOTHING, tfi, tfp, window_weights
from spike.timing import frame_charge
from utils.io import LUMA

Method = Literal["timing", "tfp", "tfi"]

# Frames on either side whose spikes are used: most pixels fire within this many.  In little light they are more, until
# an average pixel has fired this often, but not more than the limit.
_REACH, _FIRED, _LIMIT = 60, 3, 200
# A pixel is a speckle if it lies outside the range of its eight neighbors by this share.  On a simulated walk with 0.03
# spikes per frame and pixel, images gained 2.3 dB; from 0.1 to 0.4, all were within 0.3 dB.
_SPECKLE = 0.25
# Spikes that a counting window holds on average, if it may be as long as that needs.
_COUNTED, _COUNTING = 2, (9, 401)


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
    first, spikes = _around(stream, frame, reach)
    if method != "tfp" and float(spikes.mean()) * _REACH < _FIRED:
        wanted = int(min(_FIRED / max(float(spikes.mean()), 1e-6), _LIMIT))
        first, spikes = _around(stream, frame, width // 2 + wanted)
    middle = frame - first
    if method == "tfi":
        return sensor.intensity(tfi(spikes, middle), spurious_left=False)
    start, stop = max(middle - width // 2, 0), min(middle + width // 2 + 1, len(spikes))
    if method == "tfp":
        return sensor.intensity(tfp(spikes, start, stop))
    charge = torch.from_numpy(frame_charge(spikes, spurious_rate))
    rate = charge @ torch.from_numpy(window_weights(len(spikes), start, stop, SMOOTHING))
    return sensor.intensity(rate.reshape(stream.height, stream.width), spurious_left=spurious_rate == 0)


def counting_width(stream: SpikeStream, frames: Sequence[int]) -> int:
    """Length (odd) of windows around ``frames`` in which an average pixel fires twice, from 9 to 401 frames."""
    some = frames[:: max(len(frames) // 8, 1)]
    level = np.mean([_around(stream, frame, 32)[1].mean() for frame in some])
    low, high = _COUNTING
    return int(np.clip(math.ceil(_COUNTED / max(float(level), 1e-6)), low, high)) // 2 * 2 + 1


def _around(stream: SpikeStream, frame: int, reach: int) -> tuple[int, NDArray[np.uint8]]:
    """The first of the frames within ``reach`` of ``frame``, and their spikes [T, H, W]."""
    first = max(frame - reach, 0)
    return first, stream.unpack(first, min(frame + reach + 1, len(stream)))


def despeckled(image: Tensor) -> Tensor:
    """An image [H, W] in which pixels far outside the range of their eight neighbors have the neighbors' median.

    In little light, a spurious spike doubles the intensity that a pixel's interval gives, and few spikes cannot be
    tested.
    """
    if min(image.shape) < 2:
        return image
    around = F.unfold(F.pad(image[None, None], (1, 1, 1, 1), mode="reflect"), 3)[0]
    others = torch.cat([around[:4], around[5:]])
    low, high = (bound.reshape(image.shape) for bound in (others.amin(0), others.amax(0)))
    speckle = (image > high * (1 + _SPECKLE)) | (image < low * (1 - _SPECKLE))
    return torch.where(speckle, others.median(0).values.reshape(image.shape), image)


def colored(pixels: Tensor, bayer: BayerPattern | None) -> Tensor:
    """The pixels [H, W] unchanged, or demosaiced to [H, W, 3] for a color sensor."""
    return pixels if bayer is None else Mosaic(bayer).colors(pixels[None]).permute(1, 2, 0)


def gray(image: Tensor) -> Tensor:
    """Convert an image from ``picture`` to gray [H, W]: the luma of colors [H, W, 3]."""
    return image if image.ndim == 2 else image @ image.new_tensor(LUMA)
