"""What happens after a step, beside the optimizers: directions of time, the sensor's fixed pattern."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch

from spike import FixedPattern
from training.objectives import Moment
from training.optimizers import Optimizers
from training.sampling import Sample
from utils.image_metrics import l1


class Action(Protocol):
    """Something that is done after every step."""

    name: ClassVar[str]

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        """Look at what the step made, and change the state where it is due."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` stopped."""


class DirectionVotes:
    """Reverses for good the views whose reversed pairing keeps winning L_joint.

    A blurred mean cannot tell a trajectory from its reverse, but Recon-Net's images have the spikes' own time.
    """

    name: ClassVar[str] = "direction"
    # Weight of a step in the memory of a view's direction, and where that memory turns the view round: about twenty
    # steps of the view that nearly all say so.
    vote = 0.1
    reversed = -0.8

    def __init__(self, views: int):
        # By view, how the pairings went: from 1, always in order, to -1, always in reverse.
        self.direction = torch.zeros(views)

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        if moment.frames is not None:
            renders = moment.frames.crops[0].of(moment.renders.images).detach()
            frames, view = moment.frames.images.detach(), moment.sample.view
            forward = bool(l1(renders, frames) <= l1(renders, frames.flip(0)))
            self.direction[view] += self.vote * ((1.0 if forward else -1.0) - self.direction[view])
        for view in torch.nonzero(self.direction < self.reversed).flatten().tolist():
            self.direction[view] = 0.0
            optimizers.reverse(view)

    def state_dict(self) -> dict[str, Any]:
        return {"direction": self.direction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.direction = state["direction"].cpu()


class FixedPatternUpdates:
    """Now and then, the pixels' own gains from what the scene predicts; the targets are read with them from then on.

    Args:
        every: iterations between two estimates.
    """

    name: ClassVar[str] = "fixed_pattern"

    def __init__(self, every: int):
        self.every = every

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        del optimizers
        state = moment.state
        if state.iteration % self.every:
            return
        pattern = FixedPattern()
        with torch.no_grad():
            for view in range(len(state.recording)):
                sample = Sample.exposure(view, state.recording.window.subframes)
                pattern.add(state.recording.targets(sample), state.render(sample).images)
        state.recording.use_gains(pattern.applied_to(state.recording.sensor).gain_map)

    def state_dict(self) -> dict[str, Any]:
        return {}  # the gains belong to the recording

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
