"""Scenes that are too large for one training: cut into blocks, each an ordinary scene folder.

    <out>/00/transforms.json  sparse_pc.ply  ...   what the block's views need; recordings and images are links
    <out>/00/block.json                            the block's core region, its neighbors' and its views

The core regions are boxes that fill all of space: a k-d tree over the camera centers, with about equally many views.
A block is trained on the views in its core, in a margin around it, and on those that see much of it.  Of a trained
block, only the Gaussians in its core are kept (``training.merging``), as in VastGaussian (Lin et al. 2024) and
CityGaussian (Liu et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Camera
from utils.json_files import flag, items, nonempty, nullable, number, read_json, record, table, whole
from utils.se3 import camera_centers

BLOCK = "block.json"
# A view looks across a boundary if at least this share of its image shows other blocks than the one that fills most.
ACROSS = 0.1
# Points that visibility is estimated from, at most; and points in a cell of the image, on average.
_MOST_POINTS = 20_000
_POINTS_PER_CELL = 4
_MOST_CELLS = 16
# A point this much farther than the nearest one in its cell is hidden.
_HIDDEN = 1.5

_Corner = tuple[float, float, float]


@dataclass(frozen=True)
class Region:
    """A box, low <= x < high; sides without a neighbor are at infinity."""

    low: _Corner = (-math.inf,) * 3
    high: _Corner = (math.inf,) * 3

    def contains(self, points: Tensor) -> Tensor:
        """Which of the points [N, 3] are inside [N]."""
        low, high = points.new_tensor(self.low), points.new_tensor(self.high)
        return ((points >= low) & (points < high)).all(-1)

    def grown(self, margin: Tensor) -> Region:
        """The box with every side moved outwards by ``margin`` [3]."""
        low, high = torch.tensor([self.low, self.high], dtype=torch.float64)
        return Region(tuple((low - margin).tolist()), tuple((high + margin).tolist()))

    def touches(self, other: Region) -> bool:
        """Whether the two have common points on their sides."""
        sides = zip(self.low, self.high, other.low, other.high, strict=True)
        return all(a <= d and c <= b for a, b, c, d in sides)

    def cut(self, axis: int, at: float) -> tuple[Region, Region]:
        """The parts below and above a plane."""
        low, high = list(self.low), list(self.high)
        low[axis] = high[axis] = at
        return Region(self.low, tuple(high)), Region(tuple(low), self.high)  # type: ignore[arg-type]


def regions(centers: Tensor, count: int, whole: Region = Region()) -> list[Region]:
    """Cut ``whole`` into ``count`` boxes with about equally many of the camera centers [V, 3] in each.

    Each cut is across the axis along which the cameras spread most.

    Raises:
        ValueError: the cameras are too few, or in too few places.
    """
    if count == 1:
        return [whole]
    if len(centers) < count:
        raise ValueError(f"{len(centers)} views, expected at least one for each of {count} blocks")
    axis = int((centers.amax(0) - centers.amin(0)).argmax())
    along, below = centers[:, axis].sort().values, count // 2
    wanted = round(len(along) * below / count)
    # A cut lies between two cameras and leaves enough of them on either side for the blocks there.
    places = [i for i in range(below, len(along) - (count - below) + 1) if along[i - 1] < along[i]]
    if not places:
        raise ValueError(f"{len(centers)} cameras in too few places to cut them into {count} blocks")
    place = min(places, key=lambda i: abs(i - wanted))
    at = float(along[place - 1] + along[place]) / 2
    inside = centers[:, axis] < at
    low, high = whole.cut(axis, at)
    return [*regions(centers[inside], below, low), *regions(centers[~inside], count - below, high)]


def visible(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor, int]:
    """Which points [N, 3] a camera sees, by their depths alone.

    The image is divided into cells with a few points each.  What lies far behind the nearest point of its cell is
    hidden.

    Returns:
        the indices of the visible points; of these, the nearest one of each cell; and the number of cells.
    """
    local = points @ camera.w2c[:3, :3].T + camera.w2c[:3, 3]
    depth = local[:, 2]
    pixels = (local @ camera.K.T)[:, :2] / depth[:, None]
    size = torch.tensor([camera.width, camera.height])
    index = torch.nonzero((depth > 0) & ((pixels >= 0) & (pixels < size)).all(-1))[:, 0]
    across = min(max(int((len(index) / _POINTS_PER_CELL) ** 0.5), 1), _MOST_CELLS)
    column, row = (pixels[index] * across / size).long().clamp(0, across - 1).unbind(-1)
    cell, depth = row * across + column, depth[index]
    nearest = depth.new_full((across * across,), math.inf).scatter_reduce(0, cell, depth, "amin")[cell]
    seen = depth <= _HIDDEN * nearest
    by_depth = depth.argsort(stable=True)
    _, first = np.unique(cell[by_depth].numpy(), return_index=True)
    return index[seen], index[by_depth[torch.from_numpy(first)]], across * across


def thinned(points: Tensor) -> Tensor:
    """Some of the points [N, 3], evenly chosen: enough to estimate visibility."""
    return points[:: max(-(-len(points) // _MOST_POINTS), 1)]


def shown(camera: Camera, points: Tensor, cores: Sequence[Region]) -> list[float]:
    """The share of a camera's image that each block fills: of its cells, by the nearest point in each.

    Cells without points, mostly of near surfaces, belong to none.
    """
    _, nearest, cells = visible(camera, points)
    return [int(core.contains(points[nearest]).sum()) / cells for core in cores]


@dataclass(frozen=True)
class Partition:
    """Views by block.

    Attributes:
        cores: the core region of every block.
        owner: for each view, the block whose core has its camera.
        members: for each block, its views: its own, those in the margin and those that see much of it.
        across: for each view, the share of the image that shows other blocks than the one that fills most of it; None
            without points.
    """

    cores: list[Region]
    owner: list[int]
    members: list[list[int]]
    across: list[float] | None


def partition(
    cameras: Sequence[Camera], points: Tensor | None, count: int, margin: float = 0.2, seen: float = 0.1
) -> Partition:
    """Cut views into ``count`` blocks.

    Args:
        points: the scene's points [P, 3], which tell what a view sees; None: only camera centers count.
        margin: width of the margin around a core, as a share of the extent of its cameras along each axis.
        seen: a view belongs to a block that fills at least this share of its image, too.

    Raises:
        ValueError: the cameras are too few, or in too few places.
    """
    centers = camera_centers(torch.stack([camera.w2c for camera in cameras]).double())
    cores = regions(centers, count)
    inside = torch.stack([core.contains(centers) for core in cores])  # [B, V]
    shares = None
    if points is not None and len(points):
        some = thinned(points)
        shares = torch.tensor([shown(camera, some, cores) for camera in cameras])
    members = []
    for block, core in enumerate(cores):
        own = centers[inside[block]]
        near = core.grown(margin * (own.amax(0) - own.amin(0))).contains(centers)
        if shares is not None:
            near |= shares[:, block] >= seen
        members.append(torch.nonzero(near)[:, 0].tolist())
    across = None if shares is None else (shares.sum(1) - shares.amax(1)).tolist()
    return Partition(cores, inside.int().argmax(0).tolist(), members, across)


@dataclass(frozen=True)
class Neighbor:
    """A block that touches another one."""

    block: int
    core: Region


@dataclass(frozen=True)
class Block:
    """What a block's folder says about it (``block.json``).

    Attributes:
        partition: a name that the blocks of one partition share.
        block, blocks: its number, and the number of blocks.
        scene: the folder of the whole scene, relative to the block's.
        transforms, eval, llffhold: how the whole scene was read.
        core: its core region; ``neighbors`` have theirs.
        own: names of the training views in its core.
        others: names of the training views that it shares with their owners.
        across: by name, the share of a view's image that shows other blocks than the one that fills most of it; of its
            own views and of those that are held out in its core.
    """

    partition: str
    block: int
    blocks: int
    scene: str
    transforms: str
    eval: bool
    llffhold: int
    core: Region
    neighbors: list[Neighbor]
    own: list[str]
    others: list[str]
    across: dict[str, float]

    @property
    def name(self) -> str:
        """Name of the block's folder."""
        return block_name(self.block, self.blocks)

    def as_json(self) -> dict[str, Any]:
        """The content of ``block.json``; sides at infinity are null."""
        stored = asdict(self)
        for region in (stored["core"], *(neighbor["core"] for neighbor in stored["neighbors"])):
            for side in ("low", "high"):
                region[side] = [value if math.isfinite(value) else None for value in region[side]]
        return stored


