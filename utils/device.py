"""Where tensors live, and how many threads work on them."""

from __future__ import annotations

import os

import torch


def pick_device(name: str) -> torch.device:
    """The device a run uses.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no CUDA device that torch can use")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def use_threads(heavy: bool) -> None:
    """All processors for convolutions, one thread for the small tensors of a step without them.

    "All" are those that this process may run on, and no more than OMP_NUM_THREADS where the user has set it.
    OpenMP's workers wait for each other actively after every operation.  On a busy machine, where one of
    them is not running, that made a step up to six times slower; the rasterizer has threads of its own.
    """
    wanted = _processors() if heavy else 1
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def _processors() -> int:
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(mine, max(int(given), 1)) if given.isdigit() else mine
