"""Tables: one run for the terminal, many runs as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.jobs import RESULTS, Job
from evaluation.methods import BASELINES, GROUPS, METHODS, POSES, learned_by, title_of
from pictures.kinds import BY_NAME, FUSED, GAUSSIANS, IMAGE, RECON_NET, label_of
from scene.manifest import DEBLURRING, HELD_OUT, IN_TRAINING, PROTOCOLS, TRAINING_VIEWS
from utils.json_files import number, read_json, record, table, text
from utils.telling import counted

# ---- one run -------------------------------------------------------------------------------------------------


def _cell(row: dict[str, float], key: str, width: int, digits: int) -> str:
    return f"{row[key]:{width}.{digits}f}" if key in row else f"{'missing':>{width}}"


def results_table(results: dict[str, Any]) -> str:
    """Format the content of ``results.json`` for the terminal."""
    header = f"{'':<14} {'method':<14} {'views':>5} {'PSNR':>7} {'SSIM':>7} {'LPIPS':>7}"
    header += f" {'PSNR, gain':>11} {'all u':>7}"
    lines, learned = [header, "-" * len(header)], results.get("renders", GAUSSIANS.label)
    for protocol in PROTOCOLS:
        for method, row in results.get(protocol, {}).items():
            everywhere = _cell(row, "PSNR_all_subframes", 7, 2) if "PSNR_all_subframes" in row else f"{'':>7}"
            lines.append(
                f"{protocol:<14} {label_of(BY_NAME[method], learned):<14} {row['views']:>5} {_cell(row, 'PSNR', 7, 2)} "
                f"{_cell(row, 'SSIM', 7, 4)} {_cell(row, 'LPIPS', 7, 3)} {_cell(row, 'PSNR_gain', 11, 2)} {everywhere}"
            )
    lines += [*_trajectory_lines(results), f"LPIPS: {results['LPIPS']}"]
    return "\n".join([*lines, *_summary_of_3dgs(results)])


def _summary_of_3dgs(results: dict[str, Any]) -> list[str]:
    """The held-out photographs in the format of 3DGS's metrics.py."""
    row = results.get(HELD_OUT, {}).get(GAUSSIANS.name)
    if row is None or TRAINING_VIEWS not in results:
        return []
    lines = [f"  {name:<5}: {row[name]:>12.7f}" for name in ("SSIM", "PSNR", "LPIPS") if name in row]
    return ["", f"Held-out views ({row['views']}), as other 3DGS programs print them:", *lines]


def _trajectory_line(label: str, path: dict[str, Any]) -> str:
    rpe, turn, motion = (path[key] for key in ("RPE_translation", "RPE_rotation_deg", "motion_error"))
    return (
        f"{label:<11} ATE {path['ATE']:.4f}, "
        + ("RPE missing, " if rpe is None else f"RPE {rpe:.4f} and {turn:.3f} degrees per sub-frame, ")
        + ("motion error missing, " if motion is None else f"motion error {100 * motion:.1f} %, ")
        + f"{counted(len(path['reversed_views']), 'view')} reversed in time"
    )


def _trajectory_lines(results: dict[str, Any]) -> list[str]:
    path = results.get("trajectory")
    if path is None:
        return [f"trajectory  not measured: {results['trajectory_missing']}"]
    lines = [_trajectory_line("trajectory", path)]
    if "initial_trajectory" in results:
        lines.insert(0, _trajectory_line("initial", results["initial_trajectory"]))
    key = "PSNR_all_subframes_as_recovered"
    rows = [results.get(protocol, {}).get(GAUSSIANS.name, {}) for protocol in IN_TRAINING]
    for as_recovered in (row[key] for row in rows if key in row):
        lines.append(
            "            'all u' compares the Gaussians of the reversed views with the truth in reverse; "
            f"as recovered: {as_recovered:.2f} dB"
        )
    return lines


# ---- many runs -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Column:
    """A column: its digits after the point, and whether higher (1) or lower (-1) values are better (0: neither)."""

    name: str
    digits: int
    better: int = 0


