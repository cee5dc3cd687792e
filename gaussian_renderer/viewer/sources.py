"""Pictures of a view beside its renders: from the recording itself at any instant, or those that render.py left."""

from __future__ import annotations

import copy
import dataclasses
import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from arguments import Config
from gaussian_renderer.paths import SavedView
from pictures.colors import Image, rgb
from recon_net import AnyReconNet
from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Crop, Exposure, instant_frames, usable_margin
from scene.model_folder import NOVEL
from scene.views import load_exposures, true_images, window_spec
from spike import SensorModel, Targets
from spike.targets import Mode
from utils.io import load_image

TRUTH, FUSED, RECON, TIMING, TFP, LONG = "truth", "fused", "Recon-Net", "spike timing", "TFP", "long exposure"
# In the order of the viewer's list, with the folders that render.py writes them to.
FOLDERS = {TRUTH: "gt", FUSED: "fused", RECON: "recon", TIMING: "timing", TFP: "tfp", LONG: "long"}


class Pictures(Protocol):
    """Where pictures of a view come from."""

    def kinds(self, view: SavedView) -> list[str]:
        """What there is of a view, keys of ``FOLDERS``."""

    def nearest(self, kind: str, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The picture nearest in time to ``u`` and its own time, or None where there is none."""


@lru_cache(maxsize=64)
def _load(path: Path, changed: float) -> Image:
    """A saved picture; ``changed`` is its time of change, so that a newer one is read again."""
    return rgb(load_image(path, channels=None))


def _nearest(files: dict[float, Path], u: float) -> tuple[Image, float] | None:
    """The picture among ``files`` by time that is nearest to ``u``."""
    if not files:
        return None
    at = min(files, key=lambda time: abs(time - u))
    return _load(files[at], files[at].stat().st_mtime), at


class SavedPictures:
    """The pictures of one iteration that render.py left in a model's folder: all there is without the recording."""

    def __init__(self, model: str | os.PathLike[str], iteration: int):
        self._folders = {split: Path(model) / split / f"ours_{iteration}" for split in ("train", "test")}

    def moments(self, kind: str, view: SavedView) -> dict[float, Path]:
        """Files of ``kind`` by the time u of the exposure that they show."""
        folder = self._folders[view.split] / FOLDERS[kind]
        files = [(float(u), folder / f"{view.name}_{m:02d}.png") for m, u in enumerate(view.times)]
        return {u: path for u, path in [*files, (0.5, folder / f"{view.name}.png")] if path.exists()}

    def kinds(self, view: SavedView) -> list[str]:
        """What there is of a view."""
        return [kind for kind in FOLDERS if self.moments(kind, view)]

    def nearest(self, kind: str, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The picture nearest in time to ``u`` and its own time, or None where there is none."""
        return _nearest(self.moments(kind, view), u)


class RecordedPictures:
    """What the recording shows at any time of an exposure, made when it is looked at.

    Counted spikes (TFP) and spike timing are centred on the nearest spike frame, Recon-Net's pictures on the
    nearest of the instants it was trained for, the truth is the nearest that the scene has.

    Args:
        scene, config: what was trained on.
        network: Recon-Net.
        sensor: the sensor as training found it, where it did: Recon-Net's input and the long exposure are read
            with it.  Pictures from the spikes alone keep the scene's own.
        saved: what render.py left: the fused pictures, which take the Gaussians, are its.
    """

    def __init__(
        self,
        scene: SceneData,
        config: Config,
        network: AnyReconNet | None,
        sensor: SensorModel | None = None,
        saved: SavedPictures | None = None,
    ):
        self._scene, self._config, self._spec = scene, config, window_spec(config.data)
        self._fine = dataclasses.replace(self._spec, subframes=self._spec.exposure)  # a sub-frame each spike frame
        self._views = {view.camera.name: view for view in [*scene.train, *scene.test]}
        self._views |= {NOVEL + view.camera.name: view for view in scene.novel}
        self._network, self._sensor, self._saved = network, sensor or scene.sensor, saved
        # Of one or two views: the one looked at, and the one before; an exposure's frames fill many megabytes.
        self._exposure = lru_cache(maxsize=2)(self._load_exposure)
        self._frames = lru_cache(maxsize=2)(self._make_frames)

    def learn(self, network: AnyReconNet | None, sensor: SensorModel | None) -> None:
        """Take what training has reached; it changes the network in place, so a copy is kept."""
        self._network = copy.deepcopy(network)
        if sensor is not None and sensor is not self._sensor:
            self._sensor = sensor
            self._exposure.cache_clear()

    def kinds(self, view: SavedView) -> list[str]:
        """What there is of a view."""
        known = self._views.get(view.name)
        if known is None:
            return []
        spikes = known.has_spikes and self._config.data.spike
        exposed = spikes or not view.name.startswith(NOVEL)
        there = {TRUTH: bool(self._truth(known)), RECON: spikes and self._network is not None}
        there |= {TIMING: spikes, TFP: spikes, LONG: exposed}
        there[FUSED] = self._saved is not None and bool(self._saved.moments(FUSED, view))
        return [kind for kind in FOLDERS if there[kind]]

    def nearest(self, kind: str, view: SavedView, u: float) -> tuple[Image, float] | None:
        """The picture nearest in time to ``u`` and its own time, or None where there is none."""
        if kind not in self.kinds(view):
            return None
        known = self._views[view.name]
        if kind == TRUTH:
            return _nearest(self._truth(known), u)
        if kind == FUSED:
            return self._saved.nearest(kind, view, u) if self._saved is not None else None
        if kind == LONG:
            return self._shown(self._exposure(view.name).long), 0.5
        if kind == RECON:
            m = min(range(self._spec.subframes), key=lambda i: abs(self._spec.times[i] - u))
            return self._shown(self._recon(self._exposure(view.name), m)), self._spec.times[m]
        frame = round(u * (self._spec.exposure - 1))
        frames = self._frames(view.name, "timing" if kind == TIMING else "counting")
        return self._shown(frames[frame].float()[None]), frame / max(self._spec.exposure - 1, 1)

    def _truth(self, view: View) -> dict[float, Path]:
        files = {self._spec.times[m]: path for m, path in true_images(view, self._spec).items()}
        # Without spikes the view's own image is the long exposure.
        if view.image_path is not None and view.image_path.exists() and self._config.data.spike:
            files[0.5] = view.image_path
        return files

    def _shown(self, raw: Tensor) -> Image:
        mosaic = self._scene.mosaic
        return rgb(raw if mosaic is None or not self._config.data.spike else mosaic.colors(raw))

    def _load_exposure(self, name: str) -> Exposure:
        learned = dataclasses.replace(self._scene, sensor=self._sensor)
        return load_exposures([self._views[name]], learned, self._config, torch.device("cpu"))[0]

    def _make_frames(self, name: str, mode: Mode) -> Tensor:
        """Intensities [T, H, W] about every frame of the exposure, float16: enough to look at."""
        stream = self._scene.open_stream(self._views[name])
        margin = usable_margin(stream, self._fine) if mode == "timing" else 0
        targets = Targets(stream.central(self._fine, margin), self._fine, self._scene.sensor, mode, margin)
        return targets.subframes(self._config.data.subframe_width if mode == "timing" else self._spec.short).half()

    @torch.no_grad()
    def _recon(self, exposure: Exposure, m: int) -> Tensor:
        network = self._network
        assert network is not None
        whole = Crop(0, exposure.camera.height, 0, exposure.camera.width)
        device = next(network.parameters()).device
        u = torch.tensor(self._spec.times, device=device)
        grouping = self._config.data.long_grouping
        return instant_frames(network, [exposure], torch.tensor([m]), u, [whole], grouping)[0][0]
