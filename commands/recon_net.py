"""Recon-Net alone on one recording: learns from its spikes, without truth and poses, and makes a sharp video.

    python -m recon_net clip.dat --out output/clip
    python -m recon_net other.dat --weights output/clip/recon_net.pt --iterations 0 --out output/other
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from commands.spike import add_color_arguments, add_recording_arguments, frames_of, recording_of
from recon_net import AnyReconNet, make_network
from scene.cameras import Camera
from scene.exposure import Crop, Exposure, recon_frames
from spike import SensorModel, SpikeStream, WindowSpec, load_sensor
from spike.calibration import assumed_sensor
from spike.preview import colored, grey, picture, three_channels
from training.losses import half_widths, l1, reblur_loss
from utils.device import pick_device
from utils.image_metrics import gain_match, psnr
from utils.io import atomic_write, load_image, save_image

SPEC = WindowSpec()
WEIGHTS = "recon_net.pt"
# Windows learned from, spread over the recording, and spikes used beyond a window's ends.
WINDOWS = 6
MARGIN = 20
NARROW = 9
RATES = (1e-3, 1e-5)
# Looks at the kept-back intervals in a run, and the side of the square that is looked at.
CHECKS = 20
CHECKED = 128
# Parts of the exposure that L_rec, whose intervals lie about the middle, never compares: they tell when it only
# fits noise any more.
KEPT_BACK = [(0, 4), (4, 8), (8, 12)]
# The counted baseline: the paper's short window.
TFP = SPEC.short


@dataclass(frozen=True)
class Clip:
    """A recording and how it is read: the sensor, and the targets' kind."""

    stream: SpikeStream
    sensor: SensorModel
    targets: Any

    def exposure(self, first: int) -> Exposure:
        """The window whose context begins at frame ``first``."""
        margin = min(MARGIN, first, len(self.stream) - first - SPEC.context)
        spikes = self.stream.unpack(first - margin, first + SPEC.context + margin)
        middle = (SPEC.subframes - 1) // 2
        camera = Camera("", self.stream.width, self.stream.height, torch.eye(3), torch.eye(4))
        intervals = [(middle - k, middle + k) for k in half_widths(SPEC.subframes)] + KEPT_BACK
        stream = SpikeStream.from_array(spikes, self.stream.name)
        return Exposure.from_spikes(0, camera, stream, SPEC, self.sensor, self.targets, NARROW, intervals)

    def at(self, frame: int) -> tuple[int, int]:
        """The first context frame of a window that has a sub-frame at ``frame``, and which.

        Raises:
            ValueError: too near the recording's ends.
        """
        last = len(self.stream) - SPEC.context
        earliest = max(math.ceil((frame - SPEC.half - last) / SPEC.stride), 0)
        latest = min((frame - SPEC.half) // SPEC.stride, SPEC.subframes - 1)
        if earliest > latest:
            raise ValueError(
                f"{self.stream.name}: frame {frame} is too near the ends; instants lie between {SPEC.half} and "
                f"{len(self.stream) - SPEC.half - 1}"
            )
        m = min(max(SPEC.subframes // 2, earliest), latest)
        return frame - SPEC.half - SPEC.stride * m, m


def open_clip(args: argparse.Namespace) -> Clip:
    stream, _ = recording_of(args.recording, args, insist=True)
    if len(stream) < SPEC.context:
        raise ValueError(f"{stream.name}: {len(stream)} frames, Recon-Net needs at least {SPEC.context}")
    if args.sensor is not None:
        sensor = load_sensor(args.sensor)
        sensor.check_size(stream.height, stream.width, stream.name)
        return Clip(stream, sensor, args.targets)
    first = (len(stream) - SPEC.context) // 2
    return Clip(stream, assumed_sensor([(stream, first, first + SPEC.context)]), args.targets)


# ---- weights ---------------------------------------------------------------------------------------------


def save_weights(path: Path, network: AnyReconNet) -> None:
    with atomic_write(path, "wb") as file:
        torch.save({"variant": network.variant, "state": network.state_dict()}, file)


def load_weights(path: Path) -> AnyReconNet:
    """The network that ``save_weights`` kept (tensors alone are read).

    Raises:
        ValueError: missing, damaged, or of another kind.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network = make_network(stored["variant"], SPEC.short, SPEC.long_channels)
        network.load_state_dict(stored["state"])
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not readable weights of Recon-Net ({reason})") from None
    return network


# ---- learning and applying -------------------------------------------------------------------------------


class Guard:
    """Keeps the weights that meet the kept-back intervals best: trained alone, the network decays after a peak."""

    def __init__(self, network: AnyReconNet, exposures: list[Exposure], u: Tensor):
        self.network, self.exposures, self.u = network, exposures, u
        camera = exposures[0].camera
        top, left = (max(size - CHECKED, 0) // 2 for size in (camera.height, camera.width))
        self.part = Crop(top, min(top + CHECKED, camera.height), left, min(left + CHECKED, camera.width))
        self.best, self.at = math.inf, 0
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def look(self, iteration: int) -> None:
        """Measure the network as it is after ``iteration`` steps, and keep it where it is the best so far."""
        errors = []
        for exposure in self.exposures:
            frames = recon_frames(self.network, exposure, self.u, self.part, "adjacent")
            errors += [
                float(l1(frames[a : b + 1].mean(0), self.part.of(exposure.interval(a, b)))) for a, b in KEPT_BACK
            ]
        error = float(np.mean(errors))
        if error < self.best:
            self.best, self.at = error, iteration
            self.kept = {name: value.clone() for name, value in self.network.state_dict().items()}


def learn(
    network: AnyReconNet, clip: Clip, iterations: int, crop: int, seed: int, device: torch.device, quiet: bool
) -> tuple[list[float], int]:
    """L_rec alone: the frames, blurred again over sub-intervals, against the spikes' means.

    Returns the losses of all steps, and after how many of them the network was at its best, which is what it is
    left at (``Guard``).
    """
    count = min(WINDOWS, max((len(clip.stream) - SPEC.context) // SPEC.stride, 0) + 1)
    firsts = np.linspace(0, len(clip.stream) - SPEC.context, count).round().astype(int)
    exposures = [clip.exposure(int(first)).to(device) for first in firsts]
    u = torch.tensor(SPEC.times, device=device)
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATES[0])
    decay = (RATES[1] / RATES[0]) ** (1 / max(iterations, 1))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, decay)
    height, width = clip.stream.height, clip.stream.width
    losses = []
    guard, every = Guard(network, exposures, u), max(iterations // CHECKS, 1)
    guard.look(0)
    for iteration in tqdm(range(1, iterations + 1), desc="Learning", disable=quiet):
        exposure = exposures[int(torch.randint(len(exposures), (1,), generator=random))]
        h, w = (min(crop or size, size) for size in (height, width))
        top = int(torch.randint(height - h + 1, (1,), generator=random))
        left = int(torch.randint(width - w + 1, (1,), generator=random))
        part = Crop(top, top + h, left, left + w)
        frames = recon_frames(network, exposure, u, part, "adjacent")

        def target(a: int, b: int, part: Crop = part, exposure: Exposure = exposure) -> Tensor:
            return part.of(exposure.interval(a, b))

        loss = reblur_loss(frames, target, half_widths(SPEC.subframes))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if iteration % every == 0 or iteration == iterations:
            guard.look(iteration)
    network.load_state_dict(guard.kept)
    return losses, guard.at


@torch.no_grad()
def sharp(network: AnyReconNet, clip: Clip, frame: int, device: torch.device) -> Tensor:
    """Recon-Net's picture [H, W] at a spike frame, of a colour sensor [H, W, 3]."""
    first, m = clip.at(frame)
    exposure = clip.exposure(first)
    whole = Crop(0, clip.stream.height, 0, clip.stream.width)
    short, long = exposure.network_input(network.variant, torch.tensor([m]), whole, "adjacent")
    u = torch.tensor([[SPEC.times[m]]], device=device)
    return colored(network(short.to(device), long.to(device), u)[0, 0, 0].cpu(), clip.stream.bayer)


def truths(path: Path, clip: Clip) -> dict[int, Path]:
    """Sharp pictures by spike frame: a folder of NNNNNN.png, or one picture of the recording's middle."""
    if path.is_file():
        files = {len(clip.stream) // 2: path}
    else:
        files = {int(f.stem): f for f in sorted(path.glob("*.png")) if f.stem.isdigit()} if path.is_dir() else {}
    low, high = SPEC.half, len(clip.stream) - SPEC.half
    inside = {frame: file for frame, file in files.items() if low <= frame < high}
    if not inside:
        raise ValueError(f"{path}: no picture, nor pictures named by spike frames from {low} to {high - 1}")
    for file in inside.values():
        height, width = load_image(file).shape[1:]
        if (height, width) != (clip.stream.height, clip.stream.width):
            raise ValueError(f"{file}: {width}x{height} pixels, expected {clip.stream.width}x{clip.stream.height}")
    return inside


def compare(network: AnyReconNet, clip: Clip, truth: dict[int, Path], device: torch.device) -> dict[str, Any]:
    """Mean PSNR, raw and after the best single gain, of Recon-Net, TFP, TFI and timing."""
    rows: dict[str, list[tuple[float, float]]] = {}
    spurious = clip.sensor.spurious_rate
    for frame, file in truth.items():
        true = load_image(file)[None]
        images = {
            "Recon-Net": sharp(network, clip, frame, device),
            f"TFP({TFP})": picture(clip.stream, frame, "tfp", TFP, clip.sensor),
            "TFI": picture(clip.stream, frame, "tfi", sensor=clip.sensor),
            f"timing({NARROW})": picture(clip.stream, frame, "timing", NARROW, clip.sensor, spurious),
        }
        for name, image in images.items():
            found = grey(image.float())[None, None]
            raw, (matched, _) = found.clamp(0, 1), gain_match(found, true)
            rows.setdefault(name, []).append((float(psnr(raw, true)), float(psnr(matched.clamp(0, 1), true))))
    means = {name: np.mean(values, axis=0).tolist() for name, values in rows.items()}
    return {name: {"PSNR": raw, "PSNR_gain": matched} for name, (raw, matched) in means.items()}


def write_pictures(out: Path, frames: list[int], images: Iterator[NDArray[np.float32]], fps: float) -> None:
    """Numbered pictures, and a video of them where there is an encoder."""
    kept = []
    for frame, image in zip(frames, images, strict=True):
        save_image(out / "frames" / f"{frame:06d}.png", image)
        kept.append(np.asarray(three_channels(image), np.float32))
    if len(kept) > 1:
        from gaussian_renderer.video import write_mp4  # heavy, and only videos need it

        write_mp4(out / "video.mp4", kept, fps)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m recon_net", description="Recon-Net alone on one recording.")
    p.add_argument("recording", type=Path, help=".dat, .npy or .npz file, or SpikeCV folder")
    p.add_argument("--out", type=Path, required=True, help="folder of the results")
    p.add_argument("--recon_net", choices=["slim", "paper"], help="network (default: slim, or that of --weights)")
    p.add_argument("--targets", choices=["timing", "counting"], default="timing", help="default: timing")
    p.add_argument("--iterations", type=int, default=500, help="steps; 0 applies --weights as they are (default: 500)")
    p.add_argument("--crop", type=int, default=96, help="side of the random crops, 0: full frames (default: 96)")
    p.add_argument("--weights", type=Path, help="start from these (recon_net.pt of an earlier run)")
    p.add_argument("--frames", help="instants of the video: a spike frame, or first:last:step (default: ::8)")
    p.add_argument("--fps", type=float, default=24.0, help="frames a second of the video (default: 24)")
    p.add_argument("--truth", type=Path, help="sharp picture of the middle, or a folder named by spike frames")
    p.add_argument("--sensor", type=Path, help="calibration (sensor.json)")
    p.add_argument("--seed", type=int, default=0, help="default: 0")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    add_recording_arguments(p)
    add_color_arguments(p)
    return p


def main() -> int:
    args = parser().parse_args()
    if args.iterations < 0 or args.crop < 0:
        raise ValueError(f"--iterations and --crop must be at least 0, not {args.iterations} and {args.crop}")
    if not (math.isfinite(args.fps) and args.fps > 0):
        raise ValueError(f"--fps must be positive, not {args.fps:g}")
    if not args.iterations and args.weights is None:
        raise ValueError("--iterations 0 applies a trained network: give its --weights")
    clip = open_clip(args)
    inside = range(SPEC.half, len(clip.stream) - SPEC.half)
    frames = [f for f in frames_of(args.frames or f"::{SPEC.stride}", clip.stream) if f in inside]
    if not frames:
        raise ValueError(f"--frames {args.frames}: instants lie between {inside[0]} and {inside[-1]}")
    truth = {} if args.truth is None else truths(args.truth, clip)
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    if args.weights is not None:
        network = load_weights(args.weights)
        if args.recon_net not in (None, network.variant):
            raise ValueError(f"{args.weights}: weights of the {network.variant} network, not of {args.recon_net}")
    else:
        network = make_network(args.recon_net or "slim", SPEC.short, SPEC.long_channels)
    network = network.to(device)
    losses, best = learn(network, clip, args.iterations, args.crop, args.seed, device, args.quiet)
    save_weights(args.out / WEIGHTS, network)
    record: dict[str, Any] = {"sensor": clip.sensor.to_dict(), "variant": network.variant, "loss": losses[-50:]}
    record["best_iteration"] = best
    if args.iterations:
        print(f"The network is that of step {best} of {args.iterations}, which met intervals not learned from best")
    if truth:
        record["PSNR"] = compare(network, clip, truth, device)
        for name, row in record["PSNR"].items():
            print(f"{name:12} PSNR {row['PSNR']:6.2f} dB, gain-matched {row['PSNR_gain']:6.2f} dB")
    with atomic_write(args.out / "results.json", "w") as file:
        json.dump(record, file, indent=1)
    shown = (
        sharp(network, clip, f, device).clamp(0, 1).numpy()
        for f in tqdm(frames, desc="Drawing", disable=args.quiet)
    )
    write_pictures(args.out, frames, shown, args.fps)
    print(f"Written: {args.out} ({len(frames)} frames, {WEIGHTS}, results.json)")
    return 0

