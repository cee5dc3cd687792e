"""From a scene's views to the exposures that training and evaluation use, and to their ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arguments.parts import SUBFRAME_WIDTH
from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure, Sight
from scene.matching import reduced
from scene.trajectory import Timing
from spike import SensorModel, WindowSpec, window_quadrature
from spike.targets import Mode
from utils.device import each_on_one_thread
from utils.io import load_image
from utils.memory import return_freed, returning_freed
from utils.telling import progress

# If a scene has ground truth, it is at the sub-frames of the default exposure, whatever window the model has.
_TRUTH = WindowSpec()


def _true_subframes(spec: WindowSpec, stored: int) -> dict[int, int]:
    """Map each sub-frame of ``stored`` in the default exposure to the sub-frame of ``spec`` at the same spike frame."""
    usual = np.linspace(-0.5, 0.5, stored) * (_TRUTH.exposure - 1) if stored > 1 else np.zeros(1)
    own = (np.array(spec.times) - 0.5) * (spec.exposure - 1)
    found = {i: int(np.abs(own - frame).argmin()) for i, frame in enumerate(usual)}
    return {i: m for i, m in found.items() if abs(own[m] - usual[i]) < 1e-6}


def load_picture(view: View, path: Path, channels: int | None) -> Tensor:
    """Load an image [C, H, W] taken by a view's camera, without its distortion.

    Args:
        channels: number of channels; None: as in the file.

    Raises:
        ValueError: the image and the camera have different sizes.
    """
    image = reduced(load_image(path, channels), view.reduced)
    height, width = image.shape[1:]
    if (width, height) != (view.camera.width, view.camera.height):
        raise ValueError(f"{path}: {width}x{height} pixels, expected {view.camera.width}x{view.camera.height}")
    if view.camera.lens is None:
        return image
    return view.camera.straightened(image).clamp(0, 1)  # bicubic interpolation overshoots at edges


def true_images(view: View, spec: WindowSpec) -> dict[int, Path]:
    """The view's sharp images by sub-frame of ``spec``."""
    subframes = _true_subframes(spec, _TRUTH.subframes)
    return {subframes[i]: path for i, path in view.sequence_paths.items() if i in subframes}


def true_poses(stored: Tensor, spec: WindowSpec) -> Tensor | None:
    """True poses [M, 4, 4] at the sub-frames of ``spec``, from a scene's [K, 4, 4]; None if any is missing."""
    stored_at = {m: i for i, m in _true_subframes(spec, len(stored)).items()}
    if len(stored_at) < spec.subframes:
        return None
    return stored[[stored_at[m] for m in range(spec.subframes)]]


def view_timing(views: Sequence[View], scene: SceneData, exposure: int, spacing: float = 0.0) -> Timing:
    """The exposure times of some views of a scene.

    Args:
        exposure: spike frames per exposure.
        spacing: spike frames between the middles of consecutive views, if the views do not have a ``middle_frame``;
            0 means the length of a view's stream or, without spikes, two exposures.
    """
    return Timing.of(views, spacing or scene.frames_per_view or 2 * exposure, exposure)


@dataclass(frozen=True)
class TargetSpec:
    """How the spikes of a view are converted to targets.

    Args:
        window: the exposure and its sub-frames.
        mode: from counts, or from spike timing.
        width: width of the window around a sub-frame, spike frames (odd).
        intervals: pairs of sub-frames (a, b) whose mean intensity is needed (L_rec).
        wide: whether windows of half the short window are needed (``SlimReconNet``).
    """

    window: WindowSpec
    mode: Mode = "timing"
    width: int = SUBFRAME_WIDTH
    intervals: tuple[tuple[int, int], ...] = ()
    wide: bool = False

    def bytes_per_pixel(self) -> int:
        """Memory that the targets of one view need, per pixel."""
        windows = self.window.subframes * (2 if self.wide else 1)
        return 4 * (windows + len(self.intervals) + 2)  # the long exposure and the variance, too

    def quadrature(self, points: int) -> Quadrature:
        """Quadrature of ``points`` instants for the window around a sub-frame."""
        frames, weights = window_quadrature(self.width, self.mode, points)
        offsets = torch.tensor(frames / max(self.window.exposure - 1, 1)).float()
        return Quadrature(offsets, torch.tensor(weights).float())


