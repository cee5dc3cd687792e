"""Render a trained model: training views at their sub-frames, held-out views at fitted poses.

    python render.py -m output/tanabata
    python render.py -m output/tanabata --video trajectory
    torchrun --standalone --nproc-per-node=4 render.py -m output/tanabata
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import sys

from arguments import Video
from arguments.command_line import CommandLine
from arguments.parser import add_model_arguments
from commands.guard import guarded
from commands.video import add_video_arguments, parse_video
from evaluation.rendering import Renderer, render_model
from gaussian_renderer.backends import get_rasterizer
from scene.model_folder import RENDERING
from training.trained_model import TrainedModel
from utils.device import pick_device, share_processors
from utils.io import remove_leftovers
from utils.locks import LOCK, FolderLock
from utils.processes import Processes
from utils.telling import be_quiet, say


def main() -> int:
    parser = CommandLine(description="Render a trained model.")
    add_model_arguments(parser)
    parser.add_argument("--iteration", type=int, help="saved iteration to render (default: the newest)")
    parser.add_argument("--skip_train", action="store_true", help="do not render training views")
    parser.add_argument("--skip_test", action="store_true", help="do not render held-out views")
    parser.add_argument(
        "--fit_steps", type=int, default=150, help="steps to fit the pose of each held-out view; 0: none (default: 150)"
    )
    add_video_arguments(parser)
    args = parser.parse_args()
    with Processes.of_environment() as processes:
        be_quiet(args.quiet or not processes.first)
        share_processors(0, processes.local_size)
        return render(args, processes)


def render(args: argparse.Namespace, processes: Processes) -> int:
    """Write the images, or record the video."""
    video = processes.together(lambda: checked(args, processes))
    device = processes.together(lambda: pick_device(args.device))
    model = processes.together(lambda: TrainedModel.load(args.model_path, args.iteration, device, args.source_path))
    with processes.only_first(lambda: FolderLock(model.folder, RENDERING, f".{RENDERING}{LOCK}")):
        if processes.first:
            remove_leftovers(model.folder)
        # Nothing is written before the first process has the lock and all have read the model.
        renderer = processes.together(
            lambda: Renderer(model, get_rasterizer(args.rasterizer, device), args.fit_steps, processes)
        )
        if video.video:
            say(f"The video is in {renderer.video(video)}")
            return 0
        render_model(renderer, train=not args.skip_train, test=not args.skip_test)
    say(f"Rendered iteration {model.iteration}; the images are in {args.model_path}")
    return 0


def checked(args: argparse.Namespace, processes: Processes) -> Video:
    """The video that is asked for, if any.

    Raises:
        ValueError: options that cannot be followed.
    """
    if args.fit_steps < 0:
        raise ValueError(f"--fit_steps must be at least 0, not {args.fit_steps}")
    if not args.model_path:
        raise ValueError("no model given: say which folder with -m, for example -m output/tanabata")
    video = parse_video(args)
    if video.video and processes.size > 1:
        raise ValueError(f"--video is recorded by one process, not by {processes.size}; start it without torchrun")
    return video


if __name__ == "__main__":
    sys.exit(guarded(main))
