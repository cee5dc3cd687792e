"""Make the demo's scene: a small still life seen by a hand-held spike camera, with exact ground truth.

    python data/make_demo.py --out data/demo

Sharp pictures come from a ray caster of textured boxes, spheres and a room (nothing here knows of
Gaussians), every spike frame from a picture of its own.  The folder has the layout of real data.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.guard import guarded
from conversion.writing import opengl, write_json
from gaussians.ply import write_point_ply
from scene.cameras import look_at, pixel_rays
from simulation import Simulator
from spike import WindowSpec, write_dat
from utils.io import atomic_write, save_image

SPEC = WindowSpec()
SPARE = 20  # frames stored at either end beyond the context, as in the authors' data
FRAMES = SPEC.context + 2 * SPARE
MIDDLE = SPEC.subframes // 2
GAP = 8  # frames between two views of the recording
SUPERSAMPLING = 2
# Another number for every change that makes another scene of the same settings.
VERSION = 2
RECIPE, POINTS = "recipe.json", "sparse_pc.ply"
FILES = {"spike_data": "*.dat", "sharp_data": "*.png", "sequence": "*.png", "novel": "*.png"}
# transforms_noisy.json: root mean square errors of an initial pose, as method comparisons use them.
NOISE_DEGREES = 1.0
NOISE_LENGTH = 0.03  # 30 mm in a room in metres; the camera is 1.75 away from the still life


# ---- textures: intensity as a function of the place on the surface ---------------------------------------

_SIDE = 256  # textures repeat after as many cells; none is seen that far
_TABLE = torch.rand(_SIDE, _SIDE, generator=torch.Generator().manual_seed(1))  # rows y, columns x
# The four corners of every cell side by side: one look-up in place of four.
_CORNERS = torch.stack([_TABLE.roll((-dy, -dx), (0, 1)) for dy in (0, 1) for dx in (0, 1)], -1).reshape(-1, 4)


def _cell(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Index of the lattice cell (x, y), elsewhere for every seed."""
    mask = _SIDE - 1
    return ((y + 59 * seed) & mask) * _SIDE + ((x + 37 * seed) & mask)


