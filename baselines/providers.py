"""The methods that make images from the spikes of one view, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arguments.parts import SUBFRAME_WIDTH, BlindSpotOptions, ImageOptions, RunOptions
from baselines.blind_spot import BlindSpot, learn_blind_spot, load_blind_spot, save_blind_spot
from baselines.images import ImageProvider, Interval, WindowMean
from baselines.spk2imgnet import Spk2Img, load_small, load_spk2imgnet
from scene.dataset import SceneData, refuse_distortion
from spike.window import PAPER
from utils.device import pick_device


@dataclass(frozen=True)
class ImageMethod:
    """A method's title in tables, and a function that prepares it for a scene: reads weights, or learns them."""

    title: str
    prepare: Callable[[SceneData, ImageOptions, RunOptions], ImageProvider]


def published_spk2imgnet(scene: SceneData, options: ImageOptions, run: RunOptions) -> Spk2Img:
    """Spk2ImgNet with a file of the published weights.

    Raises:
        ValueError: no file given, or it does not fit.
    """
    if not options.spk2imgnet_weights:
        raise ValueError(
            "Spk2ImgNet needs its published weights: --spk2imgnet_weights FILE, such as spk2imgnet.pth of Spike-Zoo's "
            "release v0.1.0"
        )
    return Spk2Img(load_spk2imgnet(options.spk2imgnet_weights).to(pick_device(run.device)))


def small_spk2imgnet(scene: SceneData, options: ImageOptions, run: RunOptions) -> Spk2Img:
    """The small Spk2ImgNet with the weights of this repository, which no scene has changed."""
    return Spk2Img(load_small().to(pick_device(run.device)))


def blind_spot(scene: SceneData, options: BlindSpotOptions, run: RunOptions) -> BlindSpot:
    """The blind-spot network of a scene: read from ``options.bsn_weights``, or trained on the training views' spikes.

    Raises:
        ValueError: cameras with a lens, or the file does not fit or cannot be written.
    """
    refuse_distortion(scene.root, scene.train, "the blind-spot network makes images in the sensor's pixels")
    device, path = pick_device(run.device), Path(options.bsn_weights)
    if options.bsn_weights and path.exists():
        return BlindSpot(load_blind_spot(path).to(device))
    streams = [scene.open_stream(view) for view in scene.train]
    network = learn_blind_spot(
        streams, scene.sensor.gain, options.bsn_width, options.bsn_steps, run.seed, device
    )
    if options.bsn_weights:
        save_blind_spot(path, network)
    return BlindSpot(network)


# The name of the method that learns from the scene first.
BLIND_SPOT = "bsn"
PROVIDERS = {
    "tfp": ImageMethod(f"TFP({PAPER.short})", lambda scene, options, run: WindowMean(PAPER.short)),
    "tfp-long": ImageMethod(f"TFP({PAPER.exposure})", lambda scene, options, run: WindowMean(PAPER.exposure)),
    "tfi": ImageMethod("TFI", lambda scene, options, run: Interval()),
    "timing": ImageMethod(
        f"spike timing ({SUBFRAME_WIDTH} frames)", lambda scene, options, run: WindowMean(SUBFRAME_WIDTH, "timing")
    ),
    "spk2imgnet": ImageMethod("Spk2ImgNet", published_spk2imgnet),
    "spk2imgnet-s": ImageMethod("Spk2ImgNet-S", small_spk2imgnet),
    BLIND_SPOT: ImageMethod("BSN (SpikeGS)", blind_spot),
}


def prepare(
    method: str,
    scene: SceneData,
    options: ImageOptions = ImageOptions(),
    run: RunOptions = RunOptions(),
) -> ImageProvider:
    """The image provider ``method`` for a scene; methods that learn use the device and seed of ``run``.

    Raises:
        ValueError: an unknown method, cameras with a lens, or weights that it lacks or cannot read.
    """
    if method not in PROVIDERS:
        raise ValueError(f"there is no image method {method!r}; expected one of {', '.join(PROVIDERS)}")
    refuse_distortion(scene.root, scene.train, f"{PROVIDERS[method].title} makes images in the sensor's pixels")
    return PROVIDERS[method].prepare(scene, options, run)
