"""Tables: one run for the terminal, many runs as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.jobs import Job
from evaluation.methods import title_of
from pictures.kinds import BY_NAME, FUSED, GAUSSIANS, IMAGE, RECON_NET
from scene.manifest import DEBLURRING, HELD_OUT, PROTOCOLS
from utils.json_files import number, read_json, record, table

# ---- one run -------------------------------------------------------------------------------------------------


def _cell(row: dict[str, float], key: str, width: int, digits: int) -> str:
    return f"{row[key]:{width}.{digits}f}" if key in row else f"{'missing':>{width}}"


def results_table(results: dict[str, Any]) -> str:
    """Format the content of ``results.json`` for the terminal."""
    header = f"{'':<11} {'method':<14} {'views':>5} {'PSNR':>7} {'SSIM':>7} {'LPIPS':>7}"
    header += f" {'PSNR, gain':>11} {'all u':>7}"
    lines = [header, "-" * len(header)]
    for protocol in PROTOCOLS:
        for method, row in results.get(protocol, {}).items():
            everywhere = _cell(row, "PSNR_all_subframes", 7, 2) if "PSNR_all_subframes" in row else f"{'':>7}"
            lines.append(
                f"{protocol:<11} {BY_NAME[method].label:<14} {row['views']:>5} {_cell(row, 'PSNR', 7, 2)} "
                f"{_cell(row, 'SSIM', 7, 4)} {_cell(row, 'LPIPS', 7, 3)} {_cell(row, 'PSNR_gain', 11, 2)} {everywhere}"
            )
    return "\n".join([*lines, *_trajectory_lines(results), f"LPIPS: {results['LPIPS']}"])


def _trajectory_line(label: str, path: dict[str, Any]) -> str:
    rpe, turn, motion = (path[key] for key in ("RPE_translation", "RPE_rotation_deg", "motion_error"))
    return (
        f"{label:<11} ATE {path['ATE']:.4f}, "
        + ("RPE missing, " if rpe is None else f"RPE {rpe:.4f} and {turn:.3f} degrees per sub-frame, ")
        + ("motion error missing, " if motion is None else f"motion error {100 * motion:.1f} %, ")
        + f"{len(path['reversed_views'])} views reversed in time"
    )


def _trajectory_lines(results: dict[str, Any]) -> list[str]:
    path = results.get("trajectory")
    if path is None:
        return [f"trajectory  missing: {results['trajectory_missing']}"]
    lines = [_trajectory_line("trajectory", path)]
    if "initial_trajectory" in results:
        lines.insert(0, _trajectory_line("initial", results["initial_trajectory"]))
    as_recovered = results.get(DEBLURRING, {}).get(GAUSSIANS.name, {}).get("PSNR_all_subframes_as_recovered")
    if as_recovered is not None:
        lines.append(
            "            'all u' compares the Gaussians of the reversed views with the truth in reverse; "
            f"as recovered: {as_recovered:.2f} dB"
        )
    return lines


# ---- many runs -----------------------------------------------------------------------------------------------

COLUMNS = ("PSNR", "SSIM", "LPIPS", "PSNR, all u", "PSNR, held out", "ATE", "motion %", "minutes")
_DIGITS = dict(zip(COLUMNS, (2, 4, 3, 2, 2, 4, 1, 1), strict=True))
# Whether higher or lower values of a column are better.
BETTER = dict(zip(COLUMNS, (1, 1, -1, 1, 1, -1, -1, 0), strict=True))
# Measured values by kind of image; and what the table needs of the trajectories.
_MEASURED = table(table(number()))
_RESULTS = record(
    {},
    dict.fromkeys(PROTOCOLS, _MEASURED) | {"trajectory": record({"ATE": number()}, {"motion_error": number()})},
)
# The outputs of a run that have their own rows.
OUTPUTS = (GAUSSIANS, FUSED, RECON_NET, IMAGE)


def rows_of(job: Job, out: Path) -> dict[str, dict[str, float]]:
    """The results of one finished run: by output label (``OUTPUTS``), the values by column name (``COLUMNS``).

    Raises:
        ValueError: the results were written by another version.
    """
    file = job.folder(out) / "results.json"
    results = read_json(file, _RESULTS)
    deblurring = results.get(DEBLURRING, {})
    unknown = [name for name in deblurring if name not in BY_NAME]
    if unknown:
        raise ValueError(
            f"{file}: has results of {unknown[0]!r}, expected some of {', '.join(BY_NAME)}; it is of another version: "
            "remove this file to repeat the run"
        )
    run = job.folder(out) / "run.json"
    seconds = read_json(run, record({"seconds": number()}))["seconds"] if run.exists() else None
    rows: dict[str, dict[str, float]] = {}
    shared = {"ATE": "ATE", "motion %": "motion_error"}
    for output in OUTPUTS:
        measured = deblurring.get(output.name)
        if measured is None:
            continue
        row = {name: measured.get(name) for name in ("PSNR", "SSIM", "LPIPS")}
        # Reversed views are only known from the ground truth, so it must not be used to reverse them here.
        recovered = measured.get("PSNR_all_subframes_as_recovered")
        row["PSNR, all u"] = measured.get("PSNR_all_subframes") if recovered is None else recovered
        row["PSNR, held out"] = results.get(HELD_OUT, {}).get(output.name, {}).get("PSNR")
        if output is GAUSSIANS:
            row |= {name: (results.get("trajectory") or {}).get(key) for name, key in shared.items()}
            row["motion %"] = None if row["motion %"] is None else 100 * row["motion %"]
        row["minutes"] = None if seconds is None else seconds / 60
        rows[output.label] = {name: float(value) for name, value in row.items() if value is not None}
    return rows


def summary(jobs: Sequence[Job], out: Path, failed: dict[Job, str]) -> list[dict[str, Any]]:
    """One row per scene, poses, method and output: means over seeds and, with several seeds, the standard deviation."""
    found: dict[tuple[str, str, str, str], list[dict[str, float]]] = defaultdict(list)
    missing: dict[tuple[str, str, str, str], str] = {}
    for job in jobs:
        scene, poses, method = job.scene.name, job.poses, job.method
        if job in failed:
            missing[scene, poses, method, ""] = failed[job]
        elif job.is_done(out):
            for output, row in rows_of(job, out).items():
                found[scene, poses, method, output].append(row)
    rows = []
    for key, measured in found.items():
        values: dict[str, Any] = dict(zip(("scene", "poses", "method", "output"), key, strict=True))
        values["seeds"] = len(measured)
        for name in COLUMNS:
            numbers = [row[name] for row in measured if name in row]
            if numbers:
                values[name] = float(np.mean(numbers))
                if len(numbers) > 1:
                    values[f"{name} sd"] = float(np.std(numbers, ddof=1))
        rows.append(values)
    for key, reason in missing.items():
        values = dict(zip(("scene", "poses", "method", "output"), key, strict=True))
        rows.append(values | {"seeds": 0, "failed": reason})
    return rows


def cells(row: dict[str, Any], plus: str = "±") -> list[str]:
    """The numbers of a row as text; ``plus`` separates the standard deviation."""
    if "failed" in row:
        return [row["failed"]] + [""] * (len(COLUMNS) - 1)
    found = []
    for name in COLUMNS:
        digits = _DIGITS[name]
        text = f"{row[name]:.{digits}f}" if name in row else ""
        found.append(text + (f" {plus} {row[f'{name} sd']:.{digits}f}" if f"{name} sd" in row else ""))
    return found


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Format the rows as Markdown."""
    head = ["scene", "poses", "method", "output", "seeds", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        start = [row["scene"], row["poses"], title_of(row["method"]), row["output"], str(row["seeds"])]
        lines.append("| " + " | ".join(start + cells(row)) + " |")
    return "\n".join(lines) + "\n"


def latex(rows: Iterable[dict[str, Any]]) -> str:
    """Format the rows as LaTeX, for the package booktabs."""
    head = ["scene", "poses", "method", "output", *COLUMNS]

    def safe(text: str) -> str:
        for character in "&%_#":
            text = text.replace(character, "\\" + character)
        return text

    lines = [r"\begin{tabular}{llll" + "r" * len(COLUMNS) + "}", r"\toprule"]
    lines += [" & ".join(safe(name) for name in head) + r" \\", r"\midrule"]
    for row in rows:
        start = [row["scene"], row["poses"], title_of(row["method"]), row["output"]]
        lines.append(" & ".join([safe(s) for s in start] + [safe(c) for c in cells(row, r"$\pm$")]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as CSV, without rounding; standard deviations have their own columns."""
    names = ["scene", "poses", "method", "output", "seeds"]
    names += [column for name in COLUMNS for column in (name, f"{name} sd")] + ["failed"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
