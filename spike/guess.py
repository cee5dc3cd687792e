"""Guess how an unknown ``.dat`` is packed from its statistics.

The frames of a recording look alike.  With the right number of bytes per frame, the average of the even frames
looks like the average of the odd ones.  Neighboring rows look alike, which gives the bytes per row.  Neighboring
pixels look alike, which gives the bit order.  Columns on the right that never change are padding; a few rows of it may
hold header words.  The row order (top to bottom or bottom to top) cannot be determined from statistics.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from spike.stream import COMMON_SIZES, BitOrder, Layout, Packing
from utils.telling import progress

# Bytes sampled from the beginning of the file, and maximum number of frames averaged.
_SAMPLE = 1 << 24
_FRAMES = 400
# Range of sensors considered: bytes per frame, and width relative to height.
_SMALLEST, _LARGEST = 128, 1 << 21
_ASPECTS = (0.5, 4.0)
# Bonus for a common sensor size over other sizes that explain the file equally well.
_COMMON_BONUS = 0.02
# Frame sizes that are examined closely.
_SCREENED = 40
# Bytes whose autocorrelation is computed, and bytes over which they are averaged before.
_CORRELATED, _SMOOTHED = 1 << 23, 8
# A frame has at least this many rows; an autocorrelation that rises by this much again has a longer period.
_FEWEST_ROWS = 8
_RISE = 0.05
# Scores that differ by less than this count as equal.
_TIE = 0.03
# A score that real and simulated recordings reach at their true size and at no other; a clear lead in frame score.
_PLAIN = 1.4
_CLEARLY = 0.2
# With this lead over the next best size, the guess was always right (real and simulated recordings).
_SURE_MARGIN = 0.06
# Fewer frames than this are often several frames taken for one; the confidence that then remains at most.
_FEW_FRAMES, _UNSURE = 32, 0.39
# In a wrong size the confidence in the bit order stays below this.
_NO_ORDER = 0.1
# Padding is at least this many columns; at most this part of its rows holds header words.
_PADDING, _HEADER_ROWS = 4, 0.02
# Parts in which sensors with several readouts store each row.
_PARTS = (2, 4, 8)

Floats = NDArray[np.float64]


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
    columns = known.stored_width or known.width
    rows, stored, size_sure, note = _guess_size(path, data, size, known.height, columns, known.width, step)
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


def _frame_score(counts: Floats, frame: int) -> float:
    """Correlation between the means of even and odd frames, for ``frame`` bytes per frame."""
    frames = min(len(counts) // frame, _FRAMES)
    if frames < 4:
        return 0.0
    table = counts[: frames // 2 * 2 * frame].reshape(-1, 2, frame).mean(0)
    return _correlation(table[0], table[1])


def _parts_of_frames(counts: Floats, frames: list[int]) -> set[int]:
    """Those of the frame sizes that are only rows, or groups of rows, of a larger one.

    Adjacent rows of a large image look alike, too.  But rows half an image apart do not, whereas the similarity of
    frames only falls with the time between them: where it rises again, the longer distance is the frame.
    """
    counts = np.convolve(counts[:_CORRELATED], np.full(_SMOOTHED, 1 / _SMOOTHED), mode="same").astype(np.float32)
    counts -= counts.mean()
    length = next_fast_len(2 * len(counts), real=True)
    spectrum = rfft(counts, length)
    similarity = irfft(spectrum.real**2 + spectrum.imag**2, length)[: len(counts) // 2 + 1]
    similarity /= np.maximum(similarity[0], 1e-9) * (1 - np.arange(len(similarity)) / len(counts))
    parts = set()
    for frame in frames:
        for larger in frames:
            rows = larger // frame
            if larger % frame or rows < _FEWEST_ROWS or larger >= len(similarity):
                continue
            between = similarity[frame * (rows // 4) : frame * (rows - rows // 4) + 1 : frame]
            if similarity[larger] > between.max() + _RISE:
                parts.add(frame)
                break
    return parts


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _guess_size(
    path: Path, data: NDArray[np.uint8], size: int, height: int | None, stored: int | None,
    width: int | None, step: int,
) -> tuple[int, int, float, str]:  # fmt: skip
    """Rows, stored columns, confidence, and reason."""
    counts = np.bitwise_count(data).astype(np.float64) if hasattr(np, "bitwise_count") else _popcount(data)
    frames = [f for f in _divisors(size) if _SMALLEST <= f <= min(_LARGEST, size // 4)]
    if height is not None:
        frames = [f for f in frames if 8 * f % height == 0]
    if stored is not None and width is None:
        frames = [f for f in frames if 8 * f % stored == 0]
    scored = sorted(((_frame_score(counts, f), f) for f in frames), reverse=True)
    common = {rows * columns // 8 for _, rows, columns in COMMON_SIZES}
    parts = _parts_of_frames(counts, frames)
    scored.sort(key=lambda pair: pair[1] in parts)
    floor = 0.7 * max((score for score, frame in scored if frame not in parts), default=0.0)
    # Where the image moves fast, several frames together look more alike than one frame and the next.
    screened = [f for i, (score, f) in enumerate(scored) if f in common or (i < _SCREENED and score >= floor)]
    found: list[tuple[float, int, int]] = []
    for frame in progress(screened, "Guessing the size of frames", within=True):
        if frame in parts and found and max(found)[0] > 1:
            break
        found += _row_scores(data, frame, height, stored, width, step)
    found.sort(reverse=True)
    if not found or found[0][0] < _PLAIN:
        _refuse_cut_off(path, counts, size, scored[0][0] if scored else 0.0)
    if not found or found[0][0] < 0.2:
        raise ValueError(f"{path}: no frame size explains its {size} bytes; give --height and --width")
    # Two stacked frames explain a file almost as well as one: the smallest wins, and the others are not rivals.
    top = found[0]
    best = min((f for f in found if f[2] == top[2] and top[1] % f[1] == 0 and f[0] > top[0] - _TIE), key=lambda f: f[1])
    if _order_margin(data, best, step) < _UNSURE:
        # In a wrong size no bit order is better than the other: a common size in which one clearly is explains more.
        known = {(rows, columns) for _, rows, columns in COMMON_SIZES}
        clear = (f for f in found if f[1:] in known and f[0] > 1 and _order_margin(data, f, step) > 1 - _UNSURE)
        best = next(clear, best)
    rivals = [f[0] for f in found if f[2] != best[2] or f[1] % best[1]]
    margin = best[0] - max(rivals, default=0.0)
    note = (
        f"{best[2]} stored columns x {best[1]} rows: {size // (best[1] * best[2] // 8)} frames "
        f"(score {best[0]:.2f} of 2, the next best {best[0] - margin:.2f})"
    )
    sure = min(margin / _SURE_MARGIN, (best[0] - 1) / (_PLAIN - 1))
    if size // (best[1] * best[2] // 8) < _FEW_FRAMES:
        sure = min(sure, _UNSURE)
    return best[1], best[2], min(max(sure, 0.0), 1.0), note


def _order_margin(data: NDArray[np.uint8], size: tuple[float, int, int], step: int) -> float:
    """Confidence in the bit order, 0 to 1, if frames have the rows and columns of ``size``."""
    _, rows, columns = size
    rates = _rate_bits(data, rows * columns // 8)
    return _guess_order({o: _pixels(rates, o).reshape(rows, columns) for o in ("little", "big")}, None, step)[1]


def _refuse_cut_off(path: Path, counts: Floats, size: int, score: float) -> None:
    """Raise an error if a common sensor size explains the file better but does not divide its length."""
    for width, height, stored in COMMON_SIZES:
        frame = height * stored // 8
        if size % frame and _frame_score(counts, frame) > score + _CLEARLY:
            raise ValueError(
                f"{path}: {size} bytes are not a whole number of frames, but it looks like {width}x{height} pixels "
                f"stored {stored} wide ({frame} bytes each): cut off the last {size % frame} bytes, or give its size"
            )


def _row_scores(
    data: NDArray[np.uint8], frame: int, height: int | None, stored: int | None, width: int | None, step: int
) -> list[tuple[float, int, int]]:
    """Score, rows and columns of every way to split ``frame`` bytes into rows.

    The score adds the similarity of frames and the similarity of rows ``step`` apart.  A row may begin within a
    byte, so the bits are put in order first (both orders are tried, the better one counts).  They are averaged
    over eight neighbors to reduce the noise of short recordings.  What all rows have in common (mostly dark
    padding) does not depend on where a frame begins, so it is subtracted.
    """
    known = {(rows, columns) for _, rows, columns in COMMON_SIZES}
    halves = [_rate_bits(data, frame, part) for part in (0, 1)]
    smooth = [
        [np.convolve(_pixels(half, order), np.full(8, 1 / 8), mode="same") for half in halves]
        for order in ("little", "big")
    ]
    found = []
    for columns in _divisors(8 * frame):
        rows = 8 * frame // columns
        if rows < 8 or not _ASPECTS[0] <= columns / rows <= _ASPECTS[1]:
            continue
        if (height is not None and rows != height) or (width is not None and columns < width):
            continue
        if width is None and stored is not None and columns != stored:
            continue
        scores = []
        for pair in smooth:
            even, odd = (image.reshape(rows, columns) - image.reshape(rows, columns).mean(0) for image in pair)
            scores.append(_correlation(even, odd) + _correlation((even + odd)[step:], (even + odd)[:-step]))
        score = max(scores)
        found.append((score + (_COMMON_BONUS if (rows, columns) in known else 0.0), rows, columns))
    return found


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def _popcount(data: NDArray[np.uint8]) -> Floats:
    table = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)
    return table[data].astype(np.float64)


def _rate_bits(data: NDArray[np.uint8], frame: int, part: int | None = None) -> Floats:
    """Mean [bytes per frame, 8] of every stored bit, lowest first, over all, even (0) or odd (1) frames."""
    frames = min(len(data) // frame, _FRAMES)
    table = data[: frames * frame].reshape(frames, frame)
    table = table if part is None else table[part::2]
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
