"""A very small recording of two textured planes, seen by a camera that moves; through a lens if there is one."""

from pathlib import Path

import numpy as np
import torch

from gaussians.ply import write_point_ply
from scene.cameras import opengl
from scene.lens import FisheyeLens, Lens
from simulation import Simulator
from simulation.demo import transforms
from spike import Mosaic, WindowSpec, write_dat
from utils.io import save_image, write_json

WIDTH, HEIGHT, VIEWS, FRAMES, GAP = 48, 32, 5, 177, 20
K = np.array([[40.0, 0, WIDTH / 2], [0, 40.0, HEIGHT / 2], [0, 0, 1]])
NEAR, FAR = 2.5, 4.0
LEVELS = (0.7, 1.0, 0.4)  # brightness of red, green and blue, of a scene in color


def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.5 + 0.2 * np.sin(5 * x + 1) * np.cos(4 * y) + 0.2 * np.sin(9 * (x + y))


def picture(centers: np.ndarray, lens: Lens | None = None) -> np.ndarray:
    """Images [F, H, W] from cameras at ``centers`` [F, 3] that look along z: a plane before another."""
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]])
    if lens is not None:
        rays = lens.unproject(torch.from_numpy(np.stack([u, v], -1))).permute(2, 0, 1).numpy()
    near, far = (
        centers[:, :2, None, None] + rays * (depth - centers[:, 2, None, None, None]) for depth in (NEAR, FAR)
    )
    hit = (np.abs(near[:, 0]) < 0.6) & (np.abs(near[:, 1]) < 0.4)
    return np.where(hit, texture(2 * near[:, 0], 3 * near[:, 1]), texture(far[:, 0], far[:, 1]))


def path(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centers [F, 3] and world-to-camera poses [F, 4, 4] at spike frames of the recording."""
    t = frames / 200.0
    centers = np.stack([0.5 * np.sin(t) - 0.4, 0.2 * np.cos(1.3 * t), 0.1 * np.sin(0.7 * t)], -1)
    w2c = np.tile(np.eye(4), (len(frames), 1, 1))
    w2c[:, :3, 3] = -centers
    return centers, w2c


def write_scene(
    root: Path, mosaic: Mosaic | None = None, simulator: Simulator | None = None, lens: Lens | None = None
) -> None:
    """Five views with spikes, truth and two held-out images; in color (``LEVELS``) with a mosaic.

    The held-out images have no distortion.
    """
    simulator = simulator or Simulator(seed=1)
    spec, rng = WindowSpec(), np.random.default_rng(0)

    def shown(image: np.ndarray) -> torch.Tensor:
        gray = torch.as_tensor(image, dtype=torch.float32)
        return gray if mosaic is None else gray * torch.tensor(LEVELS)[:, None, None]

    truth, known, noisy, novel = {}, [], [], []
    for i in range(VIEWS):
        name = f"{i:03d}"
        centers, w2c = path(i * (FRAMES + GAP) + np.arange(FRAMES))
        frames = picture(centers, lens)
        light = frames if mosaic is None else frames * mosaic.of(shown(np.ones((HEIGHT, WIDTH))))[0].numpy()
        write_dat(root / f"spike_data/{name}.dat", simulator(light, i))
        subframes = (FRAMES - spec.context) // 2 + np.array(spec.centers)
        for m, frame in enumerate(subframes):
            save_image(root / f"sequence/{name}_{m:02d}.png", shown(frames[frame]))
        save_image(root / f"sharp_data/{name}.png", shown(frames[subframes[spec.middle]]))
        truth[name] = w2c[subframes].tolist()
        middle = w2c[FRAMES // 2]
        known.append({"file_path": f"sharp_data/{name}.png", "transform_matrix": opengl(middle)})
        shaken = middle.copy()
        shaken[:3, 3] += 0.02 * rng.normal(size=3)
        noisy.append({"file_path": f"sharp_data/{name}.png", "transform_matrix": opengl(shaken)})
    for i, frame in enumerate((300, 700)):
        centers, w2c = path(np.array([frame]))
        save_image(root / f"novel/{i:03d}.png", shown(picture(centers)[0]))
        novel.append({"file_path": f"novel/{i:03d}.png", "transform_matrix": opengl(w2c[0])})
    sensor = {} if mosaic is None else {"spike": {"bayer": mosaic.pattern}}
    seen = {} if lens is None else dict(zip(lens.names, lens.coefficients, strict=True))
    if isinstance(lens, FisheyeLens):
        seen["camera_model"] = "OPENCV_FISHEYE"
    for file, entries, bent in (("transforms", known, seen), ("transforms_noisy", noisy, seen), ("novel", novel, {})):
        write_json(root / f"{file}.json", transforms(K, WIDTH, HEIGHT, entries, simulator.gain) | sensor | bent)
    write_json(root / "trajectory.json", {"w2c": truth})
    x, y = (torch.as_tensor(rng.uniform(-2, 2, 200), dtype=torch.float32) for _ in range(2))
    points = torch.stack([x, y, torch.full_like(x, FAR)], -1)
    write_point_ply(root / "sparse_pc.ply", points, torch.full((200, 3), 0.5))
