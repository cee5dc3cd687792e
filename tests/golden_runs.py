"""Recorded training runs on the small test scene, and what they are compared with.

    python tests/golden_runs.py --write             # record all runs in tests/golden/
    python tests/golden_runs.py --bits bits.json    # compare bit by bit with a file (written where it is missing)

A run is one row of ``full_eval.py`` or one preset, with its schedule shortened.  A golden file has the loss
terms of 20 steps, and PSNR and ATE after 300.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch
from small_scene import write_scene

from arguments import RECIPES
from arguments.parser import current_names, given_recipe, parse_training
from baselines.providers import PROVIDERS
from evaluation.methods import METHODS
from recon_net import recon_frames
from scene.dataset import read_scene
from scene.views import true_poses
from training.recipes import build
from training.sampling import Sample
from training.training import Training
from utils.crops import Crop
from utils.image_metrics import psnr
from utils.io import load_image
from utils.trajectory_metrics import trajectory_errors

FOLDER = Path(__file__).resolve().parent / "golden"
# The rates of the paper, for images.
_PAPER_RATES = (
    "--trajectory linear --strategy default --low_pass 0.3 --densify_from_iter 500 --means_lr 1.6e-4 "
    "--means_lr_final 1.6e-6 --means_unit extent --scales_lr 5e-3 --quats_lr 1e-3 --pose_opt_lr_final 1e-5"
).split()
# The same code as tfp-3dgs and spikegs.
_ALIKE = {f"{image}-3dgs" for image in PROVIDERS if image != "tfp"} | {"spikegs-instants", "spikegs-exposures"}
RUNS = {name: list(method.flags) for name, method in METHODS.items() if name not in _ALIKE}
RUNS |= {"images-cpu": ["--images"], "images-paper": ["--images", *_PAPER_RATES]}
# Everything of the method happens within 20 steps, and again within 300.
SHORT = (
    "--iterations 20 --densify_from_iter 2 --densification_interval 4 --densify_until_iter 16 "
    "--sh_degree_interval 5 --quiet --init_num_pts 300 --cap_max 360"
).split()
LONG = (
    "--iterations 300 --densify_from_iter 30 --densification_interval 20 --densify_until_iter 240 "
    "--sh_degree_interval 75 --quiet --init_num_pts 400 --cap_max 600"
).split()


def flags_of(name: str, steps: int) -> list[str]:
    """The flags of train.py of a shortened run."""
    flags, long = RUNS[name], steps > 20
    has = RECIPES["images" if "--images" in flags else given_recipe(flags) or "timing"].of().values()
    if "cap_max" not in has:  # a field without Gaussians
        return [*flags, "--iterations", str(steps), "--quiet", "--cells", "12", "--samples", "12", "--rays", "256"]
    shared = [*flags, *(LONG if long else SHORT)]
    if "crop" in has:
        shared += ["--crop", "16"]
    if "bsn_steps" in has:
        shared += ["--bsn_width", "4", "--bsn_steps", "4"]
    if "--recipe" not in flags and "--images" not in flags:
        shared += ["--window_from", "150" if long else "8"]
        if "--lambda_joint" not in flags:
            shared += ["--recon_from", "180" if long else "6"]
        if "--fixed_pattern_every" not in flags:
            shared += ["--fixed_pattern_every", "90" if long else "9"]
    if name.startswith("ours-") or name == "images-cpu":
        # The run ``ours`` has what the others leave out: their figures would say the same about it.
        shared += "--average_decay 0 --length_unit world".split()
        if "--images" not in flags:
            shared += "--curve_degree 3 --no-pose_precondition --pose_opt_lr 1e-3 --pose_opt_lr_final 3e-5".split()
        shared += [] if "--images" in flags else ["--retime_every", "0"]
    if "--recipe" in flags or name == "images-paper":
        shared += ["--pose_every", "3", "--densify_grad_threshold", "1e-5"]
        shared += ["--opacity_reset_interval", "0" if long else "7"]
    return shared


def start(name: str, steps: int, scene: Path, model: Path) -> Training:
    argv = current_names(["-s", str(scene), "-m", str(model), *flags_of(name, steps)])
    return build(parse_training(argv), read_scene(scene))


def trace(training: Training, steps: int) -> list[dict[str, float]]:
    """The loss terms of every step."""
    return [training.step() for _ in range(steps)]


@torch.no_grad()
def quality(training: Training) -> dict[str, float]:
    """PSNR at u = 0.5 of the Gaussians and of Recon-Net, and ATE."""
    state, recording = training.state, training.state.recording
    window, u, found = recording.window, recording.u, {"gaussians": [], "recon": []}
    middle, paths = window.subframes // 2, []
    for i, (view, exposure) in enumerate(zip(recording.scene.train, recording.exposures, strict=True)):
        camera = view.camera
        paths.append(state.trajectory.view(i, u))
        truth = load_image(view.image_path)[None]
        found["gaussians"].append(float(psnr(state.render(Sample.instant(i, middle)).images, truth)))
        if state.network is not None:
            frames = recon_frames(state.network, exposure, u, Crop.whole(camera.height, camera.width))
            found["recon"].append(float(psnr(frames[middle : middle + 1], truth)))
    result = {name: float(np.mean(values)) for name, values in found.items() if values}
    known = [true_poses(recording.scene.truth[v.camera.name], window) for v in recording.scene.train]
    if all(poses is not None for poses in known):
        recovered, true = torch.stack(paths).double().numpy(), torch.stack(known).double().numpy()
        result["ate"] = trajectory_errors(recovered, true).ate
    return result


def text_of(terms: list[dict[str, float]], after: dict[str, float]) -> str:
    """A golden file: one step a line, then what came out."""
    lines = [" ".join(f"{name} {value:.6e}" for name, value in row.items()) for row in terms]
    return "\n".join([*lines, "after 300 steps", *(f"{name} {value:.4f}" for name, value in after.items())]) + "\n"


def record(name: str, scene: Path, model: Path) -> tuple[str, dict[str, str]]:
    """The golden file of a run, and its digests."""
    short = start(name, 20, scene, model)
    terms = trace(short, 20)
    long = start(name, 300, scene, model)
    trace(long, 300)
    return text_of(terms, quality(long)), {"20": short.state.digest(), "300": long.state.digest()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record all runs")
    parser.add_argument("--bits", type=Path, help="file of digests to compare with")
    parser.add_argument("names", nargs="*", help="runs (default: all)")
    args = parser.parse_args()
    known = json.loads(args.bits.read_text()) if args.bits and args.bits.exists() else {}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        write_scene(scene)
        for name in args.names or RUNS:
            text, bits = record(name, scene, Path(folder) / "model")
            if args.write:
                (FOLDER / f"{name}.txt").write_text(text)
            same = known.setdefault(name, bits) == bits
            wrong += not same
            print(f"{name:16} {'same' if same else 'DIFFERENT'} {bits}", flush=True)
            if args.bits:
                args.bits.write_text(json.dumps(known, indent=1))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
