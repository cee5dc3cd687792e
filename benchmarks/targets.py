"""Measures the error of intensity targets, by counting and by spike timing, in a simulation with known truth.

    python benchmarks/targets.py --out benchmarks/targets.md

Pixels have uniformly drawn intensities, which are constant or drift to another one over the context.  The mean
intensity of a window is compared with the true mean of the same frames.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments.parser import add_quiet_argument
from commands.guard import guarded
from simulation import Simulator
from spike import SensorModel, Targets, WindowSpec
from spike.targets import Mode
from utils.io import atomic_write
from utils.telling import be_quiet, progress, say

SPEC = WindowSpec()
DARKEST = 0.02
GAP = (140.0, 50.0)
LIGHTS = ("constant", "moving")
MODES: tuple[Mode, ...] = ("counting", "timing")


def light(kind: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Intensities [context, side, side], 1 = white."""
    start, end = rng.uniform(DARKEST, 1, (2, side, side))
    t = np.linspace(0, 1, SPEC.context)[:, None, None]
    return np.broadcast_to(start, (SPEC.context, side, side)) if kind == "constant" else start + (end - start) * t


def errors(width: int, kind: str, mode: Mode, spurious: bool, known: bool, side: int, seed: int) -> tuple[float, float]:
    """Bias and RMSE for one table cell; if ``known``, the targets get the sensor's spurious rate."""
    truth = light(kind, side, np.random.default_rng(seed))
    simulator = Simulator(spurious_gap=GAP if spurious else None, seed=seed)
    rate = 1 / GAP[0] if known else 0.0
    targets = Targets(simulator(truth), SPEC, SensorModel(simulator.gain, spurious_rate=rate), mode=mode)
    start = (SPEC.context - width) // 2
    found = targets.mean(start, start + width) - torch.from_numpy(truth[start : start + width].mean(0)).float()
    return float(found.mean()), float(found.square().mean().sqrt())


def table(side: int, seed: int, widths: list[int]) -> str:
    """The table as Markdown."""
    cases = [(False, False, "clean"), (True, False, "spurious, unknown"), (True, True, "spurious, known")]
    head = [f"{mode}, {name}" for _, _, name in cases for mode in MODES]
    lines = ["| window | light | " + " | ".join(head) + " |", "| --- | --- |" + " --- |" * len(head)]
    rows = [(width, kind) for kind in LIGHTS for width in widths]
    for width, kind in progress(rows, "Measuring"):
        cells = []
        for spurious, known, _ in cases:
            for mode in MODES:
                bias, rmse = errors(width, kind, mode, spurious, known, side, seed)
                cells.append(f"{rmse:.4f} ({bias:+.4f})")
        lines.append(f"| {width} | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Errors of counting and timing targets.")
    parser.add_argument("--side", type=int, default=120, help="pixels per side (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[9, 25, 41, 97], help="window lengths in frames (default: 9 25 41 97)"
    )
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    add_quiet_argument(parser)
    args = parser.parse_args()
    be_quiet(args.quiet)
    if args.side < 2 or not all(1 <= width <= SPEC.context for width in args.widths):
        raise ValueError(f"--side must be at least 2, and --widths between 1 and {SPEC.context} frames")
    text = table(args.side, args.seed, args.widths)
    say(text)
    if args.out is not None:
        with atomic_write(args.out, "w") as file:
            head = (
                f"`python benchmarks/targets.py --side {args.side} --seed {args.seed}`: RMSE (bias) of a window's mean "
                f"intensity, 1 = white; {args.side**2} pixels, intensities uniform from {DARKEST} to 1, moving light "
                f"drifts to another intensity over {SPEC.context} frames; gain {Simulator().gain}, spurious spikes "
                f"{1 / GAP[0]:.4f} per frame. Known: the sensor's spurious rate is given; unknown: counting keeps the "
                "bias, timing estimates the rate from the stream."
            )
            file.write(f"# Targets: counting and timing\n\n{textwrap.fill(head, 119)}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
