"""Sensor calibration from two recordings: one in the dark, one of an evenly lit field."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from spike.inspection import refuse_constant
from spike.sensor import LEAST_GAIN, Reset, SensorModel
from spike.stream import SpikeStream
from spike.stuck import StuckPixels, joined, stuck_pixels
from spike.timing import estimate_spurious_rate
from utils.io import atomic_write, write_json
from utils.json_files import number, read_json, record, text
from utils.reading import reading, require_file

# One stretch of a recording: its first frame, and the frame to stop before.
Stretch = tuple[SpikeStream, int, int]

_MAPS = ("gain_map", "dark_map")
_SCALARS = ("gain", "dark_rate", "spurious_rate")
_STUCK = "stuck"
_SENSOR = record(
    {},
    dict.fromkeys(_SCALARS, number()) | dict.fromkeys((*_MAPS, _STUCK), text()) | {"reset": text(*get_args(Reset))},
    closed=True,
)
# Frames used to estimate the spurious rate: enough intervals for dark pixels, little memory.
_RHYTHM_FRAMES = 512
# Parts of a recording that are sampled to find the white level.
_STRETCHES = 24
# Views, or stretches of a recording, in which stuck pixels are looked for, and frames in a stretch.
_LOOKS, _LOOK = 16, 128
# A calibrated pixel is hot if it fires in the dark at this share of the rate for white and so many times as often as
# half of the pixels, or fires in (nearly) every frame of a flat field in which the others do not.
_HOT_DARK, _HOT_TIMES, _ALWAYS, _HEADROOM = 0.25, 3.0, 0.98, 0.9


def calibrate(
    dark: SpikeStream | None, flat: SpikeStream | None, level: float = 1.0, reset: Reset = "soft"
) -> SensorModel:
    """Calibrate the gain, dark rate and spurious rate of a sensor.

    In the dark recording, a pixel's rate is its dark current plus spurious spikes.  Its gain is its rate in the
    flat field minus that, divided by ``level``.  Dead and hot pixels get their neighbors' gain.  The spurious
    rate is the rate of spikes that break a pixel's rhythm in the flat field (in the dark, intervals are too long
    to tell).  It never exceeds the mean dark rate.

    Args:
        dark: recording with the lens covered, or None (dark rate 0).
        flat: recording of an evenly lit, static field, or None (gain 1).
        level: the field's intensity, 1 = white.
        reset: the kind of reset, from the sensor's data sheet.

    Raises:
        ValueError: neither is given, the sizes differ, the level is not positive, or the field is not brighter
            than the dark recording.
    """
    given = [stream for stream in (dark, flat) if stream is not None]
    if not given:
        raise ValueError("a calibration needs a dark recording, a flat field, or both")
    if not level > 0:
        raise ValueError(f"the flat field's level must be a positive intensity, not {level}")
    if len({(stream.height, stream.width) for stream in given}) > 1:
        sizes = " and ".join(f"{s.name} {s.width}x{s.height}" for s in given)
        raise ValueError(f"the recordings differ in size: {sizes}")
    spurious = 0.0 if flat is None else estimate_spurious_rate(flat.unpack(0, min(len(flat), _RHYTHM_FRAMES)))
    dark_map = None
    if dark is not None:
        rate = torch.from_numpy(dark.count() / len(dark))
        spurious = min(spurious, float(rate.mean()))
        dark_map = SensorModel(spurious_rate=spurious, reset=reset).intensity(rate).clamp_min(0).float()
    dark_rate = 0.0 if dark_map is None else float(dark_map.mean())
    without_gain = SensorModel(1.0, dark_rate, spurious, dark_map=dark_map, reset=reset)
    if flat is None:
        return without_gain
    fired = flat.count() / len(flat)
    light = without_gain.intensity(torch.from_numpy(fired)).numpy()
    # The median: a few hot or dead pixels must not set the scale of the rest.
    gain = float(np.median(light)) / level
    if gain <= 0:
        raise ValueError(f"{flat.name}: the flat field is no brighter than the dark")
    relative = torch.from_numpy((light / (gain * level)).astype(np.float32))
    bad = (relative < LEAST_GAIN).numpy() | ((fired > _ALWAYS) & (np.median(fired) < _HEADROOM))
    if dark_map is not None:
        bad |= dark_map.numpy() > max(_HOT_DARK * gain, _HOT_TIMES * float(dark_map.median()))
    # The field may be lit evenly, but neighbors may have different color filters.
    try:
        stuck = joined(None, bad, colored=min(bad.shape) > 1)
    except ValueError:
        raise ValueError(
            f"{flat.name}: {bad.mean():.0%} of the pixels seem dead or hot, too many to fill from the others; expected "
            "an evenly lit field, and a dark recording with the lens covered"
        ) from None
    return SensorModel(gain, dark_rate, spurious, relative.clamp_min(LEAST_GAIN), dark_map, reset).with_stuck(stuck)


def stretches_of(stream: SpikeStream, start: int = 0, stop: int | None = None) -> list[Stretch]:
    """Stretches spread evenly over the frames [start, stop) of a recording, to look for stuck pixels."""
    frames = (len(stream) if stop is None else stop) - start
    count = min(frames // _LOOK, _LOOKS)
    firsts = np.linspace(start, start + frames - _LOOK, count).round().astype(int).tolist() if count else []
    return [(stream, first, first + _LOOK) for first in firsts]


def find_stuck(stretches: Sequence[Stretch], colored: bool, known: StuckPixels | None = None) -> StuckPixels | None:
    """The dead and hot pixels of the sensor that recorded ``stretches``, and those known from before; None for none.

    Some of the stretches, evenly spread and of the first one's size, are compared (``spike.stuck.stuck_pixels``).
    """
    sizes = [(stream.height, stream.width) for stream, _, _ in stretches]
    alike = [stretch for stretch, size in zip(stretches, sizes, strict=True) if size == sizes[0]]
    some = alike[:: max(-(-len(alike) // _LOOKS), 1)]
    if not some:
        return None if known is None else known.with_filters(colored)
    counts = [stream.mended(None).count(first, last) for stream, first, last in some]
    dead, hot = stuck_pixels(counts, [last - first for _, first, last in some], colored)
    if known is not None and known.mask.shape != dead.shape:
        return known  # a sensor of another size, which is refused when its targets are read
    return joined(known, dead | hot, colored)


def assumed_sensor(stretches: Sequence[Stretch]) -> SensorModel:
    """Estimate a sensor without calibration: the brightest recorded pixels are white.

    Spikes that break their pixel's rhythm count as spurious.

    Args:
        stretches: recordings, each with the first frame to sample and the frame to stop before.

    Raises:
        ValueError: the recordings are all zeros or all ones.
    """
    some = stretches[:: max(len(stretches) // _STRETCHES, 1)]
    rates = np.concatenate([s.count(a, b).ravel() / (b - a) for s, a, b in some])
    stream, first, last = stretches[len(stretches) // 2]
    refuse_constant(rates, stream.name)
    gain = min(max(float(np.percentile(rates, 99.5)), 1e-3), 1.0)
    return SensorModel(gain, spurious_rate=estimate_spurious_rate(stream.unpack(first, last)))


def maps_of(path: str | os.PathLike[str]) -> list[Path]:
    """The files that ``save_sensor`` writes: the sensor file and its maps."""
    path = Path(path)
    return [path, *(path.with_name(f"{path.stem}_{name}.npy") for name in (*_MAPS, _STUCK))]


def save_sensor(path: str | os.PathLike[str], sensor: SensorModel) -> None:
    """Write a sensor as JSON; its maps are ``.npy`` files next to it, named in the JSON."""
    path = Path(path)
    stored: dict[str, Any] = sensor.to_dict()
    maps: dict[str, Tensor | None] = {name: getattr(sensor, name) for name in _MAPS}
    maps[_STUCK] = None if sensor.stuck is None else sensor.stuck.mask.to(torch.uint8)
    for name, values in maps.items():
        if values is not None:
            stored[name] = f"{path.stem}_{name}.npy"
            with atomic_write(path.with_name(stored[name]), "wb") as file:
                np.save(file, values.numpy(), allow_pickle=False)
    write_json(path, stored)


def load_sensor(path: str | os.PathLike[str]) -> SensorModel:
    """Read a sensor file written by ``save_sensor``.

    Raises:
        ValueError: the file or one of its maps is missing or invalid.
    """
    path = Path(path)
    stored = read_json(path, _SENSOR, "sensor file")
    files = {name: stored.pop(name) for name in (*_MAPS, _STUCK) if name in stored}
    for name, file in files.items():
        if not file or Path(file).name != file:
            raise ValueError(f"{path}: {name} is {file!r}, expected the name of a file in the same folder")
    maps: dict[str, Any] = {name: _load_map(path.with_name(file)) for name, file in files.items()}
    try:
        if _STUCK in maps:
            maps[_STUCK] = StuckPixels(maps[_STUCK] != 0)
        return SensorModel(**stored, **maps)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _load_map(path: Path) -> Tensor:
    require_file(path, "sensor map")
    with reading(path, "a readable sensor map"):
        # Mapped: a header that asks for more than the file holds is an error, not memory.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected a map [H, W] of finite numbers")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: expected a map [H, W] of finite numbers")
    return torch.from_numpy(values)
