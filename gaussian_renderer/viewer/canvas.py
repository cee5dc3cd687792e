"""The images that the viewer shows, independent of the browser: renders, saved images, and two of them combined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView
from gaussian_renderer.uncertainty import uncertain
from gaussian_renderer.viewer.sources import SHOWN, Pictures
from pictures.colors import (
    Image,
    depth_colors,
    depth_range,
    deviation_colors,
    error_colors,
    opacity_colors,
    rgb,
)
from pictures.kinds import GAUSSIANS as RENDERS
from pictures.kinds import LONG, RECON_NET, TRUTH, Kind
from pictures.sheets import labeled, letterboxed, resized, side_by_side, wipe

GAUSSIANS, DEPTH, OPACITY, UNCERTAINTY = RENDERS.label, "depth", "opacity", "uncertainty"
DRAWN = (GAUSSIANS, DEPTH, OPACITY, UNCERTAINTY)
# Images that are not rendered here, and error maps by the kind that is compared with the truth.
IMAGES = {kind.label: kind for kind in SHOWN}
ERRORS = {f"error of {kind.label}": kind for kind in (RENDERS, RECON_NET)}
NOTHING, BESIDE, WIPE = "nothing", "side by side", "wipe"


@dataclass
class Choice:
    """What to show: an image, and optionally another one with it."""

    mode: str = GAUSSIANS
    other: str = GAUSSIANS
    together: str = NOTHING
    border: float = 0.5


class Canvas:
    """Draws the image of a camera or a view.

    Args:
        drawing: the Gaussians.
        views: the cameras with their trajectories; the training views determine what is known of the scene.
        pictures: images of the views, in addition to the renders.
    """

    def __init__(self, drawing: Drawing, views: Sequence[SavedView], pictures: Pictures | None = None):
        self.drawing = drawing
        self.views = list(views)
        self.pictures = pictures
        self._limits: tuple[float, float] | None = None
        self._uncertain: tuple[Drawing, Drawing] | None = None

    def modes(self, view: SavedView | None) -> list[str]:
        """The modes available for a view (or for a free camera: None)."""
        found = self.pictures.kinds(view) if self.pictures is not None and view is not None else []
        errors = [name for name, kind in ERRORS.items() if TRUTH in found and kind in (RENDERS, *found)]
        return [*DRAWN[: None if self._observers() else -1], *(kind.label for kind in found), *errors]

    def _observers(self) -> list[SavedView]:
        return [view for view in self.views if view.split == "train"]

    def _uncertainty(self) -> Drawing:
        """Draws the standard deviation of what ``drawing`` shows; cached until the Gaussians change."""
        drawing = self.drawing
        if self._uncertain is None or self._uncertain[0] is not drawing:
            self._uncertain = drawing, uncertain(drawing, self._observers())
        return self._uncertain[1]

    def _drawn(self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, mode: str, settled: bool) -> Image:
        drawing = self._uncertainty() if mode == UNCERTAINTY else self.drawing
        out = drawing(w2c[None], intrinsics, width, height, depth=mode == DEPTH)
        if mode == UNCERTAINTY:
            return deviation_colors(out.images[0, :1])
        if mode == OPACITY:
            return opacity_colors(out.alphas[0])
        if mode == DEPTH:
            assert out.depths is not None
            # The range is fixed while the camera moves, so that the colors do not flicker.
            if settled or self._limits is None:
                self._limits = depth_range(out.depths, out.alphas)
            return depth_colors(out.depths[0], out.alphas[0], *self._limits)
        return rgb(out.images[0])

    def free(self, w2c: Tensor, fov: float, width: int, height: int, mode: str, settled: bool = True) -> Image:
        """Image [height, width, 3] of a camera ``w2c`` [4, 4] with a vertical field of view in radians."""
        focal = height / 2 / math.tan(fov / 2)
        intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return self._drawn(w2c, intrinsics, width, height, mode if mode in DRAWN else GAUSSIANS, settled)

    def _of_view(self, view: SavedView, u: float, mode: str) -> tuple[Image, str]:
        """One image of a view at the time ``u``, and its caption."""

        def drawn(at: float, how: str) -> Image:
            pose = view.at(torch.tensor([at]))[0]
            return self._drawn(pose, view.K, view.width, view.height, how, settled=True)

        if mode in ERRORS:
            truth, compared = self._found(view, u, TRUTH), ERRORS[mode]
            if truth is None:
                return drawn(u, GAUSSIANS), f"no truth; {GAUSSIANS}, u = {u:.2f}"
            # Render the same instant as the truth, so that the motion does not count as an error.
            image, at = truth
            found = self._found(view, at, compared) if compared in SHOWN else None
            shown, at_shown = found if found is not None else (drawn(at, GAUSSIANS), at)
            caption = f"{mode}, u = {at:.2f}" + ("" if at == at_shown else f" and {at_shown:.2f}")
            return error_colors(shown, image), caption
        if mode in IMAGES:
            found = self._found(view, u, IMAGES[mode])
            if found is not None:
                return found[0], mode if IMAGES[mode] == LONG else f"{mode}, u = {found[1]:.2f}"
            mode = GAUSSIANS
        return drawn(u, mode), f"{mode}, u = {u:.2f}"

    def _found(self, view: SavedView, u: float, kind: Kind) -> tuple[Image, float] | None:
        """An image of ``view`` in its own resolution, and its time."""
        found = self.pictures.nearest(kind, view, u) if self.pictures is not None else None
        return None if found is None else (resized(found[0], view.width, view.height), found[1])

    def of_view(self, view: SavedView, u: float, choice: Choice, aspect: float, least: int = 0) -> Image:
        """Image of a view's exposure at the time ``u``, framed to the aspect ratio ``aspect``.

        Images have the camera's own resolution, enlarged to at least ``least`` pixels in height.
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
            return letterboxed(labeled(wipe(left, right, choice.border), f"{first} | {second}"), aspect)
        return letterboxed(side_by_side([labeled(image, caption) for image, caption in parts]), aspect)