def block_name(block: int, blocks: int) -> str:
    """Name of a block's folder: its number, with as many digits as the last one's."""
    return f"{block:0{max(len(str(blocks - 1)), 2)}d}"


_SIDE = items(nullable(number()), least=3)
_REGION = record({"low": _SIDE, "high": _SIDE}, closed=True)
_NAMES = items(nonempty)
_BLOCK = record(
    {
        "partition": nonempty, "block": whole(), "blocks": whole(1), "scene": nonempty, "transforms": nonempty,
        "eval": flag, "llffhold": whole(1), "core": _REGION,
        "neighbors": items(record({"block": whole(), "core": _REGION}, closed=True)), "own": _NAMES, "others": _NAMES,
        "across": table(number(0, 1)),
    },
    closed=True,
)  # fmt: skip


def read_block(folder: Path) -> Block:
    """Read what a block's folder says about it.

    Raises:
        ValueError: not the folder of a block.
    """
    path = folder / BLOCK
    if not path.is_file():
        raise ValueError(f"{folder}: has no {BLOCK}, so it is no block; python -m scene partition makes blocks")
    stored = read_json(path, _BLOCK, "block")
    core = _region(path, stored["core"])
    neighbors = [Neighbor(n["block"], _region(path, n["core"])) for n in stored["neighbors"]]
    return Block(**(stored | {"core": core, "neighbors": neighbors}))


def _region(path: Path, stored: dict[str, list[float | None]]) -> Region:
    low, high = stored["low"], stored["high"]
    if len(low) != 3 or len(high) != 3:
        raise ValueError(f"{path}: a region has {len(low)} and {len(high)} coordinates, expected 3")
    region = Region(
        tuple(-math.inf if value is None else value for value in low),  # type: ignore[arg-type]
        tuple(math.inf if value is None else value for value in high),  # type: ignore[arg-type]
    )
    if not all(a < b for a, b in zip(region.low, region.high, strict=True)):
        raise ValueError(f"{path}: a region from {low} to {high}, expected low < high")
    return region
