"""Trajectory against trajectory, after the alignment that a reconstruction leaves open.

Poses are world-to-camera [V, M, 4, 4]: V views with M sub-frames each (float64 numpy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def umeyama(source: Array, target: Array, with_scale: bool = True) -> tuple[float, Array, Array]:
    """Scale, rotation [3, 3], translation [3] that bring ``source`` [P, 3] nearest to ``target`` (Umeyama 1991).

    Points on a line or at one place leave part of the rotation open; the solution nearest to no rotation in
    that part is returned.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or not len(source):
        raise ValueError(f"alignment needs two equal lists of points [P, 3], not {source.shape} and {target.shape}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("alignment needs finite points; there are NaN or infinite ones")
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.ones(3)
    if np.linalg.det(u @ vt) < 0:
        sign[2] = -1
    rotation = u @ np.diag(sign) @ vt
    if d[0] <= 0 or d[1] < 1e-9 * d[0]:  # no plane: only the one direction is determined
        rotation = _turn(s, t, u, vt, d)
    spread = (s**2).sum() / len(s)
    scale = float((d * sign).sum() / spread) if with_scale and spread > 0 and d[0] > 0 else 1.0
    return scale, rotation, mean_t - scale * rotation @ mean_s


def _turn(s: Array, t: Array, u: Array, vt: Array, d: Array) -> Array:
    """The smallest rotation that turns the line of ``s`` onto the line of ``t``."""
    if d[0] <= 0:
        return np.eye(3)
    a, b = vt[0], u[:, 0]
    if (s @ a) @ (t @ b) < 0:
        b = -b
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-12:  # half a turn about any perpendicular axis
        other = np.linalg.svd(a[None])[2][1]
        return 2 * np.outer(other, other) - np.eye(3)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + k + k @ k / (1 + cosine)


def centres(w2c: Array) -> Array:
    """Camera centres [..., 3] of world-to-camera poses [..., 4, 4]."""
    return -np.einsum("...ji,...j->...i", w2c[..., :3, :3], w2c[..., :3, 3])


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors after Sim(3) alignment of all sub-frames; lengths in the truth's world units.

    ``ate`` root mean square distance of the camera centres; ``rpe_translation`` and ``rpe_rotation``
    (degrees) of the motion from one sub-frame to the next; ``motion`` mean error of the displacement over
    the exposure relative to the true one; ``flipped`` views whose recovered motion runs backwards in time.
    """

    ate: float
    rpe_translation: float
    rpe_rotation: float
    motion: float
    flipped: list[int]
    scale: float


def trajectory_errors(estimate: Array, truth: Array) -> TrajectoryErrors:
    """Compare recovered with true poses, both [V, M, 4, 4].

    A blurred mean does not tell the direction of time.  Each view is taken in the direction that fits its
    true motion better, and the views that had to be reversed are listed.
    """
    if estimate.shape != truth.shape or estimate.ndim != 4:
        raise ValueError(f"expected poses [V, M, 4, 4] of one shape, not {estimate.shape} and {truth.shape}")
    if not (np.isfinite(estimate).all() and np.isfinite(truth).all()):
        raise ValueError("trajectories have NaN or infinite poses")
    estimate = estimate.astype(np.float64).copy()
    truth = truth.astype(np.float64)
    true_centres = centres(truth)
    middle = estimate.shape[1] // 2
    # The middle of the exposure is the same in both directions: align by it first.
    scale, rotation, translation = umeyama(centres(estimate[:, middle]), true_centres[:, middle])
    flipped = []
    for v in range(len(estimate)):
        moved = scale * centres(estimate[v]) @ rotation.T + translation
        if np.linalg.norm(moved[::-1] - true_centres[v]) < np.linalg.norm(moved - true_centres[v]):
            flipped.append(v)
            estimate[v] = estimate[v, ::-1]
    found = centres(estimate)
    scale, rotation, translation = umeyama(found.reshape(-1, 3), true_centres.reshape(-1, 3))
    aligned = scale * found @ rotation.T + translation
    ate = float(np.sqrt(((aligned - true_centres) ** 2).sum(-1).mean()))
    if estimate.shape[1] < 2:
        return TrajectoryErrors(ate, 0.0, 0.0, 0.0, flipped, scale)
    turned = estimate.copy()
    turned[..., :3, :3] = estimate[..., :3, :3] @ rotation.T
    turned[..., :3, 3] = -np.einsum("...ij,...j->...i", turned[..., :3, :3], aligned)
    step = turned[:, 1:] @ np.linalg.inv(turned[:, :-1])
    true_step = truth[:, 1:] @ np.linalg.inv(truth[:, :-1])
    error = np.linalg.inv(true_step) @ step
    cosine = (np.trace(error[..., :3, :3], axis1=-2, axis2=-1) - 1) / 2
    displacement = aligned[:, -1] - aligned[:, 0]
    true_displacement = true_centres[:, -1] - true_centres[:, 0]
    motion = np.linalg.norm(displacement - true_displacement, axis=-1).mean()
    return TrajectoryErrors(
        ate,
        float(np.sqrt((error[..., :3, 3] ** 2).sum(-1).mean())),
        float(np.degrees(np.sqrt((np.arccos(cosine.clip(-1, 1)) ** 2).mean()))),
        float(motion / max(np.linalg.norm(true_displacement, axis=-1).mean(), 1e-12)),
        flipped,
        scale,
    )
