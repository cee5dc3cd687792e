"""Flags that describe how a recording is stored, shared by all commands, and functions that open it accordingly."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from spike import Packing, SpikeStream
from spike.bayer import BayerPattern
from spike.formats import open_recording
from spike.guess import Guess, sureness
from spike.stream import BitOrder
from utils.telling import say


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that describe how a ``.dat`` is packed."""
    group = parser.add_argument_group(
        "packing of a .dat (default: from its config.yaml, else guessed; if the size is known, the bit order is little)"
    )
    group.add_argument("--height", type=int, help="rows of pixels")
    group.add_argument("--width", type=int, help="used columns of pixels")
    group.add_argument("--stored_width", type=int, help="stored columns per row, if padded")
    group.add_argument(
        "--bit_order", choices=get_args(BitOrder), help="first pixel of a byte: lowest bit (little) or highest (big)"
    )
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="rows are stored bottom to top (the default)"
    )


def add_color_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flag of a color sensor."""
    parser.add_argument(
        "--bayer", choices=get_args(BayerPattern), help="colors of the top-left 2x2 pixels of a color sensor"
    )


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag without which nothing is replaced."""
    parser.add_argument("--force", action="store_true", help="replace existing files")


def refuse_existing(files: Iterable[Path], force: bool) -> None:
    """Raise an error if an output exists and may not be replaced: it may be a recording that cannot be made again."""
    for file in files:
        if not force and os.path.lexists(file) and not (file.is_dir() and not any(file.iterdir())):
            raise ValueError(f"{file}: already exists; give --force to replace it")


def known_packing(args: argparse.Namespace) -> Packing:
    """The packing given by the flags (``bayer`` only if the command has that flag)."""
    return Packing(
        args.height, args.width, args.stored_width, args.bit_order, args.flip, getattr(args, "bayer", None)
    )


def opened(path: Path, known: Packing, insist: bool = False) -> tuple[SpikeStream, Guess | None]:
    """Open the recording at ``path``; if its layout had to be guessed, print the guess and return it too.

    Raises:
        ValueError: not readable, or (with ``insist``, for commands that take minutes) its size is far from sure.
    """
    stream, guess = open_recording(path, known)
    if guess is not None:
        say(
            f"{stream.name}: read with {guess.flags()} (size: {sureness(guess.size_sure)}, "
            f"bit order: {sureness(guess.order_sure)})"
        )
        if insist and sureness(guess.size_sure) == "a guess":
            raise ValueError(f"{path}: the size is only a guess; give --height, --width and --bit_order")
    return stream, guess


def frames_of(text: str | None, stream: SpikeStream) -> list[int]:
    """The frames given by ``--frames``: one number, or first:last:step (a Python slice); default: the middle one."""
    if text is None:
        return [len(stream) // 2]
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or (len(numbers) == 1 and numbers[0] is None) or numbers[2:] == [0]:
        raise ValueError(f"--frames {text}: expected a frame, or first:last:step, for example 100:2000:8")
    if len(numbers) == 1:
        assert numbers[0] is not None
        return [numbers[0]]
    chosen = list(range(len(stream)))[slice(*numbers)]
    if not chosen:
        raise ValueError(f"--frames {text}: selects none of the recording's {len(stream)} frames")
    return chosen
