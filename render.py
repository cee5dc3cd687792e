"""Render a trained model: training views at their sub-frames, held-out views from fitted poses.

    python render.py -m output/tanabata
    python render.py -m output/tanabata --video trajectory
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from arguments import Config, add_model_arguments
from commands.guard import guarded
from commands.video import Video, add_video_arguments, parse_video
from gaussian_renderer import Rasterizer, render_trajectory
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView, read_views
from gaussian_renderer.pose_fitting import fit_pose, fit_trajectory, similarity_of
from gaussian_renderer.video import record
from gaussians.model import GaussianModel
from recon_net import AnyReconNet
from scene.cameras import View
from scene.dataset import SceneData, read_scene
from scene.exposure import Crop, Exposure, recon_frames
from scene.fusion import fuse
from scene.model_folder import (
    NOVEL,
    camera_entries,
    camera_entry,
    find_iteration,
    load_gaussians,
    load_learned_sensor,
    load_network,
    load_trajectory,
    read_cameras,
    write_cameras,
)
from scene.trajectory import Trajectory
from scene.views import load_exposures, load_picture, true_images, view_timing, window_spec, window_times
from utils.device import pick_device
from utils.io import save_image
from utils.trajectory_metrics import umeyama

# World-to-camera poses [T, 4, 4] of a view at times u [T] of its exposure.
PosesAt = Callable[[Tensor], Tensor]


class Renderer:
    """A trained model and everything needed to draw it."""

    def __init__(self, args: argparse.Namespace):
        self.model = args.model_path
        self.config = Config.load(self.model)
        self.device = pick_device(args.device)
        self.rasterizer: Rasterizer = get_rasterizer(args.rasterizer, self.device)
        self.iteration = find_iteration(self.model, args.iteration)
        data = self.config.data
        self.spec = window_spec(data)
        self.u = torch.tensor(self.spec.times, device=self.device)
        self.scene: SceneData = read_scene(data.source_path, data.transforms, eval=data.eval, llffhold=data.llffhold)
        # Pictures counted from the spikes alone keep the scene's own description of the sensor.
        sensor = load_learned_sensor(self.model, self.iteration)
        self.learned = self.scene if sensor is None else replace(self.scene, sensor=sensor)
        self.exposures = load_exposures(self.scene.train, self.learned, self.config, self.device)
        self.mosaic = self.scene.mosaic if data.spike else None
        self.channels = 3 if self.mosaic is not None else self.exposures[0].long.shape[0]
        self.gaussians: GaussianModel = load_gaussians(self.model, self.iteration, self.channels).to(self.device)
        self.trajectory = load_trajectory(self.model, self.iteration).to(self.device)
        network = load_network(self.model, self.iteration, self.spec.short, self.spec.long_channels)
        self.network: AnyReconNet | None = None if network is None else network.to(self.device)
        self.fit_steps = args.fit_steps
        self.quiet = args.quiet

    def folder(self, split: str) -> Path:
        return Path(self.model) / split / f"ours_{self.iteration}"

    @torch.no_grad()
    def images(self, view: View, poses: Tensor) -> Tensor:
        """Renders [M, C, H, W] from ``poses`` [M, 4, 4]."""
        camera = view.camera
        return render_trajectory(
            self.gaussians,
            poses,
            camera.K.to(self.device),
            camera.width,
            camera.height,
            self.rasterizer,
        ).images

    def colors(self, raw: Tensor) -> Tensor:
        """A sensor's pixels [..., 1, H, W] as a picture: in colour where it has colour filters."""
        return raw if self.mosaic is None else self.mosaic.colors(raw)

    @torch.no_grad()
    def frames(self, exposure: Exposure) -> Tensor | None:
        """Recon-Net's full frames [M, C, H, W], or None without a network."""
        if self.network is None:
            return None
        whole = Crop(0, exposure.camera.height, 0, exposure.camera.width)
        return recon_frames(self.network, exposure, self.u, whole, self.config.data.long_grouping)

    @torch.no_grad()
    def fused(self, exposure: Exposure, view: View, renders: Tensor, poses_at: PosesAt) -> Tensor | None:
        """The renders [M, C, H, W] corrected by what their spikes say against them, or None without such spikes.

        It takes Gaussians that were fitted to narrow windows (L_sub), since only those know the direction of time,
        and spikes by their timing: counts of so few frames are too noisy to correct anything.
        """
        by_timing = self.config.data.targets == "timing" and bool(self.config.losses.lambda_sub)
        if exposure.subframes is None or not by_timing:
            return None
        offsets, weights = (values.to(self.device) for values in window_times(self.config.data))
        window = torch.stack([self.images(view, poses_at(self.u + offset)) for offset in offsets])
        seen, middle = torch.einsum("p,pmchw->mchw", weights, window), renders
        if self.mosaic is not None:
            seen, middle = self.mosaic.of(seen), self.mosaic.of(renders)
        corrected = fuse(middle, exposure.subframes - seen, exposure.noise[None])
        return renders + self.colors(corrected - middle)

    @torch.no_grad()
    def exposure_views(
        self, split: str, views: list[View], exposures: list[Exposure], paths: Sequence[PosesAt]
    ) -> None:
        """Views with an exposure of their own: middle and, where truth exists, other sub-frames."""
        folder, middle = self.folder(split), self.spec.subframes // 2
        rows = zip(views, exposures, paths, strict=True)
        for view, exposure, poses_at in tqdm(rows, total=len(views), desc=f"Rendering {split}", disable=self.quiet):
            name, truths = view.camera.name, true_images(view, self.spec)
            pictures = {"renders": self.images(view, poses_at(self.u))}
            fused = self.fused(exposure, view, pictures["renders"], poses_at)
            if fused is not None:
                pictures["fused"] = fused
            frames = self.frames(exposure)
            if frames is not None:
                pictures["recon"] = self.colors(frames)
            for kind, images in pictures.items():
                save_image(folder / kind / f"{name}.png", images[middle], bits=16)
                for m in truths:
                    save_image(folder / kind / f"{name}_{m:02d}.png", images[m], bits=16)
            save_image(folder / "long" / f"{name}.png", self.colors(exposure.long), bits=16)
            if self.config.data.spike:
                data = self.config.data
                for kind, mode, width in (("tfp", "counting", data.short), ("timing", "timing", data.subframe_width)):
                    image = exposure.middle_image(self.scene.sensor, mode, width)
                    save_image(folder / kind / f"{name}.png", self.colors(image), bits=16)
            if view.image_path is not None and view.image_path.exists():
                save_image(folder / "gt" / f"{name}.png", load_picture(view, view.image_path, self.channels), bits=16)
            for m, path in truths.items():
                save_image(folder / "gt" / f"{name}_{m:02d}.png", load_picture(view, path, self.channels), bits=16)

    def held_out_exposures(self) -> list[Tensor]:
        """Fitted poses of the views that ``--eval`` kept back, from their own spikes."""
        exposures = load_exposures(self.scene.test, self.learned, self.config, self.device)
        # The first guess of their motion comes from their neighbours, which are the training views.
        to_recovered = self.recovered_frame([view.camera.w2c for view in self.scene.train])
        moved = similarity_of([v.camera.w2c for v in self.scene.test], **to_recovered)
        motion, trained = self.config.motion, len(self.scene.train)
        curve = "bezier" if motion.trajectory == "spline" else motion.trajectory
        timing = view_timing([*self.scene.train, *self.scene.test], self.scene, self.config)
        poses = torch.stack([*self.middle_poses(), *moved])
        trajectory = Trajectory(poses, curve, timing if motion.motion_init else None).to(self.device)
        for i, exposure in enumerate(tqdm(exposures, desc="Fitting held-out poses", disable=self.quiet)):
            targets = exposure.subframes if exposure.subframes is not None else exposure.long[None]
            times = self.u if exposure.subframes is not None else self.u[len(self.u) // 2 :][:1]
            fit_trajectory(
                self.gaussians,
                exposure.camera,
                trajectory,
                trained + i,
                times,
                targets,
                self.rasterizer,
                mosaic=self.mosaic,
                steps=self.fit_steps,
            )
        paths = [partial(trajectory.view, trained + i) for i in range(len(exposures))]
        self.exposure_views("test", self.scene.test, exposures, paths)
        with torch.no_grad():
            return [path(self.u) for path in paths]

    def novel_views(self) -> list[Tensor]:
        """Held-out sharp images: their pose fitted to the image, the scene frozen."""
        folder, truth = self.folder("test"), self.scene.truth or {}
        # They belong to the world of the truth, which need not be that of the poses training started from.
        views = self.scene.train
        known = all(view.camera.name in truth for view in views)
        true = [truth[v.camera.name][len(truth[v.camera.name]) // 2] for v in views] if known else None
        to_recovered = self.recovered_frame(true or [view.camera.w2c for view in views])
        fitted = []
        for view in tqdm(self.scene.novel, desc="Rendering novel views", disable=self.quiet):
            assert view.image_path is not None
            image = load_picture(view, view.image_path, self.channels).to(self.device)
            [start] = similarity_of([view.camera.w2c], **to_recovered)
            pose = fit_pose(
                self.gaussians,
                view.camera,
                start.to(self.device),
                image,
                self.rasterizer,
                steps=self.fit_steps,
            )
            name = f"{NOVEL}{view.camera.name}.png"
            save_image(folder / "renders" / name, self.images(view, pose[None])[0], bits=16)
            save_image(folder / "gt" / name, image, bits=16)
            fitted.append(pose[None].cpu())
        return fitted

    @torch.no_grad()
    def middle_poses(self) -> list[Tensor]:
        """Recovered poses [4, 4] of the training views at u = 0.5."""
        half = torch.tensor([0.5], device=self.device)
        return [self.trajectory.view(i, half)[0].cpu() for i in range(len(self.scene.train))]

    def recovered_frame(self, known: Sequence[Tensor]) -> dict[str, Any]:
        """The similarity to the world that training recovered, from one with ``known`` mid-exposure training poses."""
        recovered = self.middle_poses()
        centres = [
            np.stack([-(p[:3, :3].T @ p[:3, 3]).double().numpy() for p in poses]) for poses in (known, recovered)
        ]
        scale, rotation, translation = umeyama(centres[0], centres[1])
        as_tensor = {"rotation": rotation, "translation": translation}
        return {"scale": float(scale)} | {
            key: torch.as_tensor(value, dtype=torch.float32) for key, value in as_tensor.items()
        }

    @torch.no_grad()
    def views(self) -> list[SavedView]:
        """The views, the trained ones at the poses of this iteration (``cameras.json`` may have another's)."""
        index = {view.camera.name: i for i, view in enumerate(self.scene.train)}
        return [
            replace(view, w2c=self.trajectory.view(index[view.name], self.u).cpu(), times=self.u.cpu())
            if view.split == "train" and view.name in index
            else view
            for view in read_views(self.model)
        ]

    def video(self, video: Video) -> Path:
        """Record a video of the Gaussians along a camera path; returns where it is."""
        exposures = {exposure.camera.name: exposure for exposure in self.exposures}

        def recon(view: SavedView) -> Tensor:
            frames = self.frames(exposures[view.name])
            assert frames is not None
            return frames

        drawing = Drawing(self.gaussians, self.rasterizer)
        return record(video, self.views(), drawing, None if self.network is None else recon, self.quiet)


def main() -> int:
    parser = argparse.ArgumentParser(description="Render a trained model.")
    add_model_arguments(parser)
    parser.add_argument("--iteration", type=int, help="saved iteration to render (default: the newest)")
    parser.add_argument("--skip_train", action="store_true", help="no training views")
    parser.add_argument("--skip_test", action="store_true", help="no held-out views")
    parser.add_argument(
        "--fit_steps", type=int, default=150, help="steps that fit each held-out view's pose, 0: none (default: 150)"
    )
    add_video_arguments(parser)
    args = parser.parse_args()
    if args.fit_steps < 0:
        raise ValueError(f"--fit_steps must be at least 0, not {args.fit_steps}")
    if not args.model_path:
        raise ValueError("no model given: say which folder with -m, for example -m output/tanabata")
    video = parse_video(args)

    renderer = Renderer(args)
    if video.video:
        print(f"The video is in {renderer.video(video)}")
        return 0
    entries = camera_entries(renderer.scene.train, renderer.trajectory, renderer.u, renderer.iteration)
    if not args.skip_train:
        paths = [partial(renderer.trajectory.view, i) for i in range(len(renderer.scene.train))]
        renderer.exposure_views("train", renderer.scene.train, renderer.exposures, paths)
    if not args.skip_test:
        held_out = [
            ("", renderer.scene.test, renderer.held_out_exposures, renderer.u.cpu()),
            (NOVEL, renderer.scene.novel, renderer.novel_views, torch.tensor([0.5])),
        ]
        for prefix, views, fit, times in held_out:
            if not views:
                continue
            for view, path in zip(views, fit(), strict=True):
                entry = camera_entry(len(entries), view, "test", path.cpu(), times, renderer.iteration)
                entries.append(entry | {"name": prefix + entry["name"], "img_name": prefix + entry["name"]})
    else:
        entries += [entry for entry in read_cameras(args.model_path) if entry["split"] == "test"]
    write_cameras(args.model_path, entries)
    print(f"Rendered iteration {renderer.iteration}; the pictures are in {args.model_path}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
