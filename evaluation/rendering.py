"""Renders a trained model: training views at their sub-frames, held-out views from fitted poses, videos."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arguments import Video
from gaussian_renderer import Rasterizer
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView, read_views
from gaussian_renderer.pose_fitting import fit_pose, fit_trajectory, similarity_of
from gaussian_renderer.video import record
from pictures.kinds import FUSED, GAUSSIANS, LONG, RECON_NET, TFP, TIMING, TRUTH, Kind
from recon_net import recon_frames
from scene.cameras import View
from scene.exposure import Exposure, stuck_in_images
from scene.fusion import fuse
from scene.manifest import DEBLURRING, HELD_OUT, NOVEL_VIEWS, TRAINING_VIEWS, ImageWriter
from scene.model_folder import CAMERAS, NOVEL, camera_entries, camera_entry, read_cameras, write_cameras
from scene.trajectory import Trajectory
from scene.views import load_picture, true_images
from simulation.twin import target_noise
from spike.stuck import without
from training.merging import motion_between
from training.trained_model import TrainedModel
from utils.crops import Crop
from utils.device import on_one_thread
from utils.processes import ALONE, Processes
from utils.telling import progress

# Function from times u [T] of a view's exposure to world-to-camera poses [T, 4, 4].
PosesAt = Callable[[Tensor], Tensor]


def _refuse_another_scene(model: TrainedModel) -> None:
    """Raise an error if the scene's training views are not those that the model was trained on."""
    if not (model.folder / CAMERAS).exists():
        return
    trained = [entry["name"] for entry in read_cameras(model.folder) if entry["split"] == "train"]
    there = [view.camera.name for view in model.scene.train]
    if there != trained:
        place = next((i for i, (a, b) in enumerate(zip(there, trained, strict=False)) if a != b), None)
        differ = "" if place is None else f"; view {place + 1} is {there[place]}, expected {trained[place]}"
        raise ValueError(
            f"{model.scene.root}: not the scene that {model.folder} was trained on: it has {len(there)} training "
            f"views, expected {len(trained)}{differ}"
        )