def _hash(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Pseudo-random numbers in [0, 1) on the integer lattice."""
    return _TABLE.flatten()[_cell(x, y, seed)]


def noise(u: Tensor, v: Tensor, seed: int) -> Tensor:
    """Smooth value noise in [0, 1]."""
    x, y = u.floor(), v.floor()
    s, t = u - x, v - y
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    corners = _CORNERS.index_select(0, _cell(x.int(), y.int(), seed))
    top = torch.lerp(corners[:, 0], corners[:, 1], s)
    bottom = torch.lerp(corners[:, 2], corners[:, 3], s)
    return torch.lerp(top, bottom, t)


def fractal(u: Tensor, v: Tensor, seed: int, octaves: int = 3) -> Tensor:
    total = sum(noise(u * 2**i, v * 2**i, seed + i) / 2**i for i in range(octaves))
    assert isinstance(total, Tensor)
    return total / (2 - 2 ** (1 - octaves))


def soft_step(x: Tensor, width: float = 0.06) -> Tensor:
    """0 below -width, 1 above it: an edge that a small camera can resolve."""
    return ((x / width + 1) / 2).clamp(0, 1)


def checker(u: Tensor, v: Tensor) -> Tensor:
    return soft_step(torch.sin(torch.pi * u) * torch.sin(torch.pi * v), 0.15)


def bricks(u: Tensor, v: Tensor) -> Tensor:
    """1 in a brick, 0 in the mortar."""
    shifted = u + 0.5 * (v.floor() % 2)
    edge = torch.minimum((shifted % 1 - 0.5).abs() * -2 + 1, ((v % 1 - 0.5).abs() * -2 + 1) * 0.5)
    return soft_step(edge - 0.07, 0.03)


def floor_texture(u: Tensor, v: Tensor) -> Tensor:
    planks = _hash((v * 3).floor().long(), (u * 0.7 + 0.37 * (v * 3).floor()).floor().long(), 5)
    grain = fractal(u * 2, v * 30, 11)
    seam = soft_step(((v * 3) % 1 - 0.5).abs() * -1 + 0.47, 0.02)
    return (0.3 + 0.35 * planks + 0.35 * grain) * (0.35 + 0.65 * seam)


def wall_texture(u: Tensor, v: Tensor) -> Tensor:
    brick = bricks(u * 2, v * 4)
    tone = _hash((u * 2 + 0.5 * ((v * 4).floor() % 2)).floor().long(), (v * 4).floor().long(), 21)
    return 0.3 * (1 - brick) + brick * (0.45 + 0.35 * tone) * (0.75 + 0.5 * fractal(u * 9, v * 9, 31) - 0.25)


def poster_texture(u: Tensor, v: Tensor) -> Tensor:
    """Rings, a checkered border and scribbled lines of text."""
    r = ((u - 0.5) ** 2 + (v - 0.42) ** 2).sqrt()
    rings = soft_step(torch.sin(r * 50), 0.4)
    border = ((u - 0.5).abs() > 0.42) | ((v - 0.5).abs() > 0.44)
    text = (_hash((u * 34).floor().long(), (v * 22).floor().long(), 3) > 0.45) & ((v * 22) % 1 < 0.6) & (v > 0.78)
    picture = 0.15 + 0.75 * rings
    picture = torch.where(v > 0.74, torch.where(text, 0.1, 0.9), picture)
    return torch.where(border, 0.1 + 0.8 * checker(u * 16, v * 16), picture)


def box_texture(u: Tensor, v: Tensor, seed: int) -> Tensor:
    if seed % 3 == 0:
        return 0.2 + 0.7 * checker(u * 5, v * 5) * (0.7 + 0.3 * fractal(u * 12, v * 12, seed))
    if seed % 3 == 1:
        stripes = soft_step(torch.sin(2 * torch.pi * (u * 4 + 0.4 * fractal(u * 3, v * 3, seed))), 0.3)
        return 0.3 + 0.55 * stripes
    return 0.15 + 0.8 * fractal(u * 8, v * 8, seed) ** 1.4


def ball_texture(u: Tensor, v: Tensor, seed: int) -> Tensor:
    bands = soft_step(torch.sin(v * 9 * torch.pi), 0.3)
    spots = soft_step(noise(u * 14, v * 9, seed) - 0.55, 0.08)
    return 0.2 + 0.5 * bands + 0.3 * spots * (1 - bands)


# ---- the scene: boxes turned about the vertical, balls, a room -------------------------------------------

# centre x y (z is up), half sizes, turn, texture
BOXES = [
    ((0.15, 0.1), (0.32, 0.26, 0.3), 0.4, 3),
    ((-0.75, 0.35), (0.2, 0.2, 0.52), -0.3, 1),
    ((0.85, -0.25), (0.25, 0.2, 0.2), 0.9, 2),
    ((0.55, 0.75), (0.22, 0.3, 0.42), 0.15, 4),
    ((-0.3, -0.55), (0.16, 0.16, 0.14), 0.6, 5),
]
BALLS = [((0.12, 0.1, 0.82), 0.22, 7), ((-0.35, 0.6, 0.26), 0.26, 8), ((0.4, -0.5, 0.17), 0.17, 9)]
ROOM = 2.4  # half width; the camera stays well inside
LIGHT = torch.nn.functional.normalize(torch.tensor([-1.0, -0.45, 1.15]), dim=0)
PENUMBRA = 0.12  # width of a shadow's edge relative to the distance from what casts it

# Balls around the solids, boxes first: most rays miss most of them.
_AROUND = torch.tensor([[x, y, h[2]] for (x, y), h, _, _ in BOXES] + [list(c) for c, _, _ in BALLS])
_REACH = torch.tensor([float(np.linalg.norm(h)) for _, h, _, _ in BOXES] + [r for _, r, _ in BALLS])
_ACROSS = torch.linalg.svd(LIGHT[None])[2][1:].T  # two directions across the light [3, 2]

_ROOM_PARTS = 3  # the floor and two pairs of walls, whose numbers as owners come before the solids'

# Intensities [n] of the hits with the indices [n], which a share [n] of the light reaches.
Shader = Callable[[Tensor, Tensor], Tensor]


def trace(origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities [R] and distances [R] along rays from one point in the unit ``directions`` [R, 3]."""
    # The room: floor at z = 0, four walls; no ceiling within sight.
    floor = origin[2] / (-directions[:, 2]).clamp_min(1e-9)
    walls = [
        torch.where(directions[:, i] < 0, -ROOM - origin[i], ROOM - origin[i]).abs()
        / directions[:, i].abs().clamp_min(1e-9)
        for i in (0, 1)
    ]
    distance, owner = torch.stack([floor, *walls]).min(0)
    solids: list[tuple[Tensor, Shader]] = []
    offset = _AROUND - origin
    near = offset @ directions.T > ((offset * offset).sum(-1) - _REACH * _REACH).clamp_min(0).sqrt()[:, None]
    for i in range(len(_REACH)):
        rays = torch.nonzero(near[i])[:, 0]
        found, hit, shader = (_box if i < len(BOXES) else _ball)(i, origin, directions[rays])
        closer = torch.nonzero(hit & (found < distance[rays]))[:, 0]
        distance[rays[closer]] = found[closer]
        owner[rays[closer]] = _ROOM_PARTS + i
        solids.append((rays, shader))
    # Only what is seen is shaded.
    points = origin + distance[:, None] * directions
    shade = torch.empty_like(distance)
    for axis in (0, 1):
        rays = torch.nonzero(owner == 1 + axis)[:, 0]
        shade[rays] = _wall(points[rays], axis)
    rays = torch.nonzero((owner == 0) | (owner >= _ROOM_PARTS))[:, 0]  # walls stand in nobody's shadow
    light = torch.ones_like(distance)
    light[rays] = lit(points[rays], owner[rays] - _ROOM_PARTS)
    rays = torch.nonzero(owner == 0)[:, 0]
    shade[rays] = _floor(points[rays], light[rays])
    for i, (rays, shader) in enumerate(solids):
        seen = torch.nonzero(owner[rays] == _ROOM_PARTS + i)[:, 0]
        shade[rays[seen]] = shader(seen, light[rays[seen]])
    return shade.clamp(0, 1), distance


def lit(points: Tensor, owner: Tensor) -> Tensor:
    """Share [n] of the light that reaches points [n, 3] past the solids other than their own, ``owner`` [n]."""
    share = torch.ones(len(points))
    across, centres = points @ _ACROSS, _AROUND @ _ACROSS
    along, reach = points @ LIGHT, _AROUND @ LIGHT + _REACH
    for i in range(len(_REACH)):
        x, y = across[:, 0] - centres[i, 0], across[:, 1] - centres[i, 1]
        near = torch.nonzero((x * x + y * y < _REACH[i] ** 2) & (along < reach[i]) & (owner != i))[:, 0]
        if i < len(BOXES):
            start, direction, size = _box_frame(i, points[near], LIGHT)
            away, leave, _ = _slabs(start, direction.expand_as(start), size)
            through = torch.where(leave > 0, leave - away.clamp_min(0), -1.0)
        else:
            centre, radius, _ = BALLS[i - len(BOXES)]
            offset = torch.tensor(centre) - points[near]
            away = offset @ LIGHT
            through = radius - (offset - away[:, None] * LIGHT).norm(dim=-1)
        # 1 outside, falling to 0 over the penumbra
        share[near] *= 1 - (through / (0.01 + PENUMBRA * away.clamp_min(0))).clamp(0, 1)
    return share


def _floor(point: Tensor, light: Tensor) -> Tensor:
    u, v = point[:, 0], point[:, 1]
    return floor_texture(u, v) * _occlusion(u, v) * (0.45 + 0.65 * light)


def _wall(point: Tensor, axis: int) -> Tensor:
    u, v = point[:, 1 - axis], point[:, 2]
    color = wall_texture(u, v) * (0.85 if axis == 0 else 1.05)
    if axis == 1:
        inside = ((u + 0.3).abs() < 0.55) & ((v - 1.2).abs() < 0.7) & (point[:, 1] > 0)
        color = torch.where(inside, poster_texture((u + 0.85) / 1.1, 1 - (v - 0.5) / 1.4), color)
    return color * (0.6 + 0.4 * (v / 0.5).clamp(0, 1))


def _ball(i: int, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Shader]:
    centre, radius, texture = BALLS[i - len(BOXES)]
    offset = origin - torch.tensor(centre)
    b = directions @ offset
    root = b * b - (offset @ offset - radius**2)
    distance = -b - root.clamp_min(0).sqrt()

    def shader(rays: Tensor, share: Tensor) -> Tensor:
        normal = (offset + distance[rays, None] * directions[rays]) / radius
        u, v = torch.atan2(normal[:, 1], normal[:, 0]) / (2 * torch.pi), normal[:, 2].clamp(-1, 1).asin() / torch.pi
        light = 0.45 + 0.6 * (normal @ LIGHT).clamp_min(0) * share
        return ball_texture(u, v + 0.5, texture) * light

    return distance, root > 0, shader


def _occlusion(x: Tensor, y: Tensor) -> Tensor:
    """Soft darkening of the floor around what stands on it."""
    dark = torch.ones_like(x)
    for (bx, by), half, _, _ in BOXES:
        distance = ((x - bx) ** 2 + (y - by) ** 2).sqrt() - max(half[0], half[1])
        dark = dark * (1 - 0.5 * torch.exp(-distance.clamp_min(0) * 7))
    for (bx, by, bz), radius, _ in BALLS:
        if bz < 0.5:
            distance = ((x - bx) ** 2 + (y - by) ** 2).sqrt()
            dark = dark * (1 - 0.6 * torch.exp(-(distance / radius) ** 2))
    return dark


def _box_frame(i: int, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points and directions in the axes of box ``i``, and its half sizes [3]."""
    (x, y), half, turn, _ = BOXES[i]
    c, s = float(np.cos(turn)), float(np.sin(turn))
    rotation = torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return (points - torch.tensor([x, y, half[2]])) @ rotation.T, directions @ rotation.T, torch.tensor(half)


def _slabs(start: Tensor, directions: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances [n] of entering and leaving a box, and the axis of the face that is entered by."""
    inverse = 1 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    middle, reach = -start * inverse, size * inverse.abs()
    low, high = middle - reach, middle + reach
    enter = torch.maximum(torch.maximum(low[:, 0], low[:, 1]), low[:, 2])
    leave = torch.minimum(torch.minimum(high[:, 0], high[:, 1]), high[:, 2])
    axis = torch.where(enter == low[:, 0], 0, torch.where(enter == low[:, 1], 1, 2))
    return enter, leave, axis


def _box(i: int, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Shader]:
    """Slab test in the box's own axes."""
    start, directions, size = _box_frame(i, origin, directions)
    enter, leave, axis = _slabs(start, directions, size)
    texture = BOXES[i][3]

    def shader(rays: Tensor, share: Tensor) -> Tensor:
        point = start + enter[rays, None] * directions[rays]
        uvw = point / (2 * size.max())
        others = torch.tensor([[1, 2], [0, 2], [0, 1]])[axis[rays]]
        u, v = uvw.gather(1, others[:, :1])[:, 0] + 0.5, uvw.gather(1, others[:, 1:])[:, 0] + 0.5
        normal = torch.nn.functional.one_hot(axis[rays], 3).float() * -torch.sign(directions[rays])
        facing = (normal @ _box_frame(i, origin, LIGHT)[1]).clamp_min(0)
        light = 0.45 + 0.65 * facing * share
        ground = 0.7 + 0.3 * ((point[:, 2] + size[2]) / 0.2).clamp(0, 1)
        return box_texture(u, v, texture) * light * ground

    return enter, leave > enter, shader


# ---- the camera ------------------------------------------------------------------------------------------


def poses_at(frames: np.ndarray, total: int, seed: int) -> np.ndarray:
    """World-to-camera poses [F, 4, 4] (OpenCV axes) of a hand-held walk, at frames 0..total of it."""
    t = frames / total
    rng = np.random.default_rng(seed)
    angle = -np.pi / 2 + 1.05 * np.sin(2 * np.pi * t * 0.9)
    radius = 1.75 + 0.12 * np.sin(2 * np.pi * 1.7 * t + 1)
    eye = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0.95 + 0.22 * np.sin(2 * np.pi * 1.3 * t)], -1)
    target = np.stack([0.12 * np.sin(2 * np.pi * 2.1 * t), 0.15 + 0.1 * np.cos(2 * np.pi * 1.9 * t), 0.42 + 0 * t], -1)
    for _ in range(6):  # the hand's tremor: a few slow sines a direction
        period = rng.uniform(90, 260)
        phase = rng.uniform(0, 2 * np.pi, 6)
        wave = np.sin(2 * np.pi * frames[:, None] / period + phase)
        eye += 0.003 * wave[:, :3] * rng.uniform(0.5, 1)
        target += 0.008 * wave[:, 3:] * rng.uniform(0.5, 1)
    return look_at(eye, target, np.array([0.0, 0.0, 1.0]))


