"""Checkpoints: everything a run needs to go on, as plain tensors and numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from utils.io import atomic_write

# Raised when the contents change; an older file is refused with both numbers.
VERSION = 1


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write ``state`` (nested dicts and lists of tensors, numbers and strings) whole or not at all."""
    with atomic_write(path, "wb") as file:
        torch.save(state | {"version": VERSION}, file)


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without running anything it might contain.

    Raises:
        ValueError: the file is no checkpoint of this program, is cut short, or is of another version.
    """
    return check_version(path, read_state(path, device))


def check_version(path: str | os.PathLike[str], state: Any) -> dict[str, Any]:
    """The state that was read from ``path``, where ``save_checkpoint`` of this version wrote it.

    Raises:
        ValueError: it is of another version, or no checkpoint.
    """
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path}: checkpoint version {found}, expected {VERSION}")
    return state


def read_state(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """What ``torch.save`` wrote, of any version, without running anything it might contain.

    Raises:
        ValueError: no such file, not written by torch, or cut short.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from None


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint ``chkpnt<iteration>.pth`` of the highest iteration in ``folder``, if any."""
    found = [p for p in Path(folder).glob("chkpnt*.pth") if p.stem[6:].isdecimal()]
    return max(found, key=lambda p: int(p.stem[6:]), default=None)
