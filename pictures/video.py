"""Writes frames to disk as an .mp4 or as numbered PNG files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from pictures.colors import Image
from utils.io import atomic_write, partial_folder, save_image, write_json

_RANGE_NAME = "depth.json"


def _even(frame: np.ndarray) -> np.ndarray:
    """The frame with its last row or column repeated if a side is odd: chroma subsampling needs even sides."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def write_mp4(path: str | os.PathLike[str], frames: Iterable[Image], fps: float) -> None:
    """Encode ``frames`` as H.264, playable everywhere; the file is written completely or not at all.

    Raises:
        ValueError: the encoder is not installed, or the file cannot be written.
    """
    try:
        import av
    except ImportError:
        raise ValueError("an .mp4 needs the package av (pip install av), a folder of PNGs does not") from None

    with atomic_write(path, "wb") as file, av.open(file, mode="w", format="mp4") as container:
        stream = None
        for frame in frames:
            pixels = _even((frame.clip(0, 1) * 255).round().astype(np.uint8))
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate, options={"crf": "17"})
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is None:
            raise ValueError(f"{path}: a video needs at least one frame")
        container.mux(stream.encode())


def _ours(name: str) -> bool:
    return (name.endswith(".png") and name[:-4].isdigit()) or name == _RANGE_NAME


def write_pngs(folder: str | os.PathLike[str], frames: Iterable[Image], bits: int, white: float | None = None) -> None:
    """Write ``frames`` as 00000.png, 00001.png, ...; the folder appears only when it is complete.

    Args:
        bits: 8 or 16 per channel.
        white: the depth that the value 1 stands for, stored in ``depth.json``.

    Raises:
        ValueError: the folder holds other files, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or not all(_ours(entry.name) for entry in folder.iterdir())):
        raise ValueError(f"{folder}: holds other files; give a folder for these images only")
    with partial_folder(folder) as temporary:
        for i, frame in enumerate(frames):
            gray = bool((frame == frame[..., :1]).all())
            save_image(temporary / f"{i:05d}.png", frame[..., 0] if gray else frame, bits=bits)
        if white is not None:
            write_json(temporary / _RANGE_NAME, {"world_units_at_white": white, "uncovered": 0})
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
