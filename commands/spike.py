"""The toolbox for spike recordings: look at them, show them, calibrate a sensor, simulate one, convert files.

    python -m spike inspect recording.dat
    python -m spike preview recording.dat --out preview.png
    python -m spike calibrate --dark dark.dat --flat flat.dat --out sensor.json
    python -m spike simulate frames/ --out simulated.dat
    python -m spike simulate statue.glb --out simulated.dat
    python -m spike convert recording.dat recording.npz
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from simulation.sensor import Simulator
from spike.bayer import BayerPattern, Mosaic
from spike.calibration import calibrate, dead_pixels, load_sensor, save_sensor
from spike.formats import check_output, open_recording, write_recording
from spike.guess import Guess, sureness
from spike.inspection import Inspection, inspect
from spike.preview import colored, contact_sheet, grey, limits, picture, stretched, three_channels
from spike.sensor import SensorModel
from spike.stream import SpikeStream
from utils.io import atomic_write, load_image, save_image

_PICTURES = (".png", ".jpg", ".jpeg")
_MESHES = (".obj", ".ply", ".glb", ".gltf", ".stl")
# Pictures of a contact sheet beside the maps.
_MOMENTS = 8
# Relative difference of the rates in a 2x2 square that points to colour filters.
_COLORED = 0.05


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say how a ``.dat`` is packed; the same in every command."""
    group = parser.add_argument_group("how a .dat is packed (what is not given is guessed, or in its config.yaml)")
    group.add_argument("--height", type=int, help="rows of pixels")
    group.add_argument("--width", type=int, help="used columns of pixels")
    group.add_argument("--stored_width", type=int, help="columns a row stores, where it is padded")
    group.add_argument("--bit_order", choices=["little", "big"], help="which bit of a byte is its first pixel")
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="rows are stored bottom to top (the default)"
    )


def add_color_arguments(parser: argparse.ArgumentParser) -> None:
    """The flag of a colour sensor; the same in every command."""
    parser.add_argument(
        "--bayer", choices=get_args(BayerPattern), help="a colour sensor: colours of its top left 2x2 pixels"
    )


def recording_of(path: Path, args: argparse.Namespace, insist: bool = False) -> tuple[SpikeStream, Guess | None]:
    """The recording at ``path`` as the flags of ``add_recording_arguments`` (and ``add_color_arguments``) say.

    A guess is reported; with ``insist`` one that is far from sure is an error, for what takes minutes.
    """
    bayer = getattr(args, "bayer", None)
    stream, guess = open_recording(path, args.height, args.width, args.bit_order, args.flip, args.stored_width, bayer)
    if guess is not None:
        print(
            f"{stream.name}: taken as {guess.flags()} (size: {sureness(guess.size_sure)}, "
            f"bit order: {sureness(guess.order_sure)})"
        )
        if insist and sureness(guess.size_sure) == "a guess":
            raise ValueError(f"{path}: that size is no more than a guess; give --height and --width")
    return stream, guess


# ---- inspect ---------------------------------------------------------------------------------------------


def run_inspect(args: argparse.Namespace) -> None:
    stream, guess = recording_of(args.recording, args)
    for line in () if guess is None else guess.why:
        print(f"  {line}")
    found = inspect(stream)
    for line in summary(stream, found):
        print(line)
    out = args.out or args.recording.with_name(f"{args.recording.stem}_inspect")
    save_image(out / "sheet.png", sheet(stream, found))
    save_image(out / "rate.png", stretched(colored(torch.from_numpy(found.rate), stream.bayer)))
    record = {
        "frames": len(stream), "height": stream.height, "width": stream.width,
        "layout": dataclasses.asdict(stream.layout),
        "mean_rate": float(found.rate.mean()), "saturated": int(found.saturated.sum()),
        "hot": np.argwhere(found.hot).tolist(), "dead": np.argwhere(found.dead).tolist(),
        "spurious_rate": found.spurious_rate, "change": found.change, "blank_frames": found.blank,
        "levels": dict(zip(map(str, found.starts), found.levels, strict=True)),
    }  # fmt: skip
    with atomic_write(out / "inspection.json", "w") as file:
        json.dump(record, file, indent=1)
    print(f"Written: {out}/sheet.png, rate.png, inspection.json")


