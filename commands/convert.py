"""The flags of convert.py."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arguments.command_line import CommandLine
from arguments.parser import add_quiet_argument
from commands.recording_flags import add_color_arguments, add_recording_arguments, known_packing, opened
from conversion.pipeline import convert, preview, sensor_of
from conversion.placing import OUTPUTS, PREVIEWS, check_outputs, staged
from conversion.report import confidence_of
from conversion.windows import BLUR, FEWEST, Window, choose_windows, clip_windows
from spike import Packing, SpikeStream, StuckPixels, find_stuck, load_sensor
from spike.calibration import stretches_of
from spike.stream import SUFFIXES
from utils.telling import be_quiet, say

# Flags that apply to one kind of source only.
OF_RECORDINGS = ("views", "start", "stop", "spacing", "max_blur", "truth")
OF_CLIPS = ("consecutive", "clip_gap")


def parser() -> argparse.ArgumentParser:
    p = CommandLine(description="Make a scene from a spike recording or clips without known poses.")
    p.add_argument("-s", "--source_path", type=Path, required=True, help="scene folder to write")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--recording", type=Path, help="one long recording (.dat, .npy, .npz, or SpikeCV folder)")
    source.add_argument("--clips", type=Path, help="folder of short recordings, one view each")
    p.add_argument(
        "--consecutive", action="store_true", default=None, help="treat the clips as successive pieces of one recording"
    )
    p.add_argument("--clip_gap", type=int, help="spike frames between two consecutive clips (default: 0)")
    p.add_argument("--views", type=int, help="number of views (default: one per image motion of 5%% of the width)")
    p.add_argument("--start", type=int, help="first frame of the recording (default: 0)")
    p.add_argument("--stop", type=int, help="frame to stop before (default: the end)")
    p.add_argument(
        "--spacing", choices=["motion", "even"], help="spread views evenly over motion, or over time (default: motion)"
    )
    p.add_argument("--max_blur", type=float, help="maximum motion within an exposure in pixels (default: width / 10)")
    p.add_argument("--sensor", type=Path, help="sensor calibration (sensor.json from python -m spike calibrate)")
    for name, text in (
        ("fl_x", "known focal length, pixels: it is kept fixed"),
        ("fl_y", "vertical focal length, pixels (default: --fl_x)"),
        ("cx", "column of the principal point, pixels (default: the middle)"),
        ("cy", "row of the principal point, pixels (default: the middle)"),
    ):
        p.add_argument(f"--{name}", type=float, help=text)
    p.add_argument(
        "--lens", choices=("none", "radial"), default="none",
        help="radial: estimate the lens's distortion (k1, k2) along with the poses (default: none)",
    )  # fmt: skip
    p.add_argument("--truth", type=Path, help="ground truth of a simulated recording (<recording>_truth)")
    p.add_argument("--from_colmap", type=Path, help="COLMAP model whose poses are used (images named as in previews/)")
    p.add_argument("--previews_only", action="store_true", help="only write previews/, for your own reconstruction")
    p.add_argument("--preview_scale", type=int, help="enlargement factor of previews/ (default: to about 640 columns)")
    p.add_argument("--force", action="store_true", help="replace the files of an earlier run in the folder")
    add_quiet_argument(p)
    add_recording_arguments(p)
    add_color_arguments(p)
    return p


def check(args: argparse.Namespace) -> None:
    """Raise a ``ValueError`` for invalid values and for flags that contradict each other."""
    for name, least in (("views", FEWEST), ("preview_scale", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, not {value}")
    given = [name for name in (OF_CLIPS if args.clips is None else OF_RECORDINGS) if getattr(args, name) is not None]
    if given:
        kind, other = ("--clips", "--recording") if args.clips is None else ("one --recording", "--clips")
        raise ValueError(f"--{given[0]} belongs to {kind}, not to {other}")
    if args.clip_gap is not None and not args.consecutive:
        raise ValueError("--clip_gap needs --consecutive")
    if args.lens != "none" and (args.from_colmap is not None or args.previews_only):
        other = "previews_only" if args.previews_only else "from_colmap"
        raise ValueError(f"--lens {args.lens} is estimated along with the poses, which --{other} leaves to you")
    intrinsics = [name for name in ("fl_x", "fl_y", "cx", "cy") if getattr(args, name) is not None]
    if intrinsics and (args.from_colmap is not None or args.previews_only):
        other = "previews_only" if args.previews_only else "from_colmap"
        raise ValueError(f"--{intrinsics[0]} is for the search for poses, which --{other} leaves to you")
    if args.previews_only and args.from_colmap is not None:
        raise ValueError("--previews_only makes no scene: leave out --from_colmap")
    if args.max_blur is not None and not args.max_blur > 0:
        raise ValueError(f"--max_blur must be positive, not {args.max_blur:g}")


def open_clips(folder: Path, known: Packing) -> tuple[list[SpikeStream], list[str]]:
    """Open the clips of a folder; returns them and their names, sorted by name."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise ValueError(f"{folder}: no clips ({', '.join(SUFFIXES)}) in this folder")
    clips = []
    for file in files:
        stream, guess = opened(file, known, insist=True)
        if guess is not None:  # all clips share the layout of the first
            known = replace(guess.packing, bayer=known.bayer)
        clips.append(stream)
    return clips, [file.stem for file in files]


