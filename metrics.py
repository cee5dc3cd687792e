"""Measure the images that render.py wrote, and trajectories if the truth is known.

    python metrics.py -m output/tanabata
    torchrun --standalone --nproc-per-node=4 metrics.py -m output/tanabata

There are two protocols, which are never mixed.  *Deblurring*: training views at instants within their own exposure.
*Held out*: views not used in training.  Their poses are fitted with the scene frozen, either to their own spikes
(``--eval``) or to the sharp image they are compared with (``novel.json``).  If a scene has both, the latter are
called *novel views*.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from arguments.command_line import CommandLine
from arguments.parser import add_model_arguments
from commands.guard import guarded
from evaluation.measuring import measure_model
from evaluation.tables import results_table
from scene.manifest import PROTOCOLS
from training.trained_model import TrainedModel
from utils.device import share_processors
from utils.lpips_offline import load_lpips
from utils.processes import Processes
from utils.telling import be_quiet, say


def main() -> int:
    parser = CommandLine(description="Measure the images and trajectories of a trained model.")
    add_model_arguments(parser, is_drawn=False)
    parser.add_argument("--iteration", type=int, help="saved iteration to measure (default: the newest)")
    parser.add_argument(
        "--lpips", choices=["vgg", "alex", "none"], default="vgg",
        help="LPIPS backbone; none: not measured, which saves nearly all the time (default: vgg)",
    )  # fmt: skip
    parser.add_argument(
        "--known", type=Path,
        help="cache of the values of images that are the same in many runs, such as counted spikes; read and written",
    )  # fmt: skip
    args = parser.parse_args()
    with Processes.of_environment() as processes:
        be_quiet(args.quiet or not processes.first)
        share_processors(0, processes.local_size)
        return measure(args, processes)


def measure(args: argparse.Namespace, processes: Processes) -> int:
    """Measure the images, each process its own; the first writes the results."""
    model = processes.together(lambda: opened(args))
    lpips, source = (None, "not asked for") if args.lpips == "none" else load_lpips(args.lpips)
    measured = measure_model(model, lpips, source, args.known, processes)
    if not processes.first:
        return 0
    if not any(protocol in measured.results for protocol in PROTOCOLS):
        say(f"{model.folder}: the scene has no sharp images, so there is nothing to compare the renders with")
    say(results_table(measured.results))
    say(f"Written to {model.folder}: {', '.join(measured.files)}")
    return 0


def opened(args: argparse.Namespace) -> TrainedModel:
    """The model whose images are measured.

    Raises:
        ValueError: none was given, or there is none.
    """
    if not args.model_path:
        raise ValueError("no model given: say which folder with -m, for example -m output/tanabata")
    return TrainedModel.load(args.model_path, args.iteration, source=args.source_path)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(guarded(main))
