"""Renders textured triangle meshes with a pinhole camera: rays by Embree, files by trimesh.

A recording simulated from a mesh has exact truth: every spike frame is rendered from its own pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
from numpy.typing import NDArray

from gaussians.ply_table import read_header
from scene.cameras import pixel_rays, supersampling
from utils.io import LUMA, MOST_PIXELS
from utils.json_files import items, parse_json, record, text, whole
from utils.reading import inside, read_bytes, reading, require_file
from utils.trajectory_metrics import centers

Floats = NDArray[np.float32]

# Rays across the image.  Textures are filtered, but edges alias: with 2 rays across a pixel, images of 100 and 200
# pixels were 39.3 and 41.6 dB from those with 12; with this number they are 52.0 and 49.8.
_RAYS_ACROSS = 800
# Intensity of the background, and lighting of surfaces without colors.
BACKGROUND = 0.25
# Largest coordinate of a vertex: rays are traced in single precision.
_FARTHEST = 1e12
_BUFFER = record({}, {"byteLength": whole(), "uri": text()})
_GLTF = record(
    {},
    {"accessors": items(record({"count": whole()})), "buffers": items(_BUFFER), "images": items(_BUFFER)},
)
_GRAY, _AMBIENT = 0.8, 0.35
_LAMP = np.array([0.4, 0.8, 0.45]) / np.linalg.norm([0.4, 0.8, 0.45])


@dataclass(frozen=True)
class Pyramid:
    """Mipmaps of a texture down to one pixel: ``texels`` [N, C], the start and the (height, width) of each level."""

    texels: Floats
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, image: Floats) -> Pyramid:
        """The pyramid of a texture [H, W, C]."""
        levels = [image]
        while max(levels[-1].shape[:2]) > 1:
            height, width = (max(n // 2, 1) for n in levels[-1].shape[:2])
            smaller = cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(smaller.reshape(height, width, -1), np.float32))
        sizes = np.array([level.shape[:2] for level in levels])
        starts = np.concatenate([[0], np.cumsum(sizes.prod(1))[:-1]])
        return cls(np.concatenate([level.reshape(-1, image.shape[2]) for level in levels]), starts, sizes)

    def at(self, uv: Floats, footprint: Floats) -> Floats:
        """Colors [n, C] at ``uv`` [n, 2] (v up, repeating), averaged over ``footprint`` [n] texels."""
        level = np.log2(np.maximum(footprint, 1e-6)).clip(0, len(self.sizes) - 1)
        below = np.floor(level).astype(np.int64)
        share = (level - below).astype(np.float32)[:, None]
        above = np.minimum(below + 1, len(self.sizes) - 1)
        return self._bilinear(uv, below) * (1 - share) + self._bilinear(uv, above) * share

    def _bilinear(self, uv: Floats, level: NDArray[np.int64]) -> Floats:
        height, width = self.sizes[level].T
        x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        s, t = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]

        def texel(dx: int, dy: int) -> Floats:
            return self.texels[self.starts[level] + (top + dy) % height * width + (left + dx) % width]

        upper = texel(0, 0) * (1 - s) + texel(1, 0) * s
        return np.asarray(upper * (1 - t) + (texel(0, 1) * (1 - s) + texel(1, 1) * s) * t, np.float32)


@dataclass(frozen=True)
class Part:
    """Faces [F, 3] of one material: ``vertices`` [V, 3], ``colors`` [V, C], a texture and its ``uv`` [V, 2]."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    colors: Floats
    texture: Pyramid | None
    uv: Floats | None


