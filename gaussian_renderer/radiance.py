"""Radiance fields: a density and a gray level at every point, rendered by integrating along rays.

``RadianceGrid`` stores both in a dense grid in the frustum that the cameras share, as CPUs need it.  ``RadianceNets``
are the two networks of NeRF (Mildenhall et al. 2020) with the sizes that SpikeNeRF (Zhu et al., CVPR 2024) uses.
Sizes and formulas are from these publications and the released program BIT-Vision/SpikeNeRF, which no code is taken
from; the grid is ours.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gaussian_renderer import RenderOutput
from scene.model_folder import RADIANCE_FIELD
from utils import se3
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.randomness import generator

# Rays rendered at once where no gradients are needed.
_CHUNK = 1 << 14
# Opacity of a cell at the start.
_INITIAL_ALPHA = 1e-3
_SHIFT = math.log(math.expm1(_INITIAL_ALPHA))


@dataclass(frozen=True)
class Frustum:
    """The part of space that a field covers: between two depths of a camera in the middle of all cameras.

    Coordinates (x, y, disparity) in it are -1 to 1.  The disparity is 1 / depth: -1 at ``far``, 1 at ``near``.

    Args:
        w2c: pose [4, 4] of that camera.
        near, far: depths, world units.
        reach: largest |x / depth| and |y / depth| that are covered.
    """

    w2c: Tensor
    near: float
    far: float
    reach: tuple[float, float]

    @classmethod
    def around(cls, w2c: Tensor, intrinsics: Tensor, width: int, height: int, near: float, far: float) -> Frustum:
        """The frustum that contains those of the cameras ``w2c`` [V, 4, 4] with ``intrinsics`` [V, 3, 3].

        Raises:
            ValueError: the cameras look in too different directions for a single frustum.
        """
        to_world = se3.inverse(w2c.double())
        u, _, vt = torch.linalg.svd(to_world[:, :3, :3].mean(0))
        mean = torch.eye(4, dtype=torch.float64)
        mean[:3, :3] = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.det(u @ vt)))]).double()) @ vt
        mean[:3, 3] = to_world[:, :3, 3].mean(0)
        middle = se3.inverse(mean)
        corners = torch.tensor([[x, y, 1.0] for x in (0, width) for y in (0, height)]).double()
        rays = corners @ torch.linalg.inv(intrinsics.double()).mT
        points = torch.cat([rays * depth for depth in (near, (near * far) ** 0.5, far)], dim=1)
        seen = points @ to_world[:, :3, :3].mT + to_world[:, None, :3, 3]
        local = (seen @ middle[:3, :3].T + middle[:3, 3]).reshape(-1, 3)
        slopes = (local[:, :2] / local[:, 2:]).abs().amax(0)
        if bool((local[:, 2] <= 0).any()) or float(slopes.max()) > _WIDEST:
            raise ValueError(
                "the views look in too different directions for a radiance field in one frustum; expected cameras that "
                "face the same way"
            )
        return cls(middle.float(), near, far, (float(slopes[0]), float(slopes[1])))

    def coordinates(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates [..., 3] of world points [..., 3], and their depths [...]."""
        local = points @ self.w2c[:3, :3].T + self.w2c[:3, 3]
        depth = local[..., 2].clamp_min(1e-3 * self.near)
        x, y = (local[..., i] / (depth * self.reach[i]) for i in (0, 1))
        disparity = 2 * (1 / depth - 1 / self.far) / (1 / self.near - 1 / self.far) - 1
        return torch.stack([x, y, disparity], dim=-1), depth

    def to(self, device: torch.device) -> Frustum:
        """The frustum with its pose on ``device``."""
        return Frustum(self.w2c.to(device), self.near, self.far, self.reach)


# Largest slope of a ray in the shared frustum: about 76 degrees.
_WIDEST = 4.0


