"""From a scene's views and a configuration to the exposures that training and evaluation use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arguments import Config, Data
from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure
from scene.trajectory import Timing
from spike import WindowSpec, window_quadrature
from training.losses import half_widths
from utils.io import load_image


def window_spec(data: Data) -> WindowSpec:
    """The window of a configuration."""
    return WindowSpec(exposure=data.exposure, short=data.short, subframes=data.subframes)


def window_times(data: Data) -> tuple[Tensor, Tensor]:
    """Times from a sub-frame's instant [P], in exposures, and weights [P]: renders there, averaged, meet its spikes."""
    frames, weights = window_quadrature(data.subframe_width, data.targets, data.window_points)
    return torch.tensor(frames / max(data.exposure - 1, 1)).float(), torch.tensor(weights).float()


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


def view_timing(views: Sequence[View], scene: SceneData, config: Config) -> Timing:
    """When some views of a scene were exposed.

    Views of one recording that do not say are as far apart as a view's stream is long; without spikes, two exposures.
    """
    spacing = config.motion.view_spacing or scene.frames_per_view or 2 * config.data.exposure
    return Timing.of(views, spacing, config.data.exposure)


def load_exposures(
    views: Sequence[View], scene: SceneData, config: Config, device: torch.device
) -> list[Exposure]:
    """Targets of every view, computed once: from spikes (``--spike``), or from the views' images.

    Raises:
        ValueError: a view without them, or of another size or number of channels than the first: one call renders
            several views, and pixels share their gains.
    """
    exposures: list[Exposure] = []
    for i, view in enumerate(views):
        exposure = _from_spikes(i, view, scene, config, device) if config.data.spike else _from_image(i, view, device)
        exposures.append(exposure)
        if exposure.long.shape != exposures[0].long.shape:
            first = views[0].camera.name
            raise ValueError(
                f"{scene.root}: view {view.camera.name} is {_size(exposure)}, expected {_size(exposures[0])} as view "
                f"{first} is"
            )
    return exposures


def _size(exposure: Exposure) -> str:
    channels, height, width = exposure.long.shape
    return f"{width}x{height} and {'grey' if channels == 1 else 'colour'}"


def _from_spikes(index: int, view: View, scene: SceneData, config: Config, device: torch.device) -> Exposure:
    spec = window_spec(config.data)
    middle = (spec.subframes - 1) // 2
    widths = half_widths(spec.subframes, config.losses.multi_interval) if config.losses.lambda_rec else []
    return Exposure.from_spikes(
        index,
        view.camera,
        scene.open_stream(view),
        spec,
        scene.sensor,
        mode=config.data.targets,
        subframe_width=config.data.subframe_width,
        intervals=[(middle - k, middle + k) for k in widths],
    ).to(device)


def _from_image(index: int, view: View, device: torch.device) -> Exposure:
    if view.image_path is None or not view.image_path.exists():
        raise ValueError(
            f"view {view.camera.name}: no image to learn from (give --spike to learn from its spike stream)"
        )
    return Exposure(index, view.camera, load_picture(view, view.image_path, None)).to(device)
