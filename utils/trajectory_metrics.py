"""Comparing trajectories after the alignment that a reconstruction leaves undetermined.

Poses are world-to-camera [V, M, 4, 4]: V views with M sub-frames each (float64 numpy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.floating]

# Motion below this is rounding error of poses stored as float32 (relative to their coordinates, or in radians).
_ROUNDING = 1e-6


def umeyama(source: Array, target: Array, with_scale: bool = True) -> tuple[float, Array, Array]:
    """Scale, rotation [3, 3] and translation [3] that best align ``source`` [P, 3] with ``target`` (Umeyama 1991).

    If the points lie on a line or coincide, part of the rotation is undetermined; the solution closest to the
    identity is returned.
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
    if d[0] <= 0 or d[1] < 1e-9 * d[0]:  # no plane: only one direction is determined
        rotation = _turn(u, vt, d)
    spread = (s**2).sum() / len(s)
    scale = float((d * sign).sum() / spread) if with_scale and spread > 0 and d[0] > 0 else 1.0
    return scale, rotation, mean_t - scale * rotation @ mean_s


def _turn(u: Array, vt: Array, d: Array) -> Array:
    """The smallest rotation that aligns the line of the source points with the line of the target points."""
    if d[0] <= 0:
        return np.eye(3)
    a, b = vt[0], u[:, 0]  # the decomposition gives both the same orientation along the line
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-12:  # half a turn about any perpendicular axis
        other = np.linalg.svd(a[None])[2][1]
        return 2 * np.outer(other, other) - np.eye(3)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + k + k @ k / (1 + cosine)


def centers(w2c: Array) -> Array:
    """Camera centers [..., 3] of world-to-camera poses [..., 4, 4]."""
    return -np.einsum("...ji,...j->...i", w2c[..., :3, :3], w2c[..., :3, 3])


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors after Sim(3) alignment of all sub-frames; lengths in the truth's world units.

    ``ate`` is the root mean square distance of the camera centers; ``rpe_translation`` and ``rpe_rotation``
    (degrees) are errors of the motion from one sub-frame to the next; ``motion`` is the mean error of the
    displacement over the exposure relative to the true one; ``flipped`` lists the views whose recovered motion runs
    backwards in time.
    With one sub-frame per view there is no motion, and those three are None; ``motion`` is also None if the true camera
    does not move.
    """

    ate: float
    rpe_translation: float | None
    rpe_rotation: float | None
    motion: float | None
    flipped: list[int]
    scale: float


def trajectory_errors(estimate: Array, truth: Array) -> TrajectoryErrors:
    """Compare recovered with true poses, both [V, M, 4, 4].

    A blurred mean does not determine the direction of time.  Each view is compared in the direction that fits its
    true motion better, and the views that had to be reversed are listed.

    Raises:
        ValueError: shapes that differ or are not pose shapes, no poses at all, or NaN.
    """
    if estimate.shape != truth.shape or estimate.ndim != 4 or estimate.shape[2:] != (4, 4) or not estimate.size:
        raise ValueError(f"expected poses [V, M, 4, 4] of one shape, not {estimate.shape} and {truth.shape}")
    if not (np.isfinite(estimate).all() and np.isfinite(truth).all()):
        raise ValueError("trajectories have NaN or infinite poses")
    aligned, flipped, scale = align(estimate, truth)
    truth = truth.astype(np.float64)
    true_centers, offset = centers(truth), centers(aligned) - centers(truth)
    ate = float(np.sqrt((offset**2).sum(-1).mean()))
    if estimate.shape[1] < 2:
        return TrajectoryErrors(ate, None, None, None, flipped, scale)
    step = aligned[:, 1:] @ np.linalg.inv(aligned[:, :-1])
    true_step = truth[:, 1:] @ np.linalg.inv(truth[:, :-1])
    error = np.linalg.inv(true_step) @ step
    angle = Rotation.from_matrix(error[..., :3, :3].reshape(-1, 3, 3)).magnitude()
    moved = float(np.linalg.norm(true_centers[:, -1] - true_centers[:, 0], axis=-1).mean())
    missed = float(np.linalg.norm(offset[:, -1] - offset[:, 0], axis=-1).mean())
    return TrajectoryErrors(
        ate,
        float(np.sqrt((error[..., :3, 3] ** 2).sum(-1).mean())),
        float(np.degrees(np.sqrt((angle**2).mean()))),
        missed / moved if moved > _ROUNDING * np.abs(true_centers).max() else None,
        flipped,
        scale,
    )


def align(estimate: Array, truth: Array) -> tuple[Array, list[int], float]:
    """Transform recovered poses to the world and direction of time of the true ones, both [V, M, 4, 4].

    Returns:
        poses [V, M, 4, 4] after the best Sim(3) of all centers, the views that were reversed, and the scale.
    """
    truth = truth.astype(np.float64)
    # What the centers leave undetermined (views on a line, or a single view) is taken from the cameras' orientations.
    estimate = _turned(estimate.astype(np.float64), _orientation(estimate, truth))
    flipped = _reversed(estimate, truth)
    estimate[flipped] = estimate[flipped, ::-1]
    found = centers(estimate)
    scale, rotation, translation = umeyama(found.reshape(-1, 3), centers(truth).reshape(-1, 3))
    aligned = _turned(estimate, rotation)
    moved = scale * found @ rotation.T + translation
    aligned[..., :3, 3] = -np.einsum("...ij,...j->...i", aligned[..., :3, :3], moved)
    return aligned, flipped, scale


def _middle(values: Array) -> Array:
    """Mean over the middle instant of [V, M, ...], or the middle two: the same in both directions of time."""
    m = values.shape[1]
    return np.asarray(values[:, (m - 1) // 2 : m // 2 + 1].mean(1))


def _orientation(estimate: Array, truth: Array) -> Array:
    """Rotation [3, 3] of the estimated world that best aligns its cameras' mid-exposure axes with the true ones."""
    ours, theirs = _middle(estimate)[:, :3, :3], _middle(truth)[:, :3, :3]
    u, _, vt = np.linalg.svd(np.einsum("vji,vjk->ik", theirs, ours))
    return np.asarray(u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt)


def _turned(w2c: Array, rotation: Array) -> Array:
    """The poses after their world is rotated by ``rotation`` about its origin."""
    turned = w2c.copy()
    turned[..., :3, :3] = w2c[..., :3, :3] @ rotation.T
    return turned


def _reversed(estimate: Array, truth: Array) -> list[int]:
    """Views whose motion, of center and axes together, matches the true motion better when reversed."""
    likeness = np.zeros(len(estimate))
    for measure, unit in ((centers, np.abs(centers(truth)).max()), (_turning, 1.0)):
        ours, theirs = measure(estimate), measure(truth)
        # The part of a motion that changes sign under time reversal; a view's position and orientation cancel.
        ours, theirs = ours - ours[:, ::-1], theirs - theirs[:, ::-1]
        size = np.linalg.norm(ours) * np.linalg.norm(theirs)
        if size > 0 and np.abs(theirs).max() > _ROUNDING * unit:
            likeness += np.einsum("vmi,vmi->v", ours, theirs) / size
    return [int(v) for v in np.nonzero(likeness < 0)[0]]


def _turning(w2c: Array) -> Array:
    """Rotation of every camera since its first instant, about the world's axes: [V, M, 3] radians."""
    axes = np.swapaxes(w2c[..., :3, :3], -1, -2)
    since = axes @ w2c[:, :1, :3, :3]
    return np.asarray(Rotation.from_matrix(since.reshape(-1, 3, 3)).as_rotvec().reshape(*w2c.shape[:2], 3))
