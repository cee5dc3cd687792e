"""Does joint training help both sides?  The claim of the paper's section B.2, tested on a scene with truth.

    python data/make_demo.py --views 12 --size 100x62 --spacing 4 --out output/room
    python benchmarks/joint.py -s output/room --steps 2000 --at 250 500 1000 1500 2000
    python benchmarks/joint.py --table

Each run trains with the paper's losses and network on full frames: all three losses, or without L_joint.  Without it
the Gaussians and Recon-Net share nothing, so that one run is L_gs alone and L_rec alone.  A run that was interrupted
continues.  Each measured step adds a line per output to ``joint.jsonl``: PSNR at u = 0.5 and over all sub-frames, and
the model of the paper's eq. 23, output = A truth + n, with a response A that depends on the frequency only:

- ``response``: A by frequency (cycles per pixel, ``frequencies``);
- ``blur`` and ``noise``: mean square of (A - 1) truth and of n.  Their sum is the mean squared error, without the error
  of the images' mean.  Whatever no such response explains counts as n: noise, but also displaced or missing things.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch
from torch import Tensor

from arguments.parser import parse_training
from commands.guard import guarded
from recon_net import recon_frames
from scene.dataset import read_scene
from scene.views import load_picture, true_images
from training import checkpoint
from training.recipes import build
from training.sampling import Sample
from training.state import State
from training.training import Training
from utils.checkpoint import latest_checkpoint
from utils.crops import Crop
from utils.image_metrics import psnr

LOG = Path(__file__).with_suffix(".jsonl")
GAUSSIANS, RECON_NET = "Gaussians", "Recon-Net"
# The table shows the response in one band of so many: at .01, .11, .21, .31 and .41 cycles per pixel.
_SHOWN = 5
# Flags of train.py by run.
RUNS = {
    "joint": [],
    "separate": ["--no-joint"],
    "joint, at rest": ["--no-motion_init"],
    # Without the network, which takes nearly all the time and gains nothing from the Gaussians.
    "L_gs alone": ["--no-joint", "--no-rec"],
    "L_gs alone, at rest": ["--no-joint", "--no-rec", "--no-motion_init"],
}


@dataclass(frozen=True)
class Degradation:
    """The model of eq. 23: images = A truth + n.

    Args:
        frequencies: middles of the bands [F], cycles per pixel.
        response: A in each band [F].
        blur: mean square of (A - 1) truth.
        noise: mean square of n.
    """

    frequencies: Tensor
    response: Tensor
    blur: float
    noise: float


def degradation(images: Tensor, truth: Tensor, bands: int = 25) -> Degradation:
    """The response that brings the truth [B, H, W] closest to the images [B, H, W], and what it leaves.

    In each band of frequencies the response is the cross spectrum of images and truth over the truth's power spectrum,
    both summed over the band and all images: the solution of least squares.  Images are weighted with a Hann window and
    their means are left out.  Bands are narrow, because what A varies within one counts as n.
    """
    height, width = truth.shape[-2:]
    window = torch.hann_window(height, False, dtype=torch.float64)[:, None] * torch.hann_window(
        width, False, dtype=torch.float64
    )
    window = window / window.square().mean().sqrt()  # power as of the images themselves
    x, y = (_spectra(values.double(), window) for values in (truth, images))
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    band = (radius / (0.5 / bands)).long().clamp_max(bands - 1).flatten()  # the corners are in the last one

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(bands, dtype=torch.float64).index_add_(0, band, values.sum(0).flatten())

    power = summed(x.abs().square())
    # Real: the spectra of real images have opposite imaginary parts at opposite frequencies of a band.
    response = summed((y * x.conj()).real) / power
    rest = y - response[band].view(height, width) * x
    count = len(truth) * height**2 * width**2  # Parseval: mean squares of the images
    middles = (torch.arange(bands) + 0.5) * 0.5 / bands
    blur, noise = ((response - 1).square() * power).sum(), rest.abs().square().sum()
    return Degradation(middles, response, float(blur / count), float(noise / count))


def _spectra(images: Tensor, window: Tensor) -> Tensor:
    mean = (images * window).mean((1, 2), keepdim=True) / window.mean()
    return torch.fft.fft2((images - mean) * window)


@torch.no_grad()
def outputs(state: State, view: int) -> dict[str, Tensor]:
    """The images [M, H, W] of a view's sub-frames by output."""
    recording = state.recording
    images = {GAUSSIANS: state.render(Sample.exposure(view, len(recording.u))).images[:, 0]}
    if state.network is not None:
        crop = Crop.whole(*recording.size)
        images[RECON_NET] = recon_frames(state.network, recording.exposures[view], recording.u, crop)[:, 0]
    return {name: values.clamp(0, 1) for name, values in images.items()}


