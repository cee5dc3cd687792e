"""The memory that freed arrays leave: kept for the next step's, and returned around what is rare."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt (its malloc.h).  Larger arrays are still mapped alone, and returned when freed.  Before
# glibc 2.35 the limit is at most 32 MB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _MAPPED_ALONE = 1 << 30, (1 << 28, 1 << 25)


def keep_freed() -> None:
    """Keep freed memory for the next arrays.

    glibc returns large ones to the system at once, and a step on photographs spent two fifths of its time on getting
    them back as cleared pages.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    # The limit comes first: by setting the other one alone, it would stay at its initial 128 kB.
    if mallopt is not None and any(mallopt(_MMAP_THRESHOLD, size) for size in _MAPPED_ALONE):
        mallopt(_TRIM_THRESHOLD, _KEPT)


@contextmanager
def returning_freed() -> Iterator[None]:
    """Return freed memory to the system before and after what is rare and needs more than a step.

    Otherwise it would need its memory in addition to what the steps have kept, and its arrays would then lie between
    those that stay, and the next time others would be added.
    """
    return_freed()
    try:
        yield
    finally:
        return_freed()


def return_freed() -> None:
    """Return freed memory to the system now."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
