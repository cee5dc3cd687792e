"""The optimizers of the field, the poses and Recon-Net, and the decay of their learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from gaussians.densification import Strategy
from training.state import State


@dataclass(frozen=True)
class Rate:
    """A learning rate that decays exponentially from ``start`` to ``end`` (None: constant), times ``unit``."""

    start: float
    end: float | None = None
    unit: float = 1.0

    def at(self, progress: float) -> float:
        """The rate at ``progress`` (0 to 1) of the training."""
        if self.end is None or self.start == 0:
            return self.unit * self.start
        return self.unit * (self.start * (self.end / self.start) ** progress)


class Optimizers:
    """Adam for each part of the state.

    Args:
        state: what is optimized; new optimizers start without moments.
        steps: number of training steps.
        field: learning rate of each field parameter.
        poses: learning rate of the knots; None keeps the poses fixed.
        pose_every: number of steps whose knot gradients are summed before an update.
        network: learning rate of Recon-Net; its decay starts after ``network_from`` iterations.
    """

    def __init__(
        self, state: State, steps: int, field: dict[str, Rate], poses: Rate | None, pose_every: int = 1,
        network: Rate | None = None, network_from: int = 0,
    ):  # fmt: skip
        self.state, self.steps, self.pose_every, self.network_from = state, steps, pose_every, network_from
        self.rates: dict[str, dict[str, Rate | None]] = {
            "field": {**field}, "poses": {"": poses}, "network": {"": network}
        }  # fmt: skip
        self._given = field
        # Fused Adam: fifteen times faster on a CPU than looping over the parameters.
        parts = state.field.parameters().items()
        self.field = torch.optim.Adam(
            [{"params": [value], "lr": field[name].at(0), "name": name} for name, value in parts],
            eps=1e-15, fused=True,
        )  # fmt: skip
        self.poses = None if poses is None else _adam([state.trajectory.increments], poses)
        state.trajectory.increments.requires_grad_(poses is not None)
        self.network = None
        if state.network is not None and network is not None:
            self.network = _adam(state.network.parameters(), network)

    def renewed(self) -> Optimizers:
        """New optimizers, without moments, for the current state."""
        poses, network = self.rates["poses"][""], self.rates["network"][""]
        return Optimizers(
            self.state, self.steps, self._given, poses, self.pose_every, network, self.network_from
        )

    def step(self, info: dict[str, Any], strategy: Strategy | None, with_network: bool) -> None:
        """Update everything that has a gradient; then let ``strategy`` change the set of Gaussians."""
        iteration = self.state.iteration
        self._update(self.field, "field", iteration / self.steps)
        if strategy is not None:
            strategy.step(self.state.gaussians, self.field, info, iteration)
        self.field.zero_grad(set_to_none=True)
        if self.poses is not None and iteration % self.pose_every == 0:
            self._update(self.poses, "poses", iteration / self.steps)
            self.poses.zero_grad(set_to_none=True)
        if self.network is not None and with_network:
            own = (iteration - self.network_from) / (self.steps - self.network_from)
            self._update(self.network, "network", own)
            self.network.zero_grad(set_to_none=True)

    def _update(self, optimizer: torch.optim.Optimizer, part: str, progress: float) -> None:
        for group in optimizer.param_groups:
            rate = self.rates[part][group.get("name", "")]
            assert rate is not None
            group["lr"] = rate.at(progress)
        optimizer.step()

    def reverse(self, view: int) -> None:
        """Reverse the trajectory of one view, including the moments and gradients of its knots."""
        trajectory = self.state.trajectory
        rows = trajectory.reverse(view)
        moments = {} if self.poses is None else self.poses.state.get(trajectory.increments, {})
        for values in (moments.get("exp_avg"), moments.get("exp_avg_sq"), trajectory.increments.grad):
            if values is not None:
                values[rows] = values[rows].flip(0)

    def state_dict(self) -> dict[str, Any]:
        """The moments, and the partial sum of the knots' gradients."""
        known = {name: getattr(self, name) for name in self.rates}
        state = {name: optimizer.state_dict() for name, optimizer in known.items() if optimizer is not None}
        gradient = self.state.trajectory.increments.grad
        return state | {"pose_gradient": torch.zeros(0) if gradient is None else gradient}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        for name in self.rates:
            if getattr(self, name) is not None:
                getattr(self, name).load_state_dict(state[name])
        if len(state["pose_gradient"]):
            self.state.trajectory.increments.grad = state["pose_gradient"]


def _adam(parameters: Any, rate: Rate) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate.at(0), eps=1e-15, fused=True)
