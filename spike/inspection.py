"""Statistics of a whole recording: firing rates, stuck pixels, changing light."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pictures.colors import stretched, three_channels
from pictures.sheets import contact_sheet
from spike.preview import colored, gray, picture
from spike.stream import SpikeStream
from spike.stuck import neighbors
from spike.timing import estimate_spurious_rate

# Stretches of the recording that are sampled, and frames in each: minutes of recording take seconds.
_STRETCHES = 16
_STRETCH = 128
# A pixel that fires in more than this share of the frames is saturated.
_SATURATED = 0.98
# A pixel is hot or dead if it differs from its neighbors' median by this factor, and by more than chance allows.
_FACTOR = 4.0
_SIGMAS = 4.0
# Images on a contact sheet in addition to the maps.
_MOMENTS = 8
# Relative difference between the rates in a 2x2 square that suggests color filters.
_COLORED = 0.05


@dataclass(frozen=True)
class Inspection:
    """Statistics of the sampled frames.

    ``rate`` [H, W]: spikes per frame.  ``saturated``, ``hot``, ``dead`` [H, W]: masks.  ``levels``: mean rate of
    each stretch, which begins at ``starts``.  ``change``: mean relative change of a pixel's rate from one stretch
    to the next (motion or flicker).  ``blank``: number of frames without a spike.  ``filters`` [2, 2]: mean rates
    of the four pixels of every 2x2 square, relative to the mean rate of all pixels.
    """

    rate: NDArray[np.float64]
    saturated: NDArray[np.bool_]
    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    starts: list[int]
    levels: list[float]
    change: float
    blank: int
    frames: int
    spurious_rate: float
    filters: NDArray[np.float64]


def inspect(stream: SpikeStream) -> Inspection:
    """Inspect stretches spread evenly over a recording (all of a short one).

    Raises:
        ValueError: no pixel ever fires, or every pixel fires in every frame.
    """
    length = min(_STRETCH, max(len(stream) // 2, 1))
    count = min(_STRETCHES, max(len(stream) // length, 1))
    starts = [round(s) for s in np.linspace(0, len(stream) - length, count)]
    rates, blank = [], 0
    middle: NDArray[np.uint8] | None = None
    for i, start in enumerate(starts):
        spikes = stream.unpack(start, start + length)
        rates.append(spikes.mean(0, dtype=np.float64))
        blank += int((~spikes.reshape(length, -1).any(1)).sum())
        if i == count // 2:
            middle = spikes
    assert middle is not None
    rate = np.mean(rates, axis=0)
    frames = length * count
    refuse_constant(rate, stream.name)
    around = neighbors(rate, colored=stream.bayer is not None)
    noise = _SIGMAS * np.sqrt(np.maximum(around, 1 / frames) / frames)
    steps = [2 * np.abs(b - a).mean() / max(float(b.mean() + a.mean()), 1e-9) for a, b in pairwise(rates)]
    return Inspection(
        rate,
        rate > _SATURATED,
        rate > _FACTOR * around + noise,
        (rate < around / _FACTOR) & (around - rate > noise),
        starts,
        [float(r.mean()) for r in rates],
        float(np.mean(steps)) if steps else 0.0,
        blank,
        frames,
        estimate_spurious_rate(middle),
        np.array([[rate[y::2, x::2].mean() for x in (0, 1)] for y in (0, 1)]) / rate.mean(),
    )


def refuse_constant(rate: NDArray[np.number], name: str) -> None:
    """Raise a ``ValueError`` if the firing rates, or spikes, are all zero or all one."""
    if not rate.any() or rate.min() == 1:
        kind = "all zeros: no pixel ever fires" if not rate.any() else "all ones: every pixel fires in every frame"
        raise ValueError(f"{name}: the stream is {kind}")


def record(stream: SpikeStream, found: Inspection) -> dict[str, Any]:
    """The results as numbers and lists for a JSON file."""
    return {
        "frames": len(stream), "height": stream.height, "width": stream.width,
        "layout": asdict(stream.layout),
        "mean_rate": float(found.rate.mean()), "saturated": int(found.saturated.sum()),
        "hot": np.argwhere(found.hot).tolist(), "dead": np.argwhere(found.dead).tolist(),
        "spurious_rate": found.spurious_rate, "change": found.change, "blank_frames": found.blank,
        "levels": dict(zip(map(str, found.starts), found.levels, strict=True)),
    }  # fmt: skip


def summary(stream: SpikeStream, found: Inspection) -> list[str]:
    """The results as readable text, one sentence per line."""
    pixels = found.rate.size
    lines = [
        f"{stream.name}: {len(stream)} frames of {stream.width}x{stream.height} pixels, {found.frames} inspected",
        f"firing rate {found.rate.mean():.4f} spikes per frame and pixel (5th percentile "
        f"{np.percentile(found.rate, 5):.4f}, 95th percentile {np.percentile(found.rate, 95):.4f})",
        f"{found.saturated.sum() / pixels:.2%} of the pixels saturated, {found.hot.sum()} hot, {found.dead.sum()} dead",
        f"spurious spikes {found.spurious_rate:.4f} per frame and pixel"
        + ("" if found.spurious_rate else " (no more than in a clean stream)"),
        f"a pixel's rate changes by {found.change:.0%} from one stretch to the next",
    ]
    if stream.bayer is None and found.filters.max() - found.filters.min() > _COLORED:
        alike = abs(found.filters[0, 0] - found.filters[1, 1]) < abs(found.filters[0, 1] - found.filters[1, 0])
        lines.append(
            "the four pixels of every 2x2 square see different amounts of light: a color sensor? If so, give --bayer "
            + ("GRBG or GBRG" if alike else "RGGB or BGGR")
        )
    if found.blank:
        lines.append(f"{found.blank} frames have no spikes: dropped frames, or flickering light")
    if found.rate.mean() < 0.02:
        lines.append("low light: windows contain few spikes; prefer timing targets and longer exposures")
    return lines


def sheet(stream: SpikeStream, found: Inspection) -> NDArray[np.float32]:
    """Contact sheet [., ., 3] in [0, 1]: firing rates, stuck pixels, and images along the recording."""
    rate = colored(torch.from_numpy(found.rate), stream.bayer)
    stuck = 0.3 * three_channels(stretched(gray(rate)))
    for mask, color in ((found.saturated, (1, 1, 0)), (found.hot, (1, 0, 0)), (found.dead, (0, 0.4, 1))):
        stuck[mask] = color
    panels = {"firing rate": stretched(rate), "saturated (yellow) hot (red) dead (blue)": stuck}
    for frame in np.linspace(0, len(stream) - 1, _MOMENTS + 2).round().astype(int)[1:-1]:
        panels[f"frame {frame}"] = stretched(picture(stream, int(frame), spurious_rate=found.spurious_rate))
    return contact_sheet(panels, columns=5)


def rate_image(stream: SpikeStream, found: Inspection) -> NDArray[np.float32]:
    """Firing rates as a contrast-stretched image [H, W], or [H, W, 3] for a color sensor."""
    return stretched(colored(torch.from_numpy(found.rate), stream.bayer))
