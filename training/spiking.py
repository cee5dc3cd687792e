"""SpikeNeRF's loss: a sensor between the radiance field and the measured spikes (Zhu et al., CVPR 2024).

A rendered intensity becomes the rate of a pixel that accumulates light and fires, and that is compared with the rate
that was measured.  What varies from pixel to pixel is part of the model, so the field does not learn it.  The formulas
are from the publication and the released program BIT-Vision/SpikeNeRF; the soft reset, and gains that are learned where
no calibration is known, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gaussian_renderer import RenderOutput
from gaussian_renderer.field import pixel_cameras
from gaussian_renderer.radiance import RadianceField, RadianceGrid
from scene.views import Quadrature
from spike import SensorModel
from training.objectives import Moment, Weighted
from training.optimizers import Optimizers
from training.sampling import Sample
from utils.randomness import generator

# Expected deviation of a pixel's log gain.
_GAIN_DEVIATION = 0.03
# Smallest light per frame: a pixel takes longer to fire than any window.
_DARK = 1e-6


def soft_fire(light: Tensor, frames: int, phase: Tensor) -> Tensor:
    """Spikes per frame of pixels that keep what exceeds the threshold when they fire.

    The gradient is that of ``light``, which is what the rate is on average over the phases.

    Args:
        light: charge accumulated per frame [R], in units of the threshold.
        frames: length of the window, spike frames.
        phase: charge at the start [R], in [0, 1).
    """
    rate = (light * frames + phase).floor() / frames
    return light + (rate - light).detach()


class _HardFire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, light: Tensor, frames: int) -> Tensor:
        interval = (1 / light.clamp_min(_DARK)).floor() + 1
        rate = (frames / interval).floor() / frames
        ctx.save_for_backward(interval * rate)
        return rate

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


def hard_fire(light: Tensor, frames: int) -> Tensor:
    """Spikes per frame of pixels that start at 0, fire when they exceed the threshold 1, and then start at 0 again.

    In closed form, for ``light`` [R] per frame in units of the threshold: light x fires every n = floor(1/x) + 1
    frames.  The gradient is that of the released program's loop, which passes the gradient of a spike to all the light
    that was accumulated for it: n spikes / frames.
    """
    return _HardFire.apply(light, frames)  # type: ignore[no-any-return,no-untyped-call]


class SensorLayer:
    """From intensities to spikes per frame, for single pixels.

    Args:
        sensor: the scene's sensor; if it has no pixel gains, they are learned.
        frames: length of the window, spike frames.
        height, width: pixels of the sensor.
        fire: how pixels are reset.
    """

    def __init__(
        self, sensor: SensorModel, frames: int, height: int, width: int, fire: Literal["soft", "hard"],
        device: torch.device,
    ):  # fmt: skip
        self.sensor, self.frames, self.fire = sensor, frames, fire
        self.calibrated = None if sensor.gain_map is None else sensor.gain_map.to(device)
        dark = sensor.dark()
        self.dark = dark.to(device) if isinstance(dark, Tensor) else torch.full((height, width), dark, device=device)
        self.log_gain = nn.Parameter(torch.zeros(height, width, device=device))

    def parameters(self) -> dict[str, Tensor]:
        """What is learned."""
        return {"log_gain": self.log_gain} if self.calibrated is None else {}

    def _known(self, intensity: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Light per frame of the pixels, as far as the scene's sensor model knows them."""
        light = self.sensor.gain * intensity
        light = light if self.calibrated is None else light * self.calibrated[row, column]
        return light + self.dark[row, column]

    def measured(self, intensity: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The rates [R] that were measured, from the intensities [R] that they were converted to."""
        return self._known(intensity, row, column)

    def rates(self, intensity: Tensor, row: Tensor, column: Tensor, phase: Tensor) -> Tensor:
        """The rates [R] of pixels (row, column) that see the intensities [R]."""
        # A common factor of all gains would be brightness.
        gains = (self.log_gain - self.log_gain.mean())[row, column].exp()
        light = self._known(intensity * gains, row, column)
        return soft_fire(light, self.frames, phase) if self.fire == "soft" else hard_fire(light, self.frames)

    def prior(self) -> Tensor:
        """Mean squared log gain [] in units of its expected variance."""
        return ((self.log_gain - self.log_gain.mean()) / _GAIN_DEVIATION).square().mean()


class SensedField:
    """A radiance field together with the learned part of the sensor: a ``gaussian_renderer.field.Field``."""

    def __init__(self, field: RadianceField, sensor: SensorLayer):
        self.field, self.sensor = field, sensor
        self.pixels: int | None = field.pixels

    def render(
        self, w2c: Tensor, intrinsics: Tensor, width: int, height: int, iteration: int | None = None
    ) -> RenderOutput:
        """The plain images of the field: the sensor is part of the loss only."""
        return self.field.render(w2c, intrinsics, width, height, iteration)

    def parameters(self) -> dict[str, Tensor]:
        """See ``Field.parameters``."""
        return self.field.parameters() | self.sensor.parameters()

    def restore(self, stored: dict[str, Tensor]) -> None:
        """See ``Field.restore``."""
        own = self.sensor.parameters()
        self.field.restore({name: value for name, value in stored.items() if name not in own})
        if own:
            self.sensor.log_gain = nn.Parameter(stored["log_gain"])

    def sizes(self) -> dict[str, int]:
        """See ``Field.sizes``."""
        return self.field.sizes()

    def histograms(self) -> dict[str, Tensor]:
        """See ``Field.histograms``."""
        return self.field.histograms()

    def save_start(self, model: Path) -> None:
        """See ``Field.save_start``."""
        self.field.save_start(model)

    def save(self, folder: Path) -> None:
        """See ``Field.save``."""
        self.field.save(folder)


@dataclass(frozen=True)
class PixelSample(Sample):
    """Single pixels: B instants with one pixel (row, column) each; ``pixels`` [B, 2]."""

    pixels: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.long))

    @property
    def row(self) -> Tensor:
        """Rows [B] of the pixels."""
        return self.pixels[:, 0]

    @property
    def column(self) -> Tensor:
        """Columns [B] of the pixels."""
        return self.pixels[:, 1]

    def framed(
        self, intrinsics: Tensor, width: int, height: int, cameras: slice = slice(None)
    ) -> tuple[Tensor, int, int]:
        """See ``Sample.framed``: images of a single pixel."""
        return pixel_cameras(intrinsics, self.pixels[cameras].flip(-1)), 1, 1


@dataclass(frozen=True)
class RandomPixels:
    """Pixels of all views at the middle of their exposures, at random.

    Args:
        views, height, width: what they are drawn from.
        subframe: number of the middle sub-frame.
        count: pixels per step.
    """

    views: int
    height: int
    width: int
    subframe: int
    count: int

    def __call__(self, iteration: int, random: torch.Generator) -> PixelSample:
        view, row, column = (
            torch.randint(high, (self.count,), generator=random) for high in (self.views, self.height, self.width)
        )
        subframes = torch.full((self.count,), self.subframe)
        return PixelSample(view, subframes, Quadrature.middle(), pixels=torch.stack([row, column], -1))


@dataclass(frozen=True)
class SpikeLoss(Weighted):
    """The mean squared difference of rates after a gamma correction, summed over the field's levels.

    ``long`` [V, H, W] are the intensities of the views' windows.
    """

    name: ClassVar[str] = "spike"
    sensor: SensorLayer
    long: Tensor
    gamma: float = 2.2

    def __call__(self, moment: Moment) -> Tensor:
        sensor, sample = self.sensor, moment.sample
        assert isinstance(sample, PixelSample)
        device = self.long.device
        view, row, column = (index.to(device) for index in (sample.views, sample.row, sample.column))
        wanted = self._shown(sensor.measured(self.long[view, row, column], row, column))
        phase = torch.rand(len(row), generator=generator("phase", moment.state.seed, moment.state.iteration)).to(device)
        stuck = moment.state.recording.stuck
        good = 1.0 if stuck is None else (~stuck[row, column]).to(wanted)
        terms = [
            (good * (self._shown(sensor.rates(level, row, column, phase)) - wanted).square()).mean()
            for level in moment.renders.images.flatten(1).unbind(1)
        ]
        return torch.stack(terms).sum()

    def _shown(self, rate: Tensor) -> Tensor:
        # Above a quarter of a spike, so that no slope is infinite.
        return rate.clamp_min(1 / (4 * self.sensor.frames)) ** (1 / self.gamma)


@dataclass(frozen=True)
class GainPrior(Weighted):
    """Keeps the pixels' log gains near 0."""

    name: ClassVar[str] = "gain"
    sensor: SensorLayer

    def __call__(self, moment: Moment) -> Tensor:
        return self.sensor.prior()


@dataclass(frozen=True)
class GridVariation(Weighted):
    """The mean absolute difference of neighboring cells, every tenth iteration."""

    name: ClassVar[str] = "tv"
    grid: RadianceGrid
    every: int = 10

    def __call__(self, moment: Moment) -> Tensor | None:
        if moment.state.iteration % self.every:
            return None
        return self.grid.variation()


class Refinement:
    """Doubles the resolution of a grid at an iteration; its optimizer then starts anew."""

    name: ClassVar[str] = "refinement"

    def __init__(self, grid: RadianceGrid, at: int):
        self.grid, self.at = grid, at

    def __call__(self, moment: Moment, optimizers: Optimizers) -> None:
        if moment.state.iteration == self.at:
            self.grid.refine()
            optimizers.restart()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: the grid itself is in the checkpoint."""
