"""Trains Recon-Net alone on the spikes of one recording, without truth or poses, and makes a sharp video.

    python -m recon_net clip.dat --out output/clip
    python -m recon_net other.dat --weights output/clip/recon_net.pth --iterations 0 --out output/other
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from arguments.command_line import CommandLine
from arguments.parser import add_quiet_argument, seed
from commands.recording_flags import (
    add_color_arguments,
    add_force_argument,
    add_recording_arguments,
    frames_of,
    known_packing,
    opened,
    refuse_existing,
)
from pictures.colors import three_channels
from pictures.video import write_mp4
from recon_net import SpikeToImage, make_network
from recon_net.weights import WEIGHTS, load_network, save_network
from spike import load_sensor
from spike.targets import Mode
from spike.window import PAPER
from training.recon_alone import Clip, compare, learn, sharp, truths
from utils.device import pick_device
from utils.io import save_image, write_json
from utils.telling import be_quiet, progress, say

# What is written besides the weights.
RESULTS, FRAMES, VIDEO = "results.json", "frames", "video.mp4"


def parser() -> argparse.ArgumentParser:
    p = CommandLine(prog="python -m recon_net", description="Train Recon-Net alone on one recording.")
    p.add_argument("recording", type=Path, help=".dat, .npy or .npz file, or SpikeCV folder")
    p.add_argument("--out", type=Path, required=True, help="output folder")
    add_force_argument(p)
    p.add_argument("--recon_net", choices=["slim", "paper"], help="network (default: slim, or that of --weights)")
    p.add_argument("--targets", choices=get_args(Mode), default="timing", help="intensity targets (default: timing)")
    p.add_argument("--iterations", type=int, default=500, help="training steps; 0: only apply --weights (default: 500)")
    p.add_argument("--crop", type=int, default=96, help="side of random crops in pixels; 0: full frames (default: 96)")
    p.add_argument("--weights", type=Path, help=f"initial weights ({WEIGHTS} of an earlier run or of a trained model)")
    p.add_argument("--frames", help="spike frames to reconstruct: one frame, or first:last:step (default: ::8)")
    p.add_argument("--fps", type=float, default=24.0, help="frames per second of the video (default: 24)")
    p.add_argument("--truth", type=Path, help="sharp image of the middle frame, or folder of images named by frame")
    p.add_argument("--sensor", type=Path, help="sensor calibration (sensor.json)")
    p.add_argument("--seed", type=seed, default=0, help="random seed (default: 0)")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="device (default: auto)")
    add_quiet_argument(p)
    add_recording_arguments(p)
    add_color_arguments(p)
    return p


def starting_network(weights: Path | None, variant: str | None) -> SpikeToImage:
    """Load the network from a file, or make a new one of the kind ``variant`` (default: slim)."""
    if weights is None:
        return make_network(variant or "slim", PAPER.short, PAPER.long_channels)
    network = load_network(weights, PAPER.short, PAPER.long_channels)
    if variant not in (None, network.variant):
        raise ValueError(f"{weights}: weights of the {network.variant} network, not of {variant}")
    return network


def write_pictures(out: Path, frames: list[int], images: Iterator[NDArray[np.float32]], fps: float) -> None:
    """Write images numbered by spike frame, and a video if there are several."""

    def saved() -> Iterator[NDArray[np.float32]]:
        for frame, image in zip(frames, images, strict=True):
            save_image(out / FRAMES / f"{frame:06d}.png", image)
            yield np.asarray(three_channels(image), np.float32)

    if len(frames) > 1:
        write_mp4(out / VIDEO, saved(), fps)
    else:
        list(saved())


def main() -> int:
    args = parser().parse_args()
    be_quiet(args.quiet)
    if args.iterations < 0 or args.crop < 0:
        raise ValueError(f"--iterations and --crop must be at least 0, not {args.iterations} and {args.crop}")
    if not (math.isfinite(args.fps) and args.fps > 0):
        raise ValueError(f"--fps must be positive, not {args.fps:g}")
    if not args.iterations and args.weights is None:
        raise ValueError("--iterations 0 only applies a trained network: give its --weights")
    refuse_existing([args.out / name for name in (WEIGHTS, RESULTS, FRAMES, VIDEO)], args.force)
    stream, _ = opened(args.recording, known_packing(args), insist=True)
    clip = Clip.of(stream, None if args.sensor is None else load_sensor(args.sensor), args.targets)
    inside = range(PAPER.half, len(clip.stream) - PAPER.half)
    frames = [f for f in frames_of(args.frames or f"::{PAPER.stride}", clip.stream) if f in inside]
    if not frames:
        raise ValueError(f"--frames {args.frames}: frames must lie between {inside[0]} and {inside[-1]}")
    truth = {} if args.truth is None else truths(args.truth, clip)
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    network = starting_network(args.weights, args.recon_net).to(device)
    losses, best = learn(network, clip, args.iterations, args.crop, args.seed, device)
    save_network(args.out / WEIGHTS, network)
    record: dict[str, Any] = {"sensor": clip.sensor.to_dict(), "variant": network.variant, "loss": losses[-50:]}
    record["best_iteration"] = best
    if args.iterations:
        say(f"The network is that of step {best} of {args.iterations}, the best on intervals held out of training")
    if truth:
        record["PSNR"] = compare(network, clip, truth, device)
        for name, row in record["PSNR"].items():
            say(f"{name:12} PSNR {row['PSNR']:6.2f} dB, gain-matched {row['PSNR_gain']:6.2f} dB")
    write_json(args.out / RESULTS, record)
    shown = (
        sharp(network, clip, f, device).clamp(0, 1).numpy()
        for f in progress(frames, "Rendering")
    )
    write_pictures(args.out, frames, shown, args.fps)
    say(f"Written: {args.out} ({len(frames)} frames, {WEIGHTS}, results.json)")
    return 0

