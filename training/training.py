"""A method applied to a scene, and one training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arguments import Settings
from gaussians.densification import Strategy
from training.after import Action
from training.objectives import Moment, Objective
from training.optimizers import Optimizers
from training.reconstruction import Reconstruction
from training.sampling import Sample, Sampler
from training.shards import ShardedStep
from training.state import State
from utils.device import use_threads
from utils.image_metrics import psnr
from utils.processes import ALONE, Processes


@dataclass
class Training:
    """What a recipe returns: the state, and everything that a step uses.

    Attributes:
        settings: the settings of the recipe.
        state: what is learned, and what it is learned from.
        sample: chooses the cameras of a step.
        objectives: the loss terms, in the order in which they are summed.
        optimizers: the optimizers of all parts of the state.
        reconstruct: produces Recon-Net's images, or None.
        strategy: densification strategy, or None.
        after: actions performed after a step.
        processes: the processes that share the steps.

    Raises:
        ValueError: no objectives.
    """

    settings: Settings
    state: State
    sample: Sampler
    objectives: Sequence[Objective]
    optimizers: Optimizers
    reconstruct: Reconstruction | None = None
    strategy: Strategy | None = None
    after: Sequence[Action] = field(default_factory=tuple)
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ValueError("nothing to learn from: the weights of all losses are 0")

    @property
    def iteration(self) -> int:
        """The latest step, 0 before the first."""
        return self.state.iteration

    @property
    def steps(self) -> int:
        """The number of training steps."""
        return self.optimizers.steps

    def step(self) -> dict[str, float]:
        """Render the sampled cameras, compute the loss, run the backward pass, update.  Returns the loss and its terms.

        Raises:
            ValueError: the loss is not finite, or there is none; nothing is updated.
        """
        state = self.state
        state.iteration += 1
        joins = self.reconstruct is not None and self.reconstruct.joins(state.iteration)
        use_threads(heavy=joins)
        random = state.random()

        sample = self.sample(state.iteration, random)
        if state.recording.folder is not None:
            state.recording.expect(self.sample(state.iteration + 1, state.random(ahead=1)))
        crops = self.reconstruct.crops(state, sample, random) if self.reconstruct is not None and joins else None
        shards = ShardedStep(state, sample, self.settings.rates.shards, self.processes, self.reconstruct, crops)
        moment = Moment(state, sample, shards.renders, shards.frames)
        terms = self._terms(moment)
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        total = self._finite(loss, terms)
        shards.backward(loss, self.optimizers.parameters(with_network=joins))

        self.optimizers.step(shards.renders.info, self.strategy, with_network=joins)
        for action in self.after:
            action(moment, self.optimizers)
        return {name: float(value.detach()) for name, (_, value) in terms.items()} | {"loss": total}

    def _terms(self, moment: Moment) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of every objective that applies, by name."""
        terms: dict[str, tuple[float, Tensor]] = {}
        for objective in self.objectives:
            value = objective(moment)
            if value is None:
                continue
            if objective.name in terms:
                raise ValueError(f"two objectives are called {objective.name}: the loss needs a name for each term")
            terms[objective.name] = (objective.weight, value)
        if not terms:
            raise ValueError(f"iteration {self.iteration}: none of the objectives applies, so there is no loss")
        return terms

    def _finite(self, loss: Tensor, terms: dict[str, tuple[float, Tensor]]) -> float:
        total = float(loss.detach())
        if not math.isfinite(total):
            wrong = [name for name, (_, value) in terms.items() if not bool(value.detach().isfinite())]
            names = " + ".join(wrong or terms)
            raise ValueError(f"iteration {self.iteration}: the loss {names} is {total}, expected a finite number")
        return total

    def probe(self) -> tuple[float, Tensor]:
        """The first training view's middle render [C, H, W], and its PSNR against its own target (not ground truth)."""
        recording = self.state.recording
        with torch.no_grad():
            image = self.state.render(Sample.instant(0, recording.window.middle)).images.detach()
        target = recording.middle(0)[None]
        return float(psnr(recording.seen(image, target), target)), image[0]
