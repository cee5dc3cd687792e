"""Measures a rendered model and writes the results into its folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from evaluation.images import Measured, frames_by_protocol, measure_frames, rendered_images
from evaluation.known import Known
from evaluation.report import Run, write_report
from evaluation.trajectories import Trajectories, measure_trajectories, read_trajectories
from pictures.kinds import GAUSSIANS, KINDS, LONG, TIMING, TRUTH, Kind, label_of
from pictures.sheets import compose
from scene.manifest import IN_TRAINING, SPLITS, SavedImage
from scene.model_folder import read_cameras
from training.trained_model import TrainedModel
from utils.io import save_image, write_json
from utils.lpips_offline import Lpips
from utils.processes import ALONE, Processes

# Columns of the comparison, and the kinds shown with an error map.
_SHEET = [kind for kind in KINDS if kind is not TIMING]
_ERRORS = [kind for kind in _SHEET if kind not in (LONG, TRUTH)]


@dataclass(frozen=True)
class Measurement:
    """The measured values (the content of ``results.json``) and the files that were written."""

    results: dict[str, Any]
    files: list[str]


def measure_model(
    model: TrainedModel, lpips: Lpips | None, lpips_source: str, shared: Path | None = None,
    processes: Processes = ALONE,
) -> Measurement:  # fmt: skip
    """Measure images and trajectories of a rendered model; write results, report and comparison.

    Of several processes, each measures some of the images, and the first writes the files.

    Args:
        lpips: LPIPS's network, or None.
        lpips_source: where the network is from, or why there is none.
        shared: file of known values (``evaluation.known``) of images that stay the same from run to run.

    Raises:
        ValueError: the model was not rendered, or not completely; the message says what to run.
    """
    images, found = processes.together(lambda: _rendered(model))
    path, why = measure_trajectories(found)
    results: dict[str, Any] = {"iteration": model.iteration, "LPIPS": lpips_source, "renders": model.learned}
    results |= {"trajectory": path} if path is not None else {"trajectory_missing": why}
    before, _ = measure_trajectories(replace(found, poses=found.initial))
    results |= {"initial_trajectory": before} if before is not None else {}
    reversed_views = dict.fromkeys(path["reversed_views"], path["subframes"]) if path is not None else {}
    frames = frames_by_protocol(model.folder, model.iteration, images)
    known = processes.together(lambda: Known(shared, lpips_source))
    measured = {
        protocol: measure_frames(
            members, lpips, reversed_views if protocol in IN_TRAINING else {}, protocol, known, processes
        )
        for protocol, members in frames.items()
    }
    if not processes.first:
        return Measurement({}, [])
    known.save()
    per_view: dict[str, Any] = {}
    for protocol, one in measured.items():
        if one.table:
            results[protocol] = {kind.name: row for kind, row in one.means.items()}
            per_view[protocol] = {kind.name: rows for kind, rows in one.table.items()}
    rows = [row for one in measured.values() for row in one.means.values() if "PSNR" in row]
    if lpips is not None and rows and not any("LPIPS" in row for row in rows):
        results["LPIPS"] = f"not measured: it needs images of at least {lpips.smallest}x{lpips.smallest} pixels"
    for name, content in (("results.json", results), ("per_view.json", per_view)):
        write_json(model.folder / name, content)
    pictures = {protocol: one.pictures for protocol, one in measured.items() if one.pictures}
    truth = found.truth if path is not None else None
    write_report(Run(model.folder, model.iteration, results, per_view, pictures, found.names, found.poses, truth))
    files = ["results.json", "per_view.json", "report.html"]
    for protocol in IN_TRAINING:
        if protocol in measured and measured[protocol].table and measured[protocol].sheet:
            save_image(model.folder / "comparison.png", comparison(measured[protocol], model.learned))
            files.append("comparison.png")
    return Measurement(results, files)


def _rendered(model: TrainedModel) -> tuple[list[SavedImage], Trajectories]:
    """The rendered images of all splits, and the recovered trajectories.

    Raises:
        ValueError: the model was not rendered, or not completely.
    """
    images = [image for split in SPLITS for image in rendered_images(model.folder, split, model.iteration)]
    if not images:
        raise ValueError(
            f"{model.folder}: no rendered images of iteration {model.iteration}; "
            f"run render.py -m {shlex.quote(str(model.folder))} first"
        )
    return images, read_trajectories(model, read_cameras(model.folder))


def comparison(measured: Measured, learned: str = GAUSSIANS.label) -> np.ndarray:
    """The comparison image [H, W, 3] of a protocol's views; the renders are of what was ``learned``."""
    columns = [kind for kind in _SHEET if any(kind in images for images in measured.sheet.values())]
    rows, notes = [], []
    for view, images in measured.sheet.items():
        rows.append({label_of(kind, learned): _array(images.get(kind)) for kind in columns})
        notes.append({label_of(kind, learned): _decibels(measured, kind, view) for kind in columns})
    erring = [label_of(kind, learned) for kind in columns if kind in _ERRORS]
    return compose(rows, TRUTH.label, erring, notes)


def _array(image: Tensor | None) -> np.ndarray | None:
    """Convert an image [C, H, W] to [H, W] or [H, W, 3]."""
    if image is None:
        return None
    return image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()


def _decibels(measured: Measured, kind: Kind, view: str) -> str:
    row = measured.table.get(kind, {}).get(view)
    return f"{row['PSNR']:.1f} dB" if row is not None else ""
