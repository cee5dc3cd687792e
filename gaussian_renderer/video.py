"""Videos of a trained model: along its trajectories, during an exposure, or around the scene.

Inputs are a camera path, Gaussians and, for side-by-side videos, Recon-Net's frames of a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from arguments import Video
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import CameraPath, SavedView, exposure_path, file_path, orbit_path, recording_path
from pictures.colors import Image, depth_colors, depth_range, rgb
from pictures.kinds import GAUSSIANS, RECON_NET
from pictures.sheets import labeled, side_by_side
from pictures.video import write_mp4, write_pngs
from utils.telling import progress

# Cameras per rasterizer call: enough for one view per thread, few enough to fit in memory.
_BATCH = 8
# Number of frames from which the range of depth colors is computed.
_PROBES = 8

ReconFrames = Callable[[SavedView], Tensor]


def choose_path(video: Video, views: Sequence[SavedView]) -> CameraPath:
    """The camera path that ``video`` asks for; ``views`` are the training views."""
    views = [view for view in views if view.split == "train"] or list(views)
    if video.video == "trajectory":
        return recording_path(views, video.video_frames)
    if video.video == "orbit":
        return orbit_path(views, video.video_frames)
    if video.video == "exposure":
        named = {view.name: view for view in views}
        if video.video_view and video.video_view not in named:
            raise ValueError(f"--video_view {video.video_view}: no such view; there are {', '.join(named)}")
        view = named[video.video_view] if video.video_view else views[len(views) // 2]
        return exposure_path(view, video.video_frames)
    if not video.video.endswith(".json"):
        raise ValueError(f"--video {video.video}: expected trajectory, exposure, orbit or a camera file (.json)")
    return file_path(video.video, views, video.video_frames)


def _batches(path: CameraPath, drawing: Drawing, depth: bool) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Color [C, H, W], coverage [1, H, W] and depth [1, H, W] of every frame."""
    for start in range(0, len(path.w2c), _BATCH):
        out = drawing(path.w2c[start : start + _BATCH], path.K, path.width, path.height, depth)
        for i, image in enumerate(out.images):
            yield image, out.alphas[i], None if out.depths is None else out.depths[i]


def color_frames(path: CameraPath, drawing: Drawing) -> Iterator[Image]:
    """Render the Gaussians along the path."""
    for image, _, _ in _batches(path, drawing, depth=False):
        yield rgb(image)


def depth_limits(path: CameraPath, drawing: Drawing) -> tuple[float, float]:
    """One range of depths [world units] for the whole path, so that colors do not flicker."""
    probes = torch.linspace(0, len(path.w2c) - 1, min(_PROBES, len(path.w2c))).round().long()
    out = drawing(path.w2c[probes], path.K, path.width, path.height, depth=True)
    assert out.depths is not None
    return depth_range(out.depths, out.alphas)


def depth_frames(path: CameraPath, drawing: Drawing, near: float, far: float) -> Iterator[Image]:
    """Render the expected depth along the path, in colors."""
    for _, alpha, depth in _batches(path, drawing, depth=True):
        assert depth is not None
        yield depth_colors(depth, alpha, near, far)


def measured_depth_frames(path: CameraPath, drawing: Drawing, white: float) -> Iterator[Image]:
    """Render the expected depth along the path, in gray: 1 is the depth ``white``, 0 means uncovered."""
    for _, alpha, depth in _batches(path, drawing, depth=True):
        assert depth is not None
        yield rgb(torch.where(alpha > 0.5, depth / white, 0.0))


def beside_recon(path: CameraPath, frames: Iterable[Image], recon: ReconFrames) -> Iterator[Image]:
    """Put Recon-Net's image to the left of every frame: the view's sub-frame nearest in time.

    Between two exposures, the last image remains, dimmed.
    """
    known: tuple[str, Tensor] | None = None
    shown: Image | None = None
    for frame, moment in zip(frames, path.moments, strict=True):
        if moment is not None:
            view, u = moment
            if known is None or known[0] != view.name:
                known = view.name, recon(view)
            shown = rgb(known[1][view.nearest(u)])
        assert shown is not None, "a path that is shown beside Recon-Net must start inside an exposure"
        left = shown if moment is not None else 0.4 * shown
        yield side_by_side([labeled(left, RECON_NET.label), labeled(frame, GAUSSIANS.label)])


def record(
    video: Video, views: Sequence[SavedView], drawing: Drawing, recon: ReconFrames | None
    ) -> Path:
    """Record the video; returns its path.

    Args:
        recon: function that returns Recon-Net's frames [M, C, H, W] of a training view, or None without a network.
    """
    path, out = choose_path(video, views), Path(video.video_out)
    white: float | None = None
    if video.video_of == "depth":
        near, far = depth_limits(path, drawing)
        if video.video_bits == 16:
            # Some margin, because single pixels lie beyond the range of the colors.
            white = 1.5 * far
            frames = measured_depth_frames(path, drawing, white)
        else:
            frames = depth_frames(path, drawing, near, far)
    else:
        frames = color_frames(path, drawing)
    if video.video_of == "side":
        if recon is None:
            raise ValueError("--video_of side: this model was trained without Recon-Net")
        frames = beside_recon(path, frames, recon)
    counted = progress(frames, f"Recording {out.name}", len(path.w2c), "frame")
    if out.suffix.lower() == ".mp4":
        write_mp4(out, counted, video.video_fps)
    else:
        write_pngs(out, counted, video.video_bits, white)
    return out
