"""The results of one run as ``report.html``: numbers, images, curves and trajectories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from arguments import CONFIG_NAME
from evaluation.charts import Points, chart
from evaluation.page import Card, Embedded, Views, render
from pictures.kinds import BY_NAME, GAUSSIANS, KINDS, TRUTH, Kind, label_of
from scene.manifest import IN_TRAINING
from utils.io import atomic_write
from utils.json_files import Schema, anything, number, read_json, record, table, text
from utils.run_log import CIRCUMSTANCES, CURVES, SIZES, read_curves
from utils.trajectory_metrics import align, centers

_MEASURES = (
    ("PSNR", "PSNR", 2), ("SSIM", "SSIM", 4), ("LPIPS", "LPIPS", 3), ("PSNR_gain", "PSNR, gain-matched", 2),
    ("SSIM_gain", "SSIM, gain-matched", 4), ("LPIPS_gain", "LPIPS, gain-matched", 3),
    ("PSNR_all_subframes", "PSNR, all sub-frames", 2),
)  # fmt: skip


_MADE = record({}, {"seconds": number(), "peak_memory_bytes": number(most=1e18), "versions": table(anything)})


@dataclass(frozen=True)
class Run:
    """The content of the report.

    Args:
        model: folder of the trained model; ``log.jsonl``, ``run.json`` and the configuration are read from it
            if they exist.
        iteration: the measured iteration.
        results: content of ``results.json``.
        per_view: content of ``per_view.json``.
        pictures: images to show, by protocol, view and kind.
        names, poses: training views and their recovered world-to-camera poses [V, M, 4, 4].
        truth: true poses [V, M, 4, 4], or None.
    """

    model: Path
    iteration: int
    results: dict[str, Any]
    per_view: dict[str, Any]
    pictures: dict[str, dict[str, dict[Kind, Embedded]]] = field(default_factory=dict)
    names: Sequence[str] = ()
    poses: NDArray[np.floating] | None = None
    truth: NDArray[np.floating] | None = None


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the model's folder; returns its path."""
    path = run.model / "report.html"
    with atomic_write(path, "w") as file:
        file.write(compose_report(run))
    return path


def compose_report(run: Run) -> str:
    """The whole page."""
    config = _json(run.model / CONFIG_NAME, record({}, {"scene": record({}, {"source_path": text()})}))
    source = Path(str((config or {}).get("scene", {}).get("source_path", run.model)))
    return render(
        "run.html",
        title=f"{source.name or run.model.name}, iteration {run.iteration}",
        sections=["Metrics", "Views", "Training", "Trajectories", "Run"],
        metrics=_metrics(run),
        views=_views(run),
        training=_training(run.model),
        trajectories=_trajectories(run),
        run=_circumstances(run.model, source, config),
    )


def _json(path: Path, schema: Schema) -> dict[str, Any] | None:
    """A JSON object from the model's folder, or None if there is no readable one."""
    try:
        loaded: dict[str, Any] = read_json(path, schema)
    except ValueError:
        return None
    return loaded


def _label(run: Run, kind: Kind) -> str:
    return label_of(kind, run.results.get("renders", GAUSSIANS.label))


def _metrics(run: Run) -> dict[str, Any]:
    rows = []
    for protocol in run.per_view:
        for name, row in run.results.get(protocol, {}).items():
            cells = [f"{row[key]:.{digits}f}" if key in row else "" for key, _, digits in _MEASURES]
            rows.append([protocol, _label(run, BY_NAME[name]), str(row.get("views", "")), *cells])
    notes = [f"LPIPS: {run.results.get('LPIPS', 'not measured')}."]
    for name, row in (item for protocol in IN_TRAINING for item in run.results.get(protocol, {}).items()):
        if "PSNR_all_subframes_as_recovered" in row:
            notes.append(
                f"{_label(run, BY_NAME[name])}, all sub-frames: views whose recovered motion runs backwards in time "
                f"are compared with the truth in reverse; as recovered {row['PSNR_all_subframes_as_recovered']:.2f} dB."
            )
    head = ["protocol", "method", "views", *(label for _, label, _ in _MEASURES)]
    return {"head": head, "rows": rows, "notes": notes}


