"""Exports a trained model for other programs, and converts files of Gaussians.

    python -m scene export -m output/tanabata      trajectories for evo, Gaussians as .splat and .spz, Recon-Net in ONNX
    python -m scene convert cloud.spz cloud.ply    between .ply, .splat and .spz

Finds the poses of a scene again, from the images of a method:

    python -m scene poses -s data/demo --image_method tfi --out output/demo_tfi.json
    python train.py -s data/demo --recipe cascade --image_method tfi --transforms $PWD/output/demo_tfi.json

Cuts a scene that is too large into blocks, and merges their models (``commands.blocks``):

    python -m scene partition -s data/city --blocks 4
    python -m scene merge -m output/blocks/* --out output/city
    python -m scene seams -m output/city
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arguments.command_line import CommandLine
from arguments.parser import add_options, add_quiet_argument, add_source_argument
from arguments.settings import CascadeImages, CascadeSettings
from baselines.images import image_of
from baselines.providers import prepare
from commands.blocks import add_block_commands, cut_scene, merge_blocks, show_seams
from commands.recording_flags import add_force_argument, refuse_existing
from conversion.posing import posed_by_images, write_transforms
from gaussians.formats import FORMATS, read_gaussians, write_gaussians
from recon_net.onnx import export_onnx
from scene.dataset import read_scene
from scene.model_folder import gaussians_file, iteration_folder, read_cameras, why_stale
from scene.tum import write_tum
from scene.views import true_poses
from training.trained_model import TrainedModel
from utils.telling import be_quiet, say


def export_trajectories(model: TrainedModel) -> list[Path]:
    """Write the corrected trajectories, one file per recording, and next to them the true ones if known.

    Timestamps are spike frames of the recording, coordinates those of the scene's files.

    Raises:
        ValueError: cameras.json does not belong to the iteration or the scene.
    """
    scene, spec = model.scene, model.window_spec
    entries = [entry for entry in read_cameras(model.folder) if entry["split"] == "train"]
    stale = why_stale(entries, model.iteration)
    if stale is not None:
        raise ValueError(f"{model.folder}: {stale}")
    corrected = {entry["name"]: torch.tensor(entry["w2c"]) for entry in entries}
    views = [view for view in scene.train if view.camera.name in corrected]
    if not views:
        raise ValueError(f"{model.folder}/cameras.json: none of its views are in {model.source_path}")
    timing = model.timing(views)
    written = []
    for label in np.unique(timing.recording):
        members = np.flatnonzero(timing.recording == label)
        members = members[np.argsort(timing.middle[members], kind="stable")]
        u = np.array(spec.times)
        times = ((timing.middle[members][:, None] + u - 0.5) * (spec.exposure - 1)).reshape(-1)
        name = views[members[0]].recording
        suffix = f"_{name}" if name else ""
        names = [views[i].camera.name for i in members]
        poses = {"trajectory": [corrected[known] for known in names]}
        truth = scene.truth or {}
        stored = [truth[known] for known in names if known in truth]
        found = [true for at in stored if (true := true_poses(at, spec)) is not None]
        if len(found) == len(names):
            poses["trajectory_true"] = found
        for kind, paths in poses.items():
            path = model.folder / f"{kind}{suffix}.tum"
            write_tum(path, *_one_pose_a_time(times, torch.cat(paths)), scene.origin)
            written.append(path)
    return written


def _one_pose_a_time(times: np.ndarray, poses: Tensor) -> tuple[np.ndarray, Tensor]:
    """Poses sorted by time; where exposures overlap, only one pose per timestamp."""
    unique, index = np.unique(np.round(times, 6), return_index=True)
    return unique, poses[torch.as_tensor(index)]


def convert(source: Path, target: Path) -> int:
    """Convert Gaussians from one format to another; returns their number."""
    gaussians = read_gaussians(source)
    write_gaussians(target, gaussians)
    return len(gaussians.means)


def export_gaussians(model: TrainedModel, suffix: str) -> list[Path]:
    """Write the Gaussians in another format next to their PLY."""
    ply = gaussians_file(model.folder, model.iteration)
    if suffix != ply.suffix:
        convert(ply, ply.with_suffix(suffix))
    return [ply.with_suffix(suffix)]


def export_network(model: TrainedModel) -> list[Path]:
    """Write Recon-Net as ONNX next to its weights, if the model has one."""
    if model.network is None:
        return []
    path = iteration_folder(model.folder, model.iteration) / "recon_net.onnx"
    export_onnx(path, model.network)
    return [path]


def find_poses_again(args: argparse.Namespace) -> int:
    """Find poses from the images of a method, and write them as a pose file.

    Raises:
        ValueError: not a .json to write, or too few views could be registered.
    """
    if args.out.suffix != ".json":
        raise ValueError(f"{args.out}: expected a name ending in .json")
    refuse_existing([args.out, args.out.with_suffix(".ply")], args.force)
    names = {item.name for item in dataclasses.fields(CascadeImages)}
    options = CascadeImages(**{name: value for name, value in vars(args).items() if name in names})
    scene = read_scene(args.source_path, args.transforms)
    provider = prepare(options.image_method, scene, options)
    posed = posed_by_images(scene, lambda view: image_of(provider, scene, view), options.image_method)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_transforms(args.out, scene, posed, options.image_method)
    say(
        f"{len(posed.views)} of {posed.count} views, reprojection error {posed.reprojection:.2f} px, ATE "
        f"{posed.ate:.4f} ({'truth' if posed.against_truth else 'poses before'}); written: {args.out}"
    )
    return 0


def main() -> int:
    parser = CommandLine(
        prog="python -m scene",
        description="Export a trained model for other programs, convert files of Gaussians, and train large scenes in "
        "blocks.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser(
        "export", help="trajectories as TUM text (for evo), Gaussians as .splat and .spz, Recon-Net as ONNX"
    )
    export.add_argument("-m", "--model_path", required=True, help="folder of the trained model")
    add_source_argument(export)
    export.add_argument("--iteration", type=int, help="saved iteration (default: the newest)")
    between = commands.add_parser("convert", help="Gaussians between .ply, .splat and .spz")
    between.add_argument("source", type=Path, help="file to read")
    between.add_argument("target", type=Path, help="file to write")
    add_force_argument(between)
    again = commands.add_parser("poses", help="structure from motion on the images of a method, as a pose file")
    again.add_argument("-s", "--source_path", required=True, help="folder of the scene")
    again.add_argument("--transforms", default="transforms.json", help="its pose file, which gives the world")
    add_options(again, CascadeImages, CascadeSettings.of().values())
    again.add_argument("--out", type=Path, required=True, help="pose file to write (.json); its points go next to it")
    add_force_argument(again)
    for sub in (export, between, again, *add_block_commands(commands)):
        add_quiet_argument(sub)
    args = parser.parse_args()
    be_quiet(args.quiet)
    others = {
        "poses": find_poses_again, "partition": cut_scene, "merge": merge_blocks, "seams": show_seams
    }  # fmt: skip
    if args.command in others:
        return others[args.command](args)
    if args.command == "convert":
        refuse_existing([args.target], args.force)
        count = convert(args.source, args.target)
        say(f"{count} Gaussians are in {args.target}")
        return 0
    model = TrainedModel.load(args.model_path, args.iteration, source=args.source_path)
    return export_all(model)


def export_all(model: TrainedModel) -> int:
    """Write every export and print its files.  What cannot be written is reported after the others are."""
    parts: list[Callable[[TrainedModel], list[Path]]] = [partial(export_gaussians, suffix=s) for s in FORMATS]
    failures = []
    for write in (*parts, export_network, export_trajectories):
        try:
            for path in write(model):
                say(str(path))
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\nerror: ".join(failures))
    return 0

