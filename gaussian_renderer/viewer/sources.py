"""Images of a view to show beside its renders: computed from the recording at any instant, or saved by render.py."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from gaussian_renderer.paths import SavedView
from pictures.colors import Image, rgb
from pictures.kinds import FUSED, GAUSSIANS, KINDS, LONG, RECON_NET, TFP, TIMING, TRUTH, Kind
from recon_net import SpikeToImage, instant_frames
from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure, usable_margin
from scene.manifest import MANIFEST, SPLITS, SavedImage, images_folder, read_manifest
from scene.model_folder import NOVEL
from scene.views import true_images
from spike import SensorModel, Targets, WindowSpec
from spike.targets import Mode
from utils.crops import Crop
from utils.io import load_image

# In menu order, the truth first. The viewer renders the Gaussians itself.
SHOWN = tuple(kind for kind in reversed(KINDS) if kind is not GAUSSIANS)


class Pictures(Protocol):
    """A source of images of a view."""

    def kinds(self, view: SavedView) -> list[Kind]:
        """The kinds available for a view, in the order of ``SHOWN``."""

    def nearest(self, kind: Kind, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The image nearest in time to ``u`` and its time, or None if there is none."""


@lru_cache(maxsize=64)
def _load(path: Path, changed: float) -> Image:
    """Load a saved image; ``changed`` is its modification time, so that a newer version is read again."""
    return rgb(load_image(path, channels=None))


def _nearest(files: dict[float, Path], u: float) -> tuple[Image, float] | None:
    """The image nearest to ``u``, out of ``files`` by time."""
    if not files:
        return None
    at = min(files, key=lambda time: abs(time - u))
    return _load(files[at], files[at].stat().st_mtime), at


@lru_cache(maxsize=4)
def _listed(model: Path, split: str, iteration: int, changed: float) -> list[SavedImage]:
    """Read a manifest; ``changed`` is its modification time, so that a newer version is read again."""
    return read_manifest(model, split, iteration)


