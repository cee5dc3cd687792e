"""Replaces several entries of a folder in one step: whatever interrupts it, the old ones are there or the new ones.

    <folder>/.swap/new/   entries to move into the folder
    <folder>/.swap/old/   the replaced ones, deleted at the end
    <folder>/.swap/swap.json   the names of both

The new entries are written into a folder of another name on the same file system.  Renaming it to ``.swap`` is the one
step.  From then on ``settle`` moves the entries; if it is interrupted, the next one that reads the folder goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from utils.io import partial_folder, write_json
from utils.locks import FolderLock

SWAP = ".swap"
# The lock of programs that replace entries of a folder.
SWAPPING = ".swap.lock"
_NEW, _OLD, _NAMES = "new", "old", "swap.json"


def movable(path: Path) -> bool:
    """Whether an entry of a folder can be renamed: it is no mount point."""
    return os.lstat(path).st_dev == os.lstat(path.parent).st_dev and not os.path.ismount(path)


def swap(folder: Path, staging: Path, replaced: Sequence[str]) -> None:
    """Move all entries of ``staging/new`` into ``folder``; entries ``replaced`` of the folder go.

    Args:
        staging: a folder in ``folder``, which is used up.
    """
    new = sorted(path.name for path in (staging / _NEW).iterdir())
    (staging / _OLD).mkdir()
    write_json(staging / _NAMES, {"new": new, "old": [name for name in replaced if os.path.lexists(folder / name)]})
    os.rename(staging, folder / SWAP)
    finish(folder)


def new_entries(staging: Path) -> Path:
    """The folder in ``staging`` to write new entries into."""
    made = staging / _NEW
    made.mkdir()
    return made


def settle(folder: Path, program: str) -> None:
    """Finish a swap that was interrupted; does nothing if there was none.

    Raises:
        ValueError: the swap is still going on, or the folder cannot be written.
    """
    if not (folder / SWAP).is_dir():
        return
    with FolderLock(folder, program, SWAPPING):
        try:
            finish(folder)
        except OSError as error:
            raise ValueError(
                f"{folder}: a conversion into it was interrupted and cannot be finished ({error.strerror or error})"
            ) from None


def finish(folder: Path) -> None:
    """Move what an interrupted swap has not moved yet; needs the lock ``SWAPPING``.  Every step can be repeated."""
    step = folder / SWAP
    if not step.is_dir():  # another program has finished it
        return
    names = json.loads((step / _NAMES).read_text(encoding="utf-8"))
    for name in dict.fromkeys([*names["old"], *names["new"]]):
        is_new, waits = name in names["new"], os.path.lexists(step / _NEW / name)
        if is_new and not waits:
            continue
        if name in names["old"] and os.path.lexists(folder / name) and not os.path.lexists(step / _OLD / name):
            os.rename(folder / name, step / _OLD / name)
        if is_new:
            os.rename(step / _NEW / name, folder / name)
    with partial_folder(folder / SWAP) as done:  # removed at the end, or by the next program
        os.rename(step, done / SWAP)