class Renderer:
    """A trained model and everything needed to render it.

    Args:
        model: model on the device to render with.
        fit_steps: optimization steps for the pose of each held-out view.
        processes: they share the views that are written; each has its own.
    """

    def __init__(
        self, model: TrainedModel, rasterizer: Rasterizer, fit_steps: int = 150, processes: Processes = ALONE
    ):
        self.model, self.rasterizer, self.fit_steps, self.processes = model, rasterizer, fit_steps, processes
        self.scene, self.spec, self.u = model.scene, model.window_spec, model.u
        _refuse_another_scene(model)
        self.mosaic = self.scene.mosaic if model.learns_from_spikes else None
        self.trajectory, self.network = model.trajectory, model.network
        first = model.exposures(self.scene.train[:1])[0]
        self.channels = 3 if self.mosaic is not None else first.long.shape[0]
        self.field = model.load_field(self.channels, rasterizer)

    # ---- one view --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def renders(self, view: View, poses: Tensor) -> Tensor:
        """Render a view's camera from ``poses`` [M, 4, 4]: images [M, C, H, W]."""
        camera = view.camera
        k = camera.K.to(self.model.device).expand(len(poses), 3, 3)
        return self.field.render(poses, k, camera.width, camera.height).images

    def _exposures(self, views: Sequence[View], paths: Sequence[PosesAt]) -> Iterator[Exposure]:
        """The recorded exposures of ``views``; the model shapes the spikes' intervals if it did so in training.

        As many are read at a time as there are threads: the targets of all views may not fit into memory.
        """
        for first in range(0, len(views), torch.get_num_threads()):
            some = slice(first, first + torch.get_num_threads())
            sights = [partial(self._seen, view, path) for view, path in zip(views[some], paths[some], strict=True)]
            yield from self.model.exposures(views[some], sights=sights if self.model.retimes else None)

    @cached_property
    def noise(self) -> Tensor:
        """Energies of the error of the spikes' windows about the truth, by frequency (``scene.fusion``)."""
        model = self.model
        views = [
            (view.camera, self.scene.open_stream(view), partial(self._seen, view, poses_at))
            for view, poses_at in zip(self.scene.train, self._training_paths(), strict=True)
        ]
        return target_noise(views, model.target_spec, model.learned_scene.sensor, model.retimes).to(model.device)

    @torch.no_grad()
    def _seen(self, view: View, poses_at: PosesAt, times: Tensor) -> Tensor:
        """Images [K, C, H, W] of a view at the times u [K], as the sensor's pixels see them."""
        images = self.renders(view, poses_at(times.to(self.model.device)))
        return images if self.mosaic is None else self.mosaic.of(images)

    def _training_paths(self) -> list[PosesAt]:
        return [partial(self.trajectory.view, i) for i in range(len(self.scene.train))]

    @torch.no_grad()
    def frames(self, exposure: Exposure) -> Tensor | None:
        """Recon-Net's full frames [M, C, H, W], or None without a network."""
        if self.network is None:
            return None
        return recon_frames(self.network, exposure, self.u, Crop.whole(exposure.camera.height, exposure.camera.width))

    @torch.no_grad()
    def fused(self, exposure: Exposure, view: View, renders: Tensor, poses_at: PosesAt) -> Tensor | None:
        """The renders [M, C, H, W] corrected by the residuals of the spikes, or None if the model does not allow it.

        It requires Gaussians that were fitted to narrow windows (L_sub), since only those determine the direction of
        time, and intensities from spike timing: counts over so few frames are too noisy for a correction.
        """
        if exposure.subframes is None or not self.model.supervised_by_timing:
            return None
        window = self.model.quadrature
        across = torch.stack([self.renders(view, poses_at(self.u + float(offset))) for offset in window.offsets])
        seen, middle = torch.einsum("p,pmchw->mchw", window.weights.to(across), across), renders
        if self.mosaic is not None:
            seen, middle = self.mosaic.of(seen), self.mosaic.of(renders)
        stuck = stuck_in_images(self.scene.sensor, [exposure.camera])
        residual = without(None if stuck is None else stuck.to(seen.device), exposure.subframes - seen)
        corrected = fuse(middle, residual, self.noise)
        return renders + self._in_color(corrected - middle)

    def _in_color(self, raw: Tensor) -> Tensor:
        """Convert a sensor's pixels [..., 1, H, W] to an image: in color if the sensor has color filters."""
        return raw if self.mosaic is None else self.mosaic.colors(raw)

    # ---- the views of a split --------------------------------------------------------------------------------

    def write_training_views(self, images: ImageWriter) -> None:
        """Write the images of this process's training views."""
        protocol = DEBLURRING if self.model.learns_from_spikes else TRAINING_VIEWS
        own = self.processes.part(len(self.scene.train))
        views, paths = self.scene.train[own], self._training_paths()[own]
        self._write_exposures(images, protocol, views, paths)

    def write_held_out_views(self, images: ImageWriter, first: int) -> list[dict[str, Any]]:
        """Fit the poses of this process's held-out views and write their images.

        Args:
            first: number of the first entry.

        Returns:
            their entries for ``cameras.json``.
        """
        test, novel = self.scene.test, self.scene.novel
        own, own_novel = self.processes.part(len(test)), self.processes.part(len(novel))
        entries = [
            self._held_out_entry(first + i, view, path, self.u)
            for i, view, path in zip(_numbers(own), test[own], self._held_out_exposures(images, own), strict=True)
        ]
        # If the scene has no other held-out views, the sharp images are the held-out ones.
        protocol = NOVEL_VIEWS if test else HELD_OUT
        paths = self._novel_views(images, protocol, novel[own_novel])
        for i, view, path in zip(_numbers(own_novel), novel[own_novel], paths, strict=True):
            entry = self._held_out_entry(first + len(test) + i, view, path, torch.tensor([0.5]))
            entries.append(entry | {key: NOVEL + entry[key] for key in ("name", "img_name")})
        return entries

    def _held_out_entry(self, index: int, view: View, path: Tensor, times: Tensor) -> dict[str, Any]:
        return camera_entry(index, view, "test", path.cpu(), times.cpu(), self.model.iteration)

    @torch.no_grad()
    def _write_exposures(
        self,
        images: ImageWriter,
        protocol: str,
        views: Sequence[View],
        paths: Sequence[PosesAt],
    ) -> None:
        """Write views with their own exposure: the middle and, if the scene has ground truth, other sub-frames."""
        rows = zip(views, self._exposures(views, paths), paths, strict=True)
        for view, exposure, poses_at in progress(rows, "Rendering", len(views)):
            name, truths = view.camera.name, true_images(view, self.spec)

            def save(kind: Kind, image: Tensor, m: int | None = None, name: str = name) -> None:
                images.save(kind, protocol, name, m, 0.5 if m is None else self.spec.times[m], image)

            for kind, made in self._subframes(view, exposure, poses_at).items():
                save(kind, made[self.spec.middle])
                for m in truths:
                    save(kind, made[m], m)
            for kind, image in self._baselines(exposure).items():
                save(kind, image)
            if view.image_path is not None and view.image_path.exists():
                save(TRUTH, load_picture(view, view.image_path, self.channels))
            for m, path in truths.items():
                save(TRUTH, load_picture(view, path, self.channels), m)

    def _subframes(self, view: View, exposure: Exposure, poses_at: PosesAt) -> dict[Kind, Tensor]:
        """The model's images [M, C, H, W] of a view at all sub-frames."""
        renders = self.renders(view, poses_at(self.u))
        made, frames = {GAUSSIANS: renders}, self.frames(exposure)
        fused = self.fused(exposure, view, renders, poses_at)
        if fused is not None:
            made[FUSED] = fused
        if frames is not None:
            made[RECON_NET] = self._in_color(frames)
        return made

    def _baselines(self, exposure: Exposure) -> dict[Kind, Tensor]:
        """The sensor's images [C, H, W] of a view at the middle of the exposure.

        They are made without the model, except that re-timed intervals follow its renders.  Images that the model
        learned from are the truth that they would be compared with.
        """
        if not self.model.learns_from_spikes:
            return {}
        # Images counted from the spikes alone use the scene's own sensor model.
        sensor = self.scene.sensor
        counted = exposure.middle_image(sensor, "counting", self.spec.short)
        if self.model.retimes:
            timed = exposure.subframe(self.spec.middle)
        else:
            timed = exposure.middle_image(sensor, "timing", self.model.subframe_width)
        return {kind: self._in_color(x) for kind, x in ((LONG, exposure.long), (TFP, counted), (TIMING, timed))}

    # ---- held-out views --------------------------------------------------------------------------------------

    def _held_out_exposures(self, images: ImageWriter, own: slice) -> list[Tensor]:
        """Fit poses [M, 4, 4] of some views that ``--eval`` held out to their spikes or images; write their images.

        Photographs whose poses were not optimized keep theirs, as in 3DGS.
        """
        views, trained = self.scene.test, len(self.scene.train)
        if not views[own]:
            return []
        # Their initial motion is estimated from their neighbors, which are the training views.
        to_recovered = self._recovered_frame([view.camera.w2c for view in self.scene.train])
        moved = similarity_of([view.camera.w2c for view in views], **to_recovered)
        poses = torch.stack([*self._middle_poses(), *moved])
        curve = "bezier" if self.model.curve == "spline" else self.model.curve
        timing = self.model.timing([*self.scene.train, *views]) if self.model.motion_init else None
        trajectory = Trajectory(poses, curve, timing, degree=self.trajectory.degree).to(self.model.device)
        indices = [trained + i for i in _numbers(own)]
        fitted = [] if self.model.keeps_poses else list(zip(indices, views[own], strict=True))
        for index, view in progress(fitted, "Fitting held-out poses"):
            [exposure] = self.model.exposures([view])
            if exposure.subframes is not None:
                times, targets = self.u, exposure.subframes
            else:
                times, targets = self.u[self.spec.middle, None], exposure.long[None]
            with on_one_thread():  # the losses that are compared
                fit_trajectory(
                    self.field,
                    exposure.camera,
                    trajectory,
                    index,
                    times,
                    targets,
                    mosaic=self.mosaic,
                    steps=self.fit_steps,
                )
        paths = [partial(trajectory.view, index) for index in indices]
        self._write_exposures(images, HELD_OUT, views[own], paths)
        with torch.no_grad():
            return [path(self.u) for path in paths]

    def _novel_views(self, images: ImageWriter, protocol: str, novel: Sequence[View]) -> list[Tensor]:
        """Fit poses [1, 4, 4] of some held-out sharp images to these images, with the scene frozen; write both."""
        if not novel:
            return []
        truth, views = self.scene.truth or {}, self.scene.train
        # Their poses are in the world of the ground truth, which may differ from that of the initial poses.
        known = all(view.camera.name in truth for view in views)
        true = [truth[v.camera.name][len(truth[v.camera.name]) // 2] for v in views] if known else None
        to_recovered = self._recovered_frame(true or [view.camera.w2c for view in views])
        fitted = []
        for view in progress(novel, "Rendering novel views"):
            assert view.image_path is not None
            image = load_picture(view, view.image_path, self.channels).to(self.model.device)
            [start] = similarity_of([view.camera.w2c], **to_recovered)
            start = start.to(self.model.device)
            with on_one_thread():
                pose = fit_pose(self.field, view.camera, start, image, steps=self.fit_steps)[None]
            name = NOVEL + view.camera.name
            images.save(GAUSSIANS, protocol, name, None, 0.5, self.renders(view, pose)[0])
            images.save(TRUTH, protocol, name, None, 0.5, image)
            fitted.append(pose)
        return fitted

    @torch.no_grad()
    def _middle_poses(self) -> list[Tensor]:
        """Recovered mid-exposure poses [4, 4] of the training views."""
        half = torch.tensor([0.5], device=self.model.device)
        return [self.trajectory.view(i, half)[0].cpu() for i in range(len(self.scene.train))]

    def _recovered_frame(self, known: Sequence[Tensor]) -> dict[str, Any]:
        """The similarity to the recovered world from the world of ``known`` mid-exposure training poses."""
        before, after = (torch.stack([*poses]).double().cpu() for poses in (known, self._middle_poses()))
        motion = motion_between(before, after)
        return {
            "scale": motion.scale, "rotation": motion.rotation.float(), "translation": motion.translation.float()
        }  # fmt: skip

    # ---- videos ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def views(self) -> list[SavedView]:
        """All views; training views have the poses of this iteration (those in ``cameras.json`` may be of another)."""
        index = {view.camera.name: i for i, view in enumerate(self.scene.train)}
        return [
            replace(view, w2c=self.trajectory.view(index[view.name], self.u).cpu(), times=self.u.cpu())
            if view.split == "train" and view.name in index
            else view
            for view in read_views(self.model.folder)
        ]

    def video(self, video: Video) -> Path:
        """Record a video of the Gaussians along a camera path; returns its path."""
        seen = {v.camera.name: (v, p) for v, p in zip(self.scene.train, self._training_paths(), strict=True)}

        def recon(view: SavedView) -> Tensor:
            own, poses_at = seen[view.name]
            [exposure] = self._exposures([own], [poses_at])
            frames = self.frames(exposure)
            assert frames is not None
            return frames

        gaussians = self.model.load_gaussians(self.channels)
        drawing = Drawing(gaussians, self.rasterizer, surroundings=self.model.load_surroundings(self.channels))
        return record(video, self.views(), drawing, None if self.network is None else recon)


def _numbers(part: slice) -> range:
    """The numbers of the things in a part."""
    return range(part.start, part.stop)


def render_model(renderer: Renderer, train: bool = True, test: bool = True) -> None:
    """Write the images of one or both splits, and ``cameras.json`` with the poses they were rendered from.

    Each of the renderer's processes writes the images of its own views; the files are those of a single process.  The
    lists of images come last: until then, metrics.py says that the model is not completely rendered.
    """
    model, scene, processes = renderer.model, renderer.scene, renderer.processes
    splits = {"train": train, "test": test and bool(scene.test or scene.novel)}
    with ExitStack() as writers:
        images = {
            split: writers.enter_context(ImageWriter(model.folder, split, model.iteration, processes))
            for split, wanted in splits.items()
            if wanted
        }

        def write_own() -> list[dict[str, Any]]:
            if "train" in images:
                renderer.write_training_views(images["train"])
            if "test" in images:
                return renderer.write_held_out_views(images["test"], len(scene.train))
            return []

        parts = processes.exchange(json.dumps(processes.together(write_own)))
        held_out = sorted((entry for part in parts for entry in json.loads(part)), key=lambda entry: entry["id"])
        for writer in images.values():
            processes.together(writer.gather)
        if not processes.first:
            return
        if not test:
            held_out = [entry for entry in read_cameras(model.folder) if entry["split"] == "test"]
        entries = camera_entries(scene.train, renderer.trajectory, renderer.u, model.iteration)
        write_cameras(model.folder, entries + held_out)
