"""What the viewer shows, without anything of the browser: renders, saved pictures, and two of them together."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from gaussian_renderer.paths import SavedView
from gaussian_renderer.pictures import (
    Drawing,
    Image,
    depth_colors,
    depth_range,
    error_colors,
    labelled,
    letterboxed,
    opacity_colors,
    resized,
    rgb,
    side_by_side,
    wipe,
)
from utils.io import load_image

GAUSSIANS, DEPTH, OPACITY, ERROR = "Gaussians", "depth", "opacity", "error"
DRAWN = (GAUSSIANS, DEPTH, OPACITY)
# Pictures that render.py left, by the folder they are in.
SAVED = {"truth": "gt", "Recon-Net": "recon", "TFP": "tfp", "long exposure": "long"}
NOTHING, BESIDE, WIPE = "nothing", "side by side", "wipe"


@lru_cache(maxsize=64)
def _load(path: Path, changed: float) -> Image:
    """A saved picture; ``changed`` is its time of change, so that a newer one is read again."""
    return rgb(load_image(path, channels=None))


class SavedPictures:
    """The pictures of one iteration that render.py left in a model's folder."""

    def __init__(self, model: str | os.PathLike[str], iteration: int):
        self._folders = {split: Path(model) / split / f"ours_{iteration}" for split in ("train", "test")}

    def moments(self, kind: str, view: SavedView) -> dict[float, Path]:
        """Files of ``kind`` (a key of ``SAVED``) by the time u of the exposure that they show."""
        folder = self._folders[view.split] / SAVED[kind]
        files = [(float(u), folder / f"{view.name}_{m:02d}.png") for m, u in enumerate(view.times)]
        return {u: path for u, path in [*files, (0.5, folder / f"{view.name}.png")] if path.exists()}

    def kinds(self, view: SavedView) -> list[str]:
        """What there is of a view."""
        return [kind for kind in SAVED if self.moments(kind, view)]

    def nearest(self, kind: str, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The picture nearest in time to ``u`` and its own time, or None where there is none."""
        files = self.moments(kind, view)
        if not files:
            return None
        at = min(files, key=lambda time: abs(time - u))
        return _load(files[at], files[at].stat().st_mtime), at


@dataclass
class Choice:
    """What to show: a picture, and perhaps another one with it."""

    mode: str = GAUSSIANS
    other: str = GAUSSIANS
    together: str = NOTHING
    border: float = 0.5


class Canvas:
    """Draws what a camera or a view shows.

    Args:
        drawing: the Gaussians.
        pictures: what render.py left, where there is something.
    """

    def __init__(self, drawing: Drawing, pictures: SavedPictures | None = None):
        self.drawing = drawing
        self.pictures = pictures
        self._limits: tuple[float, float] | None = None

    def modes(self, view: SavedView | None) -> list[str]:
        """What can be shown of a view (or of a free camera: None)."""
        saved = self.pictures.kinds(view) if self.pictures is not None and view is not None else []
        return [*DRAWN, *saved, *([ERROR] if "truth" in saved else [])]

    def _drawn(self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, mode: str, settled: bool) -> Image:
        out = self.drawing(w2c[None], intrinsics, width, height, depth=mode == DEPTH)
        if mode == OPACITY:
            return opacity_colors(out.alphas[0])
        if mode == DEPTH:
            assert out.depths is not None
            # While the camera moves the range stays, or the colours would flicker.
            if settled or self._limits is None:
                self._limits = depth_range(out.depths, out.alphas)
            return depth_colors(out.depths[0], out.alphas[0], *self._limits)
        return rgb(out.images[0])

    def free(self, w2c: Tensor, fov: float, width: int, height: int, mode: str, settled: bool = True) -> Image:
        """Picture [height, width, 3] of a camera ``w2c`` [4, 4] with a vertical field of view in radians."""
        focal = height / 2 / math.tan(fov / 2)
        intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return self._drawn(w2c, intrinsics, width, height, mode if mode in DRAWN else GAUSSIANS, settled)

    def _of_view(self, view: SavedView, u: float, mode: str) -> tuple[Image, str]:
        """One picture of a view at the time ``u`` and what it is."""

        def drawn(at: float, how: str) -> Image:
            pose = view.at(torch.tensor([at]))[0]
            return self._drawn(pose, view.K, view.width, view.height, how, settled=True)

        if mode in SAVED or mode == ERROR:
            kind = "truth" if mode == ERROR else mode
            found = self.pictures.nearest(kind, view, u) if self.pictures is not None else None
            if found is not None:
                image, at = found
                caption = mode if mode == "long exposure" else f"{mode}, u = {at:.2f}"
                if mode == ERROR:
                    # The same instant as the truth's, or the motion would count as an error.
                    image = error_colors(drawn(at, GAUSSIANS), resized(image, view.width, view.height))
                return resized(image, view.width, view.height), caption
            mode = GAUSSIANS
        return drawn(u, mode), f"{mode}, u = {u:.2f}"

    def of_view(self, view: SavedView, u: float, choice: Choice, aspect: float, least: int = 0) -> Image:
        """A view's exposure at the time ``u``, framed to the proportions ``aspect``.

        Pictures have the camera's own resolution, enlarged to at least ``least`` pixels high.
        """
        modes = [choice.mode] if choice.together == NOTHING else [choice.mode, choice.other]
        parts = []
        for mode in modes:
            image, caption = self._of_view(view, u, mode)
            scale = max(1.0, least / view.height / (1 if choice.together != BESIDE else 2))
            image = resized(image, round(view.width * scale), round(view.height * scale))
            parts.append((image, caption))
        if choice.together == WIPE:
            (left, first), (right, second) = parts
            return letterboxed(labelled(wipe(left, right, choice.border), f"{first} | {second}"), aspect)
        return letterboxed(side_by_side([labelled(image, caption) for image, caption in parts]), aspect)
