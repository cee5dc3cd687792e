"""Cameras at places of one's choice, for tests of paths and pictures."""

import numpy as np
import torch

from gaussian_renderer.paths import SavedView
from scene.cameras import look_at


def saved_view(w2c: torch.Tensor, width: int = 48, height: int = 36, focal: float = 40.0, name: str = "v") -> SavedView:
    """A view with the poses ``w2c`` [M, 4, 4] at even times of its exposure, its principal point in the middle."""
    k = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    times = torch.linspace(0, 1, len(w2c)) if len(w2c) > 1 else torch.tensor([0.5])
    return SavedView(name, "train", width, height, k, times, w2c)


def views_from(eyes: np.ndarray, target: np.ndarray, up: np.ndarray) -> list[SavedView]:
    """Still views from ``eyes`` [V, 3] toward ``target`` ([V,] 3)."""
    return [saved_view(torch.as_tensor(pose[None], dtype=torch.float32)) for pose in look_at(eyes, target, up)]
