"""The methods that make images from the spikes of one view, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from arguments.parts import SUBFRAME_WIDTH, ImageOptions
from baselines.images import ImageProvider, Interval, WindowMean
from scene.dataset import SceneData
from spike.window import PAPER


@dataclass(frozen=True)
class ImageMethod:
    """A method's title in tables, and a function that prepares it for a scene: reads weights, or learns them."""

    title: str
    prepare: Callable[[SceneData, ImageOptions], ImageProvider]


PROVIDERS = {
    "tfp": ImageMethod(f"TFP({PAPER.short})", lambda scene, options: WindowMean(PAPER.short)),
    "tfp-long": ImageMethod(f"TFP({PAPER.exposure})", lambda scene, options: WindowMean(PAPER.exposure)),
    "tfi": ImageMethod("TFI", lambda scene, options: Interval()),
    "timing": ImageMethod(
        f"spike timing ({SUBFRAME_WIDTH} frames)", lambda scene, options: WindowMean(SUBFRAME_WIDTH, "timing")
    ),
}


def prepare(method: str, scene: SceneData, options: ImageOptions = ImageOptions()) -> ImageProvider:
    """The image provider ``method`` for a scene.

    Raises:
        ValueError: an unknown method, or weights that it cannot read.
    """
    if method not in PROVIDERS:
        raise ValueError(f"there is no image method {method!r}; expected one of {', '.join(PROVIDERS)}")
    return PROVIDERS[method].prepare(scene, options)
