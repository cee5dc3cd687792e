"""Images from the spikes of a single view: the interface, and the methods that learn nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure, usable_margin
from spike import SensorModel, SpikeStream, Targets, WindowSpec, tfi
from spike.targets import Mode


class ImageProvider(Protocol):
    """A method that makes an image of a view at any time of its exposure, from the view's spikes alone."""

    def __call__(self, stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> Tensor:
        """The intensities [1, H, W] (1 = white) at the time ``u`` in [0, 1] of the exposure.

        They are not clipped: noise can make them negative or larger than 1.

        Args:
            stream: the view's spikes; the exposure of ``spec`` is in the middle.
            sensor: converts rates to intensities.

        Raises:
            ValueError: the stream has not the frames that the method needs.
        """


@dataclass(frozen=True)
class WindowMean:
    """The mean over ``width`` frames (odd) around the instant: counted (TFP), or from spike timing."""

    width: int
    mode: Mode = "counting"

    def __call__(self, stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> Tensor:
        """See ``ImageProvider``."""
        margin = usable_margin(stream, spec)
        targets = Targets(stream.central(spec, margin), spec, sensor, self.mode, margin)
        return targets.around(spec.frame(u), self.width)[None]


@dataclass(frozen=True)
class Interval:
    """TFI: the reciprocal of the interval between the spikes around the instant."""

    def __call__(self, stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> Tensor:
        """See ``ImageProvider``."""
        margin = usable_margin(stream, spec)
        rate = tfi(stream.central(spec, margin), margin + spec.frame(u))
        return sensor.intensity(rate, spurious_left=False)[None]


def image_of(
    provider: ImageProvider, scene: SceneData, view: View, spec: WindowSpec = WindowSpec(), u: float = 0.5
) -> Tensor:
    """A provider's image of a view of a scene [C, H, W]; in color for a color sensor.

    Raises:
        ValueError: the provider returned another size than the camera's, or values that are not finite.
    """
    pixels = _pixels(provider, scene.open_stream(view), spec, scene.sensor, u)
    return pixels if scene.mosaic is None else scene.mosaic.colors(pixels)


def _pixels(provider: ImageProvider, stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float) -> Tensor:
    pixels = provider(stream, spec, sensor, u)
    if pixels.shape != (1, stream.height, stream.width):
        raise ValueError(
            f"{stream.name}: {_called(provider)} made an image of shape {[*pixels.shape]}, expected "
            f"[1, {stream.height}, {stream.width}]"
        )
    if not bool(pixels.isfinite().all()):
        wrong = int((~pixels.isfinite()).sum())
        raise ValueError(f"{stream.name}: {_called(provider)} made an image with {wrong} values that are not finite")
    return pixels


def instants_of(
    provider: ImageProvider, scene: SceneData, view: View, spec: WindowSpec, sensor: SensorModel
) -> Exposure:
    """A view's exposure: a provider's images of the sub-frames, and the mean of the counted spikes (TFP)."""
    stream = scene.open_stream(view)
    images = [_pixels(provider, stream, spec, sensor, u) for u in spec.times]
    long = WindowMean(spec.exposure)(stream, spec, sensor)
    return Exposure(view.camera, long, torch.stack(images), spec=spec, stream=stream)


def _called(provider: ImageProvider) -> str:
    return getattr(provider, "__name__", type(provider).__name__)


def color_planes(pixels: Tensor, stream: SpikeStream) -> list[Tensor]:
    """Views of ``pixels`` [..., H, W] with one color each: the four of a color sensor's pattern, or all pixels.

    For networks that expect neighbors to see the same light.
    """
    if stream.bayer is None:
        return [pixels]
    return [pixels[..., row::2, column::2] for row in range(2) for column in range(2)]
