"""Makes the demo scene: a still life seen by a hand-held spike camera, with exact truth, in the layout of real data.

Every spike frame is simulated from its own sharp image, or from one interpolated between the nearest rendered ones.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from gaussians.ply import write_point_ply
from scene.cameras import look_at, opengl
from scene.dataset import POINTS
from simulation import corridor
from simulation.sensor import Simulator, sensor_named, stuck_pixels
from simulation.still_life import picture, sampled, surface
from spike import write_dat
from spike.window import PAPER, SPARE, STORED
from utils.io import atomic_write, save_image, write_json
from utils.telling import progress

# Function from a world-to-camera pose [4, 4], intrinsics [3, 3], width and height to the light [H, W].
Draw = Callable[[np.ndarray, np.ndarray, int, int], torch.Tensor]

# Function from spike frames [F], the number of all frames and a seed to world-to-camera poses [F, 4, 4].
WalkAt = Callable[[np.ndarray, int, int], np.ndarray]

PLACES = ("room", "corridor")
GAP = 8  # frames between two views of the recording
# Frames from one rendered image to the next: divisors of a view's last frame and of the instants that have truth.
SPACINGS = (1, 2, 4, 8)
# Increase with every change that makes a different scene from the same settings.
VERSION = 3
RECIPE = "recipe.json"
# The simulated sensor's settings and stuck pixels: truth, which nothing reads.
SIMULATION = "simulation.json"
FILES = {"spike_data": "*.dat", "sharp_data": "*.png", "sequence": "*.png", "novel": "*.png"}
# transforms_noisy.json: RMS errors of an initial pose, as used in method comparisons.
NOISE_DEGREES = 1.0
NOISE_LENGTH = 0.03  # 30 mm in a room measured in meters; the camera is 1.75 m away from the still life


def poses_at(frames: np.ndarray, total: int, seed: int) -> np.ndarray:
    """World-to-camera poses [F, 4, 4] (OpenCV axes) of a hand-held walk, at ``frames`` [F] in 0..total."""
    t = frames / total
    rng = np.random.default_rng(seed)
    angle = -np.pi / 2 + 1.05 * np.sin(2 * np.pi * t * 0.9)
    radius = 1.75 + 0.12 * np.sin(2 * np.pi * 1.7 * t + 1)
    eye = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0.95 + 0.22 * np.sin(2 * np.pi * 1.3 * t)], -1)
    target = np.stack([0.12 * np.sin(2 * np.pi * 2.1 * t), 0.15 + 0.1 * np.cos(2 * np.pi * 1.9 * t), 0.42 + 0 * t], -1)
    for _ in range(6):  # hand tremor: a few slow sine waves per direction
        period = rng.uniform(90, 260)
        phase = rng.uniform(0, 2 * np.pi, 6)
        wave = np.sin(2 * np.pi * frames[:, None] / period + phase)
        eye += 0.003 * wave[:, :3] * rng.uniform(0.5, 1)
        target += 0.008 * wave[:, 3:] * rng.uniform(0.5, 1)
    return look_at(eye, target, np.array([0.0, 0.0, 1.0]))


def light(pose: np.ndarray, k: np.ndarray, width: int, height: int) -> torch.Tensor:
    """The still life [H, W] seen from a world-to-camera pose [4, 4] by a camera with intrinsics ``k`` [3, 3]."""
    return picture(pose, k, width, height)[0]


def between(images: Iterable[torch.Tensor], spacing: int) -> Iterator[torch.Tensor]:
    """The images, and ``spacing`` - 1 linear interpolations between each two."""
    before: torch.Tensor | None = None
    for image in images:
        if before is not None:
            yield from (torch.lerp(before, image, i / spacing) for i in range(1, spacing))
        yield image
        before = image


def _corridor_light(pose: np.ndarray, k: np.ndarray, width: int, height: int, views: int) -> torch.Tensor:
    return corridor.picture(pose, k, width, height, views)[0]


def make_view(
    view: int, out: Path, views: int, width: int, height: int, k: np.ndarray, simulator: Simulator, seed: int,
    draw: Draw = light, spacing: int = 1, path: WalkAt = poses_at,
) -> np.ndarray:  # fmt: skip
    """Render, simulate and write one view; returns the poses of its sub-frames [M, 4, 4]."""
    name = f"{view:03d}"
    frames = view * (STORED + GAP) + np.arange(STORED)
    poses = path(frames, views * (STORED + GAP), seed)
    rendered = [draw(pose, k, width, height) for pose in poses[::spacing]]
    write_dat(out / "spike_data" / f"{name}.dat", simulator((s.numpy() for s in between(rendered, spacing)), view))
    instants = [SPARE + center for center in PAPER.centers]
    for m, frame in enumerate(instants):
        save_image(out / "sequence" / f"{name}_{m:02d}.png", rendered[frame // spacing])
    save_image(out / "sharp_data" / f"{name}.png", rendered[instants[PAPER.middle] // spacing])
    return poses[instants]


def transforms(k: np.ndarray, width: int, height: int, frames: list[dict[str, Any]], gain: float) -> dict[str, Any]:
    return {
        "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": width, "h": height,
        "camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "spike_gain": gain, "ply_file_path": POINTS, "frames": frames,
    }  # fmt: skip


def perturbed(w2c: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose [4, 4] rotated about the camera's axes and shifted, by NOISE_DEGREES and NOISE_LENGTH (RMS)."""
    shake = np.eye(4)
    shake[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * np.deg2rad(NOISE_DEGREES) / 3**0.5).as_matrix()
    shake[:3, 3] = rng.normal(size=3) * NOISE_LENGTH / 3**0.5
    return np.asarray(shake @ w2c)


