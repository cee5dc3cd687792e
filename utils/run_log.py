"""The records of a run: its curves and metadata, as plain JSON.

    log.jsonl   one object per line: iteration, seconds, loss and its terms, psnr, gaussians
    run.json    command, versions, seconds, peak memory
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.io import atomic_write, unwritable, write_json
from utils.json_files import anything, number, read_json, read_json_lines, record, table

CURVES, CIRCUMSTANCES = "log.jsonl", "run.json"
# What a row calls the size of the scene (``Field.sizes``).
SIZES = ("gaussians", "surroundings", "cells", "weights")
_PACKAGES = ("torch", "numpy", "diff-gaussian-rasterization-cpu")


def read_curves(model: str | os.PathLike[str]) -> tuple[list[dict[str, float]], int]:
    """The records of ``log.jsonl`` by increasing iteration, and how many of its lines are not records.

    Lines truncated by a crash and values that are not finite numbers are skipped.  A resumed run may repeat
    iterations: the last record of an iteration counts.  If the file is missing, there are no records.
    """
    path = Path(model) / CURVES
    rows, unreadable = read_json_lines(path, _row, "log") if path.exists() else ([], 0)
    records = {row["iteration"]: row for row in rows}
    return [records[iteration] for iteration in sorted(records)], unreadable


def _row(value: Any) -> dict[str, float]:
    """The finite numbers of a record, which has an iteration."""
    # Comparing does not overflow, however many digits an integer has.
    row = {k: v for k, v in table(anything)(value).items() if type(v) in (int, float) and abs(v) < 1e300}
    number(least=0)(row.get("iteration"))
    return row


def peak_memory() -> int | None:
    """The largest resident memory of this process so far, in bytes; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _seconds_at(model: Path, iteration: int) -> float:
    """The training time that an earlier run recorded when it ended at this iteration; 0 if there was none."""
    path = model / CIRCUMSTANCES
    if not iteration or not path.is_file():
        return 0.0
    stored = read_json(path, record({}, {"iterations": number(least=0), "seconds": number(least=0)}))
    return float(stored.get("seconds", 0.0)) if stored.get("iterations") == iteration else 0.0


class RunLog:
    """Curves and metadata of one training run in ``model``.

    Args:
        iteration: first iteration of the run; later rows from an earlier attempt are dropped.
    """

    def __init__(self, model: str | os.PathLike[str], iteration: int):
        self.model = Path(model)
        kept = [row for row in read_curves(model)[0] if row["iteration"] <= iteration] if iteration else []
        self.before = max(kept[-1].get("seconds", 0.0) if kept else 0.0, _seconds_at(self.model, iteration))
        with atomic_write(self.model / CURVES, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)

    def add(self, iteration: int, seconds: float, **values: float) -> dict[str, float]:
        """Append one row (``seconds`` since this process started training) and return it.

        Raises:
            ValueError: the file cannot be written.
        """
        row = {"iteration": iteration, "seconds": round(self.before + seconds, 2)} | values
        path = self.model / CURVES
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise unwritable(path, error) from error
        return row

    def finish(self, iteration: int, seconds: float) -> None:
        """Record how the run was made, and its time and memory."""
        versions = {"python": platform.python_version()}
        for name in _PACKAGES:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = "not installed"
        made = {
            "command": " ".join(sys.argv),
            "versions": versions,
            "processors": os.cpu_count(),
            "iterations": iteration,
            "seconds": round(self.before + seconds, 2),
            "peak_memory_bytes": peak_memory(),
        }
        write_json(self.model / CIRCUMSTANCES, made)


class Board:
    """The curves, an image and the opacities for TensorBoard, in ``<model>/tensorboard``.

    Args:
        iteration: first iteration of the run; later entries from an earlier attempt are purged.

    Raises:
        ValueError: the package tensorboard is not installed.
    """

    def __init__(self, model: str | os.PathLike[str], iteration: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
        self._writer = SummaryWriter(str(Path(model) / "tensorboard"), purge_step=iteration + 1)

    def add(
        self, row: dict[str, float], losses: Collection[str], image: Tensor, histograms: dict[str, Tensor]
    ) -> None:
        """Log a row of ``log.jsonl`` (its ``losses`` together), an image [C, H, W] and histograms of tensors."""
        step = int(row["iteration"])
        for name, value in row.items():
            if name != "iteration":
                group = "loss" if name in losses else "training"
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.add_image("render", image.clamp(0, 1), step)
        for name, values in histograms.items():
            self._writer.add_histogram(name, values, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
