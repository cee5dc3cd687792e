"""The toolbox for spike recordings: inspect, preview and convert recordings, calibrate a sensor, simulate.

    python -m spike inspect recording.dat
    python -m spike preview recording.dat --out preview.png
    python -m spike calibrate --dark dark.dat --flat flat.dat --out sensor.json
    python -m spike simulate frames/ --out simulated.dat
    python -m spike simulate statue.glb --out simulated.dat
    python -m spike convert recording.dat recording.npz
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arguments.command_line import CommandLine
from arguments.parser import add_quiet_argument, seed
from arguments.parts import SUBFRAME_WIDTH
from commands.recording_flags import (
    add_color_arguments,
    add_force_argument,
    add_recording_arguments,
    frames_of,
    known_packing,
    opened,
    refuse_existing,
)
from pictures.colors import limits, stretched, three_channels
from pictures.video import write_mp4
from simulation.recording import simulate_recording, truth_folder
from simulation.sensor import SENSORS, Simulator, sensor_named
from simulation.sources import MESHES, Lit, between, is_mesh, mesh_pictures, source_pictures
from spike.calibration import calibrate, find_stuck, load_sensor, maps_of, save_sensor, stretches_of
from spike.formats import check_output, write_recording
from spike.inspection import inspect, rate_image, record, sheet, summary
from spike.preview import counting_width, picture
from spike.sensor import SensorModel
from spike.stream import Packing
from utils.io import IMAGE_SUFFIXES, save_image, write_json
from utils.telling import be_quiet, counted, progress, say

# Flags of simulate that are settings of the simulator.
SENSOR_FLAGS = (
    "gain", "gain_sigma", "dark_rate", "spurious_gap", "shot_photons", "reset", "threshold_sigma", "dead", "hot",
    "random_phase",
)  # fmt: skip


def run_inspect(args: argparse.Namespace) -> None:
    stream, guess = opened(args.recording, known_packing(args))
    for line in () if guess is None else guess.why:
        say(f"  {line}")
    found = inspect(stream)
    for line in summary(stream, found):
        say(line)
    out = args.out or args.recording.with_name(f"{args.recording.stem}_inspect")
    save_image(out / "sheet.png", sheet(stream, found))
    save_image(out / "rate.png", rate_image(stream, found))
    write_json(out / "inspection.json", record(stream, found))
    say(f"Written: {out}/sheet.png, rate.png, inspection.json")


def run_preview(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.fps) and args.fps > 0):
        raise ValueError(f"--fps must be positive, not {args.fps:g}")
    stream, _ = opened(args.recording, known_packing(args))
    sensor = load_sensor(args.sensor) if args.sensor else SensorModel()
    sensor.check_size(stream.height, stream.width, stream.name)
    stream = stream.mended(find_stuck(stretches_of(stream), stream.bayer is not None, sensor.stuck))
    sensor = sensor.with_stuck(stream.stuck)
    frames = frames_of(args.frames, stream)
    spurious = sensor.spurious_rate if args.method == "timing" else 0.0

    width = args.window
    if width is None:
        width = counting_width(stream, frames) if args.method == "tfp" else SUBFRAME_WIDTH

    def image(frame: int) -> NDArray[np.float32]:
        return picture(stream, frame, args.method, width, sensor, spurious).numpy()

    middle = image(frames[len(frames) // 2])
    if middle.max() == middle.min():
        at = frames[len(frames) // 2]
        raise ValueError(f"{stream.name}: nothing to show at frame {at}: the stream is all zeros or all ones there")
    # One range for all frames, so that a video does not flicker.
    shown_range = limits(middle) if args.stretch else (0.0, 1.0)
    gamma = 0.7 if args.stretch else 1.0
    out: Path = args.out
    if out.suffix.lower() in IMAGE_SUFFIXES and len(frames) > 1:
        raise ValueError(f"{out}: one image cannot show {len(frames)} frames; give a folder or a name ending in .mp4")
    if out.suffix.lower() not in ("", ".mp4", *IMAGE_SUFFIXES):
        raise ValueError(f"{out}: a preview must be a .png, an .mp4 or a folder")
    numbered = [out / f"{frame:06d}.png" for frame in frames]
    refuse_existing([out] if out.suffix else numbered, args.force)
    shown = (stretched(image(f), shown_range, gamma) for f in progress(frames, "Reconstructing", unit="frame"))
    if out.suffix.lower() == ".mp4":
        write_mp4(out, (three_channels(f) for f in shown), args.fps)
    elif out.suffix.lower() in IMAGE_SUFFIXES:
        save_image(out, next(shown))
    else:
        for file, picture_ in zip(numbered, shown, strict=True):
            save_image(file, picture_)
    say(f"Written: {out} ({counted(len(frames), 'image')}, method {args.method})")


def run_calibrate(args: argparse.Namespace) -> None:
    refuse_existing(maps_of(args.out), args.force)
    known, dark, flat = known_packing(args), None, None
    if args.flat is not None:
        flat, guess = opened(args.flat, known, insist=True)
        known = known if guess is None else guess.packing  # the dark has no structure to guess from
    if args.dark is not None:
        dark, _ = opened(args.dark, known, insist=True)
    sensor = calibrate(dark, flat, args.level, args.reset)
    save_sensor(args.out, sensor)
    rates = {"gain": sensor.gain, "dark_rate": sensor.dark_rate, "spurious_rate": sensor.spurious_rate}
    say(", ".join(f"{name} {value:.5f}" for name, value in rates.items()) + " (spikes per frame)")
    if flat is not None and sensor.gain_map is not None:
        spread, stuck = float(sensor.gain_map.std()), 0 if sensor.stuck is None else int(sensor.stuck.mask.sum())
        say(f"gain varies by {spread:.1%} between pixels; dead or hot pixels: {stuck}")
    say(f"Written: {args.out} and its maps")


def run_simulate(args: argparse.Namespace) -> None:
    for name in ("between", "truth_every"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(args, name)}")
    alone = [name for name in ("path", "width", "height", "fl_x") if getattr(args, name) is not None]
    if alone and not is_mesh(args.source):
        raise ValueError(f"--{alone[0]} is for meshes ({', '.join(MESHES)}); {args.source} is not a mesh")
    check_output(args.out)
    refuse_existing([args.out], args.force)
    start = Simulator() if args.sensor is None else sensor_named(args.sensor)
    given = {name: getattr(args, name) for name in SENSOR_FLAGS if getattr(args, name) is not None}
    if "spurious_gap" in given:
        given["spurious_gap"] = tuple(given["spurious_gap"])
    simulator = replace(start, seed=args.seed, **given)
    truth = truth_folder(args.out)
    channels = 1 if args.bayer is None else 3
    pictures: Iterator[Lit] = (
        mesh_pictures(
            args.source, channels, truth, path=args.path, up=args.up, width=args.width, height=args.height,
            focal=args.fl_x, steps=args.between, truth_every=args.truth_every, seed=args.seed,
        ) if is_mesh(args.source)
        else between(source_pictures(args.source, channels), args.between)
    )  # fmt: skip
    origin = {"source": str(args.source), "between": args.between}
    stream = simulate_recording(args.out, pictures, simulator, truth, args.bayer, origin)
    say(f"Written: {args.out} ({len(stream)} frames of {stream.width}x{stream.height}), sharp truth in {truth}")


def run_convert(args: argparse.Namespace) -> None:
    stream, _ = opened(args.recording, known_packing(args))
    if args.out.resolve() == args.recording.resolve():
        raise ValueError(f"{args.out}: input and output are the same file")
    refuse_existing([args.out], args.force)
    packing = [n for n in ("to_bit_order", "to_flip", "to_stored_width") if getattr(args, n) is not None]
    if packing and args.out.suffix != ".dat":
        raise ValueError(f"{args.out}: --{packing[0]} applies to a .dat only; give a name ending in .dat")
    to = Packing(bit_order=args.to_bit_order, flip=args.to_flip, stored_width=args.to_stored_width)
    write_recording(args.out, stream, to.layout)
    say(f"Written: {args.out} ({len(stream)} frames of {stream.width}x{stream.height})")


def parser() -> argparse.ArgumentParser:
    top = CommandLine(prog="python -m spike", description="The toolbox for spike recordings.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, recording: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if recording:
            sub.add_argument("recording", type=Path, help=".dat, .npy or .npz file, or SpikeCV folder")
        add_quiet_argument(sub)
        return sub

    sub = command("inspect", "report size and packing, firing rates and stuck pixels, with a contact sheet")
    sub.add_argument("--out", type=Path, help="output folder (default: <recording>_inspect)")
    add_recording_arguments(sub)
    add_color_arguments(sub)
    sub.set_defaults(run=run_inspect)

    sub = command("preview", "make images or a video of a recording")
    sub.add_argument("--out", type=Path, required=True, help="output: a .png, an .mp4, or a folder of numbered images")
    add_force_argument(sub)
    sub.add_argument(
        "--method", choices=["timing", "tfp", "tfi"], default="timing", help="reconstruction method (default: timing)"
    )
    sub.add_argument("--frames", help="one spike frame, or first:last:step (default: the middle frame)")
    sub.add_argument(
        "--window", type=int, help="window of timing and tfp in spike frames, odd (default: 9, and for tfp in little "
        "light as many as a pixel needs to fire twice on average)",
    )  # fmt: skip
    sub.add_argument("--sensor", type=Path, help="sensor calibration to apply (sensor.json)")
    sub.add_argument(
        "--stretch", action=argparse.BooleanOptionalAction, default=True, help="stretch contrast to the full range"
    )
    sub.add_argument("--fps", type=float, default=24.0, help="frames per second of a video (default: 24)")
    add_recording_arguments(sub)
    add_color_arguments(sub)
    sub.set_defaults(run=run_preview)

    sub = command("calibrate", "calibrate a sensor: gain and dark rate of every pixel, spurious rate", recording=False)
    sub.add_argument("--dark", type=Path, help="recording with the lens covered")
    sub.add_argument("--flat", type=Path, help="recording of an evenly lit, static field")
    sub.add_argument("--level", type=float, default=1.0, help="intensity of the flat field, 1 = white (default: 1)")
    sub.add_argument(
        "--reset", choices=["soft", "hard"], default="soft",
        help="whether the pixels keep the charge beyond a full one, by the data sheet (default: soft)",
    )  # fmt: skip
    sub.add_argument("--out", type=Path, required=True, help="calibration file to write (sensor.json)")
    add_force_argument(sub)
    add_recording_arguments(sub)
    sub.set_defaults(run=run_calibrate)

    sub = command("simulate", "simulate spikes of images, a video or a mesh, with ground truth", recording=False)
    sub.add_argument("source", type=Path, help=f"folder of images, video, or mesh ({', '.join(MESHES)})")
    sub.add_argument("--out", type=Path, required=True, help="recording to write (.dat, .npy, .npz or a folder)")
    add_force_argument(sub)
    sub.add_argument("--between", type=int, default=1, help="spike frames per source image or pose (default: 1)")
    mesh = sub.add_argument_group("camera path of a mesh")
    mesh.add_argument("--path", type=Path, help="poses: TUM text or transforms.json (default: a walk past the mesh)")
    mesh.add_argument(
        "--up", choices=["x", "-x", "y", "-y", "z", "-z"], default="y", help="up axis for the walk (default: y)"
    )
    mesh.add_argument("--width", type=int, help="columns of pixels (default: from the path, or 400)")
    mesh.add_argument("--height", type=int, help="rows of pixels (default: from the path, or 250)")
    mesh.add_argument("--fl_x", type=float, help="focal length in pixels (default: from the path, or the width)")
    mesh.add_argument(
        "--truth_every", type=int, default=8, help="spike frames from one sharp image to the next (default: 8)"
    )
    pixels = sub.add_argument_group("pixels (default: those of --sensor)")
    pixels.add_argument(
        "--sensor", choices=SENSORS, help="start from this sensor instead of an ideal one with a gain of "
        f"{Simulator().gain}",
    )  # fmt: skip
    pixels.add_argument("--gain", type=float, help="spikes per frame for white")
    pixels.add_argument("--gain_sigma", type=float, help="relative standard deviation of the pixels' gain")
    pixels.add_argument("--dark_rate", type=float, help="charge per frame without light")
    pixels.add_argument(
        "--spurious_gap", type=float, nargs=2, metavar=("MEAN", "SIGMA"),
        help="mean and standard deviation of the frames between spurious spikes",
    )  # fmt: skip
    pixels.add_argument("--shot_photons", type=float, help="photons per full charge (Poisson noise)")
    pixels.add_argument("--reset", choices=["soft", "hard"], help="whether charge beyond a full one is kept")
    pixels.add_argument(
        "--threshold_sigma", type=float, help="relative standard deviation of the full charge from spike to spike"
    )
    pixels.add_argument("--dead", type=float, help="share of dead pixels")
    pixels.add_argument("--hot", type=float, help="share of hot pixels")
    pixels.add_argument(
        "--random_phase", action=argparse.BooleanOptionalAction, help="start pixels with random charge"
    )
    sub.add_argument("--seed", type=seed, default=0, help="random seed (default: 0)")
    add_color_arguments(sub)
    sub.set_defaults(run=run_simulate)

    sub = command("convert", "convert a recording to the format that the output's name implies")
    sub.add_argument("out", type=Path, help="file to write: .dat, .npy, .npz, or a folder with config.yaml (SpikeCV)")
    add_force_argument(sub)
    sub.add_argument("--to_bit_order", choices=["little", "big"], help="bit order of the output .dat (default: little)")
    sub.add_argument(
        "--to_flip", action=argparse.BooleanOptionalAction, help="store rows of the .dat bottom to top (the default)"
    )
    sub.add_argument("--to_stored_width", type=int, help="stored columns per row of the .dat (default: no padding)")
    add_recording_arguments(sub)
    sub.set_defaults(run=run_convert)
    return top


def main() -> int:
    args = parser().parse_args()
    be_quiet(args.quiet)
    args.run(args)
    return 0

