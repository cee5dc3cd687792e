"""Puts what convert.py wrote into the scene folder, and replaces only what an earlier run of it wrote.

``convert.json`` lists the files of a conversion with digests of their contents.  A file that is not listed, or that
was changed since, is the user's and is never replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scene.dataset import CALIBRATION, POINTS
from utils.io import partial_folder, remove_leftovers, write_json
from utils.locks import FolderLock
from utils.swap import SWAPPING, finish, movable, new_entries, settle, swap

PREVIEWS, RECORD, PROGRAM = "previews", "convert.json", "convert.py"
# Everything that a conversion writes into the scene folder.
OUTPUTS = (
    "spike_data", PREVIEWS, "sparse", "transforms.json", POINTS, "report.md", "report", CALIBRATION,
    "sensor_gain_map.npy", "sensor_dark_map.npy", "sensor_stuck.npy", "sharp_data", "sequence", "trajectory.json",
)  # fmt: skip


def _files(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Files of these entries of a folder, as paths relative to it with forward slashes."""
    for name in names:
        path = root / name
        if path.is_dir():
            yield from sorted(p.relative_to(root).as_posix() for p in path.rglob("*") if not p.is_dir())
        elif os.path.lexists(path):
            yield name


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _recorded(root: Path) -> dict[str, str]:
    """The files that conversions wrote into a folder, with their digests; none if that is not known."""
    try:
        files = json.loads((root / RECORD).read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _check_replaceable(root: Path, names: Sequence[str]) -> None:
    """Raise an error if an entry is not what a conversion wrote, or cannot be moved."""
    known = _recorded(root)
    for file in _files(root, names):
        path = root / file
        if file not in known or not path.is_file() or _digest(path) != known[file]:
            raise ValueError(
                f"{path}: was not written by convert.py, or was changed since, and is never replaced; "
                "move it away, or give another folder with -s"
            )
    for path in (root / name for name in names):
        if os.path.lexists(path) and not movable(path):
            raise ValueError(f"{path}: is a mount point, which cannot be replaced; give another folder with -s")


def check_outputs(root: Path, names: Sequence[str], force: bool, inputs: Mapping[str, Path | None]) -> None:
    """Check that ``names`` can be written into the scene folder ``root``.

    Args:
        force: whether the files of an earlier run may be replaced.
        inputs: files and folders that are read, by flag.

    Raises:
        ValueError: the folder is a file, an input lies where the scene is written, or something is in the way.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root}: is a file, expected a folder for the scene")
    settle(root, PROGRAM)
    for flag, given in inputs.items():
        read = None if given is None else given.resolve()
        for place in ((root / name).resolve() for name in names):
            if read is not None and (read == place or place in read.parents):
                raise ValueError(
                    f"--{flag} {given} lies in {place}, where the scene is written; inputs are never replaced: "
                    "give another folder with -s"
                )
    there = [root / name for name in names if os.path.lexists(root / name)]
    _check_replaceable(root, names)
    if there and not force:
        raise ValueError(f"{there[0]}: already exists; give --force to replace the files of an earlier run")


@contextmanager
def staged(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Provide a folder to write into.  On success its files replace the entries ``names`` of ``root`` in one step.

    Raises:
        ValueError: another conversion writes into the folder, or a file in the way is not of a conversion.
    """
    root = Path(os.path.realpath(root))
    with FolderLock(root, PROGRAM, SWAPPING):
        finish(root)
        remove_leftovers(root)
        with partial_folder(root / "scene") as staging:
            new = new_entries(staging)
            yield new
            _check_replaceable(root, names)  # again: minutes have passed
            written = list(_files(new, sorted(path.name for path in new.iterdir())))
            kept = {f: digest for f, digest in _recorded(root).items() if f.split("/")[0] not in names}
            write_json(new / RECORD, {"files": kept | {file: _digest(new / file) for file in written}})
            swap(root, staging, [*names, RECORD])
