"""Writes the blocks of a partitioned scene as scene folders.

Recordings and images are links to the files of the whole scene, which must stay where it is, seen from the blocks.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gaussians.ply import write_point_ply
from scene.blocks import BLOCK, Block, Neighbor, Partition, block_name, partition, shown, thinned, visible
from scene.cameras import View, opengl
from scene.dataset import CALIBRATION, POINTS, SceneData
from scene.lens import IS_FISHEYE, FisheyeLens
from scene.model_folder import NOVEL
from scene.views import view_timing
from spike import WindowSpec, save_sensor
from utils.io import partial_folder, write_json
from utils.se3 import camera_centers
from utils.telling import progress


def write_blocks(
    scene: SceneData, out: Path, count: int, margin: float, seen: float, view_spacing: float, read_as: dict[str, Any]
) -> list[Block]:
    """Cut a scene into blocks and write their folders ``out/00``, ``out/01``, ...

    Args:
        out: a folder that does not exist.
        margin, seen: see ``scene.blocks.partition``.
        view_spacing: see ``scene.views.view_timing``.
        read_as: ``transforms``, ``eval`` and ``llffhold`` with which the scene was read.

    Raises:
        ValueError: too few cameras, or files that cannot be linked.
    """
    cut = partition([view.camera for view in scene.train], scene.points, count, margin, seen)
    # A block lacks some views, so their order alone no longer says when each was exposed.
    usual = WindowSpec().exposure
    middles = view_timing(scene.train, scene, usual, view_spacing).middle * (usual - 1)
    name = uuid.uuid4().hex
    blocks = []
    with partial_folder(out) as staging:
        for number in progress(range(count), "Writing blocks"):
            folder = staging / block_name(number, count)
            # Links are seen from where the folder will be.
            writer = _Writer(scene, folder, out / folder.name)
            block = _block(scene, cut, number, name, os.path.relpath(scene.root, out / folder.name), read_as)
            views = [scene.train[i] for i in cut.members[number]]
            writer.write_views(views, [float(middles[i]) for i in cut.members[number]])
            inside = _in_core(scene, cut, number)
            writer.write_novel([view for view in scene.novel if NOVEL + view.camera.name in inside])
            write_json(folder / BLOCK, block.as_json())
            blocks.append(block)
        os.rename(staging, out)
    return blocks


def _in_core(scene: SceneData, cut: Partition, number: int) -> dict[str, View]:
    """The held-out views whose cameras are in a block's core, by the names that render.py gives them."""
    views = {view.camera.name: view for view in scene.test} | {NOVEL + v.camera.name: v for v in scene.novel}
    if not views:
        return {}
    centers = camera_centers(torch.stack([view.camera.w2c for view in views.values()]).double())
    inside = cut.cores[number].contains(centers).tolist()
    return {name: view for (name, view), own in zip(views.items(), inside, strict=True) if own}


def _block(
    scene: SceneData, cut: Partition, number: int, name: str, root: str, read_as: dict[str, Any]
) -> Block:
    names = [view.camera.name for view in scene.train]
    own = [i for i, owner in enumerate(cut.owner) if owner == number]
    across: dict[str, float] = {}
    if cut.across is not None and scene.points is not None:
        across = {names[i]: cut.across[i] for i in own}
        some = thinned(scene.points)
        for held_out, view in _in_core(scene, cut, number).items():
            shares = shown(view.camera, some, cut.cores)
            across[held_out] = sum(shares) - max(shares)
    core = cut.cores[number]
    neighbors = [
        Neighbor(i, other) for i, other in enumerate(cut.cores) if i != number and core.touches(other)
    ]
    others = [names[i] for i in cut.members[number] if cut.owner[i] != number]
    return Block(
        name, number, len(cut.cores), root, **read_as, core=core, neighbors=neighbors, own=[names[i] for i in own],
        others=others, across={key: round(min(max(share, 0.0), 1.0), 4) for key, share in across.items()},
    )  # fmt: skip


class _Writer:
    """Writes the scene folder of one block.

    Args:
        folder: where to write.
        final: where the folder will be in the end.
    """

    def __init__(self, scene: SceneData, folder: Path, final: Path):
        self._scene, self._folder, self._final = scene, folder, final
        folder.mkdir()

    def write_views(self, views: Sequence[View], middles: Sequence[float]) -> None:
        """Write the poses, points and sensor of some training views, which are exposed at the frames ``middles``."""
        scene = self._scene
        if views[0].has_spikes and views[0].spike_path is None:
            raise ValueError(f"{scene.root}: its spikes are in memory; only a scene in a folder can be partitioned")
        layout = {name: value for name, value in asdict(scene.layout).items() if value is not None}
        spike: dict[str, Any] = scene.sensor.to_dict() | layout
        if scene.mosaic is not None:
            spike["bayer"] = scene.mosaic.pattern
        frames = []
        for view, middle in zip(views, middles, strict=True):
            frames.append(self._frame(view) | {"recording": view.recording, "middle_frame": middle})
            if view.spike_path is not None:
                frames[-1]["spike_path"] = self._link(view.spike_path, "spike_data")
            for path in view.sequence_paths.values():
                self._link(path, "sequence")
        write_json(self._folder / "transforms.json", {"spike": spike, "frames": frames})
        if (scene.root / CALIBRATION).is_file() or scene.sensor.stuck is not None:
            save_sensor(self._folder / CALIBRATION, scene.sensor)
        known = scene.truth or {}
        truth = {view.camera.name: known[view.camera.name] for view in views if view.camera.name in known}
        if truth:
            write_json(self._folder / "trajectory.json", {"w2c": {name: w2c.tolist() for name, w2c in truth.items()}})
        if scene.points is not None and scene.rgb is not None and len(scene.points):
            seen = torch.zeros(len(scene.points), dtype=torch.bool)
            for view in views:
                seen[visible(view.camera, scene.points)[0]] = True
            write_point_ply(self._folder / POINTS, scene.points[seen], scene.rgb[seen])

    def write_novel(self, views: Sequence[View]) -> None:
        """Write the held-out sharp images."""
        if views:
            write_json(self._folder / "novel.json", {"frames": [self._frame(view) for view in views]})

    def _frame(self, view: View) -> dict[str, Any]:
        camera, lens = view.camera, view.camera.lens
        k = camera.K.double()
        fx, fy, cx, cy = map(float, (k[0, 0], k[1, 1], k[0, 2], k[1, 2])) if lens is None else lens.intrinsics
        entry: dict[str, Any] = {
            "name": camera.name, "file_path": f"sharp_data/{camera.name}.png",
            "transform_matrix": opengl(camera.w2c.double().numpy()),
            "w": camera.width, "h": camera.height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy,
        }  # fmt: skip
        if view.image_path is not None:
            entry["file_path"] = self._link(view.image_path, "images")
        if lens is None:
            return entry
        bent = dict(zip(lens.names, lens.coefficients, strict=True))
        return entry | bent | ({IS_FISHEYE: True} if isinstance(lens, FisheyeLens) else {"camera_model": "FULL_OPENCV"})

    def _link(self, path: Path, other: str) -> str:
        """Link a file of the scene under its name there, or in the folder ``other``; returns that name."""
        root = self._scene.root
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else f"{other}/{path.name}"
        link, place = self._folder / name, (self._final / name).parent
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            try:
                link.symlink_to(os.path.relpath(path.absolute(), place.absolute()))
            except OSError as error:
                raise ValueError(f"{self._final / name}: could not be linked to {path} ({error.strerror})") from None
        return name
