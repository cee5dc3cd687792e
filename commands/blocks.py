"""The parts of ``python -m scene`` for scenes that are too large for one training.

    python -m scene partition -s data/city --blocks 4           data/city/blocks/00 to 03, each a scene folder
    for block in data/city/blocks/*; do python train.py -s $block -m output/blocks/$(basename $block); done
    python -m scene merge -m output/blocks/* --out output/city
    python render.py -m output/city && python metrics.py -m output/city
    python -m scene seams -m output/city
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evaluation.seams import seams_table
from scene.dataset import read_scene
from scene.model_folder import claim
from scene.partition import write_blocks
from training.merging import load_blocks, merge
from utils.telling import say


def add_block_commands(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the subcommands; returns their parsers."""
    cut = commands.add_parser("partition", help="cut a scene that is too large into blocks, each a scene folder")
    cut.add_argument("-s", "--source_path", required=True, help="folder of the scene")
    cut.add_argument("--blocks", type=int, required=True, help="number of blocks")
    cut.add_argument("--out", type=Path, help="folder to write, one folder per block (default: SCENE/blocks)")
    cut.add_argument(
        "--margin", type=float, default=0.2,
        help="width of the margin from which a block takes views, in extents of its cameras (default: 0.2)",
    )  # fmt: skip
    cut.add_argument(
        "--seen", type=float, default=0.1,
        help="a view also belongs to a block that fills this share of its image (default: 0.1)",
    )  # fmt: skip
    cut.add_argument("--transforms", default="transforms.json", help="pose file in the scene's folder")
    cut.add_argument("--eval", action="store_true", help="hold every llffhold-th view out of all blocks")
    cut.add_argument("--llffhold", type=int, default=8, help="distance between held-out views (default: 8)")
    cut.add_argument(
        "--view_spacing", type=float, default=0.0,
        help="spike frames between consecutive views, as in train.py (default: as many as a view has)",
    )  # fmt: skip
    join = commands.add_parser("merge", help="merge the trained blocks of a scene into one model")
    join.add_argument("-m", "--model_paths", nargs="+", type=Path, required=True, help="models of all blocks")
    join.add_argument("--out", type=Path, required=True, help="folder of the merged model")
    join.add_argument("-s", "--source_path", default="", help="folder of the blocks, if it was moved")
    seams = commands.add_parser("seams", help="PSNR of views that look across a boundary of blocks, and of the rest")
    seams.add_argument("-m", "--model_path", type=Path, required=True, help="merged model, measured by metrics.py")
    seams.add_argument(
        "--against", type=Path, nargs="+", default=[], help="other models of the whole scene, to compare the same views"
    )
    return [cut, join, seams]


def cut_scene(args: argparse.Namespace) -> int:
    """Cut a scene into blocks.

    Raises:
        ValueError: options that cannot be followed, or a folder that exists.
    """
    if args.blocks < 2:
        raise ValueError(f"--blocks {args.blocks}: expected at least 2")
    for name in ("margin", "seen"):
        if not 0 <= getattr(args, name) < 100:
            raise ValueError(f"--{name} {getattr(args, name):g}: expected at least 0, and no more than a few")
    read_as = {"transforms": args.transforms, "eval": args.eval, "llffhold": args.llffhold}
    scene = read_scene(args.source_path, **read_as)
    out = args.out or Path(args.source_path) / "blocks"
    if out.exists():
        raise ValueError(f"{out}: already exists; remove it, or give another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    blocks = write_blocks(scene, out, args.blocks, args.margin, args.seen, args.view_spacing, read_as)
    if scene.points is None or not len(scene.points):
        say(f"{args.source_path}: has no points that tell what a view sees; views were chosen by their positions alone")
    for block in blocks:
        say(f"{out / block.name}: {len(block.own)} views, and {len(block.others)} of its neighbors")
    return 0


def merge_blocks(args: argparse.Namespace) -> int:
    """Merge trained blocks into one model."""
    blocks = load_blocks(args.model_paths, args.source_path)
    for one in blocks:
        folder = one.model.folder.resolve()
        if Path(args.out).resolve() in (folder, *folder.parents):
            raise ValueError(f"--out {args.out} holds the block {one.model.folder}: expected another folder")
    lock, aside = claim(args.out)
    with lock:
        if aside is not None:
            say(f"{args.out} contained an earlier model, which is now in {aside}")
        made = merge(blocks, args.out)
    for one, row in zip(blocks, made["blocks"], strict=True):
        how = "its world is that of the model"
        if row["attached_to"] is not None:
            how = (
                f"{row['shared_views']} views shared with block {row['attached_to']}, apart by "
                f"{row['apart_before']:.4f} before and {row['apart_after']:.4f} after it was moved"
            )
        elif one.started_from:
            how = "its world is that of the model it started from"
        elif one.block.block:
            how = "shares no views with another block and was not moved"
        say(f"Block {one.block.name}: {row['kept']} of {row['gaussians']} Gaussians kept; {how}")
    if made["recon_net_of"] is not None:
        say(f"Recon-Net is that of block {made['recon_net_of']}, which has the most views")
    say(f"The model is in {args.out}")
    return 0


def show_seams(args: argparse.Namespace) -> int:
    """Print the table of seams."""
    say(seams_table(args.model_path, args.against))
    return 0
