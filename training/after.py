"""Actions that follow the optimizers' step: reversing trajectories, and estimating the sensor's fixed pattern."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch

from spike import FixedPattern
from training.objectives import Moment
from training.optimizers import Optimizers
from training.sampling import Sample
from utils.checkpoint import fitting
from utils.image_metrics import l1


class Action(Protocol):
    """An action performed after every step."""

    name: ClassVar[str]

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        """Inspect the step's results and update the state when due."""

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint must contain."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""


class DirectionVotes:
    """Permanently reverses the trajectory of a view for which the reversed pairing keeps winning in L_joint.

    A blurred mean does not determine the direction of time, but Recon-Net's images follow the time of the spikes.
    """

    name: ClassVar[str] = "direction"
    # Weight of one step in a view's moving average, and the average at which the view is reversed: after about twenty
    # steps of the view that nearly all favor the reverse.
    vote = 0.1
    threshold = -0.8

    def __init__(self, views: int):
        # Moving average of the pairings of each view, from 1 (always in order) to -1 (always reversed).
        self.direction = torch.zeros(views)

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        if moment.frames is not None:
            renders = moment.frames.crops[0].of(moment.renders.images).detach()
            frames, view = moment.frames.images.detach(), moment.sample.view
            forward = bool(l1(renders, frames) <= l1(renders, frames.flip(0)))
            self.direction[view] += self.vote * ((1.0 if forward else -1.0) - self.direction[view])
        for view in torch.nonzero(self.direction < self.threshold).flatten().tolist():
            self.direction[view] = 0.0
            optimizers.reverse(view)

    def state_dict(self) -> dict[str, Any]:
        return {"direction": self.direction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.direction = fitting("direction", state["direction"].cpu(), self.direction)


class FixedPatternUpdates:
    """Periodically estimates the gain of every pixel from the renders; the targets are then read with these gains.

    Args:
        every: iterations between estimates.
    """

    name: ClassVar[str] = "fixed_pattern"
    # Maximum number of views for an estimate, evenly spaced: the noise of a gain is then far below its pattern.
    views = 256

    def __init__(self, every: int):
        self.every = every

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        del optimizers
        state = moment.state
        if state.iteration % self.every:
            return
        count = len(state.recording)
        views = torch.linspace(0, count - 1, min(count, self.views)).round().long().tolist()
        pattern = FixedPattern(len(views))
        with torch.no_grad():
            for view in views:
                sample = Sample.exposure(view, state.recording.window.subframes)
                pattern.add(state.recording.targets(sample), state.render(sample).images)
        state.recording.use_gains(pattern.applied_to(state.recording.sensor).gain_map)

    def state_dict(self) -> dict[str, Any]:
        return {}  # the recording holds the gains

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
