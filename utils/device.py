"""The device of tensors, and the number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from utils.telling import progress

A = TypeVar("A")
B = TypeVar("B")


def pick_device(name: str) -> torch.device:
    """The device a run uses.

    Raises:
        ValueError: CUDA was requested but is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no CUDA device that torch can use")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def use_threads(heavy: bool) -> None:
    """Use all processors for convolutions, and one thread for the small tensors of steps without convolutions.

    "All" means those that this process may use, and at most OMP_NUM_THREADS if the user has set it.  OpenMP
    threads wait actively for each other after every operation.  On a busy machine, where one of them is not
    running, this made a step up to six times slower; the rasterizer has its own threads.
    """
    wanted = _processors() if heavy else 1
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def each_on_one_thread(function: Callable[[A], B], items: Sequence[A], what: str) -> list[B]:
    """``function`` of every item, in order, on all processors, each call on a single torch thread.

    Sums in torch depend on the number of threads in their last bits.  On one thread they do not, so a result is the
    same on machines with another number of processors.  If several calls fail, the error of the first item is raised.

    Args:
        what: label of the progress bar.
    """
    before = torch.get_num_threads()
    with ThreadPoolExecutor(_processors(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(progress(pool.map(function, items), what, len(items), within=True))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # MKL has one number for all threads


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Compute with a single torch thread in the ``with`` block: sums then have the same bits on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_processors(threads: int, processes: int) -> None:
    """Limit torch and the CPU rasterizer to ``threads``; call it before the first render.

    Args:
        threads: number of threads; 0 means this process's share of the processors.
        processes: number of processes on this machine.  torchrun sets OMP_NUM_THREADS to 1 for more than one of them,
            which is then ignored.
    """
    if threads or processes > 1:
        os.environ["OMP_NUM_THREADS"] = str(threads or max(_available() // processes, 1))


def _available() -> int:
    """Number of processors that this process may use: its affinity, and the limit of its container."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return mine if quota == "max" else max(min(mine, round(int(quota) / int(period))), 1)
    except (OSError, ValueError, ZeroDivisionError):
        return mine  # not Linux, or no control group


def _processors() -> int:
    mine = _available()
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(mine, max(int(given), 1)) if given.isdigit() else mine
