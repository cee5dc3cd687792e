"""Made-up trajectories, and the same in other worlds."""

import numpy as np
from scipy.spatial.transform import Rotation

from utils.trajectory_metrics import centers


def path(views, subframes, seed=0, motion=0.05, turn=0.03):
    """World-to-camera poses [V, M, 4, 4] with curved motion inside every exposure."""
    rng = np.random.default_rng(seed)
    u = np.linspace(-1, 1, subframes)[None, :, None] if subframes > 1 else np.zeros((1, 1, 1))
    first, second = rng.normal(size=(2, views, 1, 3))
    eye = rng.normal(size=(views, 1, 3)) + motion * (first * u + 0.3 * second * u**2)
    around, start = rng.normal(size=(views, 1, 3)), rng.normal(size=(views, 1, 3))
    axes = Rotation.from_rotvec((turn * around * u).reshape(-1, 3)) * Rotation.from_rotvec(
        np.repeat(start, subframes, axis=1).reshape(-1, 3)
    )
    w2c = np.tile(np.eye(4), (views, subframes, 1, 1))
    w2c[..., :3, :3] = axes.inv().as_matrix().reshape(views, subframes, 3, 3)
    w2c[..., :3, 3] = -np.einsum("vmij,vmj->vmi", w2c[..., :3, :3], eye)
    return w2c


def elsewhere(w2c, scale=0.3, seed=5):
    """The same trajectory in another world: turned, scaled, moved."""
    rng = np.random.default_rng(seed)
    rotation, offset = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3)
    moved = w2c.copy()
    moved[..., :3, :3] = w2c[..., :3, :3] @ rotation.T
    eye = scale * centers(w2c) @ rotation.T + offset
    moved[..., :3, 3] = -np.einsum("vmij,vmj->vmi", moved[..., :3, :3], eye)
    return moved


def shifted(w2c, offset):
    """Camera centers moved by ``offset`` in the world."""
    moved = w2c.copy()
    moved[..., :3, 3] = -np.einsum("...ij,...j->...i", w2c[..., :3, :3], centers(w2c) + offset)
    return moved
