"""The flags that say how a recording is read, the same in every command, and the recording as they say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from spike import Packing, SpikeStream
from spike.bayer import BayerPattern
from spike.formats import open_recording
from spike.guess import Guess, sureness
from spike.stream import BitOrder


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a ``.dat`` is packed."""
    group = parser.add_argument_group("how a .dat is packed (what is not given is guessed, or in its config.yaml)")
    group.add_argument("--height", type=int, help="rows of pixels")
    group.add_argument("--width", type=int, help="used columns of pixels")
    group.add_argument("--stored_width", type=int, help="columns a row stores, where it is padded")
    group.add_argument("--bit_order", choices=get_args(BitOrder), help="which bit of a byte is its first pixel")
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="rows are stored bottom to top (the default)"
    )


def add_color_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flag of a color sensor."""
    parser.add_argument(
        "--bayer", choices=get_args(BayerPattern), help="a color sensor: colors of its top left 2x2 pixels"
    )


def known_packing(args: argparse.Namespace) -> Packing:
    """What the flags say (``bayer`` only where a command has that flag)."""
    return Packing(
        args.height, args.width, args.stored_width, args.bit_order, args.flip, getattr(args, "bayer", None)
    )


def opened(path: Path, known: Packing, insist: bool = False) -> tuple[SpikeStream, Guess | None]:
    """The recording at ``path``, and the guess where one was needed, which is reported.

    Raises:
        ValueError: not readable, or (with ``insist``, for what takes minutes) its size is far from sure.
    """
    stream, guess = open_recording(path, known)
    if guess is not None:
        print(
            f"{stream.name}: taken as {guess.flags()} (size: {sureness(guess.size_sure)}, "
            f"bit order: {sureness(guess.order_sure)})"
        )
        if insist and sureness(guess.size_sure) == "a guess":
            raise ValueError(f"{path}: that size is no more than a guess; give --height and --width")
    return stream, guess


def frames_of(text: str | None, stream: SpikeStream) -> list[int]:
    """The frames that ``--frames`` names: one number, or first:last:step (as Python slices)."""
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
        raise ValueError(f"--frames {text}: none of the recording's {len(stream)} frames")
    return chosen
