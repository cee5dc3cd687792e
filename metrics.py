"""Measure the images that render.py wrote, and trajectories if the truth is known.

    python metrics.py -m output/tanabata

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

from arguments.parser import add_model_arguments, underscored
from commands.guard import guarded
from evaluation.measuring import measure_model
from evaluation.tables import results_table
from scene.manifest import PROTOCOLS
from training.trained_model import TrainedModel
from utils.lpips_offline import load_lpips
from utils.telling import be_quiet, say


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the images and trajectories of a trained model.")
    add_model_arguments(parser, is_drawn=False)
    parser.add_argument("--iteration", type=int, help="saved iteration to measure (default: the newest)")
    parser.add_argument("--lpips", choices=["vgg", "alex"], default="vgg", help="LPIPS backbone (default: vgg)")
    parser.add_argument(
        "--known", type=Path, help="file of measured values of images that stay the same from run to run; written too"
    )
    args = parser.parse_args(underscored(sys.argv[1:]))
    be_quiet(args.quiet)
    if not args.model_path:
        raise ValueError("no model given: say which folder with -m, for example -m output/tanabata")
    model = TrainedModel.load(args.model_path, args.iteration, source=args.source_path)
    measured = measure_model(model, *load_lpips(args.lpips), args.known)
    if not any(protocol in measured.results for protocol in PROTOCOLS):
        say(f"{model.folder}: the scene has no sharp images, so there is nothing to compare the renders with")
    say(results_table(measured.results))
    say(f"Written to {model.folder}: {', '.join(measured.files)}")
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(guarded(main))
