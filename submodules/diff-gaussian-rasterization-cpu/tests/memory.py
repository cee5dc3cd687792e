"""How much memory this process holds now: the peak, which only rises, would hide a leak below an earlier one."""

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


def growth(work: Callable[[], object], calls: int, before: int) -> int:
    """Bytes that ``calls`` calls leave behind, after ``before`` others that fill what is kept for good."""
    for _ in range(before):
        work()
    gc.collect()
    start = resident()
    for _ in range(calls):
        work()
    gc.collect()
    return resident() - start
