"""The demo's still life: textured boxes, balls and a room, rendered by a ray caster that does not use Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scene.cameras import pixel_rays, supersampling
from utils.se3 import camera_centers

# Rays across the image.  Textures alias: with 2 rays across a pixel, images of 100 and 200 pixels were 34.2 and 37.9 dB
# from those with 12; with this number they are 46.3 and 43.0.
RAYS_ACROSS = 600


# ---- textures: intensity as a function of surface coordinates --------------------------------------------

_SIDE = 256  # textures repeat after this many cells, more than any surface has
_TABLE = torch.rand(_SIDE, _SIDE, generator=torch.Generator().manual_seed(1))  # rows y, columns x
# The four corners of every cell side by side: one lookup instead of four.
_CORNERS = torch.stack([_TABLE.roll((-dy, -dx), (0, 1)) for dy in (0, 1) for dx in (0, 1)], -1).reshape(-1, 4)


def _cell(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Index of the lattice cell (x, y), shifted by a seed-dependent offset."""
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


# ---- the scene: boxes rotated about the vertical axis, balls, a room --------------------------------------

# center x y (z is up), half sizes, rotation in radians, texture
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
PENUMBRA = 0.12  # width of a shadow's edge relative to the distance from the occluder

# Bounding spheres of the solids, boxes first: most rays miss most of them.
_AROUND = torch.tensor([[x, y, h[2]] for (x, y), h, _, _ in BOXES] + [list(c) for c, _, _ in BALLS])
_REACH = torch.tensor([float(np.linalg.norm(h)) for _, h, _, _ in BOXES] + [r for _, r, _ in BALLS])
_ACROSS = torch.linalg.svd(LIGHT[None])[2][1:].T  # two directions perpendicular to the light [3, 2]

_ROOM_PARTS = 3  # the floor and two pairs of walls; their owner indices come before those of the solids

# Maps ray indices [n] and the share of the light that reaches each hit [n] to intensities [n].
Shader = Callable[[Tensor, Tensor], Tensor]


def trace(origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Trace rays from one point along unit ``directions`` [R, 3]; returns intensities [R] and distances [R]."""
    # The room: floor at z = 0 and four walls; the ceiling is never in view.
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
    # Shade only visible points.
    points = origin + distance[:, None] * directions
    shade = torch.empty_like(distance)
    for axis in (0, 1):
        rays = torch.nonzero(owner == 1 + axis)[:, 0]
        shade[rays] = _wall(points[rays], axis)
    rays = torch.nonzero((owner == 0) | (owner >= _ROOM_PARTS))[:, 0]  # no shadows fall on the walls
    light = torch.ones_like(distance)
    light[rays] = lit(points[rays], owner[rays] - _ROOM_PARTS)
    rays = torch.nonzero(owner == 0)[:, 0]
    shade[rays] = _floor(points[rays], light[rays])
    for i, (rays, shader) in enumerate(solids):
        seen = torch.nonzero(owner[rays] == _ROOM_PARTS + i)[:, 0]
        shade[rays[seen]] = shader(seen, light[rays[seen]])
    return shade.clamp(0, 1), distance


def lit(points: Tensor, owner: Tensor) -> Tensor:
    """Share [n] of the light that reaches points [n, 3] past all solids except the one they lie on, ``owner`` [n]."""
    share = torch.ones(len(points))
    across, centers = points @ _ACROSS, _AROUND @ _ACROSS
    along, reach = points @ LIGHT, _AROUND @ LIGHT + _REACH
    for i in range(len(_REACH)):
        x, y = across[:, 0] - centers[i, 0], across[:, 1] - centers[i, 1]
        near = torch.nonzero((x * x + y * y < _REACH[i] ** 2) & (along < reach[i]) & (owner != i))[:, 0]
        if i < len(BOXES):
            start, direction, size = _box_frame(i, points[near], LIGHT)
            away, leave, _ = _slabs(start, direction.expand_as(start), size)
            through = torch.where(leave > 0, leave - away.clamp_min(0), -1.0)
        else:
            center, radius, _ = BALLS[i - len(BOXES)]
            offset = torch.tensor(center) - points[near]
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
    center, radius, texture = BALLS[i - len(BOXES)]
    offset = origin - torch.tensor(center)
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
    """Soft darkening of the floor around the objects on it."""
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
    """Distances [n] at which rays enter and leave a box, and the axis of the entry face."""
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


# ---- the camera's view -----------------------------------------------------------------------------------


def picture(w2c: np.ndarray, k: np.ndarray, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Render a sharp image [H, W] from one pose, and the distance [H, W] along each pixel's first ray."""
    n = supersampling(width, RAYS_ACROSS)
    pose = torch.as_tensor(w2c, dtype=torch.float32)
    rays = torch.nn.functional.normalize(pixel_rays(k, width, height, n) @ pose[:3, :3], dim=-1)
    shade, distance = trace(camera_centers(pose), rays)
    fine = shade.reshape(height, n, width, n)
    return fine.mean((1, 3)), distance.reshape(height, n, width, n)[:, 0, :, 0]


def surface(
    w2c: np.ndarray, k: np.ndarray, width: int, height: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """World positions [count, 3] and intensities [count] of random pixels seen from one pose."""
    # The distance is that of a pixel's first ray.
    return sampled(picture(w2c, k, width, height), 0.5 / supersampling(width, RAYS_ACROSS), w2c, k, count, rng)


def sampled(
    drawn: tuple[Tensor, Tensor], corner: float, w2c: np.ndarray, k: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """World positions [count, 3] and intensities [count] of random pixels of an image [H, W].

    Args:
        drawn: the image, and the distance [H, W] along a ray through each pixel.
        corner: where in its pixel that ray is, 0 to 1.
    """
    image, distance = drawn
    height, width = image.shape
    u, v = rng.integers(0, width, count), rng.integers(0, height, count)
    rays = np.stack([(u + corner - k[0, 2]) / k[0, 0], (v + corner - k[1, 2]) / k[1, 1], np.ones(count)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    camera = rays * distance.numpy()[v, u, None]
    return (camera - w2c[:3, 3]) @ w2c[:3, :3], image.numpy()[v, u]
