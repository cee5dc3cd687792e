"""How much memory this process holds now: the peak, which only rises, would hide a leak below an earlier one."""

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of memory that are in use by this process; skips the test where the system does not tell."""
    if not STATM.exists():
        pytest.skip("the system does not tell a process's present memory")
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settle() -> None:
    """Give back what was freed: a leak that filled it up would not show."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)


def growth(work: Callable[[], object], calls: int, before: int) -> int:
    """Bytes that ``calls`` calls leave behind, after ``before`` others that fill what is kept for good."""
    for _ in range(before):
        work()
    settle()
    start = resident()
    for _ in range(calls):
        work()
    settle()
    return resident() - start