_ALL = (
    Column("PSNR", 2, 1),
    Column("PSNR, gain", 2, 1),
    Column("SSIM", 4, 1),
    Column("LPIPS", 3, -1),
    Column("PSNR, all u", 2, 1),
    Column("PSNR, held out", 2, 1),
    Column("SSIM, held out", 4, 1),
    Column("LPIPS, held out", 3, -1),
    Column("ATE before", 4),
    Column("ATE", 4, -1),
    Column("RPE", 5, -1),
    Column("RPE deg", 3, -1),
    Column("motion %", 1, -1),
    Column("views", 0),
    Column("minutes", 1),
)
COLUMNS = {column.name: column for column in _ALL}
# The columns of the table of images, and of the table of scenes.
OF_IMAGES = ("PSNR", "PSNR, gain", "SSIM", "LPIPS", "PSNR, all u", "views", "minutes")
OF_SCENES = tuple(name for name in COLUMNS if name != "PSNR, all u")
# Measured values by kind of image; what the table needs of the trajectories; or why there are no values.
_MEASURED = table(table(number()))
_TRAJECTORY = record(
    {"ATE": number()}, dict.fromkeys(("RPE_translation", "RPE_rotation_deg", "motion_error"), number())
)
_RESULTS = record(
    {},
    dict.fromkeys(PROTOCOLS, _MEASURED)
    | dict.fromkeys(("trajectory", "initial_trajectory"), _TRAJECTORY)
    | {"minutes": number(), "failed": text()},
)
# The outputs of a run that have their own rows.
OUTPUTS = (GAUSSIANS, FUSED, RECON_NET, IMAGE)


def rows_of(job: Job, out: Path) -> dict[str, dict[str, float]]:
    """The results of one finished run: by the label of the output, the values by column name (``COLUMNS``).

    Raises:
        ValueError: the results were written by another version.
    """
    file = job.folder(out) / RESULTS
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
    for output in OUTPUTS:
        measured = deblurring.get(output.name)
        if measured is None:
            continue
        row = {name: measured.get(name) for name in ("PSNR", "SSIM", "LPIPS", "views")}
        row["PSNR, gain"] = measured.get("PSNR_gain")
        # Reversed views are only known from the ground truth, so it must not be used to reverse them here.
        recovered = measured.get("PSNR_all_subframes_as_recovered")
        row["PSNR, all u"] = measured.get("PSNR_all_subframes") if recovered is None else recovered
        held_out = results.get(HELD_OUT, {}).get(output.name, {})
        row |= {f"{name}, held out": held_out.get(name) for name in ("PSNR", "SSIM", "LPIPS")}
        if output is GAUSSIANS:
            row |= _trajectory_columns(results)
        row["minutes"] = results.get("minutes") if seconds is None else seconds / 60
        label = label_of(output, learned_by(job.method))
        rows[label] = {name: float(value) for name, value in row.items() if value is not None}
    return rows


def _trajectory_columns(results: dict[str, Any]) -> dict[str, float | None]:
    path, before = results.get("trajectory") or {}, results.get("initial_trajectory") or {}
    motion = path.get("motion_error")
    return {
        "ATE before": before.get("ATE"), "ATE": path.get("ATE"), "RPE": path.get("RPE_translation"),
        "RPE deg": path.get("RPE_rotation_deg"), "motion %": None if motion is None else 100 * motion,
    }  # fmt: skip


def summary(jobs: Sequence[Job], out: Path, failed: dict[Job, str]) -> list[dict[str, Any]]:
    """One row per scene, poses, method and output: means over seeds and, with several seeds, the standard deviation.

    Rows of a method that failed for every seed have the reason instead.
    """
    found: dict[tuple[str, str, str, str], list[dict[str, float]]] = defaultdict(list)
    missing: dict[tuple[str, str, str, str], str] = {}
    for job in jobs:
        scene, poses, method = job.scene.name, job.poses, job.method
        reason = failed.get(job) or job.failure(out)
        if reason:
            missing[scene, poses, method, ""] = reason
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


