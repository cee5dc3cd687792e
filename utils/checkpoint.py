"""Checkpoints: everything a run needs to resume, as plain tensors and numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from utils.io import atomic_write

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

    Raises:
        ValueError: no such file, not written by torch, or truncated.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises many exception types for a damaged file
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from None


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint ``chkpnt<iteration>.pth`` with the highest iteration in ``folder``, if any."""
    found = [p for p in Path(folder).glob("chkpnt*.pth") if p.stem[6:].isdecimal()]
    return max(found, key=lambda p: int(p.stem[6:]), default=None)
