"""Actions that follow the optimizers' step.

They reverse trajectories, estimate the sensor's fixed pattern, shape the spikes' intervals by the scene, measure the
noise of the targets, and average the scene and the poses.
"""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from scene.fusion import PATCH
from scene.views import TargetSpec
from simulation.twin import target_noise
from spike import FixedPattern
from training.objectives import Moment
from training.optimizers import Optimizers
from training.sampling import Sample
from training.state import Recording, State
from utils.checkpoint import fitting
from utils.image_metrics import l1
from utils.memory import returning_freed


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
        stuck = state.recording.sensor.stuck
        pattern = FixedPattern(len(views), None if stuck is None else stuck.mask)
        with torch.no_grad(), returning_freed():
            for view in views:
                sample = Sample.exposure(view, state.recording.window.subframes)
                exposure = state.recording.exposures[view]
                pattern.add(exposure.measured, exposure.on_sensor(state.render(sample).images))
        state.recording.use_gains(pattern.applied_to(state.recording.sensor).gain_map)

    def state_dict(self) -> dict[str, Any]:
        return {}  # the recording holds the gains

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state


class Retiming:
    """Periodically reads the targets again with the charge of every interval in proportion to the light rendered there.

    Spike timing spreads an interval's charge evenly, which is wrong where an edge passes, and takes spikes at edges for
    spurious ones (``spike.timing.Guide``).  An interval's charge stays one, so a wrong scene can only move light within
    an interval.

    Args:
        state: the state of the training.
        begins: the first iteration after which the targets are read again.
        every: iterations between two readings.
    """

    name: ClassVar[str] = "retiming"

    def __init__(self, state: State, begins: int, every: int):
        self.state, self.begins, self.every = state, begins, every
        # What the latest re-timing rendered: a resumed training makes the same targets from it.
        self._guide: dict[str, Any] = {}

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        state = moment.state
        due = state.iteration >= self.begins and (state.iteration - self.begins) % self.every == 0
        if not due or state.iteration == optimizers.steps:  # after the last step nothing learns from them
            return
        gains = state.recording.sensor.gain_map
        self._guide = {
            "iteration": state.iteration,
            "field": {name: value.detach().clone() for name, value in state.field.parameters().items()},
            "trajectory": copy.deepcopy(state.trajectory.state_dict()),
            "gains": {} if gains is None else {"gain_map": gains},
        }
        self._retime(state)

    @staticmethod
    def _retime(guide: State) -> None:
        guide.recording.retime([partial(guide.sight, view) for view in range(len(guide.recording))])

    def state_dict(self) -> dict[str, Any]:
        return self._guide

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._guide = state
        if not state:
            return
        guide = dataclasses.replace(
            self.state,
            field=copy.copy(self.state.field),
            trajectory=copy.deepcopy(self.state.trajectory),
            iteration=int(state["iteration"]),
        )
        guide.field.restore(state["field"])
        guide.trajectory.load_state_dict(state["trajectory"])
        gains = state["gains"].get("gain_map")
        if gains is not None:
            gains = fitting("gain_map of re-timing", gains.cpu(), torch.empty(guide.recording.size))
        guide.recording.use_gains(gains)
        self._retime(guide)


class NoiseUpdates:
    """Periodically measures the noise of the targets with simulated pixels that see what is rendered.

    Fused images weigh renders against spikes by it.

    Args:
        spec: how spikes are converted to targets.
        begins: the first iteration that measures it.
        every: iterations between measurements.
    """

    name: ClassVar[str] = "noise"

    def __init__(self, recording: Recording, spec: TargetSpec, begins: int, every: int):
        self.recording, self.spec, self.begins, self.every = recording, spec, begins, every

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        del optimizers
        state, recording = moment.state, self.recording
        since = state.iteration - self.begins
        if since < 0 or since % self.every:
            return
        views = [
            (view.camera, recording.scene.open_stream(view), partial(state.sight, i))
            for i, view in enumerate(recording.scene.train)
        ]
        with returning_freed():
            measured = target_noise(views, self.spec, recording.sensor, recording.retimed)
        recording.measured_noise = measured.to(recording.device)

    def state_dict(self) -> dict[str, Any]:
        return {"noise": self.recording.measured_noise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        noise = fitting("noise of the targets", state["noise"], torch.empty(PATCH, PATCH))
        self.recording.measured_noise = noise.to(self.recording.device)


class Averaging:
    """Averages the field and the poses over the last steps; after the last one, the means replace them.

    The steps' noise averages out, at no cost.  The mean needs the same Gaussians in the same order throughout, so it
    must begin after densification.

    Args:
        begins: the first iteration that counts.
        decay: share of the mean that a step keeps (an exponential mean; less in its first steps).
    """

    name: ClassVar[str] = "averaging"

    def __init__(self, begins: int, decay: float):
        self.begins, self.decay = begins, decay
        self.means: dict[str, Tensor] = {}

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        state = moment.state
        if state.iteration < self.begins:
            return
        learned = state.field.parameters() | {"poses": state.trajectory.increments}
        counted = state.iteration - self.begins + 1
        with torch.no_grad():
            if not self.means:
                self.means = {name: torch.zeros_like(value) for name, value in learned.items()}
            # The first steps have equal weights; from 1 / (1 - decay) steps on, the mean forgets.
            share = max(1 / counted, 1 - self.decay)
            for name, value in learned.items():
                self.means[name].lerp_(value, share)
                if state.iteration == optimizers.steps:
                    value.copy_(self.means[name])

    def state_dict(self) -> dict[str, Any]:
        return self.means

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means = dict(state)
