"""Sources of images for a simulated recording: a folder of images, a video, or a mesh along a camera path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from simulation.mesh import read_mesh
from simulation.walk import WALK, camera_of, read_walk, shoot, walk_past
from spike.bayer import BayerPattern, Mosaic
from utils.io import IMAGE_SUFFIXES, MOST_PIXELS, load_image
from utils.reading import reading, require_file

MESHES = (".obj", ".ply", ".glb", ".gltf", ".stl")

# An image [H, W] or [H, W, 3] in [0, 1], and whether it is kept as truth.
Lit = tuple[NDArray[np.float32], bool]


def is_mesh(path: Path) -> bool:
    """Whether a source is a mesh, judged by its suffix."""
    return path.suffix.lower() in MESHES and not path.is_dir()


def source_pictures(path: Path, channels: int) -> Iterator[NDArray[np.float32]]:
    """Yield images [H, W] or [H, W, 3] in [0, 1] from a folder (sorted by name) or a video.

    Args:
        channels: 1 gives [H, W], 3 gives [H, W, 3].

    Raises:
        ValueError: the source is missing, empty or not readable.
    """
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"{path}: no images ({', '.join(IMAGE_SUFFIXES)}) to simulate from")
        for file in files:
            image = load_image(file, channels).numpy()
            yield image[0] if channels == 1 else image.transpose(1, 2, 0)
        return
    require_file(path, "folder of images, video or mesh")
    with open(path, "rb") as video:
        yield from _video_pictures(path, video, channels)


def _video_pictures(path: Path, file: BinaryIO, channels: int) -> Iterator[NDArray[np.float32]]:
    """The images of a video, which is read as this file alone: a playlist could name others, or an address."""
    found = False
    with reading(path, "a readable video"), av.open(file, options={"protocol_whitelist": ""}) as container:
        if not container.streams.video:
            raise ValueError("no images in it")
        stream = container.streams.video[0]
        if stream.width * stream.height > MOST_PIXELS:
            raise ValueError(f"{stream.width}x{stream.height} pixels, expected at most {MOST_PIXELS // 10**6} million")
        for frame in container.decode(stream):
            found = True
            if frame.width * frame.height > MOST_PIXELS:
                raise ValueError(f"{frame.width}x{frame.height} pixels in an image")
            picture = frame.to_ndarray(format="rgb24")
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if channels == 1 else picture
            yield (picture / 255).astype(np.float32)
    if not found:
        raise ValueError(f"{path}: not a readable video (no images in it)")


def between(pictures: Iterator[NDArray[np.float32]], steps: int) -> Iterator[Lit]:
    """Interpolate ``steps`` spike frames from each image to the next; the source images are the ones to keep.

    Raises:
        ValueError: the images differ in size.
    """
    previous: NDArray[np.float32] | None = None
    for current in pictures:
        if previous is not None and steps > 1:
            if previous.shape != current.shape:
                raise ValueError(f"the images differ in size: {previous.shape[1::-1]} and {current.shape[1::-1]}")
            for step in range(1, steps):
                yield previous + (current - previous) * np.float32(step / steps), False
        yield current, True
        previous = current


def mesh_pictures(
    source: Path,
    channels: int,
    truth: Path,
    *,
    path: Path | None = None,
    up: str = "y",
    width: int | None = None,
    height: int | None = None,
    focal: float | None = None,
    steps: int = 1,
    truth_every: int = 8,
    seed: int = 0,
) -> Iterator[Lit]:
    """Yield an image of the mesh for every spike frame; the poses are written to the folder ``truth``.

    Args:
        path: poses (TUM text or ``transforms.json``), ``steps`` spike frames apart (default: a walk past the mesh,
            with this ``seed``, and with the world axis ``up`` pointing up).
        width, height, focal: of the camera, in pixels (default: those of the path, or of ``simulation.walk``).
        truth_every: spike frames from one image to keep to the next.

    Raises:
        ValueError: the mesh, path or camera cannot be used.
    """
    mesh = read_mesh(source, channels)
    walk = None if path is None else read_walk(path)
    k, width, height = camera_of(walk, width, height, focal)
    if walk is None:
        angle = 2 * math.atan(min(width / k[0, 0], height / k[1, 1]) / 2)
        walk, frames = walk_past(mesh.low, mesh.high, up, angle, seed), WALK
    else:
        frames = steps * (len(walk.times) - 1) + 1
    yield from shoot(mesh, walk.at(frames), k, width, height, truth, truth_every)


def filtered(image: NDArray[np.float32], bayer: BayerPattern) -> NDArray[np.float32]:
    """Intensities [H, W] that the pixels of a color sensor see of an image [H, W, 3]."""
    seen = Mosaic(bayer).of(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))[0]
    return np.asarray(seen.numpy(), np.float32)
