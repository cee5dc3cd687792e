"""The camera's path during each view's exposure: curves on SE(3) through learned knots.

A knot is a learned se(3) increment on an initial pose, ``T_k = exp(xi_k) A_k`` (world-to-camera), as in
BAD-Gaussians (Zhao et al. 2024, eq. 5).  Poses between knots are cumulative products

    T(u) = exp(b_K-1(u) d_K-1) ... exp(b_1(u) d_1) T_0,      d_k = log(T_k T_k-1^-1)

with the cumulative basis b of the curve: ``linear`` (2 knots, b_1 = u: the geodesic), ``cubic`` (one segment
of the uniform B-spline, 4 knots), ``bezier`` (Bernstein, of any degree, with one knot more), and ``spline``: one
uniform cubic B-spline over a whole recording.  Its views share knots, so that neighbors constrain each other.

Before and after the exposure the curve of a view goes on along its tangents.  Hardly any spike tells of the motion
there, and a polynomial of a high degree would soon be far away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor, nn

from scene.cameras import View
from utils import se3
from utils.reading import reason

CURVES = ("linear", "cubic", "bezier", "spline")
# Minimum reach of a recording's spline beyond its first and last exposure, in exposures.
_REACH = 0.25


def _basis(curve: str, degree: int, u: Tensor) -> Tensor:
    """Blending weights [B, degree + 1] of the curve's knots at the times ``u`` [B]; each row sums to one."""
    inside = u.clamp(0, 1)
    beyond, u, v = (u - inside)[:, None], inside, 1 - inside
    if curve in ("linear", "bezier"):
        bernstein = [math.comb(degree, k) * u**k * v ** (degree - k) for k in range(degree + 1)]
        return torch.stack(bernstein, dim=-1) + beyond * degree * _tangents(degree, 1, u)
    cubic = [v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3]
    return torch.stack(cubic, dim=-1) / 6 + beyond * _tangents(3, 2, u) / 2


def _tangents(degree: int, apart: int, u: Tensor) -> Tensor:
    """The difference of two knots ``apart`` as weights [B, degree + 1]: the last two if ``u`` [B] is 1, else the first.

    Times the degree, or by the knots' distance, it is the derivative of a curve at its ends.
    """
    first = u.new_zeros(degree + 1)
    first[0], first[apart] = -1, 1
    return torch.where(u[:, None] == 1, -first.flip(0), first)


def _degree(curve: str, bezier: int) -> int:
    """The degree of a curve (``bezier``: the given one); it has degree + 1 knots."""
    return {"linear": 1, "bezier": bezier}.get(curve, 3)


