"""Spike streams: binary frames stored as packed bits, unpacked one window at a time.

``.dat`` is the camera's native format: ``height * stored_width / 8`` bytes per frame, bits in row-major order.
Recordings differ in bit order, row order, and padding of the columns to a multiple of eight or sixteen (416
stored for 400 used); all three are settings.  ``.npy`` and ``.npz`` hold a [T, H, W] array of zeros and ones.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spike.bayer import BayerPattern
from spike.stuck import StuckPixels
from spike.window import WindowSpec
from utils.io import atomic_write
from utils.reading import reading, require_file
from utils.telling import progress

BitOrder = Literal["little", "big"]

# Suffixes of recording files.
SUFFIXES = (".dat", ".npy", ".npz")

# Pixels x frames unpacked at a time: a few megabytes, however large the stream.
_BLOCK = 1 << 23
# Frames of an array that are packed together.
_TOGETHER = 64
# Deflate shrinks by this factor at most.
_DEFLATED = 1032


@dataclass(frozen=True)
class Layout:
    """How a ``.dat`` stores its frames (the defaults match the authors' data).

    Args:
        bit_order: which end of a byte is its first pixel, the lowest bit (little) or the highest (big).
        flip: rows are stored bottom to top.
        stored_width: columns per stored row, padding included (None: no padding).
    """

    bit_order: BitOrder = "little"
    flip: bool = True
    stored_width: int | None = None

    def __post_init__(self) -> None:
        if self.bit_order not in get_args(BitOrder):
            raise ValueError(f"the bit order must be {' or '.join(get_args(BitOrder))}, not {self.bit_order!r}")

    def bytes_per_frame(self, height: int, width: int) -> int:
        """Stored bytes per frame; a row may begin within a byte."""
        if height < 1 or width < 1:
            raise ValueError(f"a frame must have at least one pixel, not {width}x{height}")
        stored = width if self.stored_width is None else self.stored_width
        if stored < width:
            raise ValueError(f"a stored width of {stored} pixels cannot hold {width} used ones")
        if height * stored % 8:
            raise ValueError(
                f"a .dat stores whole bytes per frame: {stored}x{height} pixels are not a multiple of 8; "
                f"give the padded width ({-(-stored // 8) * 8}?)"
            )
        return height * stored // 8


@dataclass(frozen=True)
class Packing:
    """Metadata of a recording that is known before it is opened; None means unknown.

    Args:
        height, width: used pixels.
        stored_width, bit_order, flip: as in ``Layout``.
        bayer: colors of the top-left 2x2 pixels of a color sensor; None for a sensor without color filters.
    """

    height: int | None = None
    width: int | None = None
    stored_width: int | None = None
    bit_order: BitOrder | None = None
    flip: bool | None = None
    bayer: BayerPattern | None = None

    @property
    def layout(self) -> Layout:
        """The layout of a ``.dat``, with defaults for unknown values."""
        flip = Layout.flip if self.flip is None else self.flip
        return Layout(self.bit_order or Layout.bit_order, flip, self.stored_width)


# Used width, height and stored width of common sensors, for hints in errors and first guesses.
COMMON_SIZES = (
    (400, 250, 400),
    (400, 250, 416),
    (600, 400, 600),
    (1000, 1000, 1000),
    (1000, 1000, 1024),
    (640, 480, 640),
    (346, 260, 352),
    (250, 200, 256),
)


def _fitting_sizes(size: int, height: int, width: int) -> str:
    """Frame sizes that divide a file of ``size`` bytes, as the end of a sentence.

    Candidates are the requested size with padded columns, and common sensors.
    """
    padded = {-(-width // multiple) * multiple for multiple in (8, 16, 32, 64, 128)}
    sizes = [(width, height, stored) for stored in sorted(padded) if height * stored % 8 == 0]
    fits = []
    for used, rows, stored in dict.fromkeys([*sizes, *COMMON_SIZES]):
        frames, rest = divmod(size, rows * stored // 8)
        if frames and not rest:
            wide = f" stored {stored} wide" if stored != used else ""
            fits.append(f"{used}x{rows}{wide} ({frames} frames)")
    return f"; it would fit {', '.join(fits)}" if fits else ""


class SpikeStream:
    """T binary frames of H x W pixels, kept as packed bits in memory or in a memory-mapped file."""

    def __init__(
        self,
        packed: NDArray[np.uint8],
        height: int,
        width: int,
        layout: Layout,
        name: str,
        bayer: BayerPattern | None = None,
        stuck: StuckPixels | None = None,
    ):
        self._packed = packed  # [T, bytes per frame], as stored
        self.height = height
        self.width = width
        self.layout = layout
        self.name = name
        self.bayer = bayer  # color filters of the sensor; None: no filters
        self.stuck = stuck  # pixels whose spikes are replaced (``mended``); None: the spikes are as recorded

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        height: int | None = None,
        width: int | None = None,
        layout: Layout = Layout(),
        bayer: BayerPattern | None = None,
    ) -> SpikeStream:
        """Open a recording; a ``.dat`` is memory-mapped and never read as a whole.

        Args:
            height, width: used pixels; required for ``.dat``, checked for the other formats.
            layout: how a ``.dat`` stores its frames.
            bayer: colors of the top-left 2x2 pixels of a color sensor.

        Raises:
            ValueError: the file is missing or empty, has another size, or is not a stream of zeros and ones.
        """
        path = Path(path)
        size = require_file(path, "spike stream")
        ending = path.suffix.lower()
        if ending in (".npy", ".npz"):
            with reading(path, "a readable array of spikes"):
                stream = cls._from_npy(path) if ending == ".npy" else cls._from_npz(path)
            if (height or stream.height, width or stream.width) != (stream.height, stream.width):
                raise ValueError(
                    f"{path}: frames of {stream.width}x{stream.height} pixels, "
                    f"expected {width or stream.width}x{height or stream.height}"
                )
            return stream.with_filters(bayer)
        if height is None or width is None:
            raise ValueError(f"{path}: a .dat does not contain its frame size; give height and width")
        try:
            frame = layout.bytes_per_frame(height, width)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        frames, rest = divmod(size, frame)
        if not size:
            raise ValueError(f"{path}: the file is empty, expected {width}x{height} frames of {frame} bytes")
        if rest or not frames:
            over = f"; {frames} would leave {rest}" if frames else ""
            raise ValueError(
                f"{path}: {size} bytes are not a whole number of {width}x{height} frames "
                f"({frame} bytes each{over}){_fitting_sizes(size, height, width)}"
            )
        packed = np.memmap(path, np.uint8, "r", shape=(frames, frame))
        return cls(packed, height, width, layout, str(path), bayer)

    @classmethod
    def from_array(cls, spikes: NDArray[np.generic], name: str = "array") -> SpikeStream:
        """Pack a [T, H, W] array of zeros and ones (booleans or integers), one block of frames at a time."""
        steps = range(0, len(spikes) if spikes.ndim else 0, _TOGETHER)
        blocks = (np.asarray(spikes[start : start + _TOGETHER]) for start in steps)
        return cls._of_blocks(spikes.shape, spikes.dtype, blocks, name)

    @classmethod
    def _from_npy(cls, path: Path) -> SpikeStream:
        # The array stays on disk while it is packed.
        return cls.from_array(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)), str(path))

    @classmethod
    def _from_npz(cls, path: Path) -> SpikeStream:
        """Read the only array of an archive, or its only one of three dimensions, a block of frames at a time."""
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            # The archive may also contain labels and other arrays.
            cubes = members if len(members) == 1 else [m for m in members if len(_npy_header(archive, m)[0]) == 3]
            if len(cubes) != 1:
                names = ", ".join(member.filename.removesuffix(".npy") for member in members)
                raise ValueError(f"{len(members)} arrays ({names}) where one [T, H, W] was expected")
            shape, fortran, dtype = _npy_header(archive, cubes[0])
            if fortran or len(shape) != 3:
                return cls.from_array(_whole_member(archive, cubes[0]), str(path))
            with archive.open(cubes[0]) as file:
                _read_npy_header(file)
                return cls._of_blocks(shape, dtype, _frames_of(file, shape, dtype), str(path))

    @classmethod
    def _of_blocks(
        cls, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[NDArray[np.generic]], name: str
    ) -> SpikeStream:
        """Pack frames [T, H, W] that arrive in blocks."""
        if len(shape) != 3:
            raise ValueError(f"{name}: expected spikes [T, H, W], got {len(shape)} dimensions")
        if dtype != np.bool_ and not np.issubdtype(dtype, np.integer):
            raise ValueError(f"{name}: expected zeros and ones, got {dtype} values")
        frames, height, width = shape
        if not math.prod(shape):
            raise ValueError(f"{name}: expected spikes [T, H, W], got an empty array {shape}")
        packed = np.empty((frames, -(-height * width // 8)), np.uint8)
        start = 0
        for block in blocks:
            if block.dtype != np.bool_ and (block.min() < 0 or block.max() > 1):
                raise ValueError(f"{name}: expected zeros and ones, got {block.min()} to {block.max()}")
            rows = block.astype(np.uint8).reshape(len(block), -1)
            packed[start : start + len(block)] = np.packbits(rows, axis=-1, bitorder="little")
            start += len(block)
        return cls(packed, height, width, Layout(flip=False), name)

    @classmethod
    def from_packed(cls, packed: NDArray[np.uint8], height: int, width: int, name: str = "array") -> SpikeStream:
        """A stream of frames packed by ``from_array`` [T, bytes per frame]."""
        return cls(packed, height, width, Layout(flip=False), name)

    def with_filters(self, pattern: BayerPattern | None) -> SpikeStream:
        """The same frames, as of a color sensor whose top-left 2x2 pixels have these colors."""
        return SpikeStream(self._packed, self.height, self.width, self.layout, self.name, pattern, self.stuck)

    def mended(self, stuck: StuckPixels | None) -> SpikeStream:
        """The same frames, with the spikes of stuck pixels replaced by those of the nearest good ones.

        None gives the frames as they were recorded, and so do pixels of a sensor of another size.
        """
        if stuck is not None and tuple(stuck.mask.shape) != (self.height, self.width):
            stuck = None
        return SpikeStream(self._packed, self.height, self.width, self.layout, self.name, self.bayer, stuck)

    @property
    def packed(self) -> NDArray[np.uint8]:
        """The frames as stored bits [T, bytes per frame]."""
        return self._packed

    def __len__(self) -> int:
        return len(self._packed)

    def unpack(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames [stop - start, H, W] of zeros and ones, top row first."""
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"{self.name}: frames {start} to {stop} requested, but the stream has {len(self)}")
        stored = self.layout.stored_width or self.width
        bits = np.unpackbits(
            self._packed[start:stop], axis=-1, count=self.height * stored, bitorder=self.layout.bit_order
        )
        rows = bits.reshape(stop - start, self.height, stored)[:, :, : self.width]
        # A copy, since numpy calls a single row contiguous even with a negative stride, which torch refuses.
        spikes = rows[:, ::-1].copy() if self.layout.flip else np.ascontiguousarray(rows)
        if self.stuck is not None:
            self.stuck.mend(spikes)
        return spikes

    def central(self, spec: WindowSpec, margin: int = 0) -> NDArray[np.uint8]:
        """The frames of the central context [spec.context + 2 margin, H, W]."""
        needed = spec.context + 2 * margin
        if len(self) < needed:
            raise ValueError(f"{self.name}: {len(self)} frames, but a view needs at least {needed}")
        start = (len(self) - needed) // 2
        return self.unpack(start, start + needed)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """The frames [start, stop), unpacked in blocks [n, H, W] of a few megabytes."""
        last = len(self) if stop is None else stop
        step = max(_BLOCK // (self.height * self.width), 1)
        for first in progress(range(start, last, step), f"Reading {self.name}", within=True):
            yield self.unpack(first, min(first + step, last))

    def count(self, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Spike count of every pixel [H, W] over the frames [start, stop), in constant memory."""
        total = np.zeros((self.height, self.width), np.int64)
        for block in self.blocks(start, stop):
            total += block.sum(0, dtype=np.int64)
        return total


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type of the ``.npy`` file whose beginning is read."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of objects, which could execute code")
    return tuple(shape), bool(fortran), dtype


def _npy_header(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The header of an array in an archive, if the archive is large enough for the array."""
    with archive.open(member) as file:
        shape, fortran, dtype = _read_npy_header(file)
    most = min(member.file_size, member.compress_size * _DEFLATED)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > most:
        raise ValueError(f"{member.filename} says that it has the shape {shape}, but holds at most {most} bytes")
    return shape, fortran, dtype


def _whole_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _frames_of(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NDArray[np.generic]]:
    """Frames [n, H, W] of the rest of a ``.npy`` file, in small blocks."""
    frames, height, width = shape
    size = height * width * dtype.itemsize
    for start in range(0, frames, _TOGETHER):
        count = min(_TOGETHER, frames - start)
        stored = file.read(count * size)
        if len(stored) < count * size:
            raise ValueError(f"truncated after {start} of {frames} frames")
        yield np.frombuffer(stored, dtype).reshape(count, height, width)
    if file.read(1):  # reading to the end also compares the checksum
        raise ValueError(f"more than {frames} frames")


def write_dat(
    path: str | os.PathLike[str], spikes: NDArray[np.generic] | SpikeStream, layout: Layout = Layout()
) -> None:
    """Write spikes [T, H, W] (zeros and ones), or a stream, as ``.dat``; padding columns are zero.

    Raises:
        ValueError: the layout cannot hold the frames, values are not zeros and ones, or the file cannot be written.
    """
    stream = spikes if isinstance(spikes, SpikeStream) else SpikeStream.from_array(spikes, str(path))
    stored = layout.stored_width or stream.width
    try:
        layout.bytes_per_frame(stream.height, stream.width)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with atomic_write(path, "wb") as file:
        for block in stream.blocks():
            rows = np.pad(block, ((0, 0), (0, 0), (0, stored - stream.width)))
            rows = rows[:, ::-1] if layout.flip else rows
            file.write(np.packbits(rows.reshape(len(block), -1), axis=-1, bitorder=layout.bit_order).tobytes())


def write_array(path: str | os.PathLike[str], spikes: NDArray[np.generic] | SpikeStream) -> None:
    """Write spikes [T, H, W] as ``.npy`` or ``.npz`` (compressed), one block of frames at a time."""
    stream = spikes if isinstance(spikes, SpikeStream) else SpikeStream.from_array(spikes, str(path))
    kind = Path(path).suffix
    if kind not in (".npy", ".npz"):
        raise ValueError(f"{path}: an array of spikes must be a .npy or .npz file")
    with atomic_write(path, "wb") as file:
        if kind == ".npy":
            _write_npy(file, stream)
            return
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("spikes.npy", "w", force_zip64=True) as member,
        ):
            _write_npy(member, stream)


def _write_npy(file: IO[bytes], stream: SpikeStream) -> None:
    shape = (len(stream), stream.height, stream.width)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for block in stream.blocks():
        file.write(block.tobytes())
