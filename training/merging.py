"""Merges the trained blocks of a scene (``scene.blocks``) into one model.

Blocks that started from one model (``training.starting``) trained disjoint parts of its Gaussians, in its world.

Other blocks were trained on their own, so their worlds may have drifted by a small similarity.  Views that two blocks
share tell how: each block is moved to where those views were in the block that it is attached to, beginning with the
first one.

The Gaussians in a block's core are kept and, as no others take their place, those that a block which started from a
model moved a little beyond it.  Some fly farther: they hang in front of other blocks' cameras, which never saw them in
training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from gaussians.model import PARAMETERS, GaussianModel
from gaussians.ply import GaussianParams, read_point_ply, write_point_ply
from gaussians.sh import sh_basis
from scene.blocks import Block, Region, block_name, read_block
from scene.dataset import scene_of
from scene.model_folder import (
    camera_entries,
    read_cameras,
    save_gaussians,
    save_iteration,
    why_stale,
    write_cameras,
    write_origin,
)
from scene.trajectory import Trajectory
from spike import SensorModel
from training.trained_model import TrainedModel
from utils import se3
from utils.io import write_json
from utils.json_files import number, read_json, record, table

MERGE = "merge.json"
INPUT = "input.ply"
# How far beyond its core Gaussians may move, as a share of the extent of a block's own cameras.
_BEYOND = 0.1
# Fewer shared views do not determine a scale.
_LEAST_VIEWS = 3


@dataclass(frozen=True)
class Similarity:
    """A motion of a block's world: x -> scale R x + t."""

    scale: float
    rotation: Tensor
    translation: Tensor

    @classmethod
    def none(cls) -> Similarity:
        """No motion."""
        return cls(1.0, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))

    def after(self, first: Similarity) -> Similarity:
        """The motion that does ``first``, then this one."""
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, self.points(first.translation))

    def points(self, points: Tensor) -> Tensor:
        """Points [..., 3] that move along."""
        return self.scale * points @ self.rotation.T.to(points) + self.translation.to(points)

    def poses(self, w2c: Tensor) -> Tensor:
        """World-to-camera poses [..., 4, 4] of cameras that move along; their units stay those of the new world."""
        moved = w2c.double().clone()
        moved[..., :3, :3] = w2c[..., :3, :3].double() @ self.rotation.T
        centers = self.points(se3.camera_centers(w2c.double()))
        moved[..., :3, 3] = -(moved[..., :3, :3] @ centers[..., None])[..., 0]
        return moved.to(w2c)

    def trajectory(self, path: Trajectory) -> Trajectory:
        """Curves that move along: each pose is exp(xi) A with the anchor A, and the lengths in xi scale."""
        scales = path.increments.new_tensor([self.scale] * 3 + [1.0] * 3)
        state = path.state_dict() | {
            "anchors": self.poses(path.anchors), "increments": path.increments.detach() * scales
        }  # fmt: skip
        return Trajectory.from_checkpoint(path.checkpoint() | {"state": state}, "a moved trajectory")

    def gaussians(self, g: GaussianParams) -> GaussianParams:
        """Gaussians that move along, their view-dependent colors too."""
        turn = Rotation.from_matrix(self.rotation.numpy())
        w, x, y, z = g.quats.double().unbind(-1)
        length = g.quats.double().norm(dim=-1, keepdim=True)
        turned = (turn * Rotation.from_quat(torch.stack([x, y, z, w], -1).numpy())).as_quat()
        quats = length * torch.as_tensor(np.roll(turned, 1, axis=-1))
        return replace(
            g, means=self.points(g.means.double()).float(), quats=quats.float(),
            log_scales=g.log_scales + float(np.log(self.scale)), shN=_turned_colors(g.shN, self.rotation),
        )  # fmt: skip