class Mesh:
    """A mesh that can be rendered.

    Args:
        parts: its parts, one per material.
        channels: image channels, 1 (gray) or 3 (RGB).

    Raises:
        ValueError: the ray tracing package embreex is not installed.
    """

    def __init__(self, parts: list[Part], channels: int):
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError:
            raise ValueError("meshes need the package embreex: pip install embreex") from None
        self.parts = parts
        self.channels = channels
        vertices = np.concatenate([part.vertices for part in parts])
        self.low, self.high = vertices.min(0), vertices.max(0)
        # Embree uses single precision, which is most accurate near the origin: center the mesh there.
        self._middle = (self.low + self.high) / 2
        self._corners = [(part.vertices - self._middle)[part.faces].astype(np.float32) for part in parts]
        self._ends = np.cumsum([len(part.faces) for part in parts])
        self._embree = rtcore_scene.EmbreeScene()
        TriangleMesh(self._embree, np.concatenate(self._corners))

    def picture(self, w2c: NDArray[np.float64], k: NDArray[np.float64], width: int, height: int) -> Floats:
        """Render a sharp image [H, W] or [H, W, 3] from a world-to-camera pose (OpenCV axes)."""
        n = supersampling(width, _RAYS_ACROSS)
        rays = np.ascontiguousarray((pixel_rays(k, width, height, n).numpy() @ w2c[:3, :3]).astype(np.float32))
        eye = centers(w2c) - self._middle
        origins = np.ascontiguousarray(np.broadcast_to(eye.astype(np.float32), rays.shape))
        hit = self._embree.run(origins, rays, query="INTERSECT", output=True)
        image = np.full((len(rays), self.channels), BACKGROUND, np.float32)
        owner = np.searchsorted(self._ends, hit["primID"], side="right")
        owner[hit["primID"] < 0] = -1
        for index, part in enumerate(self.parts):
            seen = np.flatnonzero(owner == index)
            if len(seen):
                face = hit["primID"][seen] - (self._ends[index] - len(part.faces))
                weights = np.stack([1 - hit["u"][seen] - hit["v"][seen], hit["u"][seen], hit["v"][seen]], -1)
                pixel = hit["tfar"][seen] / (k[0, 0] * n)
                image[seen] = self._shade(part, self._corners[index][face], face, weights, rays[seen], pixel)
        image = image.reshape(height, n, width, n, self.channels).mean((1, 3))
        return image[..., 0] if self.channels == 1 else image

    def _shade(
        self, part: Part, corners: Floats, face: NDArray[np.int64], weights: Floats, rays: Floats, pixel: Floats
    ) -> Floats:
        """Colors [n, C] where rays hit faces; ``pixel`` [n] is the width of a ray there, in world units."""
        vertices = part.faces[face]
        color = np.einsum("nk,nkc->nc", weights, part.colors[vertices])
        sides = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        normal = np.cross(*sides)
        doubled = np.maximum(np.linalg.norm(normal, axis=-1), 1e-20)
        normal = normal / doubled[:, None]
        if part.texture is not None and part.uv is not None:
            uv = part.uv[vertices]
            height, width = part.texture.sizes[0]
            a, b = (uv[:, 1] - uv[:, 0]) * (width, height), (uv[:, 2] - uv[:, 0]) * (width, height)
            texels = np.sqrt(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / doubled)  # texels per world unit
            # At a grazing angle a ray covers more in one direction only: use the geometric mean of both.
            facing = np.abs((normal * rays).sum(-1)) / np.linalg.norm(rays, axis=-1)
            footprint = texels * pixel / np.sqrt(np.maximum(facing, 0.05))
            at = np.einsum("nk,nkc->nc", weights, uv).astype(np.float32)
            return np.asarray(color * part.texture.at(at, footprint.astype(np.float32)), np.float32)
        if np.ptp(part.colors) == 0:
            color = color * (_AMBIENT + (1 - _AMBIENT) * np.abs(normal @ _LAMP))[:, None]
        return np.asarray(color, np.float32)


def read_mesh(path: Path, channels: int = 1) -> Mesh:
    """Read a mesh with textures or vertex colors; surfaces without either are gray, and lit so that their shape shows.

    Args:
        channels: 1 for gray (Rec. 601 luma of the colors), 3 for RGB.

    Raises:
        ValueError: the file is missing, not readable or without faces, or a package is missing.
    """
    size = require_file(path, "mesh")
    try:
        import trimesh
    except ImportError:
        raise ValueError("meshes need the package trimesh: pip install trimesh") from None
    _check_counts(path, size)
    with reading(path, "a readable mesh"):
        loaded = trimesh.load_scene(path)
        found = [g for g in loaded.dump() if isinstance(g, trimesh.Trimesh) and len(g.faces)]
        if not found:
            raise ValueError(f"{path}: holds no triangles")
        parts = [_part(path, mesh, channels) for mesh in found]
    return Mesh(parts, channels)


