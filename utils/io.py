"""Files: written whole or not at all, pictures in and out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch
from torch import Tensor

# Rec.601 luma of RGB, the grey that spike data sets are made with.
LUMA = (0.299, 0.587, 0.114)


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its name when everything was written.

    Folders are made.  After an error nothing is left behind and an older file is untouched.

    Raises:
        ValueError: the disk is full, the folder cannot be written, ... (names the file).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise ValueError(f"{path}: could not be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def save_image(path: str | os.PathLike[str], image: Tensor | np.ndarray, bits: int = 8) -> None:
    """Write an image of intensities in [0, 1] (clipped) as PNG or JPEG.

    Args:
        image: [H, W], [C, H, W] or [H, W, C], C = 1 (grey) or 3 (RGB).
        bits: 8, or 16 (PNG).
    """
    array = image.detach().cpu().float().numpy() if isinstance(image, Tensor) else np.asarray(image, np.float32)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"{path}: an image needs 1 or 3 channels, not shape {tuple(array.shape)}")
    if bits not in (8, 16):
        raise ValueError(f"{path}: an image has 8 or 16 bits, not {bits}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: the image has NaN or infinite values")
    top, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    array = (array.clip(0, 1) * top).round().astype(kind)
    if array.ndim == 3:
        array = np.ascontiguousarray(array[..., ::-1])  # OpenCV stores BGR
    done, encoded = cv2.imencode(Path(path).suffix, array)
    if not done:
        raise ValueError(f"{path}: OpenCV cannot write this kind of image")
    with atomic_write(path, "wb") as file:
        file.write(encoded.tobytes())


def load_image(path: str | os.PathLike[str], channels: int | None = 1) -> Tensor:
    """Read an image as intensities [C, H, W] in [0, 1].

    Args:
        channels: 1 gives Rec.601 grey, 3 RGB, None whatever the file has.
    """
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError(f"{path}: not a readable image")
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