def _turned_colors(shn: Tensor, rotation: Tensor) -> Tensor:
    """Spherical harmonics [N, K, C] of degree 1 and up, of colors that turn with the Gaussians.

    The coefficients of a turned function are linear in those before: the matrix is found from many directions.
    """
    count = shn.shape[1]
    if not count:
        return shn
    degree = round((count + 1) ** 0.5) - 1
    random = torch.randn(8 * (count + 1), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(random, dim=-1)
    after, before = sh_basis(degree, directions)[:, 1:], sh_basis(degree, directions @ rotation)[:, 1:]
    matrix = torch.linalg.lstsq(after, before).solution
    return torch.einsum("kl,nlc->nkc", matrix, shn.double()).float()


@dataclass(frozen=True)
class TrainedBlock:
    """A trained block."""

    block: Block
    folder: Path
    model: TrainedModel
    cameras: list[dict[str, Any]]

    @classmethod
    def load(cls, folder: str | Path, source: str = "") -> TrainedBlock:
        """Open the model in ``folder``.

        Args:
            source: the block's scene folder, if it was moved.

        Raises:
            ValueError: no model, or not one of a block.
        """
        model = TrainedModel.load(folder, source=source)
        scene = Path(model.source_path)
        if not scene.is_dir():
            raise ValueError(f"{folder}: its block {scene} is not there; if the blocks were moved, give their folder")
        cameras = [entry for entry in read_cameras(folder) if entry["split"] == "train"]
        stale = why_stale(cameras, model.iteration)
        if stale is not None:
            raise ValueError(f"{folder}: {stale}")
        return cls(read_block(scene), scene, model, cameras)

    @property
    def started_from(self) -> str:
        """The model that the block started from, or nothing."""
        return str(self.model.settings.values().get("start_from", ""))

    @property
    def place(self) -> Region:
        """Where its Gaussians are kept: its core, grown a little if it started from a model."""
        centers = se3.camera_centers(self.middle_poses(self.block.own))
        beyond = _BEYOND * (centers.amax(0) - centers.amin(0)).amax() if self.started_from else centers.new_zeros(())
        return self.block.core.grown(beyond.expand(3))

    @property
    def names(self) -> list[str]:
        """Names of the training views."""
        return [entry["name"] for entry in self.cameras]

    def middle_poses(self, names: Sequence[str]) -> Tensor:
        """Poses [V, 4, 4] of views at the middle of their exposures, float64."""
        index = {name: i for i, name in enumerate(self.names)}
        half = torch.tensor([0.5])
        with torch.no_grad():
            return torch.stack([self.model.trajectory.view(index[name], half)[0] for name in names]).double()

    def read_like(self) -> dict[str, Any]:
        """What the blocks of a model must have in common."""
        settings, path = self.model.settings, self.model.settings.path
        values = settings.values()
        return {
            "--recipe": settings.recipe, "windows": self.model.target_spec,
            "points of a window": settings.window_points, "re-timing": settings.retimes,
            "--trajectory": path.trajectory, "--curve_degree": self.model.trajectory.degree,
            "--pose_opt": path.pose_opt, "--motion_init": path.motion_init, "--start_from": self.started_from,
            **{f"--{name}": values.get(name) for name in ("sh_degree", "low_pass", "antialiased")},
        }  # fmt: skip


@dataclass(frozen=True)
class Attached:
    """How a block was moved.

    Attributes:
        to: the block that it was attached to, or None.
        views: number of views that both have.
        apart: root mean square distance of these views' cameras before and after, world units.
    """

    motion: Similarity
    to: int | None = None
    views: int = 0
    apart: tuple[float, float] = (0.0, 0.0)


def load_blocks(folders: Sequence[Path], source: str = "") -> list[TrainedBlock]:
    """Open the trained blocks of a scene, in order.

    Args:
        source: the folder of the blocks, if they were moved.

    Raises:
        ValueError: blocks are missing, there twice, of different partitions, or trained in different ways.
    """
    blocks = []
    for folder in folders:
        model = TrainedModel.load(folder)
        moved = str(Path(source) / Path(model.source_path).name) if source else ""
        blocks.append(TrainedBlock.load(folder, moved))
    blocks.sort(key=lambda one: one.block.block)
    first = blocks[0]
    for one in blocks:
        if one.block.partition != first.block.partition or one.block.blocks != first.block.blocks:
            raise ValueError(f"{one.folder}: is a block of another partition than {first.folder}")
        expected = first.read_like()
        for what, value in one.read_like().items():
            if value != expected[what]:
                raise ValueError(
                    f"{one.model.folder}: {what} is {value}, expected {expected[what]} as in {first.model.folder}"
                )
    count = first.block.blocks
    times = Counter(one.block.block for one in blocks)
    for i in range(count):
        if times[i] != 1:
            name = block_name(i, count)
            there = "is missing" if not times[i] else f"is there {times[i]} times"
            raise ValueError(f"{first.folder.parent}: block {name} of {count} {there}, expected every block once")
    return blocks


def attach(blocks: Sequence[TrainedBlock]) -> list[Attached]:
    """Motions of the blocks into the world of the first, each by the views that it shares with another one.

    Blocks that started from one model are in its world already.
    """
    if blocks[0].started_from:
        return [Attached(Similarity.none())] * len(blocks)
    found: dict[int, Attached] = {0: Attached(Similarity.none())}
    names = [set(one.names) for one in blocks]
    while len(found) < len(blocks):
        pairs = [(len(names[a] & names[b]), -a, -b) for a in found for b in range(len(blocks)) if b not in found]
        count, a, b = max(pairs)
        a, b = -a, -b
        if not count:
            found[b] = Attached(Similarity.none())
            continue
        shared = sorted(names[a] & names[b])
        fixed = found[a].motion.poses(blocks[a].middle_poses(shared))
        moving = blocks[b].middle_poses(shared)
        motion = motion_between(moving, fixed)
        apart = tuple(
            float((se3.camera_centers(poses) - se3.camera_centers(fixed)).square().sum(-1).mean().sqrt())
            for poses in (moving, motion.poses(moving))
        )
        found[b] = Attached(motion, a, count, apart)  # type: ignore[arg-type]
    return [found[i] for i in range(len(blocks))]


def motion_between(moving: Tensor, fixed: Tensor) -> Similarity:
    """The similarity that best moves cameras with poses ``moving`` [V, 4, 4] to ``fixed`` [V, 4, 4].

    The rotation is that of the cameras themselves: their centers may lie on a line.
    """
    u, _, vt = torch.linalg.svd((fixed[:, :3, :3].mT @ moving[:, :3, :3]).sum(0))
    rotation = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ vt))], dtype=u.dtype)) @ vt
    before, after = se3.camera_centers(moving), se3.camera_centers(fixed)
    a, b = (before - before.mean(0)) @ rotation.T, after - after.mean(0)
    scale = float((a * b).sum() / a.square().sum()) if len(a) >= _LEAST_VIEWS and float(a.abs().max()) > 0 else 1.0
    return Similarity(scale, rotation, after.mean(0) - scale * before.mean(0) @ rotation.T)


