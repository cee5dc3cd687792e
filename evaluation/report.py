"""Runs as one HTML file that opens from disk: pictures, curves, trajectories and numbers, nothing fetched.

``metrics.py`` writes it for a run, ``full_eval.py`` for many.  Every picture is embedded, charts
are SVG, and the one script is in the file.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from utils.io import atomic_write, load_image
from utils.trajectory_metrics import align, centres

# Methods by the folder of their pictures; COLUMNS in the order of the report's selectors.
METHODS = {
    "renders": "Gaussians",
    "fused": "Fused",
    "recon": "Recon-Net",
    "timing": "spike timing",
    "tfp": "TFP (short)",
    "long": "long exposure",
}
COLUMNS = {"long": METHODS["long"], **METHODS, "gt": "truth"}
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Run:
    """What the report shows.

    Args:
        model: folder of the trained model; pictures, ``log.jsonl``, ``run.json`` and the configuration are
            read from it where they exist.
        iteration: the measured iteration.
        results: contents of ``results.json``.
        per_view: contents of ``per_view.json``.
        pictures: by protocol, the split's folder name and the picture names to show.
        names, poses: training views and their recovered world-to-camera poses [V, M, 4, 4].
        truth: true poses [V, M, 4, 4], or None.
    """

    model: Path
    iteration: int
    results: dict[str, Any]
    per_view: dict[str, Any]
    pictures: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    names: Sequence[str] = ()
    poses: NDArray[np.floating] | None = None
    truth: NDArray[np.floating] | None = None


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the model's folder."""
    path = run.model / "report.html"
    with atomic_write(path, "w") as file:
        file.write(compose_report(run))
    return path


def compose_report(run: Run) -> str:
    """The whole page."""
    config, made = _json(run.model / "cfg_args.json"), _json(run.model / "run.json")
    source = Path(str((config or {}).get("data", {}).get("source_path", run.model)))
    title = f"{source.name or run.model.name}, iteration {run.iteration}"
    sections = [
        ("Metrics", _metrics(run)),
        ("Views", _views(run)),
        ("Training", _curves(run.model / "log.jsonl")),
        ("Trajectories", _trajectories(run)),
        ("Run", _made(source, config, made)),
    ]
    return _page(title, sections)


@dataclass(frozen=True)
class Comparison:
    """Several runs on one scene from the same initial poses.

    Args:
        title: what they have in common.
        rows: method, output and further names; then numbers as text.
        values: the same numbers [rows][columns], None where there is none.
        labels: of the kinds of pictures; ``left`` and ``right`` are shown first.
        cards: views with those pictures.
        curves: PSNR of a training view against its own target over minutes, by method.
    """

    title: str
    rows: Sequence[tuple[Sequence[str], Sequence[str]]]
    values: Sequence[Sequence[float | None]]
    labels: dict[str, str]
    left: str
    right: str
    cards: Sequence[Card]
    curves: dict[str, list[tuple[float, float]]]


def compose_comparisons(title: str, names: Sequence[str], columns: dict[str, int], groups: Sequence[Comparison]) -> str:
    """A page of many runs, scene by scene.

    Args:
        names: what is above the names of a row.
        columns: what is above the numbers: 1 where more is better, -1 where less is, 0 where neither.
    """
    sections = []
    for group in groups:
        best = [_best(way, [row[i] for row in group.values]) for i, way in enumerate(columns.values())]
        table = []
        for (head, cells), values in zip(group.rows, group.values, strict=True):
            marked = [
                f"<b>{_text(cell)}</b>" if value is not None and value == top else _text(cell)
                for cell, value, top in zip(cells, values, best, strict=True)
            ]
            table.append([*(_text(name) for name in head), *marked])
        drawn = chart("PSNR against a training view's own target, dB, over minutes", group.curves)
        pictures = _wipes("views", group.labels, group.left, group.right, group.cards) if group.cards else ""
        shown = f'<div class="charts">{drawn}</div>' if drawn else ""
        sections.append((group.title, _table([*names, *columns], table) + pictures + shown))
    return _page(title, sections, '<p class="note">The best of each column is bold.</p>' + _DRAG)