@dataclass(frozen=True)
class Quadrature:
    """Times ``offsets`` [P] from an instant, in exposures, and ``weights`` [P] of a mean over the window."""

    offsets: Tensor
    weights: Tensor

    @classmethod
    def middle(cls) -> Quadrature:
        """The quadrature with the instant alone."""
        return cls(torch.zeros(1), torch.ones(1))

    @property
    def reach(self) -> float:
        """The largest distance from the instant, in exposures."""
        return float(self.offsets.abs().max())


def spike_exposures(
    views: Sequence[View], scene: SceneData, spec: TargetSpec, device: torch.device, sensor: SensorModel | None = None,
    sights: Sequence[Sight] | None = None, folder: Path | None = None, earlier: list[Exposure] | None = None,
) -> list[Exposure]:  # fmt: skip
    """Read the targets of views from their spikes with ``sensor`` (None: the scene's own).

    Args:
        sights: what each view should have seen, to shape the charge within intervals (None: constant).
        folder: keep the targets in files in this folder instead of in memory (on the CPU only).
        earlier: exposures of these views, which are replaced in this list one by one: two sets of targets may not fit
            in memory.

    Raises:
        ValueError: a view without a stream, or of another size than the first (one call renders several views, and
            they share pixel gains).
    """
    shapes: Sequence[Sight | None] = sights or [None] * len(views)
    label = "Reading targets" if sights is None else "Re-timing targets"
    exposures: list[Any] = [None] * len(views) if earlier is None else earlier

    def read(i: int) -> None:
        view = views[i]
        exposure = Exposure.from_spikes(
            view.camera, scene.open_stream(view), spec.window, sensor or scene.sensor, spec.mode, spec.width,
            spec.intervals, spec.wide, shapes[i],
        )  # fmt: skip
        exposures[i] = exposure.to(device) if folder is None else exposure.in_file(folder)
        if earlier is not None:  # another thread could not use what the earlier exposure leaves
            return_freed()

    with returning_freed():
        each_on_one_thread(read, range(len(views)), label)
    return _alike(scene, views, exposures)


def image_exposures(
    views: Sequence[View], scene: SceneData, device: torch.device, image_of: Callable[[View], Tensor] | None = None
) -> list[Exposure]:
    """Use the images of views as long exposures.

    Args:
        image_of: function that returns a view's image [C, H, W]; None reads the view's own file.

    Raises:
        ValueError: a view without an image, or with another size or number of channels than the first.
    """
    read = image_of or (lambda view: _own_image(view, scene))
    return read_exposures(views, scene, device, lambda view: Exposure(view.camera, read(view)))


def read_exposures(
    views: Sequence[View], scene: SceneData, device: torch.device, read: Callable[[View], Exposure]
) -> list[Exposure]:
    """The exposures that ``read`` returns for views.

    Raises:
        ValueError: a view with another size or number of channels than the first.
    """
    return _alike(scene, views, [read(view).to(device) for view in progress(views, "Reading targets", within=True)])


def _own_image(view: View, scene: SceneData) -> Tensor:
    if view.image_path is None or not view.image_path.exists():
        raise ValueError(f"{scene.root}: view {view.camera.name} has neither a spike stream nor an image")
    return load_picture(view, view.image_path, None)


def _alike(scene: SceneData, views: Sequence[View], exposures: list[Exposure]) -> list[Exposure]:
    for view, exposure in zip(views, exposures, strict=True):
        if exposure.long.shape != exposures[0].long.shape:
            first = views[0].camera.name
            raise ValueError(
                f"{scene.root}: view {view.camera.name} is {_size(exposure)}, expected {_size(exposures[0])} as view "
                f"{first} is"
            )
    return exposures


def _size(exposure: Exposure) -> str:
    channels, height, width = exposure.long.shape
    return f"{width}x{height} and {'gray' if channels == 1 else 'color'}"
