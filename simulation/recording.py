"""Writes a recording of images by simulated pixels, with its ground truth next to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.sensor import Simulator, stuck_pixels
from simulation.sources import Lit, filtered
from spike.bayer import BayerPattern
from spike.calibration import save_sensor
from spike.formats import check_output, write_recording
from spike.stream import SpikeStream
from utils.io import save_image, write_json
from utils.telling import progress


def truth_folder(out: Path) -> Path:
    """Folder for the truth of the recording ``out``.

    Raises:
        ValueError: the folder already holds files.
    """
    truth = out.with_name(f"{out.stem}_truth")
    if truth.is_dir() and any(truth.iterdir()):
        raise ValueError(f"{truth}: already holds files; remove it or give another --out")
    return truth


def simulate_recording(
    out: Path,
    pictures: Iterable[Lit],
    simulator: Simulator,
    truth: Path,
    bayer: BayerPattern | None = None,
    origin: dict[str, Any] | None = None,
) -> SpikeStream:
    """Write the recording ``out`` of ``pictures``, one per spike frame, and its truth; returns the stream.

    The folder ``truth`` gets the images to keep (NNNNNN.png by spike frame), the sensor's calibration
    (``sensor.json``) and all settings (``simulation.json``, with ``origin``).

    Args:
        bayer: filters of a color sensor, whose images are [H, W, 3]; None: images are [H, W].

    Raises:
        ValueError: the images cannot be simulated, or the output cannot be written.
    """

    def light() -> Iterator[NDArray[np.float32]]:
        for t, (image, is_kept) in enumerate(pictures):
            if t == 0:  # before any truth is written, which would block a second try
                check_output(out, *image.shape[:2])
            if is_kept:
                save_image(truth / f"{t:06d}.png", image)
            yield image if bayer is None else filtered(image, bayer)

    packed, size = [], (0, 0)
    for spikes in progress(simulator.stream(light()), "Simulating", unit="frame"):
        size = spikes.shape
        packed.append(SpikeStream.from_array(spikes[None]).packed)
    stream = SpikeStream.from_packed(np.concatenate(packed), *size, str(out))
    write_recording(out, stream)
    settings = dataclasses.asdict(simulator) | stuck_pixels(simulator, *size)
    write_json(truth / "simulation.json", (origin or {}) | settings)
    save_sensor(truth / "sensor.json", simulator.sensor())
    return stream
