"""Scenes x methods x initial poses x seeds, each run in a process of its own, to one table and one page.

    python full_eval.py -s data/demo -o output/eval
    python full_eval.py -s scenes/* --methods tfp tfi ours paper --poses accurate noisy --seeds 0 1 2

A run that has a ``results.json`` is not done again, so an interrupted evaluation goes on where it stopped; a
run that fails is a row that says so.  Written into ``-o``: ``table.md``, ``table.csv``, ``table.tex`` (means
over seeds, with their spread) and ``report.html``.  Everything in the table was measured by this program on
these scenes; rows of different methods at the same scene, poses and seeds compare, nothing else does.
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import csv
import dataclasses
import io
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from arguments import PRESETS
from commands.guard import guarded
from evaluation.report import Card, Comparison, compose_comparisons, read_log
from metrics import load_beside, measure
from scene.dataset import read_scene
from scene.exposure import Exposure, usable_margin
from spike import WindowSpec, tfi
from utils.io import atomic_write, load_image, save_image
from utils.lpips_offline import load_lpips

ROOT = Path(__file__).resolve().parent

# The paper's losses, window, network and linear motion, scaled to a processor: crops instead of full frames, as
# many steps as take about the time of ours, the schedule shortened alike, and as many first points as ours.
_PAPER = (
    "--preset paper --crop 48 --iterations 900 --init_points 20000 --cap 60000 --densify_from 200 --pose_every 5 "
    "--densify_until 700 --opacity_reset_every 0 --sh_every 500"
).split()

_RATES = [
    word
    for name in ("means_lr", "means_lr_final", "means_unit", "scale_lr", "rotation_lr", "pose_lr_final", "pose_every")
    for word in (f"--{name}", str(PRESETS["cpu"][name]))
]


@dataclasses.dataclass(frozen=True)
class Method:
    """One row: what it is called in tables, and its flags of train.py."""

    title: str
    flags: Sequence[str]


METHODS = {
    "ours": Method("ours", ("--preset", "cpu")),
    "ours-gaussians": Method("ours, no Recon-Net", ("--preset", "cpu", "--no-joint")),
    "ours-counting": Method("ours, counted targets", ("--preset", "cpu", "--targets", "counting", "--no-fuse")),
    "ours-linear": Method("ours, linear motion", ("--preset", "cpu", "--trajectory", "linear")),
    "ours-spline": Method("ours, one spline a recording", ("--preset", "cpu", "--trajectory", "spline")),
    "ours-rest": Method("ours, motion starts at rest", ("--preset", "cpu", "--no-motion_init")),
    "ours-fixed": Method("ours, poses fixed", ("--preset", "cpu", "--no-optimise_poses")),
    "ours-middle": Method("ours, windows' middles alone", ("--preset", "cpu", "--window_points", "1")),
    "ours-no-pattern": Method("ours, no fixed pattern", ("--preset", "cpu", "--fixed_pattern_every", "0")),
    "ours-no-fuse": Method("ours, Recon-Net taught by plain renders", ("--preset", "cpu", "--no-fuse")),
    "ours-default": Method("ours, 3DGS densification", ("--preset", "cpu", "--strategy", "default")),
    "ours-paper-net": Method("ours, the paper's network", ("--preset", "cpu", "--recon_net", "paper")),
    "paper": Method("paper (S)", _PAPER),
    # How much of the difference is the optimiser's.
    "paper-rates": Method("paper (S), our rates", [*_PAPER, *_RATES]),
    # What the schedule converges to.
    "paper-long": Method("paper (S), 6,000 steps", [*_PAPER, "--iterations", "6000", "--densify_until", "4000"]),
    "parity": Method("paper (R parity)", [*_PAPER, "--preset", "parity"]),
    "gs": Method("L_gs alone", [*_PAPER, "--no-rec", "--no-joint"]),
    "rec": Method("L_rec alone", [*_PAPER, "--no-gs", "--no-joint"]),
    "joint-free": Method("paper, no L_joint", [*_PAPER, "--no-joint"]),
    "no-flip": Method("paper, no flip", [*_PAPER, "--no-flip"]),
    "single": Method("paper, one interval", [*_PAPER, "--no-multi_interval"]),
    "fixed": Method("paper, poses fixed", [*_PAPER, "--no-optimise_poses"]),
    "tfp-3dgs": Method(
        "TFP-3DGS",
        [*_PAPER, *"--exposure 41 --subframes 1 --no-rec --no-joint --no-optimise_poses --no-motion_init".split()],
    ),
}
# Images from the spikes of one view alone, at u = 0.5: no network, no scene.
BASELINES = {"tfp": "TFP(41)", "tfp-long": "TFP(97)", "tfi": "TFI", "timing": "spike timing (9 frames)"}
POSES = {"accurate": "transforms.json", "colmap": "transforms_colmap.json", "noisy": "transforms_noisy.json"}
GROUPS = {
    "main": ["tfp", "tfi", "timing", "tfp-3dgs", "paper", "ours"],
    "losses": ["gs", "rec", "joint-free", "no-flip", "single", "fixed", "parity", "paper-rates"],
    "ablations": [
        "ours-gaussians", "ours-counting", "ours-middle", "ours-no-pattern", "ours-linear", "ours-spline", "ours-rest",
        "ours-fixed", "ours-no-fuse", "ours-default",
    ],
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run."""

    scene: Path
    method: str
    poses: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.scene.name / self.method / self.poses / f"seed{self.seed}"

    def train_flags(self) -> list[str]:
        """What train.py is called with, the folder of the results apart."""
        flags = ["-s", str(self.scene), "--spike", *METHODS[self.method].flags]
        return [*flags, "--transforms", POSES[self.poses], "--seed", str(self.seed), "--quiet"]