def _views(run: Run) -> list[Views]:
    found = []
    for protocol, shown in run.pictures.items():
        measured = run.per_view.get(protocol, {})
        cards = []
        for view, images in shown.items():
            card = {}
            for kind, image in images.items():
                row = measured.get(kind.name, {}).get(view, {})
                label = _label(run, kind)
                card[kind.name] = image, f"{label} {row['PSNR']:.2f} dB" if "PSNR" in row else label
            cards.append(Card(view, card))
        labels = {kind.name: _label(run, kind) for kind in KINDS if any(kind.name in card.images for card in cards)}
        if labels:
            right = TRUTH.name if TRUTH.name in labels else [*labels][-1]
            left = GAUSSIANS.name if GAUSSIANS.name in labels else next(iter(labels))
            found.append(Views(protocol, labels, left, right, cards))
    return found


def _training(model: Path) -> dict[str, Any]:
    records, unreadable = read_curves(model)
    if not (model / CURVES).is_file():
        return {"missing": f"There is no {CURVES} of the training."}
    if len(records) < 2:
        return {"missing": f"{CURVES} has {len(records)} records, too few for a curve."}

    def curve(key: str) -> Points:
        return [(record["iteration"], record[key]) for record in records if key in record]

    own = {"iteration", "loss", "psnr", "seconds", *SIZES}
    terms = sorted({key for record in records for key in record} - own)
    charts = [
        chart("PSNR against a training view's own target, dB", {"PSNR": curve("psnr")}),
        chart("Loss and its terms", {key: curve(key) for key in ("loss", *terms)}, log=True),
        chart("Size of the scene", {key: points for key in SIZES if (points := curve(key))}),
        chart("Seconds since the start", {"seconds": curve("seconds")}),
    ]
    return {"missing": "", "charts": charts, "unreadable": unreadable}


def _trajectories(run: Run) -> dict[str, Any]:
    path = run.results.get("trajectory")
    if path is None:
        missing, rows = f"Errors are missing: {run.results.get('trajectory_missing', 'not measured')}.", []
    else:
        shown = [
            ("ATE, world units", path["ATE"], 4), ("RPE per sub-frame, world units", path["RPE_translation"], 4),
            ("RPE per sub-frame, degrees", path["RPE_rotation_deg"], 3),
            ("motion error, of the true displacement", path["motion_error"], 3),
        ]  # fmt: skip
        missing = ""
        rows = [[label, "missing" if value is None else f"{value:.{digits}f}"] for label, value, digits in shown]
        rows.append(["views recovered reversed in time", ", ".join(path["reversed_views"]) or "none"])
    return {"missing": missing, "rows": rows, "drawing": _drawing(run)}


def _drawing(run: Run) -> dict[str, Any] | None:
    """The camera paths in the world of the ground truth (or their own world), for the page's script."""
    if run.poses is None or not len(run.poses):
        return None
    poses = run.poses if run.truth is None else align(run.poses, run.truth)[0]
    groups = [("recovered", poses)] + ([("true", run.truth)] if run.truth is not None else [])
    upright = _upright(poses)
    return {
        "names": list(run.names),
        "paths": [
            {
                "label": label,
                "centers": np.round(centers(group) @ upright.T, 5).tolist(),
                # The cameras' right, down and forward axes in world coordinates, at the middle of the exposure.
                "axes": np.round(group[:, group.shape[1] // 2, :3, :3] @ upright.T, 4).tolist(),
            }
            for label, group in groups
        ],
    }


def _upright(w2c: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rotation [3, 3] that brings the mean up direction of the cameras [V, M, 4, 4] to the z axis."""
    up = -w2c[..., 1, :3].reshape(-1, 3).mean(0)
    length = float(np.linalg.norm(up))
    if length < 1e-6:
        return np.eye(3)
    return np.asarray(Rotation.align_vectors([[0.0, 0.0, 1.0]], [up / length])[0].as_matrix())


def _circumstances(model: Path, source: Path, config: dict[str, Any] | None) -> dict[str, Any]:
    """How the run was made."""
    made = _json(model / CIRCUMSTANCES, _MADE)
    rows = [["scene", str(source)]]
    if made is not None:
        if "command" in made:
            rows.append(["command", str(made["command"])])
        if "seconds" in made:
            rows.append(["training time", f"{made['seconds'] / 60:.1f} minutes"])
        if "peak_memory_bytes" in made:
            rows.append(["peak memory", f"{made['peak_memory_bytes'] / 2**30:.2f} GiB"])
        if "versions" in made:
            rows.append(["versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())])
        known = {"command", "seconds", "peak_memory_bytes", "versions"}
        rows += [[str(key), str(value)] for key, value in made.items() if key not in known]
    # File names that are not UTF-8 are no text that a page can contain.
    rows = [[cell.encode("utf-8", "replace").decode() for cell in row] for row in rows]
    configuration = None if config is None else json.dumps(config, indent=1)
    return {"known": made is not None, "rows": rows, "configuration": configuration}
