"""Seams of a merged scene: views that look across a boundary between blocks, against the rest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pictures.kinds import BY_NAME
from scene.blocks import ACROSS
from scene.manifest import PROTOCOLS
from training.merging import read_across
from utils.json_files import number, read_json, table

_PER_VIEW = table(table(table(table(number()))))


@dataclass(frozen=True)
class Seams:
    """Mean PSNR, dB, of views that look across a boundary and of the rest, and how many there are; NaN of none."""

    across: float
    rest: float
    count_across: int
    count_rest: int


def measure_seams(model: Path, across: dict[str, float]) -> dict[tuple[str, str], Seams]:
    """Compare views at the middle of their exposures, by protocol and kind of image.

    Args:
        model: a model that metrics.py has measured, of the scene whose views are in ``across``.
        across: for each view, the share of its image that shows other blocks than the main one.

    Raises:
        ValueError: not measured, or of other views.
    """
    path = model / "per_view.json"
    if not path.is_file():
        name = shlex.quote(str(model))
        raise ValueError(f"{model}: has no per_view.json; run render.py -m {name} and metrics.py -m {name} first")
    found = {}
    for protocol, kinds in read_json(path, _PER_VIEW, "table of measured views").items():
        for kind, rows in kinds.items():
            values = {name: row["PSNR"] for name, row in rows.items() if name in across and "PSNR" in row}
            looking = [value for name, value in values.items() if across[name] >= ACROSS]
            rest = [value for name, value in values.items() if across[name] < ACROSS]
            if values:
                found[protocol, kind] = Seams(_mean(looking), _mean(rest), len(looking), len(rest))
    if not found:
        raise ValueError(f"{path}: has none of the views that were merged")
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def seams_table(merged: Path, others: Sequence[Path] = ()) -> str:
    """Format the seams of a merged model, and the same views of other models of its scene."""
    across = read_across(merged)
    width = max(len(str(model)) for model in (merged, *others))
    lines = [f"{'model':<{width}} {'':<14} {'image':<10} {'across':>13} {'rest':>13} {'difference':>10}"]
    for model in (merged, *others):
        found = measure_seams(model, across)
        for protocol in PROTOCOLS:
            for (of, kind), seams in found.items():
                if of == protocol and kind in BY_NAME:
                    lines.append(
                        f"{model!s:<{width}} {protocol:<14} {BY_NAME[kind].label:<10} "
                        f"{seams.across:>6.2f} ({seams.count_across:>4}) {seams.rest:>6.2f} ({seams.count_rest:>4}) "
                        f"{seams.across - seams.rest:>10.2f}"
                    )
    return "\n".join(lines)
