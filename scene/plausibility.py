"""Doubts about a scene that can be read and is probably wrong: for the user to judge, in one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from scene.cameras import View
from spike import Layout
from utils.se3 import camera_centers

# A camera is lost if it is this many times as far from the middle of all cameras as half of them are.
_LOST = 100.0
# Relative differences of positions that come from rounding, also in coordinates of a country.
_ROUNDING = 1e-9


def doubts(views: Sequence[View], layout: Layout) -> list[str]:
    """Views far away from all others or all at one place, and ``.dat`` streams shorter than the others."""
    return [*_far(views), *_short(views, layout)]


def _far(views: Sequence[View]) -> list[str]:
    eyes = camera_centers(torch.stack([view.camera.w2c for view in views]).double()).numpy()
    middle = np.median(eyes, axis=0)
    distance = np.linalg.norm(eyes - middle, axis=1)
    if len(views) > 1 and distance.max() <= _ROUNDING * max(float(np.abs(middle).max()), 1.0):
        return [f"all {len(views)} cameras are at the same place; if that is so, no depth can be learned"]
    if len(views) < 3:
        return []
    usual = float(np.median(distance))
    return [
        f"view {view.camera.name} is {d / usual:.0f} times as far from the middle of all cameras as half of them are; "
        "if that is not so, its pose is wrong"
        for view, d in zip(views, distance, strict=True)
        if usual > 0 and d > _LOST * usual
    ]


def _short(views: Sequence[View], layout: Layout) -> list[str]:
    frames = {}
    for view in views:
        path = view.spike_path
        if path is not None and path.suffix.lower() == ".dat":
            width = layout.stored_width or view.camera.width
            frames[path] = path.stat().st_size * 8 // max(view.camera.height * width, 1)
    if not frames:
        return []
    usual = Counter(frames.values()).most_common(1)[0][0]
    return [
        f"{path}: {count} frames, most streams have {usual}; if its end is missing, the middle of its exposure is wrong"
        for path, count in frames.items()
        if count < usual
    ]
