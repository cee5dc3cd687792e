"""What a program says besides its errors: sentences and progress bars.  ``--quiet`` hides both, and only here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO, TypeVar

from tqdm import tqdm

A = TypeVar("A")
# Seconds before a bar appears: what ends sooner needs none.
_DELAY = 1.0
_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether this process hides sentences and progress bars from now on."""
    global _quiet
    _quiet = quiet


def counted(count: int, thing: str) -> str:
    """A number of things in words: ``1 view``, ``2 views``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def say(text: str, to: TextIO | None = None) -> None:
    """Print a sentence, above the progress bars; on standard output unless ``to`` is another stream."""
    if not _quiet:
        tqdm.write(text, file=to or sys.stdout)


def announce(text: str, to: TextIO | None = None) -> None:
    """Print what a user needs even with ``--quiet``: an error, or the address of the viewer."""
    stream = to or sys.stdout
    tqdm.write(text, file=stream)
    stream.flush()


def progress(
    things: Iterable[A], what: str, total: int | None = None, unit: str = "it", within: bool = False
) -> tqdm[A]:
    """Iterate with a bar on stderr that shows the time left.

    Args:
        what: label of the bar.
        total: number of things, if they have no length.
        within: the bar belongs to a larger task, and disappears when it is done.
    """
    return tqdm(
        things, what, total, not within, unit=unit, disable=_quiet, dynamic_ncols=True, delay=0 if _quiet else _DELAY
    )


def bar(what: str, total: int, done: int = 0) -> tqdm[int]:
    """A bar that its owner moves, of a task with ``total`` steps of which ``done`` are done."""
    return tqdm(desc=what, total=total, initial=done, disable=_quiet, dynamic_ncols=True)
