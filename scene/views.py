"""From a scene's views to the exposures that training and evaluation use, and to their truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure
from scene.trajectory import Timing
from spike import SensorModel, WindowSpec, window_quadrature
from spike.targets import Mode
from utils.io import load_image

# The truth of a scene, where it has one, is at the sub-frames of the usual exposure, whatever window a model has.
_TRUTH = WindowSpec()


def _true_subframes(spec: WindowSpec, stored: int) -> dict[int, int]:
    """Sub-frames of ``spec`` by the one of ``stored`` in the usual exposure at the same spike frame."""
    usual = np.linspace(-0.5, 0.5, stored) * (_TRUTH.exposure - 1) if stored > 1 else np.zeros(1)
    own = (np.array(spec.times) - 0.5) * (spec.exposure - 1)
    found = {i: int(np.abs(own - frame).argmin()) for i, frame in enumerate(usual)}
    return {i: m for i, m in found.items() if abs(own[m] - usual[i]) < 1e-6}


def load_picture(view: View, path: Path, channels: int | None) -> Tensor:
    """An image [C, H, W] that a view's camera took, with its own ``channels`` or these.

    Raises:
        ValueError: it has another size than the camera.
    """
    image = load_image(path, channels)
    height, width = image.shape[1:]
    if (width, height) != (view.camera.width, view.camera.height):
        raise ValueError(f"{path}: {width}x{height} pixels, expected {view.camera.width}x{view.camera.height}")
    return image


def true_images(view: View, spec: WindowSpec) -> dict[int, Path]:
    """The view's sharp images by the sub-frame of ``spec`` that they show."""
    subframes = _true_subframes(spec, _TRUTH.subframes)
    return {subframes[i]: path for i, path in view.sequence_paths.items() if i in subframes}


def true_poses(stored: Tensor, spec: WindowSpec) -> Tensor | None:
    """True poses [M, 4, 4] at the sub-frames of ``spec`` from a scene's [K, 4, 4]; None if some have none."""
    stored_at = {m: i for i, m in _true_subframes(spec, len(stored)).items()}
    if len(stored_at) < spec.subframes:
        return None
    return stored[[stored_at[m] for m in range(spec.subframes)]]


def view_timing(views: Sequence[View], scene: SceneData, exposure: int, spacing: float = 0.0) -> Timing:
    """When some views of a scene were exposed.

    Args:
        exposure: spike frames of an exposure.
        spacing: spike frames from one view's middle to the next where the views do not say; 0 takes the length of
            a view's stream or, without spikes, two exposures.
    """
    return Timing.of(views, spacing or scene.frames_per_view or 2 * exposure, exposure)


@dataclass(frozen=True)
class TargetSpec:
    """How the spikes of a view become targets.

    Args:
        window: the exposure and its sub-frames.
        mode: by counting, or by the spikes' timing.
        width: spike frames (odd) of the window about a sub-frame.
        intervals: pairs of sub-frames (a, b) whose mean intensity is wanted (L_rec).
        wide: whether the windows of half a short window are wanted (``SlimReconNet``).
    """

    window: WindowSpec
    mode: Mode = "timing"
    width: int = 9
    intervals: tuple[tuple[int, int], ...] = ()
    wide: bool = False

    def quadrature(self, points: int) -> Quadrature:
        """``points`` instants that stand for the window about a sub-frame."""
        frames, weights = window_quadrature(self.width, self.mode, points)
        offsets = torch.tensor(frames / max(self.window.exposure - 1, 1)).float()
        return Quadrature(offsets, torch.tensor(weights).float())


@dataclass(frozen=True)
class Quadrature:
    """Times ``offsets`` [P] from an instant, in exposures, and ``weights`` [P]: their weighted mean is the window's."""

    offsets: Tensor
    weights: Tensor

    @classmethod
    def middle(cls) -> Quadrature:
        """The instant alone."""
        return cls(torch.zeros(1), torch.ones(1))

    @property
    def reach(self) -> float:
        """How far it reaches beyond the instant, in exposures."""
        return float(self.offsets.abs().max())


def spike_exposures(
    views: Sequence[View], scene: SceneData, spec: TargetSpec, device: torch.device, sensor: SensorModel | None = None
) -> list[Exposure]:
    """Targets of views from their spikes, read with ``sensor`` (the scene's own if None).

    Raises:
        ValueError: a view without a stream, or of another size than the first: one call renders several views, and
            pixels share their gains.
    """
    read = [
        Exposure.from_spikes(
            view.camera, scene.open_stream(view), spec.window, sensor or scene.sensor, spec.mode, spec.width,
            spec.intervals, spec.wide,
        ).to(device)
        for view in views
    ]  # fmt: skip
    return _alike(scene, views, read)


def image_exposures(
    views: Sequence[View], scene: SceneData, device: torch.device, image_of: Callable[[View], Tensor] | None = None
) -> list[Exposure]:
    """Targets of views from images, taken for long exposures.

    Args:
        image_of: the image [C, H, W] of a view; its own file if None.

    Raises:
        ValueError: a view without an image, or of another size or number of channels than the first.
    """
    read = image_of or (lambda view: _own_image(view, scene))
    return _alike(scene, views, [Exposure(view.camera, read(view)).to(device) for view in views])


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