class SavedPictures:
    """The images of one iteration that render.py saved in a model's folder; the only source without the recording.

    Raises:
        ValueError: a manifest is damaged (when images are asked for).
    """

    def __init__(self, model: str | os.PathLike[str], iteration: int):
        self._model, self._iteration = Path(model), iteration

    def moments(self, kind: Kind, view: SavedView) -> dict[float, Path]:
        """Files of ``kind`` by the time u of the exposure that they show."""
        if view.split not in SPLITS:
            return {}
        folder = images_folder(self._model, view.split, self._iteration)
        try:
            changed = (folder / MANIFEST).stat().st_mtime
        except OSError:
            return {}  # nothing was rendered, or it is being rendered again
        listed = _listed(self._model, view.split, self._iteration, changed)
        found = {image.u: folder / image.file for image in listed if (image.view, image.kind) == (view.name, kind.name)}
        return {u: path for u, path in found.items() if path.exists()}

    def kinds(self, view: SavedView) -> list[Kind]:
        """The kinds available for a view."""
        return [kind for kind in SHOWN if self.moments(kind, view)]

    def nearest(self, kind: Kind, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The image nearest in time to ``u`` and its time, or None if there is none."""
        return _nearest(self.moments(kind, view), u)


class RecordedPictures:
    """Images from the recording at any time of an exposure, computed on demand.

    Counted spikes (TFP) and spike timing are centered on the nearest spike frame.  Recon-Net's images are of the
    nearest instant that it was trained for.  Ground truth is the nearest that the scene has.

    Args:
        scene: the scene that the model was trained on.
        spec: the window of the model.
        exposures: reads views' exposures with the sensor of a scene, as training does (``load_exposures`` on the CPU).
        spikes: whether the model learns from spikes; otherwise from the views' images.
        subframe_width: width of the window of a timing image, spike frames.
        network: Recon-Net.
        sensor: the sensor estimated by training, if any: used for Recon-Net's input and the long exposure.
            Images from the spikes alone use the scene's own sensor.
        saved: images from render.py; the source of the fused images, which require the Gaussians.
    """

    def __init__(
        self,
        scene: SceneData,
        spec: WindowSpec,
        exposures: Callable[[list[View], SceneData], list[Exposure]],
        *,
        spikes: bool,
        subframe_width: int,
        network: SpikeToImage | None = None,
        sensor: SensorModel | None = None,
        saved: SavedPictures | None = None,
    ):
        self._scene, self._spec, self._exposures = scene, spec, exposures
        self._spikes, self._subframe_width = spikes, subframe_width
        self._fine = dataclasses.replace(spec, subframes=spec.exposure)  # one sub-frame per spike frame
        self._views = {view.camera.name: view for view in [*scene.train, *scene.test]}
        self._views |= {NOVEL + view.camera.name: view for view in scene.novel}
        self._network, self._sensor, self._saved = network, sensor or scene.sensor, saved
        # Exposures of at most two views, the current and the previous one; an exposure's frames take many megabytes.
        self._exposure = lru_cache(maxsize=2)(self._load_exposure)
        self._frames = lru_cache(maxsize=2)(self._make_frames)

    def learn(self, network: SpikeToImage | None, sensor: SensorModel | None) -> None:
        """Use the current state of training; it changes the network in place, so a copy is stored."""
        self._network = copy.deepcopy(network)
        if sensor is not None and sensor is not self._sensor:
            self._sensor = sensor
            self._exposure.cache_clear()

    def kinds(self, view: SavedView) -> list[Kind]:
        """The kinds available for a view."""
        known = self._views.get(view.name)
        if known is None:
            return []
        spikes = known.has_spikes and self._spikes
        exposed = spikes or not view.name.startswith(NOVEL)
        there = {TRUTH: bool(self._truth(known)), RECON_NET: spikes and self._network is not None}
        there |= {TIMING: spikes, TFP: spikes, LONG: exposed}
        there[FUSED] = self._saved is not None and bool(self._saved.moments(FUSED, view))
        return [kind for kind in SHOWN if there[kind]]

    def nearest(self, kind: Kind, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The image nearest in time to ``u`` and its time, or None if there is none."""
        if kind not in self.kinds(view):
            return None
        known = self._views[view.name]
        if kind == TRUTH:
            found = _nearest(self._truth(known), u)
            return found if found is None or known.camera.lens is None else (self._straight(known, found[0]), found[1])
        if kind == FUSED:
            return self._saved.nearest(kind, view, u) if self._saved is not None else None
        if kind == LONG:
            return self._shown(self._exposure(view.name).long), 0.5
        if kind == RECON_NET:
            m = min(range(self._spec.subframes), key=lambda i: abs(self._spec.times[i] - u))
            return self._shown(self._recon(self._exposure(view.name), m)), self._spec.times[m]
        frame = round(u * (self._spec.exposure - 1))
        frames = self._frames(view.name, "timing" if kind == TIMING else "counting")
        return self._shown(frames[frame].float()[None]), frame / max(self._spec.exposure - 1, 1)

    def _truth(self, view: View) -> dict[float, Path]:
        files = {self._spec.times[m]: path for m, path in true_images(view, self._spec).items()}
        # Without spikes the view's own image is the long exposure.
        if view.image_path is not None and view.image_path.exists() and self._spikes:
            files[0.5] = view.image_path
        return files

    @staticmethod
    def _straight(view: View, image: Image) -> Image:
        return rgb(view.camera.straightened(torch.from_numpy(image).permute(2, 0, 1)))

    def _shown(self, raw: Tensor) -> Image:
        mosaic = self._scene.mosaic
        return rgb(raw if mosaic is None or not self._spikes else mosaic.colors(raw))

    def _load_exposure(self, name: str) -> Exposure:
        learned = dataclasses.replace(self._scene, sensor=self._sensor)
        return self._exposures([self._views[name]], learned)[0]

    def _make_frames(self, name: str, mode: Mode) -> Tensor:
        """Intensities [T, H, W] around every frame of the exposure, in float16, which is enough for display."""
        view = self._views[name]
        stream = self._scene.open_stream(view)
        margin = usable_margin(stream, self._fine) if mode == "timing" else 0
        targets = Targets(stream.central(self._fine, margin), self._fine, self._scene.sensor, mode, margin)
        made = targets.subframes(self._subframe_width if mode == "timing" else self._spec.short)
        return view.camera.straightened(made).half()

    @torch.no_grad()
    def _recon(self, exposure: Exposure, m: int) -> Tensor:
        network = self._network
        assert network is not None
        whole = Crop.whole(exposure.camera.height, exposure.camera.width)
        device = next(network.parameters()).device
        u = torch.tensor(self._spec.times, device=device)
        return instant_frames(network, [exposure], torch.tensor([m]), u, [whole])[0]
