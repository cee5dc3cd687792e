"""Make a scene that train.py reads from spikes alone: choose windows, find poses, write the folder.

    python convert.py -s data/myscene --recording rec.dat
    python convert.py -s data/myscene --clips clips/

One long recording is cut into views where the camera moved enough but not too much; a folder of clips is one
view a clip.  Poses and points come from previews of the views by structure from motion (pycolmap), tried with
several settings until two of them agree; how well they do is how sure the poses are.
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import math
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commands.guard import guarded
from commands.spike import add_color_arguments, add_recording_arguments, recording_of
from conversion.report import Conversion, sureness_of, write_report
from conversion.structure_from_motion import ATTEMPTS, all_poses, find_poses, normalised, read_colmap, save_previews
from conversion.windows import FEWEST, SPEC, Window, choose_windows, clip_windows
from conversion.writing import write_scene, write_truth
from scene.colmap import write_model
from spike import SensorModel, SpikeStream, load_sensor
from spike.calibration import assumed_sensor

PREVIEWS = "previews"
# Everything that this command writes into the scene folder.
OUTPUTS = (
    "spike_data", PREVIEWS, "sparse", "transforms.json", "sparse_pc.ply", "report.md", "report", "sensor.json",
    "sensor_gain_map.npy", "sensor_dark_map.npy", "sharp_data", "sequence", "trajectory.json",
)  # fmt: skip
SUFFIXES = (".dat", ".npy", ".npz")
# Most motion within an exposure, in widths of the picture.
BLUR = 0.1
# Flags that say how to read one kind of source, and mean nothing for the other.
OF_RECORDINGS = ("views", "start", "stop", "spacing", "max_blur", "truth")
OF_CLIPS = ("consecutive", "clip_gap")


def in_the_way(root: Path, outputs: Sequence[str], force: bool) -> list[Path]:
    """Which of ``outputs`` are in the scene folder already; an error unless they may be overwritten."""
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root}: is a file, expected a folder for the scene")
    there = [root / name for name in outputs if (root / name).exists()]
    if there and not force:
        raise ValueError(f"{there[0]}: is there already; give --force to overwrite what an earlier run left")
    return there


def open_clips(folder: Path, args: argparse.Namespace) -> tuple[list[SpikeStream], list[str]]:
    """The clips of a folder and their names, in the order of the names."""
    files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise ValueError(f"{folder}: no clips ({', '.join(SUFFIXES)}) in this folder")
    clips = []
    for file in files:
        stream, guess = recording_of(file, args, insist=True)
        if guess is not None:  # the first clip speaks for all
            args.height, args.width, args.stored_width = guess.height, guess.width, guess.stored_width
            args.bit_order, args.flip = guess.bit_order, guess.flip
        clips.append(stream)
    return clips, [file.stem for file in files]


def scene_sensor(path: Path | None, windows: Sequence[Window]) -> SensorModel:
    """The calibration that was given, or a gain and a spurious rate from the recording itself."""
    stream = windows[0].stream
    if path is None:
        reach = SPEC.context // 2
        return assumed_sensor([(w.stream, w.middle_frame - reach, w.middle_frame + reach + 1) for w in windows])
    sensor = load_sensor(path)
    sensor.check_size(stream.height, stream.width, stream.name)
    return sensor


def given_intrinsics(args: argparse.Namespace, width: int, height: int) -> NDArray[np.float64] | None:
    """[fx, fy, cx, cy] where --fl_x was given."""
    if args.fl_x is None:
        if any(v is not None for v in (args.fl_y, args.cx, args.cy)):
            raise ValueError("--fl_y, --cx and --cy complete a given focal length: give --fl_x too")
        return None
    fy = args.fl_x if args.fl_y is None else args.fl_y
    if not (args.fl_x > 0 and fy > 0):
        raise ValueError(f"--fl_x and --fl_y must be positive, not {args.fl_x:g} and {fy:g}")
    cx, cy = (half if v is None else v for v, half in ((args.cx, width / 2), (args.cy, height / 2)))
    return np.array([args.fl_x, fy, cx, cy], np.float64)


def views_of(args: argparse.Namespace) -> tuple[list[Window], list[Window], list[Window]]:
    """Windows, the candidates they were chosen from, and helpers between them (clips have neither)."""
    if args.clips is not None:
        return clip_windows(*open_clips(args.clips, args), bool(args.consecutive), args.clip_gap or 0), [], []
    stream, _ = recording_of(args.recording, args, insist=True)
    start, stop = args.start or 0, len(stream) if args.stop is None else args.stop
    if not 0 <= start < stop <= len(stream):
        raise ValueError(f"{stream.name}: has {len(stream)} frames, not those from {start} to {stop}")
    limit = args.max_blur or BLUR * stream.width
    return choose_windows(stream, start, stop, args.views, args.spacing or "motion", limit, args.quiet)


def convert(args: argparse.Namespace) -> None:
    root: Path = args.source_path
    old = in_the_way(root, (PREVIEWS,) if args.previews_only else OUTPUTS, args.force)
    windows, candidates, helpers = views_of(args)
    names, stream = [w.name for w in windows], windows[0].stream
    sensor = scene_sensor(args.sensor, windows)
    intrinsics = given_intrinsics(args, stream.width, stream.height)
    staging = root.parent / f".{root.name}.{secrets.token_hex(6)}"
    try:
        scale = args.preview_scale or ATTEMPTS[0].scale(stream.width)
        save_previews(windows, names, ATTEMPTS[0], scale, staging / PREVIEWS, sensor)
        if args.previews_only:
            move_in(staging, root, old)
            print(f"Written: {root / PREVIEWS} ({len(windows)} views)")
            return
        if args.from_colmap is not None:
            solution = read_colmap(args.from_colmap, names, stream.width, stream.height)
            spread, notes = math.inf, list[str]()
        else:
            solution, spread, notes = find_poses(windows, helpers, intrinsics, sensor, args.quiet)
        model, camera = solution.model, next(iter(solution.model.cameras.values()))
        solution, similarity = normalised(solution)
        poses = all_poses(windows, solution)
        focal = "given" if args.fl_x else "as in the model" if args.from_colmap else "estimated"
        along = "time" if args.spacing == "even" else "motion"
        write_scene(staging, windows, solution, poses, sensor, calibrated=args.sensor is not None)
        if args.truth is not None:
            write_truth(staging, [w for w in windows if w.name in poses], args.truth)
        write_model(staging, model, camera.width / stream.width, similarity)
        write_report(
            staging, Conversion(root.name, windows, candidates, solution, poses, spread, notes, focal, along)
        )
        move_in(staging, root, old)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    lost = [name for name in names if name not in solution.w2c]
    print(f"{len(windows)} views, {len(solution.w2c)} registered; the poses are {sureness_of(spread)}")
    if lost:
        print(f"Not registered: {', '.join(lost)}; see the report")
    print(f"Written: {root} (report.md). Next: python train.py -s {root} --spike")


def move_in(staging: Path, root: Path, old: Sequence[Path]) -> None:
    """Put the finished files in place of the old ones."""
    root.mkdir(parents=True, exist_ok=True)
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in staging.iterdir():
        os.replace(path, root / path.name)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description="Make a scene from a spike recording, or from clips, without known poses.")
    p.add_argument("-s", "--source_path", type=Path, required=True, help="folder of the scene to make")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--recording", type=Path, help="one long recording (.dat, .npy, .npz, or SpikeCV folder)")
    source.add_argument("--clips", type=Path, help="folder of short recordings, one view each")
    p.add_argument(
        "--consecutive", action="store_true", default=None, help="the clips are pieces of one recording, in order"
    )
    p.add_argument("--clip_gap", type=int, help="spike frames between two consecutive clips (default: 0)")
    p.add_argument("--views", type=int, help="views to take (default: by how far the picture moves)")
    p.add_argument("--start", type=int, help="first frame of the recording to use (default: 0)")
    p.add_argument("--stop", type=int, help="frame to stop before (default: the end)")
    p.add_argument("--spacing", choices=["motion", "even"], help="how views are spread (default: motion)")
    p.add_argument("--max_blur", type=float, help="most pixels of motion in an exposure (default: width / 10)")
    p.add_argument("--sensor", type=Path, help="calibration (sensor.json of python -m spike calibrate)")
    for name, text in (("fl_x", "focal length"), ("fl_y", "vertical focal length"), ("cx", "centre"), ("cy", "centre")):
        p.add_argument(f"--{name}", type=float, help=f"{text} in pixels, where it is known")
    p.add_argument("--truth", type=Path, help="of a simulated recording (<recording>_truth): to measure against")
    p.add_argument("--from_colmap", type=Path, help="use the poses of this COLMAP model (images named as in previews/)")
    p.add_argument("--previews_only", action="store_true", help="write previews/ for a reconstruction of your own")
    p.add_argument("--preview_scale", type=int, help="enlargement of previews/ (default: to about 640 columns)")
    p.add_argument("--force", action="store_true", help="overwrite what an earlier run left in the folder")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    add_recording_arguments(p)
    add_color_arguments(p)
    return p


def main() -> int:
    args = parser().parse_args()
    for name in ("views", "preview_scale"):
        value = getattr(args, name)
        if value is not None and value < (FEWEST if name == "views" else 1):
            raise ValueError(f"--{name} must be at least {FEWEST if name == 'views' else 1}, not {value}")
    given = [name for name in (OF_CLIPS if args.clips is None else OF_RECORDINGS) if getattr(args, name) is not None]
    if given:
        kind, other = ("--clips", "--recording") if args.clips is None else ("one --recording", "--clips")
        raise ValueError(f"--{given[0]} belongs to {kind}, not to {other}")
    if args.clip_gap is not None and not args.consecutive:
        raise ValueError("--clip_gap lies between --consecutive clips")
    if args.max_blur is not None and not args.max_blur > 0:
        raise ValueError(f"--max_blur must be positive, not {args.max_blur:g}")
    convert(args)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