def measured(state: State, truths: Tensor) -> dict[str, dict[str, Any]]:
    """The values of each output; ``truths`` [V, M, H, W]."""
    made = [outputs(state, view) for view in range(len(truths))]
    rows = {}
    for name in made[0]:
        images = torch.stack([row[name] for row in made])
        middle = state.recording.window.middle
        found = degradation(images.flatten(0, 1), truths.flatten(0, 1))
        rows[name] = {
            "PSNR": _decibels(images[:, middle], truths[:, middle]),
            "PSNR, all u": _decibels(images.flatten(0, 1), truths.flatten(0, 1)),
            "blur": found.blur,
            "noise": found.noise,
            "frequencies": found.frequencies.tolist(),
            "response": found.response.tolist(),
        }
    return rows


def _decibels(images: Tensor, truths: Tensor) -> float:
    return float(psnr(images[:, None], truths[:, None]).mean())


def flags_of(run: str, scene: Path, model: Path, steps: int, seed: int) -> list[str]:
    """The flags of train.py: the paper's recipe with a schedule in proportion to the number of steps."""
    schedule = {
        "iterations": steps, "densify_from_iter": steps // 10, "densify_until_iter": steps // 2,
        "opacity_reset_interval": 0, "sh_degree_interval": max(steps // 4, 1), "init_num_pts": 5000, "pose_every": 5,
        "seed": seed,
    }  # fmt: skip
    words = [word for name, value in schedule.items() for word in (f"--{name}", str(value))]
    return ["-s", str(scene), "-m", str(model), "--recipe", "paper", *words, *RUNS[run]]


def train(training: Training, until: int, every: int = 50) -> float:
    """Train until a step, with checkpoints; returns the seconds of processor time."""
    began = time.process_time()
    while training.iteration < until:
        training.step()
        if training.iteration % every == 0 or training.iteration == until:
            checkpoint.save(training)
    return time.process_time() - began


def perform(run: str, args: argparse.Namespace) -> None:
    """Train one run and measure it at the given steps."""
    model = args.out / f"{run.replace(', ', '-').replace(' ', '-')}-{args.steps}-{args.seed}"
    model.mkdir(parents=True, exist_ok=True)
    scene = read_scene(args.scene)
    training = build(parse_training(flags_of(run, args.scene, model, args.steps, args.seed)), scene)
    path = latest_checkpoint(model)
    if path is not None:
        checkpoint.load(training, path)
    state = training.state
    truths = []
    for view in scene.train:
        files = true_images(view, state.recording.window)
        truths.append(torch.cat([load_picture(view, files[m], 1) for m in sorted(files)]))
    known = args.log.read_text(encoding="utf-8").splitlines() if args.log.exists() else []
    for step in sorted({min(step, args.steps) for step in args.at}):
        row: dict[str, Any] = {"run": run, "steps": args.steps, "seed": args.seed, "step": step}
        if step < training.iteration or any(row.items() <= json.loads(line).items() for line in known):
            continue
        row |= {"cpu_seconds": round(train(training, step), 1), "gaussians": len(state.gaussians)}
        with args.log.open("a", encoding="utf-8") as file:
            for output, values in measured(state, torch.stack(truths)).items():
                line = row | {"output": output} | _rounded(values)
                print(json.dumps({name: line[name] for name in (*row, "output", "PSNR", "PSNR, all u")}), flush=True)
                file.write(json.dumps(line) + "\n")


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        return [short(v) for v in value] if isinstance(value, list) else float(f"{value:.5g}")

    return {name: short(value) for name, value in values.items()}


def table(log: Path) -> str:
    """The rows of the log as Markdown; blur and noise as PSNR, dB."""
    lines = ["| run | output | step | PSNR | PSNR, all u | blur, dB | noise, dB | response |", "|---" * 8 + "|"]
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        parts = [f"{-10 * np.log10(row[name]):.2f}" for name in ("blur", "noise")]
        response = " ".join(f"{value:.2f}" for value in row["response"][::_SHOWN])
        cells = [row["run"], row["output"], str(row["step"]), f"{row['PSNR']:.2f}", f"{row['PSNR, all u']:.2f}"]
        lines.append(f"| {' | '.join([*cells, *parts, response])} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-s", "--scene", type=Path, help="scene with its sharp sub-frames")
    parser.add_argument("--out", type=Path, default=Path("output/joint"), help="folder of the runs' checkpoints")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["separate", "joint"])
    parser.add_argument("--steps", type=int, default=2000, help="training steps (default: 2000)")
    parser.add_argument("--at", type=int, nargs="+", default=[2000], help="steps to measure (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=LOG, help="file to append to")
    parser.add_argument("--table", action="store_true", help="print the table of all lines in the file")
    args = parser.parse_args()
    if args.table:
        print(table(args.log))
        return 0
    if args.scene is None:
        parser.error("no scene given: -s SCENE")
    for run in args.runs:
        perform(run, args)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