@dataclass(frozen=True)
class Rays:
    """Rays from R pixels: ``origins`` and ``directions`` [R, 3] in world units per unit of depth."""

    origins: Tensor
    directions: Tensor

    @classmethod
    def of(cls, w2c: Tensor, intrinsics: Tensor, width: int, height: int) -> Rays:
        """The rays through all pixels of the cameras ``w2c`` [M, 4, 4] with ``intrinsics`` [M, 3, 3], R = M H W."""
        x, y = (torch.arange(size).to(w2c) + 0.5 for size in (width, height))
        grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(height, width).to(w2c)], -1)
        pixels = grid.reshape(1, -1, 3) @ torch.linalg.inv(intrinsics).mT
        directions = pixels @ w2c[:, :3, :3]
        origins = -torch.einsum("mji,mj->mi", w2c[:, :3, :3], w2c[:, :3, 3])
        return cls(origins[:, None].expand_as(directions).reshape(-1, 3), directions.reshape(-1, 3))

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, start: int, stop: int) -> Rays:
        """The rays ``start`` to ``stop``."""
        return Rays(self.origins[start:stop], self.directions[start:stop])

    def points(self, depths: Tensor) -> Tensor:
        """World points [R, S, 3] at ``depths`` [R, S]."""
        return self.origins[:, None] + depths[..., None] * self.directions[:, None]

    def lengths(self, depths: Tensor) -> Tensor:
        """Lengths [R, S] from each of the increasing ``depths`` [R, S] to the next, world units."""
        steps = torch.diff(depths, append=2 * depths[:, -1:] - depths[:, -2:-1])
        return steps * self.directions.norm(dim=-1)[:, None]


def stratified_depths(near: float, far: float, shape: tuple[int, int], random: torch.Generator | None) -> Tensor:
    """Increasing depths [R, S], one in each of S equal intervals of disparity: at random, or in their middles."""
    rays, samples = shape
    at = torch.rand(rays, samples, generator=random) if random is not None else torch.full((rays, samples), 0.5)
    share = (torch.arange(samples) + at) / samples
    return 1 / (1 / near + share * (1 / far - 1 / near))


def importance_depths(depths: Tensor, weights: Tensor, count: int, random: torch.Generator | None) -> Tensor:
    """``count`` more depths [R, count] distributed as the weights [R, S] of sorted ``depths`` [R, S], per interval."""
    edges = (depths[:, 1:] + depths[:, :-1]) / 2
    density = weights[:, 1:-1] + 1e-5
    cumulative = (density / density.sum(-1, keepdim=True)).cumsum(-1)
    cumulative = torch.cat([torch.zeros_like(cumulative[:, :1]), cumulative], -1)
    if random is not None:
        wanted = torch.rand(len(depths), count, generator=random).to(depths)
    else:
        wanted = ((torch.arange(count) + 0.5) / count).to(depths).expand(len(depths), count).contiguous()
    above = torch.searchsorted(cumulative, wanted, right=True).clamp(1, cumulative.shape[1] - 1)
    low, high = cumulative.gather(1, above - 1), cumulative.gather(1, above)
    share = (wanted - low) / (high - low).clamp_min(1e-8)
    start, stop = edges.gather(1, above - 1), edges.gather(1, above)
    return start + share * (stop - start)


