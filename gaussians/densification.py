"""Adding, moving and removing Gaussians during training.

Two strategies share one interface: ``step(gaussians, optimizer, info, iteration)`` after each optimizer step.
``DefaultStrategy`` is 3DGS's adaptive density control (Kerbl et al. 2023, sec. 5), with the screen-space
gradients of **all** M sub-frames.  ``MCMCStrategy`` relocates dead Gaussians and explores with noise, under a
fixed budget (Kheradmand et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gaussians.model import GaussianModel
from utils.checkpoint import fitting
from utils.randomness import generator


class Strategy(Protocol):
    """The interface of densification strategies in the training loop."""

    def step(
        self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, info: dict[str, Any], iteration: int
    ) -> None:
        """Update the set of Gaussians after iteration ``iteration`` (1-based)."""

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint needs in order to resume."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore ``state_dict``."""


def _rebuild(gaussians: GaussianModel, optimizer: torch.optim.Optimizer, edit: Any, edit_state: Any) -> None:
    """Replace every parameter by ``edit(name, value)`` and its Adam moments by ``edit_state(moment)``."""
    groups = {group["name"]: group for group in optimizer.param_groups}
    for name, old in list(gaussians.raw.items()):
        new = torch.nn.Parameter(edit(name, old.detach()).contiguous())
        state = optimizer.state.pop(old, None)
        if state is not None:
            for key, value in state.items():
                if key != "step":
                    state[key] = edit_state(value).contiguous()
            optimizer.state[new] = state
        groups[name]["params"] = [new]
        gaussians.raw[name] = new


def append(gaussians: GaussianModel, optimizer: torch.optim.Optimizer, new: dict[str, Tensor]) -> None:
    """Add Gaussians with fresh (zero) Adam moments."""
    count = len(new["means"])
    _rebuild(
        gaussians,
        optimizer,
        lambda name, value: torch.cat([value, new[name]]),
        lambda moment: torch.cat([moment, moment.new_zeros(count, *moment.shape[1:])]),
    )


def keep(gaussians: GaussianModel, optimizer: torch.optim.Optimizer, mask: Tensor) -> None:
    """Keep the Gaussians where ``mask`` [N] is true."""
    _rebuild(gaussians, optimizer, lambda _, value: value[mask], lambda moment: moment[mask])


def _forget(gaussians: GaussianModel, optimizer: torch.optim.Optimizer, name: str, rows: Any) -> None:
    """Zero the Adam moments of some rows of one parameter."""
    state = optimizer.state.get(gaussians.raw[name], {})
    for key, value in state.items():
        if key != "step":
            value[rows] = 0


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of the quaternions ``quats`` [N, 4] (wxyz, any length)."""
    return _rotation_planes(quats).movedim(2, 0)


def _rotation_planes(quats: Tensor) -> Tensor:
    """``rotations``, each element in a plane of its own: [3, 3, N]."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).T.contiguous()
    elements = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(elements).unflatten(0, (3, 3))