def merge_gaussians(blocks: Sequence[TrainedBlock], motions: Sequence[Similarity]) -> list[GaussianParams]:
    """The Gaussians [n_b] that are kept of each block: those whose centers are in its ``place`` after its motion."""
    kept = []
    for one, motion in zip(blocks, motions, strict=True):
        moved = motion.gaussians(one.model.load_gaussians().params.on_cpu())
        inside = one.place.contains(moved.means)
        columns: dict[str, Any] = {name: getattr(moved, name)[inside] for name in PARAMETERS}
        kept.append(replace(moved, **columns))
    if not sum(len(part.means) for part in kept):
        raise ValueError(f"{blocks[0].folder.parent}: no block has a Gaussian in its core; were they trained?")
    return kept


def merge_trajectories(
    blocks: Sequence[TrainedBlock], motions: Sequence[Similarity], names: Sequence[str]
) -> Trajectory:
    """The curves of the views ``names``, each of the block that owns it."""
    moved = [motion.trajectory(one.model.trajectory) for one, motion in zip(blocks, motions, strict=True)]
    starts = np.cumsum([0, *(len(path.increments) for path in moved)])
    first = {}
    for one, path, start in zip(blocks, moved, starts, strict=False):
        index = {name: i for i, name in enumerate(one.names)}
        for name in one.block.own:
            if name not in index:
                raise ValueError(f"{one.model.folder}: view {name} was not trained, expected all views of {one.folder}")
            first[name] = path.first[index[name]] + float(start)
    lacking = [name for name in names if name not in first]
    if lacking:
        raise ValueError(f"{blocks[0].folder.parent}: no block has view {lacking[0]} of the scene; was it changed?")
    state = {
        "increments": torch.cat([path.increments.detach() for path in moved]),
        "anchors": torch.cat([path.anchors for path in moved]), "first": torch.stack([first[name] for name in names]),
    }  # fmt: skip
    return Trajectory.from_checkpoint(moved[0].checkpoint() | {"state": state}, "the merged trajectories")