# ---- the paper's two tables --------------------------------------------------------------------------------


def image_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table of images, in the paper's order: what is made from the spikes of a view.

    The image of a method that only learns from another's (SpikeNeRF) is that one's; its row says so.
    """
    shown = [row for row in rows if not _is_of_scene(row)]
    borrowed = [
        row | {"method": method, "output": f"its targets: {BASELINES[row['method']]}"}
        for method in dict.fromkeys(row["method"] for row in rows if row["method"] in METHODS)
        for row in rows
        if row["method"] == METHODS[method].image
    ]
    return _in_order([*shown, *borrowed])


def scene_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table of scenes, in the paper's order."""
    return _in_order([row for row in rows if _is_of_scene(row)])


def _is_of_scene(row: dict[str, Any]) -> bool:
    """Whether a row is of the renders of a trained scene, or of a run without results."""
    return row["method"] in METHODS and row["output"] in ("", learned_by(row["method"]))


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    kinds, methods = [*POSES], [*GROUPS["tables"], *BASELINES, *METHODS]
    return sorted(
        rows, key=lambda row: (scenes.index(row["scene"]), kinds.index(row["poses"]), methods.index(row["method"]))
    )


def both_tables(rows: Sequence[dict[str, Any]]) -> str:
    """The table of images and the table of scenes as Markdown, with a line on what the columns are."""
    parts = []
    for title, own, columns in (
        ("Images from the spikes of a view", image_rows(rows), OF_IMAGES),
        ("Scenes", scene_rows(rows), OF_SCENES),
    ):
        if own:
            parts += [f"## {title}", "", markdown(own, columns)]
    parts.append(
        "PSNR (dB), SSIM and LPIPS are of u = 0.5 of the training views; held-out views are not trained on. \"PSNR, "
        'gain\" is after the best single gain per image. ATE and RPE (from one sub-frame to the next) are in world '
        "units and degrees after alignment; \"ATE before\" is that of the initial poses. \"Minutes\" is the training, "
        "without that of a blind-spot network which an earlier run left."
    )
    return "\n".join(parts) + "\n"


def cells(row: dict[str, Any], columns: Sequence[str] = tuple(COLUMNS), plus: str = "±") -> list[str]:
    """The numbers of a row as text; ``plus`` separates the standard deviation."""
    if "failed" in row:
        return [row["failed"]] + [""] * (len(columns) - 1)
    found = []
    for name in columns:
        digits = COLUMNS[name].digits
        text = f"{row[name]:.{digits}f}" if name in row else ""
        spread = f" {plus} {row[f'{name} sd']:.{digits}f}" if row.get(f"{name} sd") else ""
        found.append(text + spread)
    return found


def _start(row: dict[str, Any]) -> list[str]:
    poses = "-" if row["method"] in BASELINES else row["poses"]
    return [row["scene"], poses, title_of(row["method"]), row["output"]]


def markdown(rows: Iterable[dict[str, Any]], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Format the rows as Markdown; columns without any value are left out."""
    rows = list(rows)
    columns = [name for name in columns if any(name in row for row in rows)] or [columns[0]]
    head = ["scene", "poses", "method", "output", "seeds", *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join([*_start(row), str(row["seeds"]), *cells(row, columns)]) + " |")
    return "\n".join(lines) + "\n"


def latex(rows: Iterable[dict[str, Any]], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Format the rows as LaTeX, for the package booktabs."""
    head = ["scene", "poses", "method", "output", *columns]

    def safe(text: str) -> str:
        for character in "&%_#":
            text = text.replace(character, "\\" + character)
        return text

    lines = [r"\begin{tabular}{llll" + "r" * len(columns) + "}", r"\toprule"]
    lines += [" & ".join(safe(name) for name in head) + r" \\", r"\midrule"]
    for row in rows:
        numbers = cells(row, columns, r"$\pm$")
        lines.append(" & ".join(safe(text) for text in [*_start(row), *numbers]) + r" \\")
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