def summary(stream: SpikeStream, found: Inspection) -> list[str]:
    """What was found, a sentence a line."""
    pixels = found.rate.size
    lines = [
        f"{stream.name}: {len(stream)} frames of {stream.width}x{stream.height} pixels, {found.frames} looked at",
        f"firing rate {found.rate.mean():.4f} spikes a frame and pixel (5 % below "
        f"{np.percentile(found.rate, 5):.4f}, 5 % above {np.percentile(found.rate, 95):.4f})",
        f"saturated {found.saturated.sum() / pixels:.2%} of the pixels, hot {found.hot.sum()}, dead {found.dead.sum()}",
        f"spurious spikes {found.spurious_rate:.4f} a frame and pixel"
        + ("" if found.spurious_rate else " (no more than a clean stream shows)"),
        f"a pixel's rate changes by {found.change:.0%} from one stretch to the next",
    ]
    if stream.bayer is None and found.filters.max() - found.filters.min() > _COLORED:
        alike = abs(found.filters[0, 0] - found.filters[1, 1]) < abs(found.filters[0, 1] - found.filters[1, 0])
        lines.append(
            "the four pixels of every 2x2 square see different amounts of light: a colour sensor? then give --bayer "
            + ("GRBG or GBRG" if alike else "RGGB or BGGR")
        )
    if found.blank:
        lines.append(f"{found.blank} of the frames have no spike at all: dropped frames, or light that flickers")
    if found.rate.mean() < 0.02:
        lines.append("little light: windows hold few spikes; prefer timing targets and longer exposures")
    return lines


def sheet(stream: SpikeStream, found: Inspection) -> NDArray[np.float32]:
    """The contact sheet: rates, stuck pixels, and pictures along the recording."""
    rate = colored(torch.from_numpy(found.rate), stream.bayer)
    stuck = 0.3 * three_channels(stretched(grey(rate)))
    for mask, color in ((found.saturated, (1, 1, 0)), (found.hot, (1, 0, 0)), (found.dead, (0, 0.4, 1))):
        stuck[mask] = color
    panels = {"firing rate": stretched(rate), "saturated (yellow) hot (red) dead (blue)": stuck}
    for frame in np.linspace(0, len(stream) - 1, _MOMENTS + 2).round().astype(int)[1:-1]:
        panels[f"frame {frame}"] = stretched(picture(stream, int(frame), spurious_rate=found.spurious_rate))
    return contact_sheet(panels, columns=5)


# ---- preview ---------------------------------------------------------------------------------------------