@dataclass
class DefaultStrategy:
    """Clone small and split large Gaussians with a large screen-space gradient; remove transparent ones.

    Args:
        grow_gradient: threshold on the mean gradient norm of the projected center, in normalized device
            units (the images span [-1, 1]).  A step's loss is a mean over its cameras, so the gradient in one of
            them is multiplied by their number: the threshold means the same for any number of cameras.
        scene_extent: world units; Gaussians wider than ``split_scale`` times it are split, the others cloned.
        cull_opacity: opacity below which Gaussians are removed.
        cull_scale: Gaussians wider than this times the extent are removed, after the first opacity reset.
        start, stop, every: the set changes every ``every`` iterations between ``start`` and ``stop`` (exclusive).
        reset_every: iterations between opacity resets (0: never).
        cap: maximum number of Gaussians (0: no limit).
        last_only: use only the last camera of a call (as the authors' program does), not all.
    """

    grow_gradient: float
    scene_extent: float
    cull_opacity: float = 5e-3
    split_scale: float = 0.01
    cull_scale: float = 0.1
    start: int = 500
    stop: int = 15_000
    every: int = 100
    reset_every: int = 3_000
    cap: int = 0
    last_only: bool = False
    seed: int = 0
    _gradient: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    _seen: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)

    def step(
        self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, info: dict[str, Any], iteration: int
    ) -> None:
        if iteration >= self.stop:
            return
        self._observe(len(gaussians), info)
        if iteration > self.start and iteration % self.every == 0:
            self._densify(gaussians, optimizer, iteration)
        if self.reset_every and iteration % self.reset_every == 0:
            with torch.no_grad():
                ceiling = math.log(2 * self.cull_opacity / (1 - 2 * self.cull_opacity))
                gaussians.raw["opacity_logits"].clamp_(max=ceiling)
            _forget(gaussians, optimizer, "opacity_logits", slice(None))

    def _observe(self, count: int, info: dict[str, Any]) -> None:
        """Add this step's gradient norms, one for every sub-frame in which a Gaussian was visible.

        The first ``count`` Gaussians of ``info`` are those that are learned.
        """
        gradient: Tensor | None = info["means2d"].grad
        assert gradient is not None, "densification needs the gradient of the projected centers"
        scale = gradient.new_tensor([info["width"] / 2, info["height"] / 2])
        norms = (gradient.reshape(-1, *gradient.shape[-2:])[:, :count] * scale).norm(dim=-1)
        radii = info["radii"]
        visible = (radii.reshape(-1, *radii.shape[-2:])[:, :count] > 0).all(-1)
        norms = norms * len(norms)
        if self.last_only:
            norms, visible = norms[-1:], visible[-1:]
        if len(self._gradient) != count:
            self._gradient = norms.new_zeros(count)
            self._seen = norms.new_zeros(count)
        self._gradient += (norms * visible).sum(0)
        self._seen += visible.sum(0)

    def _densify(self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        gradient = self._gradient / self._seen.clamp_min(1)
        grow = gradient > self.grow_gradient
        if self.cap and len(gaussians) + int(grow.sum()) > self.cap:
            room = max(self.cap - len(gaussians), 0)
            best = torch.topk(torch.where(grow, gradient, gradient.new_tensor(-1.0)), room).indices
            grow = torch.zeros_like(grow)
            grow[best] = True
        wide = gaussians.scales.detach().amax(-1) > self.split_scale * self.scene_extent
        with torch.no_grad():
            clone, split = grow & ~wide, grow & wide
            children = self._split(gaussians, split, iteration)
            copies = {name: value.detach()[clone] for name, value in gaussians.raw.items()}
            append(gaussians, optimizer, {name: torch.cat([copies[name], children[name]]) for name in copies})
            alive = torch.ones(len(gaussians), dtype=torch.bool, device=grow.device)
            alive[: len(split)] = ~split
            alive &= gaussians.opacities >= self.cull_opacity
            if self.reset_every and iteration > self.reset_every:
                alive &= gaussians.scales.amax(-1) <= self.cull_scale * self.scene_extent
            if not alive.any():
                raise ValueError(
                    f"iteration {iteration}: all {len(alive)} Gaussians are too transparent or too large to keep; "
                    "lower --min_opacity, or reset opacities less often (--opacity_reset_interval)"
                )
            keep(gaussians, optimizer, alive)
        self._gradient = torch.zeros(0)
        self._seen = torch.zeros(0)

    def _split(self, gaussians: GaussianModel, which: Tensor, iteration: int) -> dict[str, Tensor]:
        """Two children per Gaussian, sampled from the parent's density and 1.6 times smaller."""
        parents = {name: value.detach()[which].repeat_interleave(2, 0) for name, value in gaussians.raw.items()}
        scales = parents["log_scales"].exp()
        random = generator("densification", self.seed, iteration, scales.device)
        noise = torch.randn(scales.shape, generator=random, device=scales.device)
        offset = rotations(parents["quats"]) @ (scales * noise)[..., None]
        parents["means"] = parents["means"] + offset[..., 0]
        parents["log_scales"] = (scales / 1.6).log()
        return parents

    def state_dict(self) -> dict[str, Tensor]:
        return {"gradient": self._gradient, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        gradient = fitting("gradient", state["gradient"], torch.zeros(len(state["gradient"])))
        self._gradient, self._seen = gradient, fitting("seen", state["seen"], gradient)


@dataclass
class MCMCStrategy:
    """A fixed budget of Gaussians: dead ones are relocated onto live ones, and all explore with noise.

    Args:
        cap: number of Gaussians to grow to (5 % at a time).
        noise: factor on the exploration noise (multiplied by the learning rate of the means).
        dead_opacity: opacity below which a Gaussian is relocated.
        start, stop, every: Gaussians are relocated and added every ``every`` iterations between ``start`` and ``stop``
            (exclusive).
    """

    cap: int
    noise: float = 5e5
    dead_opacity: float = 5e-3
    start: int = 500
    stop: int = 25_000
    every: int = 100
    growth: float = 1.05
    seed: int = 0

    def step(
        self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, info: dict[str, Any], iteration: int
    ) -> None:
        del info  # screen-space statistics are not used
        random = generator("densification", self.seed, iteration, gaussians.means.device)
        with torch.no_grad():
            if self.start < iteration < self.stop and iteration % self.every == 0:
                self._relocate(gaussians, optimizer, random)
                self._add(gaussians, optimizer, random)
            if iteration < self.stop:
                self._explore(gaussians, optimizer, random)

    def _relocate(
        self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, random: torch.Generator
    ) -> None:
        opacities = gaussians.opacities
        dead = torch.nonzero(opacities <= self.dead_opacity)[:, 0]
        alive = torch.nonzero(opacities > self.dead_opacity)[:, 0]
        if len(dead) == 0 or len(alive) == 0:
            return
        picks = torch.multinomial(opacities[alive], len(dead), replacement=True, generator=random)
        sources = alive[picks]
        self._share(gaussians, sources)
        for name, value in gaussians.raw.items():
            value[dead] = value[sources]
            _forget(gaussians, optimizer, name, sources)

    def _add(
        self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, random: torch.Generator
    ) -> None:
        count = min(self.cap, int(self.growth * len(gaussians))) - len(gaussians)
        if count <= 0:
            return
        sources = torch.multinomial(gaussians.opacities, count, replacement=True, generator=random)
        self._share(gaussians, sources)
        append(gaussians, optimizer, {name: value.detach()[sources] for name, value in gaussians.raw.items()})

    def _share(self, gaussians: GaussianModel, sources: Tensor) -> None:
        """Opacity and scale of Gaussians that will be duplicated n times, so that the render is unchanged (eq. 9)."""
        counts = torch.bincount(sources, minlength=len(gaussians))
        which = torch.nonzero(counts)[:, 0]
        n = (counts[which] + 1).clamp_max(50).double()
        old = gaussians.opacities[which].double()
        new = 1 - (1 - old).clamp_min(0) ** (1 / n)
        # sum over copies of the alternating binomial series that makes the integrated alpha equal
        denominator = torch.zeros_like(old)
        for i in range(1, int(n.max()) + 1):
            for k in range(i):
                term = math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1)
                denominator += torch.where(i <= n, term * new ** (k + 1), torch.zeros_like(old))
        scale = old / denominator
        eps = torch.finfo(torch.float32).eps
        opacities = new.clamp(self.dead_opacity, 1 - eps)
        gaussians.raw["opacity_logits"][which] = opacities.logit().float()
        gaussians.raw["log_scales"][which] += scale.log()[:, None].float()

    def _explore(
        self, gaussians: GaussianModel, optimizer: torch.optim.Optimizer, random: torch.Generator
    ) -> None:
        rate = next(group["lr"] for group in optimizer.param_groups if group["name"] == "means")
        # Only Gaussians with an opacity near 0 move: a sigmoid at opacity 0.005 with slope 100.
        weight = torch.sigmoid(100 * (0.005 - gaussians.opacities))
        moved = torch.nonzero(weight > 1e-4)[:, 0]
        if len(moved) == 0:
            return
        turned = _rotation_planes(gaussians.quats[moved])
        noise = torch.randn(len(moved), 3, generator=random, device=turned.device)
        noise = noise * (weight[moved] * self.noise * rate)[:, None]
        # Covariance times noise, R S^2 R^T n: several times faster by elements than with small matrices.
        along = (turned * noise.T.contiguous()[:, None]).sum(0)
        along = along * (2 * gaussians.raw["log_scales"][moved].T).exp()
        gaussians.means[moved] += (turned * along).sum(1).T

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        del state