def composite(density: Tensor, gray: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Gray levels [R] of rays, and the weights [R, S] of their samples, which sum to one.

    The last sample stands for everything behind it: the field has an opaque end.

    Args:
        density, gray: at the samples [R, S].
        lengths: of the samples along the ray [R, S], in units of 1 / density.
    """
    alpha = 1 - torch.exp(-density * lengths)
    through = torch.cumprod(1 - alpha[:, :-1], dim=-1)
    before = torch.cat([torch.ones_like(through[:, :1]), through], dim=-1)
    weights = before * torch.cat([alpha[:, :-1], torch.ones_like(alpha[:, :1])], dim=-1)
    return (weights * gray).sum(-1), weights


class RadianceField:
    """What all radiance fields share: rays, samples and images; a ``gaussian_renderer.field.Field``.

    Args:
        frustum: where the field is.
        samples: samples per ray.
        seed: seed of the random depths in training.
    """

    kind = ""
    # As much work as the Gaussians' whole images.
    pixels: int | None = 2048

    def __init__(self, frustum: Frustum, samples: int, seed: int):
        self.frustum, self.samples, self.seed = frustum, samples, seed

    def trace(self, rays: Rays, random: torch.Generator | None) -> list[tuple[Tensor, Tensor]]:
        """Gray levels [R] and depths [R] of rays, one pair for each level of the field; the last is the image."""
        raise NotImplementedError

    def parameters(self) -> dict[str, Tensor]:
        """See ``Field.parameters``."""
        raise NotImplementedError

    def restore(self, stored: dict[str, Tensor]) -> None:
        """See ``Field.restore``."""
        raise NotImplementedError

    def sizes(self) -> dict[str, int]:
        """See ``Field.sizes``."""
        raise NotImplementedError

    def render(
        self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, iteration: int | None = None
    ) -> RenderOutput:
        """See ``Field.render``; in training, images have one channel per level of the field, the last is the image."""
        rays = Rays.of(w2c, intrinsics, width, height)
        random = None if iteration is None else generator("rays", self.seed, iteration)
        if torch.is_grad_enabled():
            found = self.trace(rays, random)
        else:
            parts = [self.trace(rays.part(i, i + _CHUNK), None) for i in range(0, len(rays), _CHUNK)]
            by_level = [zip(*level, strict=True) for level in zip(*parts, strict=True)]
            found = [(torch.cat(grays), torch.cat(depths)) for grays, depths in by_level]
        shape = (len(w2c), 1, height, width)
        trains = iteration is not None and torch.is_grad_enabled()
        levels = [gray.reshape(shape) for gray, _ in (found if trains else found[-1:])]
        depth = found[-1][1].reshape(shape)
        return RenderOutput(torch.cat(levels, 1), torch.ones_like(depth), depth)

    def histograms(self) -> dict[str, Tensor]:
        """See ``Field.histograms``."""
        return {}

    def save_start(self, model: Path) -> None:
        """Nothing: the field is empty."""

    def save(self, folder: Path) -> None:
        """See ``Field.save``."""
        settings = {"kind": self.kind, "samples": self.samples, "seed": self.seed}
        frustum = {key: value for key, value in asdict(self.frustum).items() if key != "w2c"}
        stored = {name: value.detach() for name, value in self.parameters().items()}
        save_checkpoint(
            folder / RADIANCE_FIELD, settings | {"w2c": self.frustum.w2c, "frustum": frustum, "parameters": stored}
        )


class RadianceGrid(RadianceField):
    """Density and a gray level that depends linearly on the direction, in a dense grid: trilinear interpolation.

    Args:
        values: [1, 5, D, H, W] over disparity, y and x: density before softplus; gray level before a sigmoid, and
            its gradient with respect to the direction (a spherical harmonic of degree 1) in world coordinates.
    """

    kind = "grid"

    def __init__(self, frustum: Frustum, values: Tensor, samples: int, seed: int):
        super().__init__(frustum, samples, seed)
        self.values = nn.Parameter(values)

    @classmethod
    def empty(cls, frustum: Frustum, cells: tuple[int, int, int], samples: int, seed: int) -> RadianceGrid:
        """A grid of ``cells`` (D, H, W) that is almost transparent and gray."""
        return cls(frustum, torch.zeros(1, 5, *cells, device=frustum.w2c.device), samples, seed)

    def trace(self, rays: Rays, random: torch.Generator | None) -> list[tuple[Tensor, Tensor]]:
        """See ``RadianceField.trace``."""
        frustum = self.frustum
        depths = stratified_depths(frustum.near, frustum.far, (len(rays), self.samples), random).to(rays.origins)
        at, local_depth = frustum.coordinates(rays.points(depths))
        found = F.grid_sample(
            self.values, at[None, :, :, None], padding_mode="border", align_corners=True, mode="bilinear"
        )[0, :, :, :, 0]
        # A cell has a length of depth^2 times its disparity, so that an empty grid is equally faint everywhere.
        cell = local_depth.square() * (1 / frustum.near - 1 / frustum.far) / self.samples
        lengths = rays.lengths(depths)
        density = F.softplus(found[0] + _SHIFT)
        towards = F.normalize(rays.directions, dim=-1)
        gray = (found[1] + torch.einsum("crs,rc->rs", found[2:], towards)).sigmoid()
        image, weights = composite(density, gray, lengths / cell)
        return [(image, (weights * depths).sum(-1))]

    @torch.no_grad()
    def refine(self) -> None:
        """Double the resolution in each direction."""
        d, h, w = self.values.shape[2:]
        finer = F.interpolate(self.values, size=(2 * d, 2 * h, 2 * w), mode="trilinear", align_corners=True)
        self.values = nn.Parameter(finer)

    def parameters(self) -> dict[str, Tensor]:
        """See ``Field.parameters``."""
        return {"values": self.values}

    def restore(self, stored: dict[str, Tensor]) -> None:
        """See ``Field.restore``; the grid may have another resolution."""
        self.values = nn.Parameter(stored["values"])

    def sizes(self) -> dict[str, int]:
        """See ``Field.sizes``."""
        return {"cells": self.values[0, 0].numel()}

    def variation(self) -> Tensor:
        """Mean absolute difference [] of neighboring cells."""
        return torch.stack([self.values.diff(dim=i).abs().mean() for i in (2, 3, 4)]).mean()


def encoded(values: Tensor, octaves: int) -> Tensor:
    """Values [..., 3] with their sines and cosines at ``octaves`` frequencies: [..., 3 + 6 octaves]."""
    scaled = values[..., None, :] * 2.0 ** torch.arange(octaves, device=values.device)[:, None]
    return torch.cat([values, torch.cat([scaled.sin(), scaled.cos()], -1).flatten(-2)], -1)


class NerfNet(nn.Module):
    """NeRF's network: 8 layers of 256 with the position again after the fifth, and 128 more with the direction."""

    _POSITION, _DIRECTION, _WIDTH = 10, 4, 256

    def __init__(self) -> None:
        super().__init__()
        position, direction = 3 + 6 * self._POSITION, 3 + 6 * self._DIRECTION
        inputs = [position, *[self._WIDTH] * 4, self._WIDTH + position, self._WIDTH, self._WIDTH]
        self.pts_linears = nn.ModuleList([nn.Linear(n, self._WIDTH) for n in inputs])
        self.views_linears = nn.ModuleList([nn.Linear(self._WIDTH + direction, self._WIDTH // 2)])
        self.feature_linear = nn.Linear(self._WIDTH, self._WIDTH)
        self.alpha_linear = nn.Linear(self._WIDTH, 1)
        self.rgb_linear = nn.Linear(self._WIDTH // 2, 3)

    def forward(self, at: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
        """Density before the activation, and gray level [...], at ``at`` [..., 3] seen along ``towards`` [..., 3]."""
        start = encoded(at, self._POSITION)
        x = start
        for i, layer in enumerate(self.pts_linears):
            x = F.relu(layer(torch.cat([start, x], -1) if i == 5 else x))
        color = torch.cat([self.feature_linear(x), encoded(towards, self._DIRECTION)], -1)
        color = self.rgb_linear(F.relu(self.views_linears[0](color)))
        return self.alpha_linear(x)[..., 0], color.sigmoid().mean(-1)


class RadianceNets(RadianceField):
    """A coarse and a fine network; the fine one has twice as many more samples, where the coarse one saw something."""

    kind = "mlp"

    def __init__(self, frustum: Frustum, samples: int, seed: int):
        super().__init__(frustum, samples, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = nn.ModuleDict({"coarse": NerfNet(), "fine": NerfNet()}).to(frustum.w2c.device)

    def trace(self, rays: Rays, random: torch.Generator | None) -> list[tuple[Tensor, Tensor]]:
        """See ``RadianceField.trace``."""
        frustum = self.frustum
        depths = stratified_depths(frustum.near, frustum.far, (len(rays), self.samples), random).to(rays.origins)
        coarse, weights = self._level("coarse", rays, depths)
        more = importance_depths(depths, weights.detach(), 2 * self.samples, random)
        fine, _ = self._level("fine", rays, torch.cat([depths, more], -1).sort(-1).values)
        return [coarse, fine]

    def _level(self, name: str, rays: Rays, depths: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        at, _ = self.frustum.coordinates(rays.points(depths))
        towards = F.normalize(rays.directions, dim=-1)[:, None].expand_as(at)
        density, gray = self.nets[name](at, towards)
        image, weights = composite(F.relu(density), gray, rays.lengths(depths))
        return (image, (weights * depths).sum(-1)), weights

    def parameters(self) -> dict[str, Tensor]:
        """See ``Field.parameters``."""
        return dict(self.nets.named_parameters())

    def restore(self, stored: dict[str, Tensor]) -> None:
        """See ``Field.restore``."""
        self.nets.load_state_dict(stored)

    def sizes(self) -> dict[str, int]:
        """See ``Field.sizes``."""
        return {"weights": sum(value.numel() for value in self.nets.parameters())}


def load_radiance_field(path: Path, device: torch.device) -> RadianceGrid | RadianceNets:
    """The radiance field that ``RadianceField.save`` wrote.

    Raises:
        ValueError: missing, damaged, or not such a file.
    """
    stored: dict[str, Any] = load_checkpoint(path, device)
    try:
        frustum = Frustum(stored["w2c"], **stored["frustum"])
        samples, seed = int(stored["samples"]), int(stored["seed"])
        if stored["kind"] == RadianceGrid.kind:
            return RadianceGrid(frustum, stored["parameters"]["values"], samples, seed)
        field = RadianceNets(frustum, samples, seed)
        field.restore(stored["parameters"])
        return field
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: holds no radiance field ({str(error).splitlines()[0]})") from None