def jobs_of(scenes: Sequence[Path], methods: Sequence[str], poses: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Every combination that makes sense: images made from spikes alone have neither poses nor seeds.

    Kinds of poses that a scene does not have are left out of it, and said to be.

    Raises:
        ValueError: a scene is no folder, has none of the poses to train from, or two have the same name.
    """
    names = [scene.name for scene in scenes]
    for scene in scenes:
        if not scene.is_dir():
            raise ValueError(f"{scene}: no such folder")
        if names.count(scene.name) > 1:
            raise ValueError(f"{scene}: two scenes are called {scene.name}; their results would share a folder")
    jobs = []
    for scene in scenes:
        there = [kind for kind in poses if _has_poses(scene, kind)]
        if len(there) < len(poses) and not BASELINES.keys() >= set(methods):
            missing = ", ".join(POSES[kind] for kind in poses if kind not in there)
            if not there:
                raise ValueError(f"{scene}: there is no {missing}; without initial poses nothing can be trained")
            print(f"{scene}: there is no {missing}; its rows are left out")
        for method in methods:
            if method in BASELINES:
                jobs.append(Job(scene, method, "accurate", 0))
                continue
            jobs += [Job(scene, method, kind, seed) for kind in there for seed in seeds]
    return jobs


def _has_poses(scene: Path, kind: str) -> bool:
    """Whether train.py finds such poses; COLMAP's ``sparse`` stands for a missing transforms.json."""
    return (scene / POSES[kind]).is_file() or (kind == "accurate" and (scene / "sparse").is_dir())


def measure_baseline(root: Path, kind: str, folder: Path) -> dict[str, Any]:
    """Write the images of one of ``BASELINES`` and measure them as metrics.py does."""
    scene, spec = read_scene(root), WindowSpec()
    network, reason = load_lpips()
    rows = []
    for i, view in enumerate(scene.train):
        stream = scene.open_stream(view)
        if kind == "tfi":
            margin = usable_margin(stream, spec)
            rate = tfi(stream.central(spec, margin), margin + spec.context // 2)
            pixels = scene.sensor.intensity(rate, spurious_left=False)[None]
        else:
            exposure = Exposure.from_spikes(i, view.camera, stream, spec, scene.sensor, "counting", 9, [])
            if kind == "tfp-long":
                pixels = exposure.long
            elif kind == "timing":
                pixels = exposure.middle_image(scene.sensor, "timing", 9)
            else:
                pixels = exposure.middle_image(scene.sensor, "counting", spec.short)
        image = pixels if scene.mosaic is None else scene.mosaic.colors(pixels)
        path = folder / "train" / "ours_0" / "image" / f"{view.camera.name}.png"
        save_image(path, image, bits=16)
        if view.image_path is not None:
            truth = load_image(view.image_path, len(image))[None]
            rows.append(measure(load_beside(path, truth), truth, network))
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}
    return {"deblurring": {"image": means | {"views": len(rows)}}, "LPIPS": reason}


def do(job: Job, out: Path) -> None:
    """Train, render and measure one job; its output goes to ``log.txt`` in its folder.

    Raises:
        RuntimeError: one of the commands failed, or left no results.
    """
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    if job.method in BASELINES:
        with atomic_write(folder / "results.json", "w") as file:
            json.dump(measure_baseline(job.scene, job.method, folder), file, indent=1)
        return
    resume = ["--resume"] if list(folder.glob("chkpnt*.pth")) else []
    commands = [
        ["train.py", *job.train_flags(), "-m", str(folder), *resume],
        ["render.py", "-m", str(folder), "--quiet"],
        ["metrics.py", "-m", str(folder), "--quiet"],
    ]
    with open(folder / "log.txt", "a", encoding="utf-8") as log:
        for command in commands:
            if subprocess.run([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log, check=False).returncode:
                raise RuntimeError(f"{command[0]} failed; see {folder / 'log.txt'}")
    if not (folder / "results.json").exists():
        raise RuntimeError(f"metrics.py left no {folder / 'results.json'}; see {folder / 'log.txt'}")


# ---- tables ------------------------------------------------------------------------------------------------

COLUMNS = ("PSNR", "SSIM", "LPIPS", "PSNR, all u", "PSNR, held out", "ATE", "motion %", "minutes")
_DIGITS = dict(zip(COLUMNS, (2, 4, 3, 2, 2, 4, 1, 1), strict=True))


def rows_of(job: Job, out: Path) -> dict[str, dict[str, float]]:
    """Numbers by output (Gaussians, Fused, Recon-Net, image) of one finished run, under the names of ``COLUMNS``."""
    folder = job.folder(out)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    run = folder / "run.json"
    seconds = json.loads(run.read_text(encoding="utf-8"))["seconds"] if run.exists() else None
    rows: dict[str, dict[str, float]] = {}
    shared = {"ATE": "ATE", "motion %": "motion_error"}
    for output in ("Gaussians", "Fused", "Recon-Net", "image"):
        measured = results.get("deblurring", {}).get(output)
        if measured is None:
            continue
        row = {name: measured.get(name) for name in ("PSNR", "SSIM", "LPIPS")}
        # Which views run backwards only the truth says, so it must not turn them round here.
        recovered = measured.get("PSNR_all_subframes_as_recovered")
        row["PSNR, all u"] = measured.get("PSNR_all_subframes") if recovered is None else recovered
        row["PSNR, held out"] = results.get("held out", {}).get(output, {}).get("PSNR")
        if output == "Gaussians":
            row |= {name: (results.get("trajectory") or {}).get(key) for name, key in shared.items()}
            row["motion %"] = None if row["motion %"] is None else 100 * row["motion %"]
        row["minutes"] = None if seconds is None else seconds / 60
        rows[output] = {name: float(value) for name, value in row.items() if value is not None}
    return rows


def summary(jobs: Sequence[Job], out: Path, failed: dict[Job, str]) -> list[dict[str, Any]]:
    """One row a scene, poses, method and output: means over seeds and, of several, the standard deviation."""
    found: dict[tuple[str, str, str, str], list[dict[str, float]]] = defaultdict(list)
    missing: dict[tuple[str, str, str, str], str] = {}
    for job in jobs:
        scene, poses, method = job.scene.name, job.poses, job.method
        if job in failed:
            missing[scene, poses, method, ""] = failed[job]
        elif (job.folder(out) / "results.json").exists():
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


def title_of(method: str) -> str:
    return BASELINES[method] if method in BASELINES else METHODS[method].title


def _cells(row: dict[str, Any], plus: str) -> list[str]:
    if "failed" in row:
        return [row["failed"]] + [""] * (len(COLUMNS) - 1)
    cells = []
    for name in COLUMNS:
        digits = _DIGITS[name]
        text = f"{row[name]:.{digits}f}" if name in row else ""
        cells.append(text + (f" {plus} {row[f'{name} sd']:.{digits}f}" if f"{name} sd" in row else ""))
    return cells


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    head = ["scene", "poses", "method", "output", "seeds", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        start = [row["scene"], row["poses"], title_of(row["method"]), row["output"], str(row["seeds"])]
        lines.append("| " + " | ".join(start + _cells(row, "±")) + " |")
    return "\n".join(lines) + "\n"


def latex(rows: Iterable[dict[str, Any]]) -> str:
    head = ["scene", "poses", "method", "output", *COLUMNS]

    def safe(text: str) -> str:
        for character in "&%_#":
            text = text.replace(character, "\\" + character)
        return text

    lines = [r"\begin{tabular}{llll" + "r" * len(COLUMNS) + "}", r"\toprule"]
    lines += [" & ".join(safe(name) for name in head) + r" \\", r"\midrule"]
    for row in rows:
        start = [row["scene"], row["poses"], title_of(row["method"]), row["output"]]
        lines.append(" & ".join([safe(s) for s in start] + [safe(c) for c in _cells(row, r"$\pm$")]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(rows: Sequence[dict[str, Any]]) -> str:
    names = ["scene", "poses", "method", "output", "seeds"]
    names += [column for name in COLUMNS for column in (name, f"{name} sd")] + ["failed"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# ---- the page ----------------------------------------------------------------------------------------------

# Whether more or less of a column is better.
_BETTER = dict(zip(COLUMNS, (1, 1, -1, 1, 1, -1, -1, 0), strict=True))
# Views of a scene that are shown.
_SHOWN = 3
_OUTPUTS = {"renders": "Gaussians", "fused": "Fused", "recon": "Recon-Net", "image": ""}


def _pictures_of(jobs: Sequence[Job], out: Path, scene: Path) -> tuple[dict[str, str], list[Card]]:
    """A few of the scene's views as the truth and every method's first seed show them."""
    truths = sorted((scene / "sharp_data").glob("*.png"))
    chosen = [truths[i] for i in sorted({round(i) for i in np.linspace(0, len(truths) - 1, _SHOWN)})] if truths else []
    labels, cards = {"truth": "truth"}, []
    for truth in chosen:
        pictures = {"truth": (truth, "truth")}
        for job in jobs:
            for folder in sorted(job.folder(out).glob("train/ours_*"))[-1:]:
                for kind, output in _OUTPUTS.items():
                    path, label = folder / kind / truth.name, f"{title_of(job.method)} {output}".strip()
                    if path.exists() and f"{job.method}-{kind}" not in pictures:
                        labels[f"{job.method}-{kind}"] = label
                        pictures[f"{job.method}-{kind}"] = path, label
        cards.append(Card(truth.stem, pictures))
    return labels, cards


def _curves_of(jobs: Sequence[Job], out: Path) -> dict[str, list[tuple[float, float]]]:
    """PSNR in training over minutes, by method, of the first seed."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        log = job.folder(out) / "log.jsonl"
        if log.exists() and title_of(job.method) not in curves:
            records = [record for record in read_log(log)[0] if {"seconds", "psnr"} <= record.keys()]
            curves[title_of(job.method)] = [(record["seconds"] / 60, record["psnr"]) for record in records]
    return curves


def comparisons(jobs: Sequence[Job], out: Path, rows: Sequence[dict[str, Any]]) -> list[Comparison]:
    """The runs of each scene and kind of initial poses; images from spikes alone are beside all of them."""
    found = []
    for scene, poses in dict.fromkeys((job.scene, job.poses) for job in jobs):
        others = {job.poses for job in jobs if job.scene == scene and job.method not in BASELINES}
        if others and poses not in others:
            continue  # baselines alone: they are with the others
        members = [j for j in jobs if j.scene == scene and (j.poses == poses or j.method in BASELINES)]
        members.sort(key=lambda job: job.seed)
        own = [
            row for row in rows
            if row["scene"] == scene.name and (row["poses"] == poses or row["method"] in BASELINES)
        ]  # fmt: skip
        labels, cards = _pictures_of(members, out, scene)
        # At first the last method's Gaussians against the truth.
        left = next((kind for kind in reversed(labels) if kind.endswith("-renders")), [*labels][-1])
        found.append(
            Comparison(
                f"{scene.name}, {poses} poses",
                [((title_of(r["method"]), r["output"], str(r["seeds"])), _cells(r, "±")) for r in own],
                [[r.get(name) for name in COLUMNS] for r in own],
                labels,
                left,
                "truth",
                cards,
                _curves_of(members, out),
            )
        )
    return found


def write_tables(jobs: Sequence[Job], out: Path, failed: dict[Job, str]) -> str:
    """Write every table and the page; returns the Markdown."""
    rows = summary(jobs, out, failed)
    table = markdown(rows)
    files = {
        "table.md": table,
        "table.csv": comma_separated(rows),
        "table.tex": latex(rows),
        "report.html": compose_comparisons(
            "Evaluation", ["method", "output", "seeds"], _BETTER, comparisons(jobs, out, rows)
        ),
    }
    for name, content in files.items():
        with atomic_write(out / name, "w") as file:
            file.write(content)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*GROUPS, *BASELINES, *METHODS]
    parser.add_argument("-s", "--scenes", nargs="+", type=Path, required=True, help="scene folders")
    parser.add_argument("-o", "--out", type=Path, default=Path("output/eval"), help="folder of the results")
    parser.add_argument(
        "--methods", nargs="+", choices=known, default=["main"], metavar="METHOD",
        help=f"rows, or groups of rows ({', '.join(GROUPS)}): {', '.join(known[len(GROUPS):])} (default: main)",
    )  # fmt: skip
    parser.add_argument("--poses", nargs="+", choices=[*POSES], default=["accurate"], help="initial poses")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds to average over")
    args = parser.parse_args()
    methods = list(dict.fromkeys(m for name in args.methods for m in GROUPS.get(name, [name])))
    # The commands run in this program's own folder.
    args.out = args.out.resolve()
    jobs = jobs_of([scene.resolve() for scene in args.scenes], methods, args.poses, args.seeds)
    failed: dict[Job, str] = {}
    bar = tqdm(jobs, desc="Evaluating", dynamic_ncols=True)
    for job in bar:
        if (job.folder(args.out) / "results.json").exists():
            continue
        bar.set_postfix_str(f"{job.scene.name} {job.method} {job.poses} seed {job.seed}")
        try:
            do(job, args.out)
        except (RuntimeError, ValueError) as error:
            failed[job] = str(error)
            tqdm.write(f"{job.scene.name} {job.method}: {error}")
    print(write_tables(jobs, args.out, failed))
    print(f"Written: {args.out}/table.md, table.csv, table.tex, report.html")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