def interpolate_poses(times: np.ndarray, w2c: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate poses ``w2c`` [V, 4, 4] at increasing ``times`` [V] by a smooth path, sampled at ``at`` [B].

    Camera centers follow a natural cubic spline, orientations a rotation spline with continuous angular
    acceleration (scipy).  Two poses give a straight path, one pose a constant path.
    """
    if len(times) == 1:
        return np.repeat(w2c, len(at), axis=0)
    to_world = np.linalg.inv(w2c)
    order = "natural" if len(times) > 2 else "not-a-knot"
    centers = CubicSpline(times, to_world[:, :3, 3], bc_type=order)(at)
    rotations = RotationSpline(times, Rotation.from_matrix(to_world[:, :3, :3]))(at).as_matrix()
    poses = np.tile(np.eye(4), (len(at), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations, centers
    return np.linalg.inv(poses)


@dataclass(frozen=True)
class Timing:
    """When each view was exposed, in units of the exposure (so that u = 0..1 spans one unit).

    ``middle`` [V]: time of the view's u = 0.5 in its recording; ``recording`` [V]: index of the recording.
    """

    middle: np.ndarray
    recording: np.ndarray

    @classmethod
    def of(cls, views: Sequence[View], spacing: float, exposure: int) -> Timing:
        """The exposure times of some views of a scene.

        Args:
            views: in the order of their recordings; held-out views may be missing in between.
            spacing: spike frames between the middles of consecutive views, if the views do not have a ``middle_frame``.
            exposure: spike frames per exposure.
        """
        _, recording = np.unique(np.array([view.recording for view in views]), return_inverse=True)
        frames = [v.position * spacing if v.middle_frame is None else v.middle_frame for v in views]
        return cls(np.array(frames, np.float64) / (exposure - 1), recording)


def first_guess(w2c: np.ndarray, timing: Timing, u: np.ndarray) -> np.ndarray:
    """Estimate each view's motion from its neighbors in the recording: [V, len(u), 4, 4].

    At zero motion, the gradient of a long exposure with respect to the motion vanishes (the blur is an even function
    of it).  The path through the mid-exposure poses of the neighboring views breaks this symmetry.
    """
    guess = np.repeat(w2c[:, None], len(u), axis=1)
    for label in np.unique(timing.recording):
        members = np.flatnonzero(timing.recording == label)
        members = members[np.argsort(timing.middle[members])]
        times = timing.middle[members]
        at = (times[:, None] + u[None] - 0.5).reshape(-1)
        guess[members] = interpolate_poses(times, w2c[members], at).reshape(len(members), len(u), 4, 4)
    return guess


class Trajectory(nn.Module):
    """Camera poses at any time during any view's exposure.

    Args:
        w2c: initial mid-exposure poses [V, 4, 4], world-to-camera, OpenCV axes.
        curve: one of ``CURVES``.
        timing: when the views were exposed.  If given, the initial motion is estimated from the neighboring views;
            otherwise every view starts at rest.  Required for ``spline``.
        knot_spacing: distance between the knots of ``spline``, in exposures.
        reach: how far ``spline`` extends beyond an exposure, in exposures: windows around its ends are wider than it.
        degree: degree of ``bezier``; the others have their own.
    """

    def __init__(
        self,
        w2c: Tensor,
        curve: str = "linear",
        timing: Timing | None = None,
        knot_spacing: float = 0.5,
        reach: float = 0.0,
        degree: int = 3,
    ):
        super().__init__()
        if curve not in CURVES:
            raise ValueError(f"trajectory {curve!r} is unknown; expected one of {', '.join(CURVES)}")
        if curve == "spline" and timing is None:
            raise ValueError("trajectory 'spline' needs the order and spacing of the views in their recording")
        self.curve, self.degree = curve, _degree(curve, degree)
        poses = w2c.double().cpu().numpy()
        if curve == "spline":
            assert timing is not None
            anchors, first = self._recording_knots(poses, timing, knot_spacing, reach)
            increments = torch.zeros(len(anchors), 6)
        else:
            anchors, increments, first = self._view_knots(poses, curve, self.degree, timing)
        self.increments = nn.Parameter(increments.to(w2c.device, torch.float32))
        self.register_buffer("anchors", torch.as_tensor(anchors, dtype=torch.float32, device=w2c.device))
        self.register_buffer("first", torch.as_tensor(first, dtype=torch.float64, device=w2c.device))
        self.anchors: Tensor
        self.first: Tensor
        self.knot_spacing = knot_spacing

    @staticmethod
    def _view_knots(
        poses: np.ndarray, curve: str, degree: int, timing: Timing | None
    ) -> tuple[np.ndarray, Tensor, np.ndarray]:
        """Separate knots for every view, fitted to the initial motion in the tangent space of the middle pose."""
        knots = degree + 1
        u = torch.linspace(0, 1, 2 * knots + 1, dtype=torch.float64)
        if timing is None:
            increments = torch.zeros(len(poses) * knots, 6)
        else:
            guess = torch.as_tensor(first_guess(poses, timing, u.numpy()))
            twists = se3.log(guess @ se3.inverse(torch.as_tensor(poses))[:, None])
            basis = _basis(curve, degree, u).expand(len(poses), -1, -1)
            increments = torch.linalg.lstsq(basis, twists).solution.reshape(-1, 6)
        return np.repeat(poses, knots, axis=0), increments, np.arange(len(poses)) * float(knots)

    @staticmethod
    def _recording_knots(
        poses: np.ndarray, timing: Timing, spacing: float, reach: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shared knots at even times over each recording; ``first`` is the time of a view's u = 0 in knot units."""
        anchors: list[np.ndarray] = []
        first = np.zeros(len(poses))
        reach = max(_REACH, 1.1 * reach)  # some margin, so that rounding never leaves the last segment
        for label in np.unique(timing.recording):
            members = np.flatnonzero(timing.recording == label)
            members = members[np.argsort(timing.middle[members])]
            times = timing.middle[members]
            start, span = times.min() - 0.5 - reach, times.max() - times.min() + 1 + 2 * reach
            count = int(np.ceil(span / spacing - 1e-9)) + 3
            base = sum(len(a) for a in anchors)
            first[members] = base + (times - 0.5 - start) / spacing
            at = start + (np.arange(count) - 1) * spacing
            anchors.append(interpolate_poses(times, poses[members], at))
        return np.concatenate(anchors), first

    @property
    def knots(self) -> Tensor:
        """World-to-camera pose of every knot, [Q, 4, 4]."""
        return se3.exp(self.increments) @ self.anchors

    def forward(self, views: Tensor, u: Tensor) -> Tensor:
        """World-to-camera poses [B, 4, 4] of the views ``views`` [B] (long) at the times ``u`` [B] in [0, 1].

        A window around an end of the exposure needs poses beyond it; ``spline`` extends by ``reach``.
        """
        if self.curve == "spline":
            position = self.first[views] + u.double() / self.knot_spacing
            segment = position.floor()
            base, local = segment.long(), (position - segment).to(u.dtype)
        else:
            base, local = self.first[views].long(), u
        basis = _basis(self.curve, self.degree, local)
        rows = base[:, None] + torch.arange(basis.shape[-1], device=views.device)
        # Only the knots that are asked for: a recording may have a hundred thousand of them.
        asked, position_of = rows.unique(return_inverse=True)
        knots = (se3.exp(self.increments[asked]) @ self.anchors[asked])[position_of]
        steps = se3.log(knots[:, 1:] @ se3.inverse(knots[:, :-1]))
        cumulative = basis.flip(-1).cumsum(-1).flip(-1)[:, 1:, None]
        pose = knots[:, 0]
        moves = se3.exp(cumulative * steps)
        for k in range(moves.shape[1]):
            pose = moves[:, k] @ pose
        return pose

    def per_knot(self, values: Tensor) -> Tensor:
        """Values of the views [V, ...] for the knots [Q, ...]: of the view that a knot belongs to, or is nearest to."""
        half = 1 + 0.5 / self.knot_spacing if self.curve == "spline" else self.degree / 2
        middle, view = (self.first + half).sort()
        borders = (middle[1:] + middle[:-1]) / 2
        knots = torch.arange(len(self.increments), dtype=borders.dtype, device=borders.device)
        return values[view[torch.searchsorted(borders, knots)].to(values.device)]

    @torch.no_grad()
    def reverse(self, view: int) -> slice:
        """Reverse the trajectory of one view; returns its rows of ``increments``, which are now in reverse order.

        Raises:
            ValueError: the curve is a spline, whose knots several views share.
        """
        if self.curve == "spline":
            raise ValueError("a view of a spline over the whole recording cannot be reversed alone")
        first = int(self.first[view])
        rows = slice(first, first + self.degree + 1)  # all relative to the same anchor
        self.increments[rows] = self.increments[rows].flip(0)
        return rows

    def checkpoint(self) -> dict[str, object]:
        """Plain tensors and values from which ``from_checkpoint`` restores the curves."""
        shape = {"curve": self.curve, "degree": self.degree, "knot_spacing": self.knot_spacing}
        return shape | {"state": self.state_dict()}

    @classmethod
    def from_checkpoint(cls, stored: dict[str, Any], source: str) -> Trajectory:
        """Restore the curves of ``checkpoint``; ``source`` names the file in errors."""
        try:
            state = stored["state"]
            trajectory = cls(torch.eye(4)[None], "linear")
            trajectory.curve, trajectory.knot_spacing = stored["curve"], stored["knot_spacing"]
            # Older models have no degree: all their curves had degree 1 or 3.
            trajectory.degree = stored.get("degree", _degree(trajectory.curve, 3))
            trajectory.increments = nn.Parameter(state["increments"])
            trajectory.anchors, trajectory.first = state["anchors"], state["first"]
            trajectory._check()
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(f"{source}: holds no trajectories ({reason(error)})") from None
        return trajectory

    def _check(self) -> None:
        """Raise a ``ValueError`` if stored knots do not fit together."""
        if self.curve not in CURVES or not isinstance(self.knot_spacing, float) or not 0 < self.knot_spacing < 1e6:
            raise ValueError(f"curve {self.curve!r} with the knot spacing {self.knot_spacing!r}")
        known = isinstance(self.degree, int) and 1 <= self.degree < 100
        if not known or self.degree != _degree(self.curve, self.degree):
            raise ValueError(f"curve {self.curve} of the degree {self.degree!r}")
        knots = len(self.increments)
        shapes = [tuple(x.shape) for x in (self.increments, self.anchors, self.first)]
        if shapes != [(knots, 6), (knots, 4, 4), (len(self.first),)]:
            raise ValueError(f"increments, anchors and first of the shapes {shapes}")
        if not all(x.is_floating_point() and bool(x.isfinite().all()) for x in self.state_dict().values()):
            raise ValueError("numbers that are not finite")
        count = self.degree + 1
        last = count if self.curve != "spline" else int(1 / self.knot_spacing) + count
        if len(self.first) and not (0 <= float(self.first.min()) and int(self.first.max()) + last <= knots):
            raise ValueError(f"{knots} knots, but the views need more")

    def of_views(self, views: Sequence[int]) -> Trajectory:
        """The curves of some views, in this order; knots that only others have are kept."""
        state = self.state_dict() | {"first": self.first[list(views)]}
        return Trajectory.from_checkpoint(self.checkpoint() | {"state": state}, "the curves of some views")

    def view(self, index: int, u: Tensor) -> Tensor:
        """World-to-camera poses [M, 4, 4] of one view at the times ``u`` [M]."""
        return self(torch.full((len(u),), index, device=u.device), u)
