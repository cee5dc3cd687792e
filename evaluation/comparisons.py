"""Many runs side by side: the page of full_eval.py, and its tables as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from evaluation.charts import Points, chart
from evaluation.jobs import Job
from evaluation.methods import BASELINES, learned_by, title_of
from evaluation.page import Card, Embedded, Views, render
from evaluation.tables import (
    COLUMNS,
    OF_IMAGES,
    OF_SCENES,
    OUTPUTS,
    both_tables,
    cells,
    comma_separated,
    image_rows,
    latex,
    scene_rows,
    summary,
)
from pictures.kinds import GAUSSIANS, IMAGE, TRUTH, label_of
from utils.io import atomic_write, load_image
from utils.run_log import read_curves

# Number of views shown per scene.
_SHOWN = 3


@dataclass(frozen=True)
class Comparison:
    """Runs on one scene from the same initial poses.

    Args:
        title: the scene and the kind of initial poses.
        rows: names and numbers as cells: a text, or a text and whether it is the best of its column.
        views: a few views with the images of ground truth and of every run.
        charts: charts of the PSNR of a training view against its own target over minutes, by method.
    """

    title: str
    rows: Sequence[Sequence[str | tuple[str, bool]]]
    views: Views
    charts: Sequence[Markup]


def compose_comparisons(title: str, groups: Sequence[Comparison]) -> str:
    """A page of many runs, scene by scene."""
    head, sections = ["method", "output", "seeds", *COLUMNS], [group.title for group in groups]
    return render("comparisons.html", title=title, sections=sections, head=head, groups=groups)


def comparisons(jobs: Sequence[Job], out: Path, rows: Sequence[dict[str, Any]]) -> list[Comparison]:
    """The runs, grouped by scene and kind of initial poses; images from spikes alone are added to every group."""
    found = []
    for scene, poses in dict.fromkeys((job.scene, job.poses) for job in jobs):
        others = {job.poses for job in jobs if job.scene == scene and job.method not in BASELINES}
        if others and poses not in others:
            continue  # baselines alone: the other groups include them
        members = [j for j in jobs if j.scene == scene and (j.poses == poses or j.method in BASELINES)]
        members.sort(key=lambda job: job.seed)
        own = [
            row for row in rows
            if row["scene"] == scene.name and (row["poses"] == poses or row["method"] in BASELINES)
        ]  # fmt: skip
        drawn = chart("PSNR against a training view's own target, dB, over minutes", _curves(members, out))
        views = _views(members, out, scene)
        found.append(Comparison(f"{scene.name}, {poses} poses", _marked(own), views, [drawn] if drawn else []))
    return found


def _marked(rows: Sequence[dict[str, Any]]) -> list[list[str | tuple[str, bool]]]:
    """The cells of the rows; the best number is marked in each column that has several."""
    best = {}
    for name, column in COLUMNS.items():
        known = [row[name] for row in rows if name in row]
        if column.better and len(known) > 1:
            best[name] = column.better * max(column.better * value for value in known)
    return [
        [title_of(row["method"]), row["output"], str(row["seeds"])]
        + [(text, name in row and row[name] == best.get(name)) for name, text in zip(COLUMNS, cells(row), strict=True)]
        for row in rows
    ]


def _views(jobs: Sequence[Job], out: Path, scene: Path) -> Views:
    """A few of the scene's views: ground truth, and the images of every method's first seed."""
    truths = sorted((scene / "sharp_data").glob("*.png"))
    chosen = [truths[i] for i in sorted({round(i) for i in np.linspace(0, len(truths) - 1, _SHOWN)})] if truths else []
    labels, cards = {TRUTH.name: TRUTH.label}, []
    for truth in chosen:
        images = {TRUTH.name: (_embedded(truth), TRUTH.label)}
        for job in jobs:
            for folder in sorted(job.folder(out).glob("train/ours_*"))[-1:]:
                for kind in OUTPUTS:
                    path, key = folder / kind.folder / truth.name, f"{job.method}-{kind.name}"
                    label = title_of(job.method)
                    if kind is not IMAGE:
                        label += f" {label_of(kind, learned_by(job.method))}"
                    if path.exists() and key not in images:
                        labels[key] = label
                        images[key] = _embedded(path), label
        cards.append(Card(truth.stem, images))
    # Initially compare the last method's Gaussians with the truth.
    left = next((key for key in reversed(labels) if key.endswith(f"-{GAUSSIANS.name}")), [*labels][-1])
    return Views("views", labels, left, TRUTH.name, cards)


def _embedded(path: Path) -> Embedded:
    return Embedded.of(load_image(path, channels=None))


def _curves(jobs: Sequence[Job], out: Path) -> dict[str, Points]:
    """PSNR during training over minutes, by method, of the first seed that has a log."""
    curves: dict[str, Points] = {}
    for job in jobs:
        records = [record for record in read_curves(job.folder(out))[0] if {"seconds", "psnr"} <= record.keys()]
        if records:
            curves.setdefault(title_of(job.method), [(record["seconds"] / 60, record["psnr"]) for record in records])
    return curves


def write_tables(jobs: Sequence[Job], out: Path, failed: dict[Job, str]) -> str:
    """Write every table and the page into ``out``; returns the two tables of the paper as Markdown."""
    rows = summary(jobs, out, failed)
    table = both_tables(rows)
    files = {
        "table.md": table,
        "table.csv": comma_separated(rows),
        "table.tex": latex(image_rows(rows), OF_IMAGES) + "\n" + latex(scene_rows(rows), OF_SCENES),
        "report.html": compose_comparisons("Evaluation", comparisons(jobs, out, rows)),
    }
    for name, content in files.items():
        with atomic_write(out / name, "w") as file:
            file.write(content)
    return table
