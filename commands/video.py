"""Flags for rendering a video of a trained model."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from arguments import Video
from arguments.parser import add_options

# Endings of formats that are not written; a name with another ending is a folder.
_NOT_WRITTEN = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".png", ".webm", ".webp")


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``Video``."""
    add_options(parser, Video, dataclasses.asdict(Video()))


def parse_video(args: argparse.Namespace) -> Video:
    """The requested video (none if ``video`` is empty).

    Raises:
        ValueError: flags contradict each other.
    """
    given = vars(args)
    video = Video(**{f.name: given[f.name] for f in dataclasses.fields(Video) if f.name in given})
    if not video.video:
        extra = [f.name for f in dataclasses.fields(Video) if f.name in given and f.name != "video"]
        if extra:
            raise ValueError(f"--{extra[0]} applies to a video only: give --video")
        return video
    if not video.video_out:
        name = Path(video.video).stem + ("" if video.video_of == "gaussians" else f"_{video.video_of}")
        suffix = ".mp4" if video.video_bits == 8 else ""
        video = dataclasses.replace(video, video_out=str(Path(given["model_path"]) / f"video_{name}{suffix}"))
    if video.video_bits not in (8, 16):
        raise ValueError(f"--video_bits must be 8 or 16, not {video.video_bits}")
    if Path(video.video_out).suffix.lower() in _NOT_WRITTEN:
        raise ValueError(f"--video_out {video.video_out}: expected a name ending in .mp4, or a folder of numbered PNGs")
    if video.video_bits == 16 and video.video_out.endswith(".mp4"):
        raise ValueError("--video_bits 16 writes PNGs: give a folder as --video_out, not a name ending in .mp4")
    if video.video_view and video.video != "exposure":
        raise ValueError("--video_view chooses an exposure: give --video exposure")
    if video.video_of == "side" and video.video not in ("exposure", "trajectory"):
        raise ValueError("--video_of side needs spikes at every frame: give --video exposure or --video trajectory")
    return video
