"""Guess how an unknown ``.dat`` is packed from its statistics.

A pixel and its neighbor get nearly the same light, in this frame and in the next ones.  So with the right number of
bytes per frame, the spikes of the even frames covary with those that the neighboring pixels fire in the odd ones.
With the right number of pixels per row, they covary with those of the row below.  A pixel is never compared with
itself: its own spikes follow each other in a rhythm, which repeats after some number of frames.

With several frames taken for one, the covariance is the same, so the smallest size counts; with a part of a frame it is
less, because different parts are averaged.  Columns on the right that never change are padding; a few rows of it may
hold header words.  The row order (top to bottom or bottom to top) cannot be determined from statistics.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from spike.stream import COMMON_SIZES, BitOrder, Layout, Packing
from utils.telling import progress

# Bytes sampled from the beginning of the file, and maximum number of frames averaged for a picture of the rates.
_SAMPLE = 1 << 24
_FRAMES = 400
# Range of sensors considered: bytes per frame, rows, and width relative to height.
_SMALLEST, _LARGEST = 128, 1 << 21
_FEWEST_ROWS = 8
_ASPECTS = (0.5, 4.0)
# Consecutive frames whose spikes are counted together; more would blur what moves.
_TOGETHER = 16
# The bits of a byte in two halves: every pixel of one is near pixels of the other, also of those with its color filter.
_HALVES = (0x33, 0xCC)
# Pixels of all sets that are compared at most, and pixels of a row averaged before to reduce the noise.
_COMPARED, _SMOOTHED = 1 << 21, 8
# Frames with less than this part of the largest covariance are wrong; of the others, at most so many are examined.
_EXPLAINED, _MOST = 0.4, 40
# What explains at least this part of what another size does explains as much.
_AS_MUCH = 0.9
# A size gives way to one of up to so many times the frame if that explains more: it was a part of it.
_PARTS_OF_FRAME = 8
# A covariance above this multiple of its standard error is no chance.
_SIGNIFICANT = 6.0
# A common size that does not divide the file explains it if its covariance is larger by this factor.
_CLEARLY = 1.5
# With this relative lead over the next best width, the guess was always right (real and simulated recordings).
_SURE_MARGIN = 0.02
# Fewer frames than this are often several frames taken for one; the confidence that then remains at most.
_FEW_FRAMES, _UNSURE = 32, 0.39
# In a wrong size the confidence in the bit order stays below this.
_NO_ORDER = 0.1
# Padding is at least this many columns; at most this part of its rows holds header words.
_PADDING, _HEADER_ROWS = 4, 0.02
# Parts in which sensors with several readouts store each row.
_PARTS = (2, 4, 8)

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Guess:
    """Size and layout of a ``.dat``, with the confidence in size and bit order: 0 (a coin toss) to 1."""

    height: int
    width: int
    layout: Layout
    size_sure: float
    order_sure: float
    why: tuple[str, ...]

    @property
    def packing(self) -> Packing:
        """The guess as known metadata for other recordings of the same camera."""
        layout = self.layout
        return Packing(self.height, self.width, layout.stored_width, layout.bit_order, layout.flip)

    def flags(self) -> str:
        """The guess as command-line flags."""
        stored = "" if self.layout.stored_width is None else f" --stored_width {self.layout.stored_width}"
        flip = "" if self.layout.flip else " --no-flip"
        return f"--height {self.height} --width {self.width}{stored} --bit_order {self.layout.bit_order}{flip}"


def sureness(value: float) -> str:
    """A confidence in words."""
    return "sure" if value >= 0.8 else "likely" if value >= 0.4 else "a guess"


def guess_layout(path: str | os.PathLike[str], known: Packing = Packing()) -> Guess:
    """Guess the metadata of a ``.dat`` that is not ``known``.

    Raises:
        ValueError: the file is not readable, the stream is empty, all zeros or all ones, no size explains it, or its
            rows are stored in parts.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        data = np.fromfile(path, np.uint8, count=_SAMPLE)
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error.strerror or error})") from None
    if not data.any() or (data == 255).all():
        what = "empty" if not len(data) else "all zeros" if not data.any() else "all ones"
        raise ValueError(f"{path}: the stream is {what}, so its layout cannot be guessed")
    why = []
    step = 1 if known.bayer is None else 2  # with Bayer filters, every other row and column look alike
    rows, stored, size_sure, note = _guess_size(path, data, size, known, step)
    why.append(note)
    rates = _rate_bits(data, rows * stored // 8)
    maps = {order: _pixels(rates, order).reshape(rows, stored) for order in ("little", "big")}
    order, order_sure, note = _guess_order(maps, known.bit_order, step)
    why.append(note)
    if known.height is None or known.width is None:
        # In the right size, neighboring pixels differ less in the right order.
        size_sure = min(size_sure, _UNSURE - _NO_ORDER + order_sure)
    if known.width is None:
        _refuse_parts(path, maps[order])
    used, note = _guess_padding(maps[order], known.width)
    if note:
        why.append(note)
    if known.flip is None:
        why.append("rows are assumed to be stored bottom to top, as cameras do; check that the image is upright")
    layout = Layout(order, known.layout.flip, stored if stored != used else None)
    return Guess(rows, used, layout, size_sure, order_sure, tuple(why))


@dataclass(frozen=True)
class _Fit:
    """How well frames of ``rows`` x ``columns`` explain the file.

    Args:
        alike: covariance of pixels with those of the next row, above its mean over all numbers of columns.
        own: the part of that covariance that not all rows have in common (as they have padding).
    """

    alike: float
    own: float
    rows: int
    columns: int


def _guess_size(
    path: Path, data: NDArray[np.uint8], size: int, known: Packing, step: int
) -> tuple[int, int, float, str]:
    """Rows, stored columns, confidence, and reason."""
    counts = [_popcount(data & np.uint8(half)) for half in _HALVES]
    frames = [f for f in _divisors(size) if _SMALLEST <= f <= min(_LARGEST, size // 4)]
    if known.height is not None:
        frames = [f for f in frames if 8 * f % known.height == 0]
    if known.stored_width is not None:
        frames = [f for f in frames if 8 * f % known.stored_width == 0]
    explained = {frame: _frame_covariance(counts, frame) for frame in frames}
    top = max((covariance for covariance, _ in explained.values()), default=0.0)
    _refuse_cut_off(path, counts, size, top)
    significance = max((covariance / error for covariance, error in explained.values() if error), default=0.0)
    likely = [f for f in frames if explained[f][0] > _EXPLAINED * top and significance > _SIGNIFICANT]
    likely = sorted(likely, key=lambda frame: explained[frame], reverse=True)[:_MOST]
    # Several frames have the right number of columns, too, where their shape is not possible.
    widths = {columns for frame in likely for columns in _divisors(8 * frame) if _possible(frame, columns, known)}
    fits: list[_Fit] = []
    for frame in progress(likely, "Guessing the size of frames", within=True):
        fits += _fits(data, frame, widths, step)
    if max((fit.alike for fit in fits), default=0.0) <= 0:
        raise ValueError(f"{path}: no frame size explains its {size} bytes; give --height and --width")
    columns, alike, rival = _row_length(fits)
    rows = _smallest_whole([fit for fit in fits if fit.columns == columns], known).rows
    found = size // (rows * columns // 8)
    note = (
        f"{columns} stored columns x {rows} rows: {found} frames (rows are alike by {alike:.2g}, with the next best "
        f"number of columns by {rival:.2g})"
    )
    sure = min((1 - rival / alike) / _SURE_MARGIN, significance / _SIGNIFICANT - 1)
    if found < _FEW_FRAMES:
        sure = min(sure, _UNSURE)
    return rows, columns, min(max(sure, 0.0), 1.0), note


def _row_length(fits: list[_Fit]) -> tuple[int, float, float]:
    """The most likely number of columns, how alike rows are with it, and with the best of the others.

    Two rows taken for one are nearly as much alike as one and the next, but a part of a row and the rest are not.  So
    of equally good numbers of columns the smallest counts, and its multiples are no rivals.
    """
    alike: dict[int, float] = {}
    for fit in fits:
        alike[fit.columns] = max(alike.get(fit.columns, -math.inf), fit.alike)
    top = max(alike, key=lambda columns: alike[columns])
    best = min(c for c in alike if top % c == 0 and alike[c] >= _AS_MUCH * alike[top])
    return best, alike[best], max((alike[c] for c in alike if c % best), default=0.0)


def _two_sets(bytes_of_frames: NDArray[np.uint8], frame: int, most: int) -> tuple[NDArray[np.uint8], ...]:
    """Even and odd frames [chunks, n, frame], of chunks spread over the sample that have ``most`` bytes at most."""
    count = min(len(bytes_of_frames) // frame // 2 * 2, _TOGETHER)
    chunks = len(bytes_of_frames) // (count * frame)
    table = bytes_of_frames[: chunks * count * frame].reshape(chunks, count, frame)
    table = table[np.unique(np.linspace(0, chunks - 1, max(min(chunks, most // frame), 1)).astype(int))]
    return table[:, ::2], table[:, 1::2]


def _centered(table: NDArray[np.uint8]) -> Floats32:
    """Mean of the frames of each chunk, [chunks, pixels], without the mean of all its pixels."""
    mean = table.mean(1, dtype=np.float32)
    return mean - mean.mean(1, keepdims=True)


def _covariance(first: Floats32, second: Floats32, lag: int) -> float:
    """Mean product of values of one set with those that follow ``lag`` later in the other set."""
    stop = first.shape[1] - lag
    products = np.einsum("cp,cp->", first[:, :stop], second[:, lag:])
    products += np.einsum("cp,cp->", second[:, :stop], first[:, lag:])
    return float(products) / (2 * stop * len(first))


def _frame_covariance(counts: Sequence[NDArray[np.uint8]], frame: int) -> tuple[float, float]:
    """Covariance of the counts of the ``_HALVES`` of bytes, with ``frame`` bytes per frame, and its standard error."""
    (a, b), (c, d) = ([_centered(part) for part in _two_sets(half, frame, len(half))] for half in counts)
    error = math.sqrt(float(a.var()) * float(d.var()) / a.size / 2)
    return float((a * d).mean() + (b * c).mean()) / 2, error


def _fits(data: NDArray[np.uint8], frame: int, widths: set[int], step: int) -> list[_Fit]:
    """All ways to split ``frame`` bytes into rows of one of the ``widths``.

    A row may begin within a byte, so the bits are put in order first (both orders are tried, the one in which
    neighbors covary more counts).  They are averaged over eight neighbors to reduce the noise of short recordings.
    """
    sets = _two_sets(data, frame, _COMPARED // 8)
    both = [[_centered(np.unpackbits(part, axis=2, bitorder=o)) for part in sets] for o in get_args(BitOrder)]
    pixels = max(both, key=lambda ordered: _covariance(ordered[0], ordered[1], step))
    first, second = (uniform_filter1d(part, _SMOOTHED, axis=1) for part in pixels)
    found = []
    for columns in widths:
        rows, rest = divmod(8 * frame, columns)
        if rest or rows < _FEWEST_ROWS:
            continue
        below = _covariance(first, second, step * columns)
        a, b = (part.reshape(-1, rows, columns).sum(1) for part in (first, second))
        same = float(np.einsum("cp,cp->", first, second)) / len(first) / columns
        others = (float((a * b).mean()) - same) / (rows * (rows - 1))
        found.append(_Fit(below, below - others, rows, columns))
    # Where the light flickers, any two pixels of many frames taken for one covary.
    common = sum(fit.alike for fit in found) / len(found) if len(found) > 1 else 0.0
    return [replace(fit, alike=fit.alike - common) for fit in found]


def _possible(frame: int, columns: int, known: Packing) -> bool:
    """Whether frames of ``frame`` bytes with so many columns agree with what is known, or have a usual shape."""
    rows = 8 * frame // columns
    if known.height is None and known.width is None and known.stored_width is None:
        return rows >= _FEWEST_ROWS and _ASPECTS[0] <= columns / rows <= _ASPECTS[1]
    if known.height not in (None, rows):
        return False
    if known.stored_width is not None:
        return columns == known.stored_width
    return known.width is None or columns >= known.width


def _smallest_whole(same: list[_Fit], known: Packing) -> _Fit:
    """Of fits of the ``same`` columns, the smallest possible frame that is not a part of a larger one.

    Several frames explain as much as one.  A part of a frame explains less than the frame.
    """
    own = {fit.rows: fit.own for fit in same}
    possible = [fit for fit in same if _possible(fit.rows * fit.columns // 8, fit.columns, known)]
    for fit in sorted(possible, key=lambda fit: fit.rows):
        whole = max(own.get(times * fit.rows, 0.0) for times in range(2, _PARTS_OF_FRAME + 1))
        if fit.own >= _EXPLAINED * max(own.values()) and fit.own >= _AS_MUCH * whole:
            return fit
    return max(possible, key=lambda fit: fit.own)


def _refuse_cut_off(path: Path, counts: Sequence[NDArray[np.uint8]], size: int, top: float) -> None:
    """Raise an error if a common sensor size explains the file better but does not divide its length."""
    for width, height, stored in COMMON_SIZES:
        frame = height * stored // 8
        if size % frame == 0 or size < 4 * frame:
            continue
        covariance, chance = _frame_covariance(counts, frame)
        if covariance > max(_CLEARLY * top, _SIGNIFICANT * chance):
            raise ValueError(
                f"{path}: {size} bytes are not a whole number of frames, but it looks like {width}x{height} pixels "
                f"stored {stored} wide ({frame} bytes each): cut off the last {size % frame} bytes, or give its size"
            )


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def _popcount(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(data)
    return np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)[data]


def _rate_bits(data: NDArray[np.uint8], frame: int) -> Floats:
    """Mean [bytes per frame, 8] of every stored bit, lowest first."""
    frames = min(len(data) // frame, _FRAMES)
    table = data[: frames * frame].reshape(frames, frame)
    return np.stack([((table >> bit) & 1).mean(0) for bit in range(8)], axis=1)


def _pixels(rates: Floats, order: str) -> Floats:
    return (rates if order == "little" else rates[:, ::-1]).ravel()


def _guess_order(maps: dict[str, Floats], given: BitOrder | None, step: int) -> tuple[BitOrder, float, str]:
    rough = {order: float(np.abs(image[:, step:] - image[:, :-step]).mean()) for order, image in maps.items()}
    best: BitOrder = "little" if rough["little"] <= rough["big"] else "big"
    worse = max(rough.values())
    margin = 1 - rough[best] / worse if worse > 0 else 0.0
    note = f"bit order {best}: neighboring pixels differ by {rough[best]:.4f} per frame, in the other order {worse:.4f}"
    return (best, min(margin / 0.15, 1.0), note) if given is None else (given, 1.0, f"bit order {given}: given")


def _still_columns(rates: Floats) -> NDArray[np.bool_]:
    """Columns without an image: their pixels never fire, or always, but for a few rows with header words."""
    still = ((rates == 0) | (rates == 1)).mean(0) >= 1 - _HEADER_ROWS
    return still & (rates.mean(0) < 0.9)  # always firing: a saturated image


def _run_at_end(still: NDArray[np.bool_]) -> int:
    """Number of columns at the end that are all ``still``."""
    return int(np.argmin(still[::-1])) if not still.all() else len(still)


def _refuse_parts(path: Path, rates: Floats) -> None:
    """Raise an error if each row is stored in several equal parts, each followed by the same padding."""
    still = _still_columns(rates)
    for count in _PARTS:
        if len(still) % count or still.all():
            continue
        ends = [_run_at_end(part) for part in np.split(still, count)]
        if min(ends) == max(ends) >= _PADDING:
            raise ValueError(
                f"{path}: each row of {len(still)} pixels seems to be stored in {count} parts, each of "
                f"{len(still) // count - ends[0]} pixels and {ends[0]} of padding, which cannot be read; write the "
                "frames to a .npy (or give --height and --width to read rows as they are)"
            )


def _guess_padding(rates: Floats, width: int | None) -> tuple[int, str]:
    """Used columns (all but those on the right without an image), and a note."""
    stored = rates.shape[1]
    if width is not None:
        return width, ""
    end = _run_at_end(_still_columns(rates))
    beyond = rates[:, stored - end :]
    if ((beyond > 0) & (beyond < 1)).any(1).mean() > _HEADER_ROWS:  # a dark edge: now here, now there a pixel fires
        end = _run_at_end((rates == 0).all(axis=0))
        beyond = rates[:, stored - end :]
    used = stored - end
    known = [w for w, h, s in COMMON_SIZES if (h, s) == rates.shape and used <= w]
    if known and stored - used >= _PADDING:
        used = min(known)
    if stored - used < _PADDING or used < stored // 2:  # too few columns to distinguish from darkness, or a dark image
        return stored, ""
    what = "hold numbers, not an image" if beyond.any() else "never fire"
    return used, f"the last {stored - used} of {stored} stored columns {what}: padding"