def find_windows(
    args: argparse.Namespace, stuck: StuckPixels | None
) -> tuple[list[Window], list[Window], list[Window]]:
    """Windows, the candidates they were chosen from, and helpers between them (none for clips).

    Args:
        stuck: dead and hot pixels by the calibration; others are found in the recordings.
    """
    known = known_packing(args)
    if args.clips is not None:
        clips, names = open_clips(args.clips, known)
        found = find_stuck([(clip, 0, len(clip)) for clip in clips], known.bayer is not None, stuck)
        clips = [clip.mended(found) for clip in clips]
        return clip_windows(clips, names, bool(args.consecutive), args.clip_gap or 0), [], []
    stream, _ = opened(args.recording, known, insist=True)
    start, stop = args.start or 0, len(stream) if args.stop is None else args.stop
    if not 0 <= start < stop <= len(stream):
        raise ValueError(f"{stream.name}: --start {start} and --stop {stop} do not fit its {len(stream)} frames")
    stream = stream.mended(find_stuck(stretches_of(stream, start, stop), stream.bayer is not None, stuck))
    limit = args.max_blur or BLUR * stream.width
    return choose_windows(stream, start, stop, args.views, args.spacing or "motion", limit)


def given_intrinsics(args: argparse.Namespace, width: int, height: int) -> NDArray[np.float64] | None:
    """[fx, fy, cx, cy] in pixels if --fl_x was given, else None."""
    if args.fl_x is None:
        if any(v is not None for v in (args.fl_y, args.cx, args.cy)):
            raise ValueError("--fl_y, --cx and --cy need a focal length: give --fl_x too")
        return None
    fy = args.fl_x if args.fl_y is None else args.fl_y
    if not (args.fl_x > 0 and fy > 0):
        raise ValueError(f"--fl_x and --fl_y must be positive, not {args.fl_x:g} and {fy:g}")
    cx, cy = (half if v is None else v for v, half in ((args.cx, width / 2), (args.cy, height / 2)))
    return np.array([args.fl_x, fy, cx, cy], np.float64)


def main() -> int:
    args = parser().parse_args()
    be_quiet(args.quiet)
    check(args)
    root: Path = args.source_path
    outputs = (PREVIEWS,) if args.previews_only else OUTPUTS
    inputs = {name: getattr(args, name) for name in ("recording", "clips", "from_colmap", "truth", "sensor")}
    check_outputs(root, outputs, args.force, inputs)
    calibrated = None if args.sensor is None else load_sensor(args.sensor)
    windows, candidates, helpers = find_windows(args, None if calibrated is None else calibrated.stuck)
    stream = windows[0].stream
    if args.lens != "none" and stream.bayer is not None:
        raise ValueError(f"--lens {args.lens}: a color sensor's filters keep distortion from being undone")
    if calibrated is not None:
        calibrated.check_size(stream.height, stream.width, stream.name)
    sensor = (calibrated or sensor_of(windows)).with_stuck(stream.stuck)
    intrinsics = given_intrinsics(args, stream.width, stream.height)
    if args.previews_only:
        with staged(root, outputs) as staging:
            preview(staging, windows, sensor, args.preview_scale)
        say(f"Written: {root / PREVIEWS} ({len(windows)} views)")
        return 0
    found = convert(
        root, windows, candidates, helpers, sensor, calibrated=args.sensor is not None, intrinsics=intrinsics,
        colmap=args.from_colmap, truth=args.truth, preview_scale=args.preview_scale,
        spread_over="time" if args.spacing == "even" else "motion", radial=args.lens == "radial",
    )  # fmt: skip
    registered = found.solution.w2c
    lost = [w.name for w in windows if w.name not in registered]
    say(f"{len(windows)} views, {len(registered)} registered; the poses are {confidence_of(found.disagreement)}")
    if lost:
        say(f"Not registered: {', '.join(lost)}; see the report")
    say(f"Written: {root} (report.md). Next: {shlex.join(['python', 'train.py', '-s', str(root)])}")
    return 0
