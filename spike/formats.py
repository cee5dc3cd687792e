"""Recordings in any supported format: ``.dat``, ``.npy``, ``.npz``, or a SpikeCV folder with ``config.yaml``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from spike.guess import Guess, guess_layout
from spike.stream import SUFFIXES, Layout, Packing, SpikeStream, write_array, write_dat
from utils.io import atomic_write
from utils.json_files import shown
from utils.reading import read_text

CONFIG = "config.yaml"
_FOLDER_STREAM = "spikes"
_LARGEST_CONFIG = 1 << 20


def open_recording(path: str | os.PathLike[str], known: Packing = Packing()) -> tuple[SpikeStream, Guess | None]:
    """Open a recording; metadata of a ``.dat`` that is not ``known`` is guessed from its statistics.

    A ``config.yaml`` next to a ``.dat`` (SpikeCV) gives its size.  A folder stands for the one stream in it.

    Returns:
        the stream, and the guess if one was needed, else None.

    Raises:
        ValueError: see ``SpikeStream.open`` and ``guess_layout``; or a folder does not hold exactly one stream.
    """
    path = Path(path)
    if path.is_dir():
        path = _stream_of(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such recording")
    height, width, layout = known.height, known.width, known.layout
    if path.suffix.lower() in (".npy", ".npz"):
        return SpikeStream.open(path, height, width, bayer=known.bayer), None
    config = path.parent / CONFIG
    if (height is None or width is None) and config.is_file():
        settings = read_config(config)
        height = height or _pixels(config, settings, "spike_h")
        width = width or _pixels(config, settings, "spike_w")
    guess = None
    if height is None or width is None:
        guess = guess_layout(path, known)
        height, width, layout = guess.height, guess.width, guess.layout
    return SpikeStream.open(path, height, width, layout, known.bayer), guess


def check_output(path: str | os.PathLike[str], height: int | None = None, width: int | None = None) -> None:
    """Reject a name (and a size, if given) that ``write_recording`` cannot write.

    Raises:
        ValueError: unknown suffix, or a frame that does not fill whole bytes.
    """
    path = Path(path)
    if path.suffix not in ("", *SUFFIXES):
        raise ValueError(f"{path}: a recording must be a .dat, .npy or .npz file, or a folder (no suffix)")
    if height is not None and width is not None and path.suffix in ("", ".dat") and height * width % 8:
        raise ValueError(
            f"{path}: a .dat stores whole bytes per frame, but {width}x{height} pixels are not a multiple of 8; "
            "give a name ending in .npz"
        )


def write_recording(path: str | os.PathLike[str], stream: SpikeStream, layout: Layout = Layout()) -> None:
    """Write a stream in the format that its name implies: ``.dat``, ``.npy``, ``.npz``, or (no suffix) SpikeCV folder.

    ``layout`` applies to a ``.dat`` only; the other formats have a fixed layout.
    """
    path = Path(path)
    check_output(path)
    if path.suffix == ".dat":
        write_dat(path, stream, layout)
    elif path.suffix in (".npy", ".npz"):
        write_array(path, stream)
    else:
        write_dat(path / f"{_FOLDER_STREAM}.dat", stream)
        with atomic_write(path / CONFIG, "w") as file:
            file.write(
                f"filename: {_FOLDER_STREAM}\nspike_w: {stream.width}\nspike_h: {stream.height}\n"
                "is_labeled: false\nlabeled_data_type: [0]\nlabeled_data_suffix: None\n"
            )


def read_config(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the top-level ``key: value`` lines of a ``config.yaml``, values as text.

    SpikeCV's files use no other YAML syntax.
    """
    lines = read_text(path, "configuration", _LARGEST_CONFIG).splitlines()
    pairs = (line.split("#")[0].split(":", 1) for line in lines if not line.startswith((" ", "#", "-")))
    return {pair[0].strip(): pair[1].strip().strip("'\"") for pair in pairs if len(pair) == 2}


def _pixels(path: Path, settings: dict[str, str], key: str) -> int:
    value = settings.get(key, "")
    if not re.fullmatch("[0-9]{1,5}", value) or not int(value):
        raise ValueError(f"{path}: {key} is {shown(value)}, expected a number of pixels")
    return int(value)


def _stream_of(folder: Path) -> Path:
    """The only stream in a folder, or the one of several that ``config.yaml`` names."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    config = folder / CONFIG
    if len(files) > 1 and config.is_file():
        named = Path(read_config(config).get("filename", "")).stem
        files = [f for f in files if f.stem == named] or files
    if len(files) != 1:
        found = ", ".join(f.name for f in files[:8]) or "none"
        raise ValueError(f"{folder}: expected one recording in the folder, found {found}; give its file")
    return files[0]
