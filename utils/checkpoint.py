"""Checkpoints: everything a run needs to resume, as plain tensors and numbers."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.io import atomic_write
from utils.reading import reading, require_file

# Increased when the contents change; an older file is rejected, with both numbers in the message.
VERSION = 1


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write ``state`` (nested dicts and lists of tensors, numbers and strings) whole or not at all."""
    with atomic_write(path, "wb") as file:
        torch.save(state | {"version": VERSION}, file)


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing any code in it.

    Raises:
        ValueError: the file is not a checkpoint of this program, is truncated, or is of another version.
    """
    return check_version(path, read_state(path, device))


def check_version(path: str | os.PathLike[str], state: Any) -> dict[str, Any]:
    """The state read from ``path``, if ``save_checkpoint`` of this version wrote it.

    Raises:
        ValueError: another version, or not a checkpoint.
    """
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path}: checkpoint version {found}, expected {VERSION}")
    return state


def read_state(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """Read what ``torch.save`` wrote, of any version, without executing any code in it.

    The archive's own checksums are compared first, which torch does not do: it would load damaged numbers in silence.

    Raises:
        ValueError: no such file, not written by torch, truncated, or damaged.
    """
    size = require_file(path, "checkpoint")
    with reading(path, "a readable checkpoint"):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
                raise ValueError("its members are compressed or overlap, and torch writes no such files")
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"damaged: the checksum of {damaged} is wrong")
        state = torch.load(path, map_location=device, weights_only=True)
        for name, tensor in _tensors(state):
            if tensor.layout != torch.strided or tensor.is_meta or tensor.numel() * tensor.element_size() > size:
                raise ValueError(f"{name}, of shape {list(tensor.shape)}, is not stored in full")
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise ValueError(f"{name}, of shape {list(tensor.shape)}, has NaN or infinite numbers")
    return state


def _tensors(state: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, lists and tuples, which may contain themselves, each with its keys as its name."""
    pending, seen = [("", state)], set[int]()
    while pending:
        name, value = pending.pop()
        if isinstance(value, Tensor):
            yield name or "the tensor", value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [(f"{name}.{key}" if name else f"{key}", item) for key, item in items]


def fitting(name: str, stored: Any, expected: Tensor) -> Tensor:
    """The tensor ``stored``, if it has the shape and type of ``expected``.

    Raises:
        ValueError: it has not, or is no tensor; native code would read past its end.
    """
    if not isinstance(stored, Tensor):
        raise ValueError(f"{name} is a {type(stored).__name__}, expected a tensor")
    if stored.shape != expected.shape or stored.dtype != expected.dtype:
        found, wanted = (f"{list(x.shape)} of {str(x.dtype).removeprefix('torch.')}" for x in (stored, expected))
        raise ValueError(f"{name} has the shape {found}, expected {wanted}")
    return stored


def latest_checkpoint(folder: str | os.PathLike[str], but: Path | None = None) -> Path | None:
    """The checkpoint ``chkpnt<iteration>.pth`` with the highest iteration in ``folder``, if any, other than ``but``."""
    found = [p for p in Path(folder).glob("chkpnt*.pth") if p.stem[6:].isdecimal() and p != but]
    return max(found, key=lambda p: int(p.stem[6:]), default=None)