def picture(w2c: np.ndarray, k: np.ndarray, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Sharp image [H, W], and the distance [H, W] along each pixel's first ray, from one pose."""
    n = SUPERSAMPLING
    pose = torch.as_tensor(w2c, dtype=torch.float32)
    rays = torch.nn.functional.normalize(pixel_rays(k, width, height, n) @ pose[:3, :3], dim=-1)
    shade, distance = trace(-pose[:3, :3].T @ pose[:3, 3], rays)
    fine = shade.reshape(height, n, width, n)
    return fine.mean((1, 3)), distance.reshape(height, n, width, n)[:, 0, :, 0]


def surface(
    w2c: np.ndarray, k: np.ndarray, width: int, height: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places [count, 3] in the world and intensities [count] of random pixels of one pose."""
    image, distance = picture(w2c, k, width, height)
    u, v = rng.integers(0, width, count), rng.integers(0, height, count)
    corner = 0.5 / SUPERSAMPLING  # the distance is that of a pixel's first ray
    rays = np.stack([(u + corner - k[0, 2]) / k[0, 0], (v + corner - k[1, 2]) / k[1, 1], np.ones(count)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    camera = rays * distance.numpy()[v, u, None]
    return (camera - w2c[:3, 3]) @ w2c[:3, :3], image.numpy()[v, u]


def make_view(
    view: int, out: Path, views: int, width: int, height: int, k: np.ndarray, simulator: Simulator, seed: int
) -> np.ndarray:
    """Render, simulate and write one view; returns its sub-frames' poses [M, 4, 4]."""
    name = f"{view:03d}"
    frames = view * (FRAMES + GAP) + np.arange(FRAMES)
    poses = poses_at(frames, views * (FRAMES + GAP), seed)
    sharp = [picture(pose, k, width, height)[0] for pose in poses]
    write_dat(out / "spike_data" / f"{name}.dat", simulator((s.numpy() for s in sharp), view))
    instants = [SPARE + centre for centre in SPEC.centers]
    for m, frame in enumerate(instants):
        save_image(out / "sequence" / f"{name}_{m:02d}.png", sharp[frame])
    save_image(out / "sharp_data" / f"{name}.png", sharp[instants[MIDDLE]])
    return poses[instants]


def transforms(k: np.ndarray, width: int, height: int, frames: list[dict[str, Any]], gain: float) -> dict[str, Any]:
    return {
        "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": width, "h": height,
        "camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "spike_gain": gain, "ply_file_path": POINTS, "frames": frames,
    }  # fmt: skip


def perturbed(w2c: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose [4, 4] turned about the camera's own axes and shifted, by NOISE_DEGREES and NOISE_LENGTH (rms)."""
    shake = np.eye(4)
    shake[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * np.deg2rad(NOISE_DEGREES) / 3**0.5).as_matrix()
    shake[:3, 3] = rng.normal(size=3) * NOISE_LENGTH / 3**0.5
    return np.asarray(shake @ w2c)


@dataclass(frozen=True)
class Recipe:
    """The settings that make a scene; kept in its ``recipe.json``."""

    views: int
    width: int
    height: int
    seed: int
    version: int = VERSION

    def state(self, out: Path) -> str:
        """Whether ``out`` is ``"done"`` (this recipe's whole scene) or still ``"to make"``.

        Raises:
            ValueError: the folder holds files of another origin, which are not overwritten.
        """
        stored = out / RECIPE
        if not stored.exists():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise ValueError(
                    f"{out}: is not empty and has no {RECIPE}, so this program did not make it and does not "
                    "overwrite it; remove it or give another folder with --out"
                )
            return "to make"
        # Written first, while the points come last: a folder with both is complete.
        same = stored.read_text() == self.text() and (out / POINTS).exists()
        return "done" if same else "to make"

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1)


def clear(out: Path) -> None:
    """Remove what an earlier recipe left, the points first: without them the folder counts as unfinished."""
    for name in (POINTS, "transforms.json", "transforms_noisy.json", "trajectory.json", "novel.json"):
        (out / name).unlink(missing_ok=True)
    for folder, pattern in FILES.items():
        for file in (out / folder).glob(pattern):
            file.unlink()


def make(out: Path, recipe: Recipe, processes: int | None = None) -> None:
    """Write the whole scene into ``out``; ``processes`` 0 renders in this one, None has one a processor."""
    clear(out)
    with atomic_write(out / RECIPE, "w") as file:
        file.write(recipe.text())
    views, width, height, seed = recipe.views, recipe.width, recipe.height, recipe.seed
    focal = 0.78 * width
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    simulator = Simulator(spurious_gap=(140, 50), seed=seed)
    work = partial(
        make_view, out=out, views=views, width=width, height=height, k=k, simulator=simulator, seed=seed
    )
    progress = partial(tqdm, total=views, desc="Rendering the demo's scene")
    if processes == 0:
        poses = [work(view) for view in progress(range(views))]
    else:
        with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
            poses = list(progress(pool.imap(work, range(views))))
    rng = np.random.default_rng(seed)

    def entries(table: list[np.ndarray], folder: str) -> list[dict[str, Any]]:
        return [
            {"file_path": f"{folder}/{i:03d}.png", "transform_matrix": opengl(w2c)}
            | ({"spike_path": f"spike_data/{i:03d}.dat"} if folder == "sharp_data" else {})
            for i, w2c in enumerate(table)
        ]

    mid = [p[MIDDLE] for p in poses]
    for name, table in (("transforms.json", mid), ("transforms_noisy.json", [perturbed(p, rng) for p in mid])):
        write_json(out / name, transforms(k, width, height, entries(table, "sharp_data"), simulator.gain))
    write_json(
        out / "trajectory.json",
        {
            "convention": "world-to-camera 4x4, OpenCV axes, all sub-frames of each view",
            "w2c": {f"{i:03d}": p.tolist() for i, p in enumerate(poses)},
        },
    )
    # Held out: instants in the gaps between the views, which no spike stream covers.
    stride = FRAMES + GAP
    instants = np.array([i * stride + FRAMES + GAP / 2 for i in range(0, views - 1, 2)])
    held = poses_at(instants, views * stride, seed)
    for i, pose in enumerate(held):
        save_image(out / "novel" / f"{i:03d}.png", picture(pose, k, width, height)[0])
    write_json(out / "novel.json", transforms(k, width, height, entries(list(held), "novel"), simulator.gain))
    points, colors = zip(*[surface(pose, k, width, height, 40, rng) for pose in mid], strict=True)
    # What structure from motion would leave: some points of each view, a little off.
    noisy = np.concatenate(points) + rng.normal(size=(40 * views, 3)) * 0.005
    cloud = torch.as_tensor(noisy, dtype=torch.float32)
    grey = torch.as_tensor(np.concatenate(colors), dtype=torch.float32)
    write_point_ply(out / POINTS, cloud, grey[:, None].expand(-1, 3))


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the demo's scene.")
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help="folder to write (default: data/demo)")
    parser.add_argument("--views", type=int, default=16, help="views of the recording (default: 16)")
    parser.add_argument("--size", default="200x124", help="pixels, width x height (default: 200x124)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the path and the sensor (default: 0)")
    args = parser.parse_args()
    try:
        width, height = (int(x) for x in args.size.split("x"))
    except ValueError:
        raise ValueError(f"--size {args.size}: expected width x height, for example 200x124") from None
    if args.views < 2 or width < 16 or height < 16 or width * height % 8:
        raise ValueError("--views must be at least 2 and --size at least 16x16 with a multiple of 8 pixels")
    recipe = Recipe(args.views, width, height, args.seed)
    if recipe.state(args.out) == "done":
        print(f"{args.out} is already there")
        return 0
    make(args.out, recipe)
    print(f"The scene is in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