def _best(way: int, values: Sequence[float | None]) -> float | None:
    """The best of a column that has several values, if there is such a thing."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda value: way * value) if way and len(known) > 1 else None


def _page(title: str, sections: Sequence[tuple[str, str]], intro: str = "") -> str:
    """A page that needs nothing else."""
    marks = ["".join(c if c.isalnum() else "-" for c in name.lower()) for name, _ in sections]
    body = "".join(
        f'<section id="{_text(mark)}"><h2>{_text(name)}</h2>{content}</section>'
        for mark, (name, content) in zip(marks, sections, strict=True)
    )
    links = "".join(
        f'<a href="#{_text(mark)}">{_text(name)}</a>' for mark, (name, _) in zip(marks, sections, strict=True)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><header><h1>{_text(title)}</h1><nav>{links}</nav>{intro}</header>\n<main>{body}</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


# ---- parts -----------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return html.escape(str(value))


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object beside the model, or None where there is none that can be read."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first two columns are names."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _missing(why: str) -> str:
    return f'<p class="missing">{_text(why)}</p>'


_MEASURES = (
    ("PSNR", "PSNR", 2), ("SSIM", "SSIM", 4), ("LPIPS", "LPIPS", 3), ("PSNR_gain", "PSNR, gain-matched", 2),
    ("SSIM_gain", "SSIM, gain-matched", 4), ("LPIPS_gain", "LPIPS, gain-matched", 3),
    ("PSNR_all_subframes", "PSNR, all sub-frames", 2),
)  # fmt: skip


def _metrics(run: Run) -> str:
    rows = []
    for protocol in run.per_view:
        for method, row in run.results.get(protocol, {}).items():
            cells = [f"{row[key]:.{digits}f}" if key in row else "" for key, _, digits in _MEASURES]
            rows.append([_text(protocol), _text(method), str(row.get("views", "")), *cells])
    if not rows:
        return _missing("The scene has no sharp images to compare the pictures with.")
    head = ["protocol", "method", "views", *(label for _, label, _ in _MEASURES)]
    notes = [
        "Deblurring: training views at the middle of their exposure. Held out: views that training never saw, "
        "their pose fitted with the scene frozen. Novel views: those of them that are sharp images alone, their pose "
        "fitted to the true picture itself. Gain-matched: after the one factor that fits the truth best.",
        f"LPIPS: {run.results.get('LPIPS', 'not measured')}.",
    ]
    for method, row in run.results.get("deblurring", {}).items():
        if "PSNR_all_subframes_as_recovered" in row:
            notes.append(
                f"{method}, all sub-frames: views whose recovered motion runs backwards in time are compared with "
                f"the truth in reverse; as recovered {row['PSNR_all_subframes_as_recovered']:.2f} dB."
            )
    return _table(head, rows) + "".join(f'<p class="note">{_text(note)}</p>' for note in notes)


def _embedded(path: Path) -> tuple[str, int, int]:
    """A picture as a data address, and its width and height."""
    image = load_image(path, channels=None).permute(1, 2, 0).numpy()[..., ::-1]  # OpenCV writes BGR
    pixels = np.ascontiguousarray((image.clip(0, 1) * 255).round().astype(np.uint8))
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode(), pixels.shape[1], pixels.shape[0]


@dataclass(frozen=True)
class Card:
    """One view: its pictures by kind, each a file and what is written below it."""

    name: str
    pictures: dict[str, tuple[Path, str]]


_DRAG = '<p class="note">Drag across a picture to move the border between left and right.</p>'


def _wipes(title: str, labels: dict[str, str], left: str, right: str, cards: Sequence[Card]) -> str:
    """Views with a border to drag between two kinds of pictures, which are chosen for all of them together."""
    choices = "".join(
        f'<label>{side} <select data-side="{css}">'
        + "".join(
            f'<option value="{_text(kind)}"{" selected" if kind == chosen else ""}>{_text(label)}</option>'
            for kind, label in labels.items()
        )
        + "</select></label>"
        for side, css, chosen in (("left", "a", left), ("right", "b", right))
    )
    return (
        f'<div class="views"><h3>{_text(title)}</h3><p class="pick">{choices}</p>'
        f'<div class="cards">{"".join(_card(card) for card in cards)}</div></div>'
    )


def _card(card: Card) -> str:
    images, width, height = [], 1, 1
    for kind, (file, note) in card.pictures.items():
        address, width, height = _embedded(file)
        images.append(
            f'<img data-kind="{_text(kind)}" data-note="{_text(note)}" alt="{_text(note)}" src="{address}">'
        )
    return (
        f'<figure class="card"><div class="wipe" style="aspect-ratio:{width}/{height}">{"".join(images)}'
        f'<input type="range" min="0" max="100" value="50" aria-label="border in {_text(card.name)}"></div>'
        f'<figcaption><b>{_text(card.name)}</b><span class="a"></span><span class="b"></span></figcaption></figure>'
    )


def _views(run: Run) -> str:
    parts = []
    for protocol, (split, names) in run.pictures.items():
        folder, measured = run.model / split / f"ours_{run.iteration}", run.per_view.get(protocol, {})
        cards = []
        for name in names:
            found = {}
            for kind, label in COLUMNS.items():
                file, row = folder / kind / f"{name}.png", measured.get(METHODS.get(kind, ""), {}).get(name, {})
                if file.exists():
                    found[kind] = file, f"{label} {row['PSNR']:.2f} dB" if "PSNR" in row else label
            cards.append(Card(name, found))
        labels = {kind: label for kind, label in COLUMNS.items() if any(kind in card.pictures for card in cards)}
        if labels:
            right = "gt" if "gt" in labels else list(labels)[-1]
            left = "renders" if "renders" in labels else next(iter(labels))
            parts.append(_wipes(protocol, labels, left, right, cards))
    if not parts:
        return _missing("There are no rendered pictures.")
    return _DRAG + "".join(parts)


def read_log(path: Path) -> tuple[list[dict[str, float]], int]:
    """Training records by rising iteration, and how many lines were no record.

    A resumed run writes some iterations again: the last record of an iteration counts.
    """
    records: dict[float, dict[str, float]] = {}
    unreadable = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            numbers = {k: float(v) for k, v in record.items() if isinstance(v, (int, float)) and math.isfinite(v)}
            records[numbers["iteration"]] = numbers
        except (ValueError, KeyError, AttributeError):
            unreadable += 1
    return [records[iteration] for iteration in sorted(records)], unreadable


def _curves(path: Path) -> str:
    if not path.is_file():
        return _missing("There is no log.jsonl of the training.")
    records, unreadable = read_log(path)
    if len(records) < 2:
        return _missing(f"log.jsonl has {len(records)} records, too few for a curve.")

    def curve(key: str) -> list[tuple[float, float]]:
        return [(record["iteration"], record[key]) for record in records if key in record]

    own = {"iteration", "loss", "psnr", "gaussians", "seconds"}
    terms = sorted({key for record in records for key in record} - own)
    charts = [
        chart("PSNR against a training view's own target, dB", {"PSNR": curve("psnr")}),
        chart("Loss and its terms", {key: curve(key) for key in ("loss", *terms)}, log=True),
        chart("Gaussians", {"Gaussians": curve("gaussians")}),
        chart("Seconds since the start", {"seconds": curve("seconds")}),
    ]
    note = f'<p class="note">{unreadable} lines of log.jsonl were not readable.</p>' if unreadable else ""
    return f'<div class="charts">{"".join(charts)}</div>{note}'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two bounds, four or so."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers between two logarithms: powers of ten, and 1, 2, 5 times them where few."""
    step = max(1, math.ceil((high - low) / 8))
    exponents = range(math.floor(low), math.ceil(high) + 1, step)
    ticks = [math.log10(m) + e for e in exponents for m in ((1, 2, 5) if high - low < 2 else (1,))]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks if len(ticks) > 1 else [math.log10(tick) for tick in _ticks(10**low, 10**high) if tick > 0]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart(title: str, series: dict[str, list[tuple[float, float]]], log: bool = False) -> str:
    """Lines over iterations as SVG; with ``log`` the vertical axis has powers of ten, and zeros are left out."""
    kept = {name: [(x, y) for x, y in points if y > 0 or not log] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    width, height, left, bottom, top, right = 460, 230, 54, 26, 10, 10
    scale = math.log10 if log else float
    xs = [x for points in kept.values() for x, _ in points]
    ys = [scale(y) for points in kept.values() for _, y in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, pad = max(x1, x0 + 1), max(0.05 * (y1 - y0), 1e-9 + 1e-3 * abs(y1))
    y0, y1 = y0 - pad, y1 + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            top + (y1 - y) / (y1 - y0) * (height - top - bottom),
        )

    marks = []
    for tick in _log_ticks(y0, y1) if log else _ticks(y0, y1):
        y = at(x0, tick)[1]
        label = f"{10**tick:.3g}" if log else f"{tick:,.10g}"
        marks.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _ticks(x0, x1):
        marks.append(f'<text x="{at(tick, y0)[0]:.1f}" y="{height - 8}" text-anchor="middle">{tick:,.10g}</text>')
    lines, keys = [], []
    for i, (name, points) in enumerate(kept.items()):
        path = " ".join("{:.1f},{:.1f}".format(*at(x, scale(y))) for x, y in points)
        lines.append(f'<polyline class="line c{i % 8}" points="{path}"><title>{_text(name)}</title></polyline>')
        keys.append(f'<span><i class="c{i % 8}"></i>{_text(name)} <b>{_short(points[-1][1])}</b></span>')
    drawing = "".join(marks + lines)
    return (
        f'<figure class="chart"><figcaption>{_text(title)}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_text(title)}">{drawing}</svg>'
        f'<p class="keys">{"".join(keys)}</p></figure>'
    )


def _trajectories(run: Run) -> str:
    path = run.results.get("trajectory")
    if path is None:
        numbers = _missing(f"Errors are missing: {run.results.get('trajectory_missing', 'not measured')}.")
    else:
        shown = [
            ("ATE, world units", path["ATE"], 4), ("RPE a sub-frame, world units", path["RPE_translation"], 4),
            ("RPE a sub-frame, degrees", path["RPE_rotation_deg"], 3),
            ("motion error, of the true displacement", path["motion_error"], 3),
        ]  # fmt: skip
        rows = [[_text(label), "missing" if value is None else f"{value:.{digits}f}"] for label, value, digits in shown]
        backwards = path["reversed_views"]
        rows.append(["views recovered reversed in time", _text(", ".join(backwards) if backwards else "none")])
        numbers = _table(["after Sim(3) alignment", ""], rows)
    if run.poses is None or not len(run.poses):
        return numbers
    poses, truth = run.poses, run.truth
    if truth is not None:
        poses = align(poses, truth)[0]
    groups = [("recovered", poses)] + ([("true", truth)] if truth is not None else [])
    upright = _upright(poses)
    content = {
        "names": list(run.names),
        "paths": [
            {
                "label": label,
                "centres": np.round(centres(group) @ upright.T, 5).tolist(),
                # The cameras' right, down and forward axes in the world, at the middle of the exposure.
                "axes": np.round(group[:, group.shape[1] // 2, :3, :3] @ upright.T, 4).tolist(),
            }
            for label, group in groups
        ],
    }
    data = json.dumps(content).replace("<", "\\u003c")
    keys = "".join(f'<span><i class="c{i}"></i>{label}</span>' for i, (label, _) in enumerate(groups))
    return (
        f'{numbers}<div class="space"><canvas id="space" width="1100" height="520" aria-label="trajectories"></canvas>'
        f'<p class="keys">{keys}<span class="note">drag: turn, wheel: closer, double click: look at a view</span></p>'
        f'<script type="application/json" id="paths">{data}</script></div>'
    )


def _upright(w2c: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rotation [3, 3] that brings what the cameras [V, M, 4, 4] hold for up to the z axis."""
    up = -w2c[..., 1, :3].reshape(-1, 3).mean(0)
    length = float(np.linalg.norm(up))
    if length < 1e-6:
        return np.eye(3)
    return np.asarray(Rotation.align_vectors([[0.0, 0.0, 1.0]], [up / length])[0].as_matrix())


def _made(source: Path, config: dict[str, Any] | None, made: dict[str, Any] | None) -> str:
    rows = [["scene", _text(source)]]
    if made is None:
        note = _missing("There is no run.json: time, memory and versions of the training are not known.")
    else:
        note = ""
        if "command" in made:
            rows.append(["command", f"<code>{_text(made['command'])}</code>"])
        if isinstance(made.get("seconds"), (int, float)):
            rows.append(["training time", f"{made['seconds'] / 60:.1f} minutes"])
        if isinstance(made.get("peak_memory_bytes"), (int, float)):
            rows.append(["peak memory", f"{made['peak_memory_bytes'] / 2**30:.2f} GiB"])
        versions = made.get("versions")
        if isinstance(versions, dict):
            rows.append(["versions", _text(", ".join(f"{name} {number}" for name, number in versions.items()))])
        known = {"command", "seconds", "peak_memory_bytes", "versions"}
        rows += [[_text(key), _text(value)] for key, value in made.items() if key not in known]
    settings = ""
    if config is not None:
        text = _text(json.dumps(config, indent=1))
        settings = f"<details><summary>Configuration</summary><pre>{text}</pre></details>"
    return _table(["", ""], rows) + note + settings


STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --ink: #1d1d1b; --soft: #6b6a66; --line: #dddcd8; --card: #fff;
  --c0: #1f6fd0; --c1: #d8572a; --c2: #178a66; --c3: #8a4fc4; --c4: #b8860b; --c5: #c2367a; --c6: #4a7d94; --c7: #777; }
@media (prefers-color-scheme: dark) { :root { --back: #191918; --ink: #ecebe7; --soft: #a3a29c; --line: #3a3936;
  --card: #222220; --c0: #5b9df0; --c1: #f08458; --c2: #3fbd92; --c3: #b485e6; --c4: #d9ab3f; --c5: #e76ba6;
  --c6: #7fb3c9; --c7: #aaa; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 1180px; margin: auto; padding: 0 20px; }
header { padding-top: 24px; } h1 { font-size: 24px; margin: 0; } h2 { font-size: 19px; margin: 34px 0 10px; }
h3 { font-size: 16px; margin: 18px 0 4px; } nav a { margin-right: 14px; color: var(--c0); }
.note, .missing { color: var(--soft); font-size: 13px; margin: 6px 0; } .missing { font-style: italic; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 16px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 16px; margin-top: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px; }
figcaption { font-size: 13px; display: flex; gap: 12px; } .chart figcaption { font-weight: 600; }
figcaption .a, figcaption .b { color: var(--soft); } figcaption .b { margin-left: auto; }
.wipe { position: relative; overflow: hidden; background: var(--line); --cut: 50%; }
.wipe img { position: absolute; inset: 0; width: 100%; height: 100%; visibility: hidden; }
.wipe img.a { visibility: visible; }
.wipe img.b { visibility: visible; clip-path: inset(0 0 0 var(--cut)); z-index: 1; }
.wipe::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; margin-left: -1px;
  background: #fff; mix-blend-mode: difference; z-index: 2; pointer-events: none; }
.wipe input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; z-index: 3;
  cursor: ew-resize; touch-action: pan-y; }
.wipe:focus-within { outline: 2px solid var(--c0); }
.pick label { margin-right: 16px; } select { font: inherit; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
.grid { stroke: var(--line); } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.keys { margin: 2px 0; font-size: 13px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
.keys i { display: inline-block; width: 12px; height: 3px; margin: 0 6px 4px 0; vertical-align: middle; }
.space { margin-top: 14px; } canvas { width: 100%; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; cursor: grab; touch-action: none; }
""" + "".join(f".line.c{i} {{ stroke: var(--c{i}); }} i.c{i} {{ background: var(--c{i}); }}\n" for i in range(8))

SCRIPT = """
'use strict';
for (const views of document.querySelectorAll('.views')) {
  const show = () => {
    for (const side of ['a', 'b']) {
      const kind = views.querySelector(`select[data-side="${side}"]`).value;
      for (const card of views.querySelectorAll('.card')) {
        let note = 'no picture';
        for (const image of card.querySelectorAll('img')) {
          const chosen = image.dataset.kind === kind;
          if (side === 'a') image.className = '';
          if (!chosen) continue;
          note = image.dataset.note;
          // The same picture on both sides is simply the whole picture.
          if (!image.classList.contains('a')) image.classList.add(side);
        }
        card.querySelector('figcaption .' + side).textContent = note;
      }
    }
  };
  for (const select of views.querySelectorAll('select')) select.addEventListener('change', show);
  for (const range of views.querySelectorAll('input[type=range]'))
    range.addEventListener('input', () => range.parentElement.style.setProperty('--cut', range.value + '%'));
  show();
}

const canvas = document.getElementById('space');
if (canvas) {
  const data = JSON.parse(document.getElementById('paths').textContent);
  const all = data.paths.flatMap(path => path.centres.flat());
  const middle = [0, 1, 2].map(i => all.reduce((sum, p) => sum + p[i], 0) / all.length);
  const reach = Math.max(1e-9, ...all.map(p => Math.hypot(...p.map((x, i) => x - middle[i]))));
  let target = middle, size = reach, around = 0.6, above = 0.5;
  const project = p => {
    const d = p.map((x, i) => x - target[i]);
    const x = d[0] * Math.cos(around) - d[1] * Math.sin(around);
    const y = d[0] * Math.sin(around) + d[1] * Math.cos(around);
    const zoom = 0.6 * Math.min(canvas.width, canvas.height) / size;
    return [canvas.width / 2 + zoom * x,
            canvas.height / 2 - zoom * (d[2] * Math.cos(above) + y * Math.sin(above))];
  };
  const draw = () => {
    const style = getComputedStyle(document.documentElement), pen = canvas.getContext('2d');
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.font = '12px system-ui';
    const line = points => {
      pen.beginPath();
      points.forEach((p, i) => { const q = project(p); if (i) pen.lineTo(...q); else pen.moveTo(...q); });
      pen.stroke();
    };
    // The truth below, broad and pale; the recovered paths on it.
    [...data.paths.entries()].reverse().forEach(([group, path]) => {
      pen.strokeStyle = pen.fillStyle = style.getPropertyValue('--c' + group).trim();
      path.centres.forEach((view, v) => {
        pen.globalAlpha = group ? 0.5 : 1;
        pen.lineWidth = group ? 6 : 1.8;
        line(view);
        const start = project(view[0]);  // a dot where the exposure begins
        pen.beginPath(); pen.arc(...start, 3, 0, 7); pen.fill();
        pen.globalAlpha = 0.35;
        pen.lineWidth = 1;
        const eye = view[view.length >> 1], axes = path.axes[v], far = 0.12 * reach;
        const corner = (sx, sy) => [0, 1, 2].map(i =>
          eye[i] + far * (axes[2][i] + 0.5 * sx * axes[0][i] + 0.32 * sy * axes[1][i]));
        const corners = [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
        line([...corners, corners[0]]);
        corners.forEach(c => line([eye, c]));
        if (group) return;
        const at = project(eye);
        pen.globalAlpha = 0.8;
        pen.fillText(data.names[v], at[0] + 6, at[1] - 6);
      });
    });
    pen.globalAlpha = 1;
  };
  let held = null;
  canvas.addEventListener('pointerdown', e => {
    held = [e.clientX, e.clientY];
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener('pointerup', () => { held = null; });
  canvas.addEventListener('pointermove', e => {
    if (!held) return;
    around += (e.clientX - held[0]) * 0.008;
    above = Math.max(-1.57, Math.min(1.57, above + (e.clientY - held[1]) * 0.008));
    held = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener('wheel', e => { e.preventDefault(); size *= Math.exp(e.deltaY * 0.001); draw(); },
                          { passive: false });
  canvas.addEventListener('dblclick', e => {
    const box = canvas.getBoundingClientRect();
    const x = (e.clientX - box.left) * canvas.width / box.width, y = (e.clientY - box.top) * canvas.height / box.height;
    let best = 30;
    target = middle; size = reach;
    for (const view of data.paths[0].centres) {
      const eye = view[view.length >> 1], at = project(eye), off = Math.hypot(at[0] - x, at[1] - y);
      if (off < best) { best = off; target = eye; size = 0.15 * reach; }
    }
    draw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  draw();
}
"""
