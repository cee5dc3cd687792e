"""Trains on the demo's scene as seen by several sensors, and measures all images against the truth.

    python benchmarks/sensors.py --out output/sensors
    python benchmarks/sensors.py --out output/sensors --sensors dim --seeds 0 1 2
    python benchmarks/sensors.py --table

Each run adds one line to ``sensors.jsonl``: the spikes per frame and pixel, and of the images at the middle of the
exposures, by kind: PSNR in dB as it is and after the best single gain, and LPIPS.  Runs that the file contains are
skipped.  Scenes and trained models stay in the folder, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch

from commands.guard import guarded
from evaluation.images import load_like, measure
from pictures.kinds import FUSED, GAUSSIANS, RECON_NET, TFP, TIMING, TRUTH
from scene.manifest import images_folder, read_manifest
from simulation.demo import VERSION, Recipe, light, make
from simulation.sensor import SENSORS
from spike import Targets
from training.trained_model import TrainedModel
from utils.checkpoint import latest_checkpoint
from utils.io import atomic_write, load_image
from utils.lpips_offline import Lpips, load_lpips

ROOT = Path(__file__).resolve().parents[1]
# TFP over the whole exposure, which no command writes.
LONG_TFP = "tfp_97"
COLUMNS = {
    TFP.name: "TFP(41)", LONG_TFP: "TFP(97)", TIMING.name: "timing", FUSED.name: "fused", RECON_NET.name: "Recon-Net",
    GAUSSIANS.name: "Gaussians",
}  # fmt: skip


def kept(folder: Path, pose: np.ndarray, k: np.ndarray, width: int, height: int) -> torch.Tensor:
    """``light`` from a file in ``folder``: all sensors see the same, which takes longer to render than to train on."""
    key = hashlib.sha256(repr((VERSION, width, height)).encode() + pose.tobytes() + k.tobytes()).hexdigest()[:20]
    path = folder / f"{key}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.save(file, light(pose, k, width, height).numpy())
    return torch.from_numpy(np.load(path))


def trained(recipe: Recipe, steps: int, out: Path) -> Path:
    """The folder of a rendered model of the scene that the recipe's sensor saw; all that is missing is made."""
    scene = out / f"{recipe.sensor}-{recipe.views}-{recipe.width}x{recipe.height}-{recipe.seed}"
    model = scene.with_name(f"{scene.name}-{steps}")
    if recipe.state(scene) != "done":
        make(scene, recipe, processes=0, draw=partial(kept, out / "light"))
    train = [sys.executable, str(ROOT / "train.py"), "-s", str(scene), "-m", str(model)]
    if latest_checkpoint(model) is not None:
        train += ["--resume"]
    else:
        train += ["--iterations", str(steps), "--seed", str(recipe.seed), "--checkpoint_every", "100", "--quiet"]
    subprocess.run(train, check=True)
    subprocess.run([sys.executable, str(ROOT / "render.py"), "-m", str(model), "--skip_test", "--quiet"], check=True)
    return model


def measured(folder: Path, lpips: Lpips | None) -> dict[str, Any]:
    """Mean scores of the images at the middle of the exposures, by kind, and the spikes per frame and pixel."""
    model = TrainedModel.load(folder)
    place = images_folder(folder, "train", model.iteration)
    files: dict[str, dict[str, Path]] = {}
    for image in read_manifest(folder, "train", model.iteration):
        if image.subframe is None:
            files.setdefault(image.view, {})[image.kind] = place / image.file
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in COLUMNS}
    rates = []
    for view in model.scene.train:
        named = files[view.camera.name]
        truth = load_image(named[TRUTH.name])
        images = {name: load_like(named[name], truth) for name in COLUMNS if name in named}
        spikes = model.scene.open_stream(view).central(model.window_spec)
        counted = Targets(spikes, model.window_spec, model.scene.sensor, "counting")
        images[LONG_TFP] = counted.long_exposure()[None]
        for name, row in zip(images, measure(list(images.values()), truth, lpips), strict=True):
            rows[name].append(row)
        rates.append(float(spikes.mean()))
    scores = {
        name: {key: round(float(np.mean([row[key] for row in found])), 4) for key in found[0] if "SSIM" not in key}
        for name, found in rows.items()
        if found
    }
    return {"spikes": round(float(np.mean(rates)), 4), "images": scores}


def table(log: Path) -> str:
    """The table of all runs: PSNR / LPIPS by sensor and kind, means over the seeds."""
    runs = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    lines = [f"| sensor | spikes | {' | '.join(COLUMNS.values())} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for sensor in dict.fromkeys(run["sensor"] for run in runs):
        own = [run for run in runs if run["sensor"] == sensor]
        cells = [sensor, f"{np.mean([run['spikes'] for run in own]):.3f}"]
        for name in COLUMNS:
            scores = [run["images"][name] for run in own]
            cells.append(f"{np.mean([s['PSNR'] for s in scores]):.1f} / {np.mean([s['LPIPS'] for s in scores]):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "sensors", help="folder of scenes and models")
    parser.add_argument("--sensors", nargs="+", choices=SENSORS, default=list(SENSORS), help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of path, sensor and training (default: 0)")
    parser.add_argument("--views", type=int, default=12, help="views of a scene (default: 12)")
    parser.add_argument("--size", default="100x62", help="width x height in pixels (default: 100x62)")
    parser.add_argument("--steps", type=int, default=900, help="training steps (default: 900)")
    parser.add_argument("--log", type=Path, default=Path(__file__).with_suffix(".jsonl"), help="file to append to")
    parser.add_argument("--table", action="store_true", help="print the table of all runs in the file")
    args = parser.parse_args()
    if args.table:
        print(table(args.log))
        return 0
    done = args.log.read_text(encoding="utf-8").splitlines() if args.log.exists() else []
    known = [json.loads(line) for line in done]
    width, height = (int(number) for number in args.size.split("x"))
    lpips, _ = load_lpips()
    for seed in args.seeds:
        for sensor in args.sensors:
            row = {"sensor": sensor, "seed": seed, "views": args.views, "size": args.size, "steps": args.steps}
            if any(row.items() <= {key: run[key] for key in row}.items() for run in known):
                continue
            recipe = Recipe(args.views, width, height, seed, sensor=sensor)
            row |= measured(trained(recipe, args.steps, args.out), lpips)
            print(json.dumps(row), flush=True)
            with args.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
