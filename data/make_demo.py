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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments.command import guarded
from spike import Simulator, WindowSpec, write_dat
from utils.io import atomic_write, save_image
from utils.ply import write_point_ply

FRAMES = 177  # stored frames of a view: the context and 20 more at either end, as in the authors' data
GAP = 8  # frames between two views of the recording
SUPERSAMPLING = 2


# ---- textures: intensity as a function of the place on the surface ---------------------------------------


def _hash(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Pseudo-random numbers in [0, 1) on the integer lattice."""
    n = (x * 374761393 + y * 668265263 + seed * 974711) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF).float() / 65536


def noise(u: Tensor, v: Tensor, seed: int) -> Tensor:
    """Smooth value noise in [0, 1]."""
    x, y = u.floor().long(), v.floor().long()
    s, t = u - x, v - y
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    top = torch.lerp(_hash(x, y, seed), _hash(x + 1, y, seed), s)
    bottom = torch.lerp(_hash(x, y + 1, seed), _hash(x + 1, y + 1, seed), s)
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
LIGHT = torch.nn.functional.normalize(torch.tensor([-0.5, -0.8, 1.4]), dim=0)


Shader = Callable[[Tensor], Tensor]  # intensities [n] of the rays with the indices [n]


class Hits:
    """The nearest surface of every ray; only what is seen is shaded."""

    def __init__(self, count: int):
        self.distance = torch.full((count,), 1e9)
        self._owner = torch.full((count,), -1)
        self._shaders: list[Shader] = []

    def add(self, distance: Tensor, hit: Tensor, shader: Shader) -> None:
        closer = hit & (distance > 1e-3) & (distance < self.distance)
        self.distance = torch.where(closer, distance, self.distance)
        self._owner[closer] = len(self._shaders)
        self._shaders.append(shader)

    def shade(self) -> Tensor:
        shade = torch.zeros_like(self.distance)
        for i, shader in enumerate(self._shaders):
            rays = torch.nonzero(self._owner == i)[:, 0]
            if len(rays):
                shade[rays] = shader(rays)
        return shade.clamp(0, 1)


def trace(origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities [R] and distances [R] along rays from one point in the unit ``directions`` [R, 3]."""
    hits = Hits(len(directions))
    # The room: floor at z = 0, four walls; no ceiling within sight.
    for axis, side in ((2, 0.0), (0, -ROOM), (0, ROOM), (1, -ROOM), (1, ROOM)):
        distance = (side - origin[axis]) / directions[:, axis]
        hits.add(distance, distance > 0, partial(_room, origin, directions, distance, axis, side))
    for (x, y), half, turn, texture in BOXES:
        _box(origin, directions, (x, y), half, turn, texture, hits)
    for centre, radius, texture in BALLS:
        offset = origin - torch.tensor(centre)
        b = directions @ offset
        root = b * b - (offset @ offset - radius**2)
        distance = -b - root.clamp_min(0).sqrt()
        hits.add(distance, root > 0, partial(_ball, offset, directions, distance, radius, texture))
    return hits.shade(), hits.distance


def _room(
    origin: Tensor, directions: Tensor, distance: Tensor, axis: int, side: float, rays: Tensor
) -> Tensor:
    point = origin + distance[rays, None] * directions[rays]
    if axis == 2:
        u, v = point[:, 0], point[:, 1]
        return floor_texture(u, v) * _occlusion(u, v)
    u, v = point[:, 1 - axis], point[:, 2]
    color = wall_texture(u, v) * (0.85 if axis == 0 else 1.05)
    if axis == 1 and side > 0:
        inside = ((u + 0.3).abs() < 0.55) & ((v - 1.2).abs() < 0.7)
        color = torch.where(inside, poster_texture((u + 0.85) / 1.1, 1 - (v - 0.5) / 1.4), color)
    return color * (0.6 + 0.4 * (v / 0.5).clamp(0, 1))


def _ball(
    offset: Tensor, directions: Tensor, distance: Tensor, radius: float, texture: int, rays: Tensor
) -> Tensor:
    normal = (offset + distance[rays, None] * directions[rays]) / radius
    u, v = torch.atan2(normal[:, 1], normal[:, 0]) / (2 * torch.pi), normal[:, 2].clamp(-1, 1).asin() / torch.pi
    light = 0.45 + 0.6 * (normal @ LIGHT).clamp_min(0)
    return ball_texture(u, v + 0.5, texture) * light


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


def _box(
    origin: Tensor,
    directions: Tensor,
    place: tuple[float, float],
    half: tuple[float, float, float],
    turn: float,
    texture: int,
    hits: Hits,
) -> None:
    """Slab test in the box's own axes."""
    c, s = float(np.cos(turn)), float(np.sin(turn))
    rotation = torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    size = torch.tensor(half)
    start = rotation @ (origin - torch.tensor([place[0], place[1], half[2]]))
    directions = directions @ rotation.T
    inverse = 1 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    low, high = (-size - start) * inverse, (size - start) * inverse
    enter, axis = torch.minimum(low, high).max(-1)
    leave = torch.maximum(low, high).min(-1).values

    def shader(rays: Tensor) -> Tensor:
        point = start + enter[rays, None] * directions[rays]
        uvw = point / (2 * size.max())
        others = torch.tensor([[1, 2], [0, 2], [0, 1]])[axis[rays]]
        u, v = uvw.gather(1, others[:, :1])[:, 0] + 0.5, uvw.gather(1, others[:, 1:])[:, 0] + 0.5
        normal = torch.nn.functional.one_hot(axis[rays], 3).float() * -torch.sign(directions[rays])
        light = 0.45 + 0.65 * (normal @ (rotation @ LIGHT)).clamp_min(0)
        ground = 0.7 + 0.3 * ((point[:, 2] + size[2]) / 0.2).clamp(0, 1)
        return box_texture(u, v, texture) * light * ground

    hits.add(enter, leave > enter, shader)


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
    forward = target - eye
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    rotation = np.stack([right, down, forward], axis=1)
    w2c = np.tile(np.eye(4), (len(frames), 1, 1))
    w2c[:, :3, :3] = rotation
    w2c[:, :3, 3] = -np.einsum("fij,fj->fi", rotation, eye)
    return w2c


def picture(w2c: np.ndarray, k: np.ndarray, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Sharp image [H, W] and depth along the ray [H, W] from one pose."""
    n = SUPERSAMPLING
    x = (torch.arange(width * n) + 0.5) / n
    y = (torch.arange(height * n) + 0.5) / n
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    rays = torch.stack([(grid[:, 0] - k[0, 2]) / k[0, 0], (grid[:, 1] - k[1, 2]) / k[1, 1], torch.ones(len(grid))], -1)
    pose = torch.as_tensor(w2c, dtype=torch.float32)
    rays = torch.nn.functional.normalize(rays.float() @ pose[:3, :3], dim=-1)
    shade, distance = trace(-pose[:3, :3].T @ pose[:3, 3], rays)
    fine = shade.reshape(height, n, width, n)
    return fine.mean((1, 3)), distance.reshape(height, n, width, n)[:, 0, :, 0]


def make_view(
    view: int, out: Path, views: int, width: int, height: int, k: np.ndarray, simulator: Simulator, seed: int
) -> np.ndarray:
    """Render, simulate and write one view; returns its sub-frames' poses [M, 4, 4]."""
    torch.set_num_threads(1)
    spec, name = WindowSpec(), f"{view:03d}"
    frames = view * (FRAMES + GAP) + np.arange(FRAMES)
    poses = poses_at(frames, views * (FRAMES + GAP), seed)
    sharp = [picture(pose, k, width, height)[0] for pose in poses]
    write_dat(out / "spike_data" / f"{name}.dat", simulator((s.numpy() for s in sharp), view))
    first = (FRAMES - spec.context) // 2
    middle = spec.subframes // 2
    for m, centre in enumerate(spec.centers):
        save_image(out / "sequence" / f"{name}_{m:02d}.png", sharp[first + centre])
        if m == middle:
            save_image(out / "sharp_data" / f"{name}.png", sharp[first + centre])
    return poses[[first + centre for centre in spec.centers]]


def transforms(k: np.ndarray, width: int, height: int, frames: list[dict[str, Any]], gain: float) -> dict[str, Any]:
    return {
        "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": width, "h": height,
        "camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "spike_gain": gain, "ply_file_path": "sparse_pc.ply", "frames": frames,
    }  # fmt: skip


def write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)


def opengl(w2c: np.ndarray) -> list[list[float]]:
    """Camera-to-world with OpenGL axes, as transforms.json has it."""
    matrix: list[list[float]] = (np.linalg.inv(w2c) @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()
    return matrix


def make(out: Path, views: int, width: int, height: int, seed: int) -> None:
    """Write the whole scene into ``out``."""
    focal = 0.78 * width
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    simulator = Simulator(spurious_gap=(140, 50), seed=seed)
    work = partial(
        make_view, out=out, views=views, width=width, height=height, k=k, simulator=simulator, seed=seed
    )
    with multiprocessing.get_context("spawn").Pool() as pool:
        poses = list(tqdm(pool.imap(work, range(views)), total=views, desc="Rendering the demo's scene"))
    middle = len(poses[0]) // 2
    rng = np.random.default_rng(seed)

    def entries(table: list[np.ndarray], folder: str) -> list[dict[str, Any]]:
        return [
            {"file_path": f"{folder}/{i:03d}.png", "transform_matrix": opengl(w2c)}
            | ({"spike_path": f"spike_data/{i:03d}.dat"} if folder == "sharp_data" else {})
            for i, w2c in enumerate(table)
        ]

    mid = [p[middle] for p in poses]
    write_json(out / "transforms.json", transforms(k, width, height, entries(mid, "sharp_data"), simulator.gain))
    noisy = []
    for pose in mid:  # one degree and three per cent of the cameras' distance
        shake = np.eye(4)
        shake[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * np.deg2rad(1) / 3**0.5).as_matrix()
        shake[:3, 3] = rng.normal(size=3) * 0.03 / 3**0.5
        noisy.append(shake @ pose)
    perturbed = transforms(k, width, height, entries(noisy, "sharp_data"), simulator.gain)
    write_json(out / "transforms_noisy.json", perturbed)
    write_json(
        out / "trajectory.json",
        {
            "convention": "world-to-camera 4x4, OpenCV axes, sub-frames 0..12 of each view",
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
    points, colors = [], []
    for pose in mid:  # what structure from motion would leave: some points of each view, a little off
        image, distance = picture(pose, k, width, height)
        u, v = rng.integers(0, width, 40), rng.integers(0, height, 40)
        rays = np.stack([(u + 0.5 - k[0, 2]) / k[0, 0], (v + 0.5 - k[1, 2]) / k[1, 1], np.ones(40)], -1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        camera = rays * distance.numpy()[v, u, None]
        points.append((camera - pose[:3, 3]) @ pose[:3, :3] + rng.normal(size=(40, 3)) * 0.005)
        colors.append(image.numpy()[v, u])
    cloud = torch.as_tensor(np.concatenate(points), dtype=torch.float32)
    grey = torch.as_tensor(np.concatenate(colors), dtype=torch.float32)
    # Written last: a folder with points is complete.
    write_point_ply(out / "sparse_pc.ply", cloud, grey[:, None].expand(-1, 3))


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
    if (args.out / "sparse_pc.ply").exists():
        print(f"{args.out} is already there")
        return 0
    make(args.out, args.views, width, height, args.seed)
    print(f"The scene is in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