def _check_counts(path: Path, size: int) -> None:
    """Raise an error if a file announces more than it can hold: trimesh allocates first."""
    suffix = path.suffix.lower()
    if suffix == ".ply":
        read_header(path)
    if suffix not in (".glb", ".gltf"):
        return
    with reading(path, "a readable mesh"):
        content = read_bytes(path, "mesh")
        if suffix == ".glb":
            content = _json_of_glb(content)
        model = parse_json(content.decode("utf-8"), _GLTF)
        held = size
        for entry in [*model.get("buffers", []), *model.get("images", [])]:
            if not entry.get("uri", "data:").startswith("data:"):
                held += require_file(inside(path, path.parent, unquote(entry["uri"]), "uri"), "part of a mesh")
        for accessor in model.get("accessors", []):
            if accessor["count"] > held:
                raise ValueError(f"an accessor of {accessor['count']} values in {held} bytes")


def _json_of_glb(content: bytes) -> bytes:
    """The first chunk of a binary glTF, if every chunk lies within the file."""
    first, at = b"", 12
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        if at + 8 + length > len(content):
            raise ValueError(f"a chunk of {length} bytes at {at} of {len(content)} bytes")
        first = first or content[at + 8 : at + 8 + length]
        at += 8 + length
    return first


def _part(path: Path, mesh: Any, channels: int) -> Part:
    if mesh.vertices.shape[1:] != (3,) or mesh.faces.shape[1:] != (3,):
        shapes = f"{mesh.vertices.shape} and {mesh.faces.shape}"
        raise ValueError(f"{path}: has vertices and faces of the shapes {shapes}, expected three columns each")
    if np.abs(mesh.vertices).max(initial=0) > _FARTHEST or not np.isfinite(mesh.vertices).all():
        raise ValueError(f"{path}: has vertices with NaN, infinite or huge coordinates")
    if not (mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)):
        raise ValueError(f"{path}: has faces of vertices that do not exist, expected 0 to {len(mesh.vertices) - 1}")
    visual = mesh.visual
    material = getattr(visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uv = getattr(visual, "uv", None)
    vertices, faces, texture = mesh.vertices, mesh.faces, None
    if uv is not None and (np.shape(uv) != (len(vertices), 2) or not np.isfinite(uv).all()):
        raise ValueError(f"{path}: has texture coordinates of the shape {np.shape(uv)} for {len(vertices)} vertices")
    if picture is not None and picture.width * picture.height > MOST_PIXELS:
        raise ValueError(f"{path}: has a texture of {picture.width}x{picture.height} pixels")
    if picture is not None and uv is not None:
        image = np.asarray(picture.convert("RGB"), np.float32) / np.float32(255)
        texture = Pyramid.of(np.ascontiguousarray(_channels(image, channels)))
        rgb: NDArray[np.floating] = np.tile(_rgb(getattr(material, "baseColorFactor", None), 1.0), (len(vertices), 1))
    elif visual.kind == "vertex":
        rgb = visual.vertex_colors[:, :3] / 255
    elif visual.kind == "face":  # duplicate vertices, so that each face has its own
        rgb = np.repeat(visual.face_colors[:, :3], 3, 0) / 255
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
    else:
        factor = getattr(material, "baseColorFactor", None)
        tint = _rgb(getattr(material, "diffuse", None) if factor is None else factor, _GRAY)
        rgb = np.tile(tint, (len(vertices), 1))
    colors = _channels(np.asarray(rgb, np.float32), channels)
    return Part(vertices, faces, colors, texture, None if texture is None else np.asarray(uv, np.float32))


def _rgb(color: Any, default: float) -> Floats:
    """A material's color [3] in [0, 1]; trimesh stores bytes or floats."""
    if color is None:
        return np.full(3, default, np.float32)
    values = np.asarray(color)
    return np.asarray(values[:3] / (255 if np.issubdtype(values.dtype, np.integer) else 1), np.float32)


def _channels(rgb: Floats, channels: int) -> Floats:
    return rgb if channels == 3 else (rgb @ np.array(LUMA, np.float32))[..., None]
