"""Search for the training recipe: trains one run in one process and measures it against a scene's truth.

    python benchmarks/recipe.py -s data/demo --at 500 1000 --note "more points" -- --init_points 40000

Everything after ``--`` is a flag of train.py.  Each measured iteration adds one line to ``recipe.jsonl``: PSNR of the
Gaussians at u = 0.5 and over all sub-frames with ground truth, PSNR of Recon-Net at u = 0.5, ATE and motion error, and
the CPU and wall-clock seconds of training (without measuring).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch

from arguments.parser import current_names, parse_training
from gaussian_renderer import render_trajectory
from recon_net import recon_frames
from scene.dataset import scene_of
from scene.views import load_picture, true_images, true_poses
from training.recipes import build
from training.training import Training
from utils.crops import Crop
from utils.image_metrics import psnr
from utils.trajectory_metrics import trajectory_errors


def measure(training: Training) -> dict[str, float]:
    """Measure PSNR of both outputs (dB) and trajectory errors against the truth."""
    state, recording = training.state, training.state.recording
    window, scores, paths = recording.window, {"gaussians": [], "all": [], "recon": []}, []
    for i, (view, exposure) in enumerate(zip(recording.scene.train, recording.exposures, strict=True)):
        poses = state.trajectory.view(i, recording.u)
        paths.append(poses)
        camera, wanted = view.camera, {window.middle: view.image_path} | true_images(view, window)
        out = render_trajectory(
            state.field.gaussians, poses, camera.K, camera.width, camera.height, state.field.rasterizer
        )
        for m, path in wanted.items():
            if path is None:
                continue
            truth = load_picture(view, path, 1)[None]
            value = float(psnr(out.images[m : m + 1], truth))
            scores["all"].append(value)
            if m == window.middle:
                scores["gaussians"].append(value)
        if state.network is not None and view.image_path is not None:
            frames = recon_frames(state.network, exposure, recording.u, Crop.whole(camera.height, camera.width))
            middle = frames[window.middle : window.middle + 1]
            scores["recon"].append(float(psnr(middle, load_picture(view, view.image_path, 1)[None])))
    result = {f"psnr_{name}": float(np.mean(values)) for name, values in scores.items() if values}
    known = recording.scene.truth
    if known is not None:
        truth = np.stack([true_poses(known[v.camera.name], window).numpy() for v in recording.scene.train])
        errors = trajectory_errors(torch.stack(paths).double().numpy(), truth)
        result |= {"ate": errors.ate, "motion_error": errors.motion}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-s", "--scene", required=True, help="scene with sharp images and trajectory.json")
    parser.add_argument("--at", type=int, nargs="+", default=[1000], help="iterations to measure (default: 1000)")
    parser.add_argument("--note", default="", help="note on what this run tries")
    parser.add_argument("--log", default=str(Path(__file__).with_name("recipe.jsonl")), help="file to append to")
    parser.add_argument("flags", nargs="*", help="flags of train.py, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as model:
        flags = current_names(["-s", args.scene, "-m", model, *args.flags])
        settings = parse_training(flags)
        training = build(settings, scene_of(settings.scene))
        cpu = wall = 0.0
        last = min(max(args.at), training.steps)
        while training.iteration < last:
            start = time.process_time(), time.monotonic()
            training.step()
            cpu, wall = cpu + time.process_time() - start[0], wall + time.monotonic() - start[1]
            if training.iteration in args.at or training.iteration == last:
                with torch.no_grad():
                    row: dict[str, Any] = {
                        "scene": Path(args.scene).name,
                        "note": args.note,
                        "flags": " ".join(args.flags),
                        "iteration": training.iteration,
                        "cpu_seconds": round(cpu, 1),
                        "seconds": round(wall, 1),
                        "gaussians": len(training.state.field.gaussians),
                    } | {k: round(v, 4) for k, v in measure(training).items()}
                print(json.dumps(row), flush=True)
                with open(args.log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
