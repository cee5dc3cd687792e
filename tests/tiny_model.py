"""A trained model's folder with a handful of Gaussians, for tests that only look at models."""

import math
from pathlib import Path

import torch

from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import read_views
from gaussians.model import GaussianModel
from gaussians.ply import LowPass, write_gaussian_ply
from scene.cameras import Camera, View
from scene.model_folder import camera_entry, iteration_folder, write_cameras

WIDTH, HEIGHT, ITERATION, TIMES = 49, 36, 7, torch.linspace(0, 1, 5)


def tiny_gaussians(n: int = 60, channels: int = 1, seed: int = 0) -> GaussianModel:
    """Blobs about the origin, within a unit of it, brighter to the right (+x)."""
    g = torch.Generator().manual_seed(seed)
    means = torch.rand(n, 3, generator=g) * 2 - 1
    color = (0.5 + 0.5 * means[:, :1]).expand(n, channels)
    raw = {
        "means": means,
        "quats": torch.randn(n, 4, generator=g),
        "log_scales": torch.full((n, 3), math.log(0.12)) + 0.3 * torch.randn(n, 3, generator=g),
        "opacity_logits": torch.full((n,), 2.0),
        "sh0": ((color - 0.5) / 0.28209479)[:, None],
        "shN": 0.05 * torch.randn(n, 3, channels, generator=g),
    }
    return GaussianModel(raw, 1, LowPass(0.1, compensated=True))


def pose(angle: float, shift: float = 0.0) -> torch.Tensor:
    """World-to-camera pose four units from the origin, turned by ``angle`` about y, shifted along its x."""
    w2c = torch.eye(4)
    w2c[:3, :3] = torch.tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    w2c[0, 3], w2c[2, 3] = shift, 4
    return w2c


def make_model(folder: Path, angles=(-0.3, 0.0, 0.3), channels: int = 1) -> Path:
    """Write the folder of a model: Gaussians, and views that move by 0.4 units inside their exposures."""
    path = iteration_folder(folder, ITERATION) / "point_cloud.ply"
    write_gaussian_ply(path, tiny_gaussians(channels=channels).params)
    k = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60, HEIGHT / 2], [0, 0, 1]])
    entries = []
    for i, angle in enumerate(angles):
        view = View(Camera(f"v{i}", WIDTH, HEIGHT, k, pose(angle)))
        poses = torch.stack([pose(angle, 0.4 * float(u) - 0.2) for u in TIMES])
        entries.append(camera_entry(i, view, "train", poses, TIMES, ITERATION))
    write_cameras(folder, entries)
    return folder


def tiny_drawing(channels: int = 1) -> Drawing:
    return Drawing(tiny_gaussians(channels=channels), get_rasterizer("cpu", torch.device("cpu")))


def tiny_views(folder: Path):
    return read_views(make_model(folder))