def merge_sensors(blocks: Sequence[TrainedBlock]) -> SensorModel | None:
    """The sensor with the mean of the gains that the blocks estimated; None if none did."""
    found = [(one.model.learned_sensor, len(one.block.own)) for one in blocks]
    learned = [(sensor, views) for sensor, views in found if sensor is not None]
    if not learned:
        return None
    maps = [(sensor.gain_map, views) for sensor, views in learned if sensor.gain_map is not None]
    if not maps:
        return learned[0][0]
    logs = torch.stack([gains.log() * views for gains, views in maps]).sum(0) / sum(views for _, views in maps)
    return replace(learned[0][0], gain_map=logs.exp())


def merge(blocks: Sequence[TrainedBlock], out: Path) -> dict[str, Any]:
    """Write the model of the whole scene into ``out``; returns the content of ``merge.json``.

    Raises:
        ValueError: the whole scene cannot be read, or is not what the blocks were cut from.
    """
    first, block = blocks[0], blocks[0].block
    root = (first.folder / block.scene).resolve()
    settings = first.model.settings.replaced(
        source_path=str(root), model_path=str(out), transforms=block.transforms, eval=block.eval,
        llffhold=block.llffhold, resume=False, **({"start_from": ""} if first.started_from else {}),
    )  # fmt: skip
    scene = scene_of(settings.scene, from_images=not first.model.learns_from_spikes)
    attached = attach(blocks)
    motions = [one.motion for one in attached]
    trajectory = merge_trajectories(blocks, motions, [view.camera.name for view in scene.train])
    kept = merge_gaussians(blocks, motions)
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in kept]) for name in PARAMETERS}
    together = replace(kept[0], **columns)
    iteration = max(one.model.iteration for one in blocks)
    most = max(blocks, key=lambda one: len(one.block.own))
    made = {
        "blocks": [
            {
                "model": str(one.model.folder), "iteration": one.model.iteration, "views": len(one.block.own),
                "gaussians": len(one.model.load_gaussians()), "kept": len(part.means), "attached_to": how.to,
                "shared_views": how.views, "apart_before": how.apart[0], "apart_after": how.apart[1],
                "scale": how.motion.scale, "rotation": how.motion.rotation.tolist(),
                "translation": how.motion.translation.tolist(),
            }
            for one, part, how in zip(blocks, kept, attached, strict=True)
        ],
        "recon_net_of": most.block.block if most.model.network is not None else None,
        "across": {name: share for one in blocks for name, share in one.block.across.items()},
    }  # fmt: skip
    settings.save(out)
    write_json(out / MERGE, made)
    _merge_points(blocks, out)
    write_cameras(out, camera_entries(scene.train, trajectory, first.model.u.cpu(), iteration))
    write_origin(out, scene.origin)
    save_iteration(
        out, iteration, lambda folder: save_gaussians(folder, GaussianModel.of(together)), trajectory,
        most.model.network, merge_sensors(blocks),
    )  # fmt: skip
    return made


def _merge_points(blocks: Sequence[TrainedBlock], out: Path) -> None:
    """Write the initial points of all blocks, each in its core, where they are known."""
    parts = []
    for one in blocks:
        path = one.model.folder / INPUT
        if not path.is_file():
            return
        points, rgb = read_point_ply(path)
        inside = one.block.core.contains(points)
        parts.append((points[inside], rgb[inside]))
    write_point_ply(out / INPUT, torch.cat([xyz for xyz, _ in parts]), torch.cat([rgb for _, rgb in parts]))


def read_across(model: Path) -> dict[str, float]:
    """For each view of a merged model, the share of its image that shows other blocks than the main one.

    Raises:
        ValueError: not a merged model, or its scene had no points.
    """
    path = model / MERGE
    if not path.is_file():
        raise ValueError(f"{model}: has no {MERGE}, so it is no merged model; python -m scene merge makes one")
    across: dict[str, float] = read_json(path, record({"across": table(number(0, 1))}), "record of a merge")["across"]
    if not across:
        raise ValueError(f"{path}: no view is known to look across a boundary; the scene has no points that tell")
    return across
