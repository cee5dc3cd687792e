"""Recon-Net trained alone on the spikes of one recording, without ground truth or poses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arguments.parts import SUBFRAME_WIDTH
from recon_net import SpikeToImage, recon_frames
from scene.cameras import Camera
from scene.exposure import Exposure
from spike import SensorModel, SpikeStream
from spike.calibration import assumed_sensor, find_stuck, stretches_of
from spike.preview import colored, gray, picture
from spike.stuck import without
from spike.targets import Mode
from spike.window import PAPER, SPARE
from training.losses import half_widths, reblur_loss
from utils.crops import Crop
from utils.image_metrics import gain_match, psnr
from utils.io import load_image
from utils.telling import progress

# Number of windows to learn from, spread over the recording.
WINDOWS = 6
# Learning rate at the first and last step.
RATES = (1e-3, 1e-5)
# Number of validations in a run, and side of the square that is validated.
CHECKS = 20
CHECKED = 128
# Intervals of sub-frames for validation.  L_rec, whose intervals are centered, never uses them; a rising error there
# shows that the network only fits noise.
KEPT_BACK = [(0, 4), (4, 8), (8, 12)]


@dataclass(frozen=True)
class Clip:
    """A recording with its sensor and the kind of targets."""

    stream: SpikeStream
    sensor: SensorModel
    targets: Mode

    @classmethod
    def of(cls, stream: SpikeStream, sensor: SensorModel | None, targets: Mode) -> Clip:
        """The clip of a recording; without a calibration, the sensor's gain is estimated from its middle.

        Raises:
            ValueError: too few frames, all zeros or all ones, or a calibration of another sensor.
        """
        known = None if sensor is None else sensor.stuck
        stream = stream.mended(find_stuck(stretches_of(stream), stream.bayer is not None, known))
        if len(stream) < PAPER.context:
            raise ValueError(f"{stream.name}: {len(stream)} frames, Recon-Net needs at least {PAPER.context}")
        if sensor is None:
            first = (len(stream) - PAPER.context) // 2
            sensor = assumed_sensor([(stream, first, first + PAPER.context)])
        sensor.check_size(stream.height, stream.width, stream.name)
        return cls(stream, sensor.with_stuck(stream.stuck), targets)

    def good(self, values: Tensor, part: Crop) -> Tensor:
        """Values [..., h, w] on a crop, with zeros at stuck pixels, which teach nothing."""
        stuck = self.sensor.stuck
        return without(None if stuck is None else part.of(stuck.mask).to(values.device), values)

    def exposure(self, first: int) -> Exposure:
        """The exposure whose context begins at frame ``first``."""
        margin = min(SPARE, first, len(self.stream) - first - PAPER.context)
        spikes = self.stream.unpack(first - margin, first + PAPER.context + margin)
        camera = Camera("", self.stream.width, self.stream.height, torch.eye(3), torch.eye(4))
        intervals = [(PAPER.middle - k, PAPER.middle + k) for k in half_widths(PAPER.subframes)] + KEPT_BACK
        stream = SpikeStream.from_array(spikes, self.stream.name)
        return Exposure.from_spikes(camera, stream, PAPER, self.sensor, self.targets, SUBFRAME_WIDTH, intervals)

    def at(self, frame: int) -> tuple[int, int]:
        """The first context frame of a window that has a sub-frame at ``frame``, and the number of that sub-frame.

        Raises:
            ValueError: too close to an end of the recording.
        """
        last = len(self.stream) - PAPER.context
        earliest = max(math.ceil((frame - PAPER.half - last) / PAPER.stride), 0)
        latest = min((frame - PAPER.half) // PAPER.stride, PAPER.subframes - 1)
        if earliest > latest:
            raise ValueError(
                f"{self.stream.name}: frame {frame} is too near the ends; frames must lie between {PAPER.half} and "
                f"{len(self.stream) - PAPER.half - 1}"
            )
        m = min(max(PAPER.middle, earliest), latest)
        return frame - PAPER.half - PAPER.stride * m, m


class Guard:
    """Keeps the weights with the lowest validation error: trained alone, the network degrades after a peak."""

    def __init__(self, network: SpikeToImage, clip: Clip, exposures: list[Exposure], u: Tensor):
        self.network, self.clip, self.exposures, self.u = network, clip, exposures, u
        camera = exposures[0].camera
        top, left = (max(size - CHECKED, 0) // 2 for size in (camera.height, camera.width))
        self.part = Crop(top, min(top + CHECKED, camera.height), left, min(left + CHECKED, camera.width))
        self.best, self.at = math.inf, 0
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def look(self, iteration: int) -> None:
        """Validate the network after ``iteration`` steps, and keep its weights if they are the best so far."""
        errors = []
        for exposure in self.exposures:
            frames = recon_frames(self.network, exposure, self.u, self.part)
            for a, b in KEPT_BACK:
                missed = frames[a : b + 1].mean(0) - self.part.of(exposure.interval(a, b))
                errors.append(float(self.clip.good(missed, self.part).abs().mean()))
        error = float(np.mean(errors))
        if error < self.best:
            self.best, self.at = error, iteration
            self.kept = {name: value.clone() for name, value in self.network.state_dict().items()}


def learn(
    network: SpikeToImage, clip: Clip, iterations: int, crop: int, seed: int, device: torch.device
) -> tuple[list[float], int]:
    """Train ``network`` by L_rec alone: its frames, averaged over sub-intervals, are compared with the spikes' means.

    Args:
        crop: side of the random crops, pixels (0: full frames).
        seed: seed of the random windows and crops.

    Returns:
        the losses of all steps, and the number of steps after which the network was best.  The network is left in
        that state (``Guard``).
    """
    count = min(WINDOWS, max((len(clip.stream) - PAPER.context) // PAPER.stride, 0) + 1)
    firsts = np.linspace(0, len(clip.stream) - PAPER.context, count).round().astype(int)
    exposures = [clip.exposure(int(first)).to(device) for first in firsts]
    u = torch.tensor(PAPER.times, device=device)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATES[0])
    decay = (RATES[1] / RATES[0]) ** (1 / max(iterations, 1))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    height, width = clip.stream.height, clip.stream.width
    losses = []
    guard, every = Guard(network, clip, exposures, u), max(iterations // CHECKS, 1)
    guard.look(0)
    for iteration in progress(range(1, iterations + 1), "Learning"):
        exposure = exposures[int(torch.randint(len(exposures), (1,), generator=random))]
        part = Crop.random(crop, height, width, random)
        frames = recon_frames(network, exposure, u, part)

        def target(a: int, b: int, part: Crop = part, exposure: Exposure = exposure) -> Tensor:
            return clip.good(part.of(exposure.interval(a, b)), part)

        loss = reblur_loss(clip.good(frames, part), target, half_widths(PAPER.subframes))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if iteration % every == 0 or iteration == iterations:
            guard.look(iteration)
    network.load_state_dict(guard.kept)
    return losses, guard.at


@torch.no_grad()
def sharp(network: SpikeToImage, clip: Clip, frame: int, device: torch.device) -> Tensor:
    """Recon-Net's image at a spike frame: [H, W], or [H, W, 3] for a color sensor.

    Raises:
        ValueError: a frame too close to an end of the recording.
    """
    first, m = clip.at(frame)
    exposure = clip.exposure(first)
    whole = Crop.whole(clip.stream.height, clip.stream.width)
    short, long = network.inputs(exposure, torch.tensor([m]), whole)
    u = torch.tensor([[PAPER.times[m]]], device=device)
    return colored(network(short.to(device), long.to(device), u)[0, 0, 0].cpu(), clip.stream.bayer)


def truths(path: Path, clip: Clip) -> dict[int, Path]:
    """Sharp images by spike frame: from a folder of NNNNNN.png, or a single image of the middle of the recording.

    Raises:
        ValueError: no image lies at a usable frame, or an image has another size.
    """
    if path.is_file():
        files = {len(clip.stream) // 2: path}
    else:
        files = {int(f.stem): f for f in sorted(path.glob("*.png")) if f.stem.isdigit()} if path.is_dir() else {}
    low, high = PAPER.half, len(clip.stream) - PAPER.half
    inside = {frame: file for frame, file in files.items() if low <= frame < high}
    if not inside:
        raise ValueError(f"{path}: not an image, and no folder of images named by spike frames {low} to {high - 1}")
    for file in inside.values():
        height, width = load_image(file).shape[1:]
        if (height, width) != (clip.stream.height, clip.stream.width):
            raise ValueError(f"{file}: {width}x{height} pixels, expected {clip.stream.width}x{clip.stream.height}")
    return inside


def compare(
    network: SpikeToImage, clip: Clip, truth: dict[int, Path], device: torch.device
) -> dict[str, dict[str, float]]:
    """Mean PSNR of Recon-Net, TFP, TFI and timing, raw and after the best single gain."""
    rows: dict[str, list[tuple[float, float]]] = {}
    spurious = clip.sensor.spurious_rate
    for frame, file in progress(truth.items(), "Comparing", len(truth)):
        true = load_image(file)[None]
        images = {
            "Recon-Net": sharp(network, clip, frame, device),
            f"TFP({PAPER.short})": picture(clip.stream, frame, "tfp", PAPER.short, clip.sensor),
            "TFI": picture(clip.stream, frame, "tfi", sensor=clip.sensor),
            f"timing({SUBFRAME_WIDTH})": picture(clip.stream, frame, "timing", SUBFRAME_WIDTH, clip.sensor, spurious),
        }
        for name, image in images.items():
            found = gray(image.float())[None, None]
            raw, (matched, _) = found.clamp(0, 1), gain_match(found, true)
            rows.setdefault(name, []).append((float(psnr(raw, true)), float(psnr(matched.clamp(0, 1), true))))
    means = {name: np.mean(values, axis=0).tolist() for name, values in rows.items()}
    return {name: {"PSNR": raw, "PSNR_gain": matched} for name, (raw, matched) in means.items()}
