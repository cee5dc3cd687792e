"""Files: atomic writes, and reading and writing images."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.locks import lock_handle
from utils.reading import read_bytes, reading, require_file

# Rec.601 luma of RGB, the gray used by spike data sets.
LUMA = (0.299, 0.587, 0.114)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Names of files and folders that are being written (see ``_partial``).
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}\.partial")


def _partial(path: Path) -> Path:
    """A new name beside ``path``, on the same file system, for what becomes ``path`` when it is complete."""
    return path.parent / f".{path.name[:64]}.{secrets.token_hex(8)}.partial"


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes left half-written in ``folder`` and below; what is being written is locked."""
    for path in Path(folder).rglob(".*.partial"):
        if not _PARTIAL.fullmatch(path.name) or path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        with contextlib.suppress(OSError):  # another process is writing it, or has just removed it
            handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            try:
                if lock_handle(handle):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


class _Recorded(io.FileIO):
    """A file that remembers why a write failed, whatever exception the writing library raises.

    Once the disk is full it only counts, so that the error can say how much was needed.
    """

    failure: OSError | None = None
    needed = 0

    def recorded(self, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return act(*args)
        except OSError as error:
            self.failure = error
            raise

    def write(self, data: Any, /) -> int:
        if self.failure is None:
            try:
                written: int = self.recorded(super().write, data)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
            else:
                self.needed = max(self.needed, self.tell())
                return written
        end = self.seek(len(data), os.SEEK_CUR)
        self.needed = max(self.needed, end)
        return len(data)

    def fileno(self) -> int:
        # Without a descriptor, libraries cannot bypass ``write``.
        raise io.UnsupportedOperation("every byte goes through write()")


def _new_file(path: Path) -> int:
    """Create and lock a file, so that ``remove_leftovers`` of another process leaves it alone."""
    while True:
        # Not mkstemp, whose files are private: these get permissions from the umask.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with contextlib.suppress(OSError):
            lock_handle(handle)
            if os.fstat(handle).st_nlink:
                return handle
        os.close(handle)


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that is renamed to ``path`` once everything is written.

    Folders are created.  Text is UTF-8; bytes of a file's name that are no text (PEP 383) are written as escapes.
    After an error, no file is left behind and an older file is unchanged.
    Errors in the body that are not write errors (reading another file, say) are passed on unchanged.

    Raises:
        ValueError: the disk is full, the folder cannot be written, ... (names ``path``).
    """
    path = Path(path)
    temporary = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _new_file(temporary)
    except OSError as error:
        raise unwritable(path, error) from error
    raw = _Recorded(handle, "wb")
    try:
        with io.BufferedWriter(raw, 1 << 18) as binary:
            file: IO[Any] = binary
            if mode == "w":
                file = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="\n")
            yield file
            file.flush()
            if raw.failure is not None:
                raise raw.failure
            raw.recorded(os.fsync, handle)
            raw.recorded(os.replace, temporary, path)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        if raw.failure is None:
            raise
        raise unwritable(path, raw.failure, raw.needed) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def partial_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside ``target`` to write into; the caller moves it, or its content, to where it belongs.

    What is still there at the end of the ``with`` block is removed.
    """
    folder = _partial(Path(target))
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock_handle(handle)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write ``content`` (dicts, lists, strings, numbers) as JSON, atomically.

    Raises:
        ValueError: the file cannot be written.
    """
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)


def unwritable(path: Path, error: OSError, needed: int = 0) -> ValueError:
    """The error for a file that could not be written; ``needed`` is its size in bytes, if known."""
    reason = error.strerror or str(error)
    if needed and error.errno in _FULL:
        reason += f"; the file needs {_megabytes(needed)}"
        if error.errno == errno.ENOSPC:
            reason += f", {_megabytes(shutil.disk_usage(path.parent).free)} are free"
    return ValueError(f"{path}: could not be written ({reason})")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Pixels of the largest image that is decoded: twenty thousand times fewer bytes can claim many more.
MOST_PIXELS = 50_000_000


def save_image(path: str | os.PathLike[str], image: Tensor | np.ndarray, bits: int = 8) -> None:
    """Write an image of intensities in [0, 1] (clipped) as PNG or JPEG.

    Args:
        image: [H, W], [C, H, W] or [H, W, C], C = 1 (gray) or 3 (RGB).
        bits: 8, or 16 (PNG).

    Raises:
        ValueError: an unsupported suffix, shape or depth, values that are not finite, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        known = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"{path}: an image file's name must end in {known}, not in {suffix or 'no suffix'}")
    array = image.detach().cpu().float().numpy() if isinstance(image, Tensor) else np.asarray(image, np.float32)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"{path}: an image needs 1 or 3 channels, not shape {tuple(array.shape)}")
    if bits not in (8, 16) or (bits == 16 and suffix != ".png"):
        raise ValueError(f"{path}: an image has 8 bits, or 16 as PNG, not {bits}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: the image has NaN or infinite values")
    top, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    array = (array.clip(0, 1) * top).round().astype(kind)
    if array.ndim == 3:
        array = np.ascontiguousarray(array[..., ::-1])  # OpenCV stores BGR
    with atomic_write(path, "wb") as file:
        file.write(cv2.imencode(suffix, array)[1].tobytes())


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a PNG or JPEG from its header, pixels.

    Raises:
        ValueError: no such file, or not an image (names the file).
    """
    require_file(path, "image")
    with reading(path, "a readable image"), open(path, "rb") as file:
        found = _png_size(file.read(24)) or _jpeg_size(file)
        if found is None:
            raise ValueError("neither PNG nor JPEG, or truncated")
    return found


def _png_size(start: bytes) -> tuple[int, int] | None:
    if start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR" or len(start) < 24:
        return None
    return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")


def _jpeg_size(file: IO[bytes]) -> tuple[int, int] | None:
    """The size in the first frame header (SOF) of a JPEG."""
    file.seek(0)
    if file.read(2) != b"\xff\xd8":
        return None
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = file.read(5)
            return (int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")) if len(frame) == 5 else None
        file.seek(length - 2, os.SEEK_CUR)
    return None


def load_image(path: str | os.PathLike[str], channels: int | None = 1) -> Tensor:
    """Read an image as intensities [C, H, W] in [0, 1].

    Args:
        channels: 1 gives Rec.601 gray, 3 gives RGB, None gives what the file has (an alpha channel is dropped).

    Raises:
        ValueError: no such file, or not an image (names the file).
    """
    width, height = image_size(path)
    if width * height > MOST_PIXELS:
        raise ValueError(f"{path}: {width}x{height} pixels, expected at most {MOST_PIXELS // 10**6} million")
    stored = read_bytes(path, "image")
    with reading(path, "a readable image"):
        array = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or not array.size:
            raise ValueError("damaged or truncated")
    if array.ndim == 2:
        array = array[..., None]
    image = torch.from_numpy(array[..., :3].astype(np.float32)).div_(float(np.iinfo(str(array.dtype)).max))
    image = image.permute(2, 0, 1)
    if len(image) == 3:
        image = image.flip(0)
    if channels == 1 and len(image) == 3:
        image = (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    elif channels == 3 and len(image) == 1:
        image = image.expand(3, -1, -1)
    return image.contiguous()
