"""Files: atomic writes, and reading and writing images."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

# Rec.601 luma of RGB, the gray used by spike data sets.
LUMA = (0.299, 0.587, 0.114)


class _Recorded(io.FileIO):
    """A file that remembers why a write failed, whatever exception the writing library raises."""

    failure: OSError | None = None

    def recorded(self, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return act(*args)
        except OSError as error:
            self.failure = error
            raise

    def write(self, data: Any, /) -> int:
        written: int = self.recorded(super().write, data)
        return written

    def fileno(self) -> int:
        # Without a descriptor, libraries cannot bypass ``write``.
        raise io.UnsupportedOperation("every byte goes through write()")


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that is renamed to ``path`` once everything is written.

    Folders are created; text is UTF-8.  After an error, no file is left behind and an older file is unchanged.
    Errors in the body that are not write errors (reading another file, say) are passed on unchanged.

    Raises:
        ValueError: the disk is full, the folder cannot be written, ... (names ``path``).
    """
    path = Path(path)
    temporary = path.parent / f".{path.name[:64]}.{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp, whose files are private: these get permissions from the umask.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise unwritable(path, error) from error
    raw = _Recorded(handle, "wb")
    try:
        with io.BufferedWriter(raw, 1 << 18) as binary:
            file: IO[Any] = binary if mode == "wb" else io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
            yield file
            file.flush()
            raw.recorded(os.fsync, handle)
        raw.recorded(os.replace, temporary, path)
    except Exception as error:
        if raw.failure is None:
            raise
        raise unwritable(path, raw.failure) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write ``content`` (dicts, lists, strings, numbers) as JSON, atomically.

    Raises:
        ValueError: the file cannot be written.
    """
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)


def unwritable(path: Path, error: OSError) -> ValueError:
    """The error for a file that could not be written."""
    return ValueError(f"{path}: could not be written ({error.strerror or error})")


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


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


def load_image(path: str | os.PathLike[str], channels: int | None = 1) -> Tensor:
    """Read an image as intensities [C, H, W] in [0, 1].

    Args:
        channels: 1 gives Rec.601 gray, 3 gives RGB, None gives what the file has (an alpha channel is dropped).

    Raises:
        ValueError: no such file, or not an image (names the file).
    """
    try:
        stored = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"{path}: not a readable image ({error.strerror or error})") from None
    array = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED) if len(stored) else None
    if array is None:
        raise ValueError(f"{path}: not a readable image (neither PNG nor JPEG, or truncated)")
    if array.dtype.kind == "f":
        image = torch.from_numpy(array.astype(np.float32))
    else:
        image = torch.from_numpy(array.astype(np.float32) / float(np.iinfo(str(array.dtype)).max))
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3].permute(2, 0, 1)
    if len(image) == 3:
        image = image.flip(0)
    if channels == 1 and len(image) == 3:
        image = (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    elif channels == 3 and len(image) == 1:
        image = image.expand(3, -1, -1)
    return image.contiguous()