@dataclass(frozen=True)
class Recipe:
    """The settings of a scene, stored in its ``recipe.json``.

    Args:
        sensor: one of ``simulation.sensor.SENSORS``.
        spacing: frames from one rendered image to the next, one of ``SPACINGS``.
        place: one of ``PLACES``.

    Raises:
        ValueError: another spacing; the instants that have truth would not be rendered.
    """

    views: int
    width: int
    height: int
    seed: int
    version: int = VERSION
    sensor: str = "default"
    spacing: int = 1
    place: str = PLACES[0]

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise ValueError(f"images {self.spacing} frames apart, expected one of {', '.join(map(str, SPACINGS))}")

    def state(self, out: Path) -> str:
        """Whether ``out`` is ``"done"`` (holds this recipe's complete scene) or still ``"to make"``.

        Raises:
            ValueError: the folder holds other files, which are not overwritten.
        """
        stored = out / RECIPE
        if not stored.exists():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise ValueError(
                    f"{out}: is not empty and has no {RECIPE}, so this program did not create it and will not "
                    "overwrite it; remove it or give another folder with --out"
                )
            return "to make"
        # The recipe is written first and the points last: a folder with both is complete.
        same = stored.read_bytes() == self.text().encode() and (out / POINTS).exists()
        return "done" if same else "to make"

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def drawn_by(self) -> Draw:
        """What renders the frames of views."""
        return light if self.place == PLACES[0] else partial(_corridor_light, views=self.views)

    def path(self) -> WalkAt:
        """The walk: a function of frames [F], the number of all frames and the seed that returns poses [F, 4, 4]."""
        return poses_at if self.place == PLACES[0] else partial(corridor.poses_at, views=self.views)

    def points(
        self, pose: np.ndarray, k: np.ndarray, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """World positions [count, 3] and intensities [count] of random pixels seen from one pose."""
        if self.place == PLACES[0]:
            return surface(pose, k, self.width, self.height, count, rng)
        drawn = corridor.picture(pose, k, self.width, self.height, self.views)
        return sampled(drawn, corridor.FIRST_RAY, pose, k, count, rng)


def clear(out: Path) -> None:
    """Remove the files of an earlier recipe, the points first: without them the folder counts as incomplete."""
    for name in (POINTS, "transforms.json", "transforms_noisy.json", "trajectory.json", "novel.json", SIMULATION):
        (out / name).unlink(missing_ok=True)
    for folder, pattern in FILES.items():
        for file in (out / folder).glob(pattern):
            file.unlink()


def make(out: Path, recipe: Recipe, processes: int | None = None, draw: Draw | None = None) -> None:
    """Write the whole scene into ``out``.

    Args:
        processes: number of worker processes; 0 renders in this process, None uses one per processor.
        draw: what renders the views' frames (None: the recipe); several sensors can see the same frames, rendered once.
    """
    clear(out)
    with atomic_write(out / RECIPE, "w") as file:
        file.write(recipe.text())
    views, width, height, seed = recipe.views, recipe.width, recipe.height, recipe.seed
    focal = 0.78 * width
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    simulator = sensor_named(recipe.sensor, seed)
    work = partial(
        make_view, out=out, views=views, width=width, height=height, k=k, simulator=simulator, seed=seed,
        draw=draw or recipe.drawn_by(), spacing=recipe.spacing, path=recipe.path(),
    )  # fmt: skip
    shown = partial(progress, what="Rendering the demo scene", total=views)
    if processes == 0:
        poses = [work(view) for view in shown(range(views))]
    else:
        with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
            poses = list(shown(pool.imap(work, range(views))))
            pool.close()  # workers that are ended instead leave semaphores, which Python reports
            pool.join()
    rng = np.random.default_rng(seed)

    def entries(table: list[np.ndarray], folder: str) -> list[dict[str, Any]]:
        return [
            {"file_path": f"{folder}/{i:03d}.png", "transform_matrix": opengl(w2c)}
            | ({"spike_path": f"spike_data/{i:03d}.dat"} if folder == "sharp_data" else {})
            for i, w2c in enumerate(table)
        ]

    # What a calibration would know of the sensor.
    sensor = {} if simulator.reset == "soft" else {"spike": {"reset": simulator.reset}}
    mid = [p[PAPER.middle] for p in poses]
    for name, table in (("transforms.json", mid), ("transforms_noisy.json", [perturbed(p, rng) for p in mid])):
        write_json(out / name, transforms(k, width, height, entries(table, "sharp_data"), simulator.gain) | sensor)
    write_json(out / SIMULATION, asdict(simulator) | stuck_pixels(simulator, height, width))
    write_json(
        out / "trajectory.json",
        {
            "convention": "world-to-camera 4x4, OpenCV axes, all sub-frames of each view",
            "w2c": {f"{i:03d}": p.tolist() for i, p in enumerate(poses)},
        },
    )
    # Held out: instants in the gaps between the views, which no spike stream covers.
    stride = STORED + GAP
    instants = np.array([i * stride + STORED + GAP / 2 for i in range(0, views - 1, 2)])
    held = recipe.path()(instants, views * stride, seed)
    for i, pose in enumerate(progress(held, "Rendering novel views")):
        save_image(out / "novel" / f"{i:03d}.png", recipe.drawn_by()(pose, k, width, height))
    write_json(out / "novel.json", transforms(k, width, height, entries(list(held), "novel"), simulator.gain))
    points, colors = zip(*[recipe.points(pose, k, 40, rng) for pose in mid], strict=True)
    # Like the result of structure from motion: some points of each view, slightly off.
    noisy = np.concatenate(points) + rng.normal(size=(40 * views, 3)) * 0.005
    cloud = torch.as_tensor(noisy, dtype=torch.float32)
    gray = torch.as_tensor(np.concatenate(colors), dtype=torch.float32)
    write_point_ply(out / POINTS, cloud, gray[:, None].expand(-1, 3))