def frames_of(text: str | None, stream: SpikeStream) -> list[int]:
    """The frames that ``--frames`` names: one number, or first:last:step (as Python slices)."""
    if text is None:
        return [len(stream) // 2]
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or (len(numbers) == 1 and numbers[0] is None) or numbers[2:] == [0]:
        raise ValueError(f"--frames {text}: expected a frame, or first:last:step, for example 100:2000:8")
    if len(numbers) == 1:
        assert numbers[0] is not None
        return [numbers[0]]
    chosen = list(range(len(stream)))[slice(*numbers)]
    if not chosen:
        raise ValueError(f"--frames {text}: none of the recording's {len(stream)} frames")
    return chosen


def run_preview(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.fps) and args.fps > 0):
        raise ValueError(f"--fps must be positive, not {args.fps:g}")
    stream, _ = recording_of(args.recording, args)
    sensor = load_sensor(args.sensor) if args.sensor else SensorModel()
    sensor.check_size(stream.height, stream.width, stream.name)
    frames = frames_of(args.frames, stream)
    spurious = sensor.spurious_rate if args.method == "timing" else 0.0

    def image(frame: int) -> NDArray[np.float32]:
        return picture(stream, frame, args.method, args.window, sensor, spurious).numpy()

    middle = image(frames[len(frames) // 2])
    if middle.max() == middle.min():
        at = frames[len(frames) // 2]
        raise ValueError(f"{stream.name}: nothing to see at frame {at}: the stream is all zeros or all ones there")
    # One range for all, so that a video does not flicker.
    between = limits(middle) if args.stretch else (0.0, 1.0)
    gamma = 0.7 if args.stretch else 1.0
    out: Path = args.out
    if out.suffix.lower() in _PICTURES and len(frames) > 1:
        raise ValueError(f"{out}: one picture for {len(frames)} frames; give a folder or a name ending in .mp4")
    if out.suffix.lower() not in ("", ".mp4", *_PICTURES):
        raise ValueError(f"{out}: a preview is a .png, an .mp4 or a folder")
    shown = (stretched(image(f), between, gamma) for f in tqdm(frames, disable=args.quiet or len(frames) < 2))
    if out.suffix.lower() == ".mp4":
        from gaussian_renderer.video import write_mp4  # heavy, and only videos need it

        write_mp4(out, (three_channels(f) for f in shown), args.fps)
    elif out.suffix.lower() in _PICTURES:
        save_image(out, next(shown))
    else:
        for frame, picture_ in zip(frames, shown, strict=True):
            save_image(out / f"{frame:06d}.png", picture_)
    print(f"Written: {out} ({len(frames)} picture{'s' if len(frames) > 1 else ''} by {args.method})")


# ---- calibrate, simulate, convert ------------------------------------------------------------------------


def run_calibrate(args: argparse.Namespace) -> None:
    dark, flat = (None if p is None else recording_of(p, args)[0] for p in (args.dark, args.flat))
    sensor = calibrate(dark, flat, args.level)
    save_sensor(args.out, sensor)
    print(", ".join(f"{name} {value:.5f}" for name, value in sensor.to_dict().items()) + " (spikes a frame)")
    if flat is not None and sensor.gain_map is not None:
        spread, dead = float(sensor.gain_map.std()), dead_pixels(sensor, flat, args.level)
        print(f"gain varies by {spread:.1%} between pixels, {dead} are all but dead")
    print(f"Written: {args.out} and its maps")


def source_pictures(path: Path, channels: int) -> Iterator[NDArray[np.float32]]:
    """Pictures [H, W] or [H, W, 3] in [0, 1] of a folder (in order of names) or a video."""
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in _PICTURES)
        if not files:
            raise ValueError(f"{path}: no pictures ({', '.join(_PICTURES)}) to simulate from")
        for file in files:
            image = load_image(file, channels).numpy()
            yield image[0] if channels == 1 else image.transpose(1, 2, 0)
        return
    if not path.is_file():
        raise ValueError(f"{path}: no such folder of pictures, video or mesh")
    video = cv2.VideoCapture(str(path))
    try:
        read, frame = video.read()
        if not read:
            raise ValueError(f"{path}: not a readable video")
        while read:
            kind = cv2.COLOR_BGR2GRAY if channels == 1 else cv2.COLOR_BGR2RGB
            yield (cv2.cvtColor(frame, kind) / 255).astype(np.float32)
            read, frame = video.read()
    finally:
        video.release()


def between(pictures: Iterator[NDArray[np.float32]], steps: int) -> Iterator[tuple[NDArray[np.float32], bool]]:
    """``steps`` spike frames from each picture to the next, blended; and whether one is a source picture."""
    previous: NDArray[np.float32] | None = None
    for current in pictures:
        if previous is not None and steps > 1:
            if previous.shape != current.shape:
                raise ValueError(f"the pictures differ in size: {previous.shape[1::-1]} and {current.shape[1::-1]}")
            for step in range(1, steps):
                yield previous + (current - previous) * np.float32(step / steps), False
        yield current, True
        previous = current


def mesh_pictures(args: argparse.Namespace, channels: int, truth: Path) -> Iterator[tuple[NDArray[np.float32], bool]]:
    """A picture of the mesh for every spike frame, and whether it is kept; its poses go to ``truth``."""
    from simulation.mesh import read_mesh  # the toolbox's one way up to cameras
    from simulation.walk import WALK, camera_of, read_walk, shoot, walk_past

    mesh = read_mesh(args.source, channels)
    walk = None if args.path is None else read_walk(args.path)
    k, width, height = camera_of(walk, args.width, args.height, args.fl_x)
    if walk is None:
        angle = 2 * math.atan(min(width / k[0, 0], height / k[1, 1]) / 2)
        walk, frames = walk_past(mesh.low, mesh.high, args.up, angle, args.seed), WALK
    else:
        frames = args.between * (len(walk.times) - 1) + 1
    yield from shoot(mesh, walk.at(frames), k, width, height, truth, args.truth_every)


def filtered(image: NDArray[np.float32], bayer: BayerPattern) -> NDArray[np.float32]:
    """What the pixels [H, W] of a colour sensor see of an image [H, W, 3]."""
    seen = Mosaic(bayer).of(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))[0]
    return np.asarray(seen.numpy(), np.float32)


def run_simulate(args: argparse.Namespace) -> None:
    for name in ("between", "truth_every"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(args, name)}")
    is_mesh = args.source.suffix.lower() in _MESHES and not args.source.is_dir()
    alone = [name for name in ("path", "width", "height", "fl_x") if getattr(args, name) is not None]
    if alone and not is_mesh:
        raise ValueError(f"--{alone[0]} is for meshes ({', '.join(_MESHES)}); {args.source} is none")
    check_output(args.out)
    gap = None if args.spurious_gap is None else (args.spurious_gap[0], args.spurious_gap[1])
    simulator = Simulator(
        args.gain, args.gain_sigma, args.dark_rate, gap, args.shot_photons, args.reset, args.random_phase, args.seed
    )
    truth = args.out.with_name(f"{args.out.stem}_truth")
    if truth.is_dir() and any(truth.iterdir()):
        raise ValueError(f"{truth}: holds files already; remove it or give another --out")
    channels = 1 if args.bayer is None else 3

    def light() -> Iterator[NDArray[np.float32]]:
        pictures = (
            mesh_pictures(args, channels, truth) if is_mesh
            else between(source_pictures(args.source, channels), args.between)
        )  # fmt: skip
        for t, (image, is_kept) in enumerate(pictures):
            if t == 0:  # before there is any truth, which would be in the way of another try
                check_output(args.out, *image.shape[:2])
            if is_kept:
                save_image(truth / f"{t:06d}.png", image)
            yield image if args.bayer is None else filtered(image, args.bayer)

    packed, size = [], (0, 0)
    for spikes in tqdm(simulator.stream(light()), desc="Simulating", unit="frame", disable=args.quiet):
        size = spikes.shape
        packed.append(SpikeStream.from_array(spikes[None]).packed)
    stream = SpikeStream.from_packed(np.concatenate(packed), *size, str(args.out))
    write_recording(args.out, stream)
    with atomic_write(truth / "simulation.json", "w") as file:
        json.dump({"source": str(args.source), "between": args.between} | dataclasses.asdict(simulator), file, indent=1)
    save_sensor(truth / "sensor.json", simulator.sensor())
    print(f"Written: {args.out} ({len(stream)} frames of {size[1]}x{size[0]}), sharp truth in {truth}")


def run_convert(args: argparse.Namespace) -> None:
    stream, _ = recording_of(args.recording, args)
    if args.out.resolve() == args.recording.resolve():
        raise ValueError(f"{args.out}: is the recording itself")
    if args.out.exists() and not args.force:
        raise ValueError(f"{args.out}: is there already; give --force to overwrite it")
    packing = [n for n in ("to_bit_order", "to_flip", "to_stored_width") if getattr(args, n) is not None]
    if packing and args.out.suffix != ".dat":
        raise ValueError(f"{args.out}: --{packing[0]} says how a .dat is packed; give a name ending in .dat")
    flip = True if args.to_flip is None else args.to_flip
    write_recording(args.out, stream, args.to_bit_order or "little", flip, args.to_stored_width)
    print(f"Written: {args.out} ({len(stream)} frames of {stream.width}x{stream.height})")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m spike", description="The toolbox for spike recordings.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, recording: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if recording:
            sub.add_argument("recording", type=Path, help=".dat, .npy or .npz file, or SpikeCV folder")
        sub.add_argument("--quiet", action="store_true", help="no progress bar")
        return sub

    sub = command("inspect", "size and packing of an unknown recording, firing rates, stuck pixels, a contact sheet")
    sub.add_argument("--out", type=Path, help="folder of the results (default: <recording>_inspect)")
    add_recording_arguments(sub)
    add_color_arguments(sub)
    sub.set_defaults(run=run_inspect)

    sub = command("preview", "pictures or a video of a recording")
    sub.add_argument("--out", type=Path, required=True, help="a .png, an .mp4, or a folder for numbered pictures")
    sub.add_argument("--method", choices=["timing", "tfp", "tfi"], default="timing", help="default: timing")
    sub.add_argument("--frames", help="a frame, or first:last:step (default: the middle one)")
    sub.add_argument("--window", type=int, default=9, help="spike frames of timing and tfp (odd, default: 9)")
    sub.add_argument("--sensor", type=Path, help="calibration to apply (sensor.json)")
    sub.add_argument(
        "--stretch", action=argparse.BooleanOptionalAction, default=True, help="use the full range from black to white"
    )
    sub.add_argument("--fps", type=float, default=24.0, help="frames a second of a video (default: 24)")
    add_recording_arguments(sub)
    add_color_arguments(sub)
    sub.set_defaults(run=run_preview)

    sub = command("calibrate", "gain, dark rate and spurious rate of every pixel", recording=False)
    sub.add_argument("--dark", type=Path, help="a recording with the lens covered")
    sub.add_argument("--flat", type=Path, help="a recording of an evenly lit, still field")
    sub.add_argument("--level", type=float, default=1.0, help="the field's intensity, 1 = white (default: 1)")
    sub.add_argument("--out", type=Path, required=True, help="where the calibration goes (sensor.json)")
    add_recording_arguments(sub)
    sub.set_defaults(run=run_calibrate)

    sub = command("simulate", "spikes of pictures, a video or a textured mesh, with the truth", recording=False)
    sub.add_argument("source", type=Path, help=f"folder of pictures, video, or mesh ({', '.join(_MESHES)})")
    sub.add_argument("--out", type=Path, required=True, help="recording to write (.dat, .npy, .npz or a folder)")
    sub.add_argument("--between", type=int, default=1, help="spike frames from one picture (or pose) to the next")
    mesh = sub.add_argument_group("a mesh is seen along a path")
    mesh.add_argument("--path", type=Path, help="poses: TUM text or transforms.json (default: a walk past the mesh)")
    mesh.add_argument("--up", choices=["x", "-x", "y", "-y", "z", "-z"], default="y", help="of that walk (default: y)")
    mesh.add_argument("--width", type=int, help="columns of pixels (default: the path's, or 400)")
    mesh.add_argument("--height", type=int, help="rows of pixels (default: the path's, or 250)")
    mesh.add_argument("--fl_x", type=float, help="focal length in pixels (default: the path's, or the width)")
    mesh.add_argument("--truth_every", type=int, default=8, help="frames between two sharp pictures (default: 8)")
    model = Simulator()
    sub.add_argument("--gain", type=float, default=model.gain, help="spikes a frame for white")
    sub.add_argument("--gain_sigma", type=float, default=0.0, help="relative variation of the gain between pixels")
    sub.add_argument("--dark_rate", type=float, default=0.0, help="spikes a frame without light")
    sub.add_argument(
        "--spurious_gap", type=float, nargs=2, metavar=("MEAN", "SIGMA"), help="frames between spurious spikes"
    )
    sub.add_argument("--shot_photons", type=float, help="photons of a full charge (Poisson noise)")
    sub.add_argument("--reset", choices=["soft", "hard"], default="soft", help="default: soft")
    sub.add_argument(
        "--random_phase", action=argparse.BooleanOptionalAction, default=True, help="pixels start partly charged"
    )
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    add_color_arguments(sub)
    sub.set_defaults(run=run_simulate)

    sub = command("convert", "another form of a recording, by the output's name")
    sub.add_argument("out", type=Path, help=".dat, .npy, .npz, or a folder with config.yaml (SpikeCV)")
    sub.add_argument("--force", action="store_true", help="overwrite")
    sub.add_argument("--to_bit_order", choices=["little", "big"], help="of the .dat written (default: little)")
    sub.add_argument("--to_flip", action=argparse.BooleanOptionalAction, help="rows of the .dat bottom to top")
    sub.add_argument("--to_stored_width", type=int, help="columns a row of the .dat stores")
    add_recording_arguments(sub)
    sub.set_defaults(run=run_convert)
    return top


def main() -> int:
    args = parser().parse_args()
    args.run(args)
    return 0

