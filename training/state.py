"""The state of a run: the recording to learn from, and what is learned."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussian_renderer import RenderOutput
from gaussian_renderer.field import Field, GaussianField
from gaussians.model import GaussianModel
from recon_net import SpikeToImage
from scene.cameras import View
from scene.dataset import SceneData
from scene.exposure import Exposure, Sight, stuck_in_images
from scene.fusion import white
from scene.identity import identity
from scene.trajectory import Trajectory
from scene.views import TargetSpec, image_exposures, spike_exposures
from spike import SensorModel, WindowSpec
from training.sampling import Sample
from utils.randomness import generator


class Recording:
    """The training views: their cameras, and targets from their spikes (or images).

    Attributes:
        scene: the scene as it was read.
        window: the exposure window and its sub-frames.
        device: the device of the targets.
        exposures: targets of every training view.
        sensor: the sensor model used to read the targets; its gains may be learned (``use_gains``).
        stuck: mask [H, W] of the dead and hot pixels in the pinhole images, on the device; None if there are none.
        mosaic: color filters of the pixels that renders are compared with, or None.
        u: times [M] of the sub-frames in the exposure, on the device.
        read: function that reads the targets of views with a given sensor.
        from_spikes: whether the targets come from spikes.
        folder: the folder of the files that contain the targets; None if they are in memory.
        retimed: whether renders have shaped the intervals between spikes.
        measured_noise: energies of the targets' error about the truth, by frequency (``scene.fusion``); the expected
            white noise until it is measured, 0 for images.
    """

    def __init__(
        self, scene: SceneData, window: WindowSpec, device: torch.device,
        read: Callable[[Sequence[View], SensorModel], list[Exposure]], from_spikes: bool,
        reread: Callable[[SensorModel, Sequence[Sight], list[Exposure]], object] | None = None,
        folder: Path | None = None,
    ):  # fmt: skip
        self.scene = scene
        self.window = window
        self.device = device
        self.sensor = scene.sensor
        self.mosaic = scene.mosaic if from_spikes else None
        self.u = torch.tensor(window.times, device=device)
        self.from_spikes = from_spikes
        stuck = stuck_in_images(scene.sensor, (view.camera for view in scene.train)) if from_spikes else None
        self.stuck = None if stuck is None else stuck.to(device)
        self.read = read
        self.exposures = read(scene.train, scene.sensor)
        self._reread = reread
        self.folder = folder
        self.retimed = False
        self.measured_noise = white(torch.zeros(1, device=device))

    @classmethod
    def of_spikes(
        cls, scene: SceneData, spec: TargetSpec, device: torch.device, folder: Path | None = None
    ) -> Recording:
        """Read the targets from the views' spike streams.

        Args:
            folder: keep the targets in files in this folder instead of in memory (on the CPU only).
        """
        recording = cls(
            scene, spec.window, device,
            lambda views, sensor: spike_exposures(views, scene, spec, device, sensor, folder=folder), from_spikes=True,
            reread=lambda sensor, sights, earlier: spike_exposures(
                scene.train, scene, spec, device, sensor, sights, folder, earlier
            ),
            folder=folder,
        )  # fmt: skip
        recording.measured_noise = white(torch.stack([exposure.noise for exposure in recording.exposures]).mean())
        return recording

    @classmethod
    def of_images(
        cls, scene: SceneData, window: WindowSpec, device: torch.device,
        image_of: Callable[[View], Tensor] | None = None,
    ) -> Recording:  # fmt: skip
        """Use images as long exposures: the views' files, or the images [C, H, W] from ``image_of``."""
        return cls(
            scene, window, device, lambda views, _: image_exposures(views, scene, device, image_of), from_spikes=False
        )

    def __len__(self) -> int:
        return len(self.exposures)

    @property
    def w2c(self) -> Tensor:
        """World-to-camera poses [V, 4, 4] of the scene at the middles of the exposures."""
        return torch.stack([exposure.camera.w2c for exposure in self.exposures])

    @property
    def K(self) -> Tensor:
        """Camera matrices [V, 3, 3]."""
        return torch.stack([exposure.camera.K for exposure in self.exposures])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint stores to recognize this recording."""
        return identity(self.scene, self.from_spikes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        height, width = self.exposures[0].long.shape[-2:]
        return height, width

    def use_gains(self, gain_map: Tensor | None) -> None:
        """Read the targets with new pixel gains [H, W]."""
        self.sensor = dataclasses.replace(self.sensor, gain_map=gain_map)
        for exposure in self.exposures:
            exposure.use_gains(gain_map)

    def retime(self, sights: Sequence[Sight]) -> None:
        """Read the targets again, with the charge within every interval shaped by what the views should have seen."""
        assert self._reread is not None, "only targets from spikes can be re-timed"
        self._reread(self.sensor, sights, self.exposures)
        self.retimed = True

    def intrinsics(self, views: Tensor) -> Tensor:
        """Camera matrices [B, 3, 3] of the views ``views`` [B], on the device."""
        return torch.stack([self.exposures[view].camera.K for view in views.tolist()]).to(self.device)

    def expect(self, sample: Sample) -> None:
        """Read the targets of the next step in the background, if they are in files."""
        for view, m in zip(sample.views.tolist(), sample.subframes.tolist(), strict=True):
            self.exposures[view].expect([m])

    def targets(self, sample: Sample) -> Tensor:
        """Intensities [B, C, H, W] that the spikes give at the sampled instants."""
        pairs = zip(sample.views.tolist(), sample.subframes.tolist(), strict=True)
        return torch.stack([self.exposures[view].subframe(m) for view, m in pairs])

    def seen(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images [..., H, W] as they are compared with ``targets``: equal to them at stuck pixels, which teach nothing.

        Nothing flows back from there, and windows around a stuck pixel see its filled target in both.
        """
        return images if self.stuck is None else torch.where(self.stuck, targets.detach(), images)

    def variance(self, sample: Sample) -> Tensor:
        """Expected variance [B] of ``targets``."""
        return torch.stack([self.exposures[view].noise for view in sample.views.tolist()])

    def colors(self, raw: Tensor) -> Tensor:
        """Convert a target [1 or C, H, W] to the Gaussians' channels: three if the pixels have color filters."""
        return raw if self.mosaic is None else self.mosaic.colors(raw)

    def middle(self, view: int) -> Tensor:
        """The target [C, H, W] of a view at u = 0.5: its narrow window, or the long exposure if there is none."""
        exposure = self.exposures[view]
        return exposure.subframe(self.window.middle) if self.from_spikes else exposure.long


@dataclass
class State:
    """Everything that changes during training, except the optimizers.

    Attributes:
        recording: the recording to learn from.
        field: the scene that is rendered.
        trajectory: the camera's path during every exposure.
        network: Recon-Net, or None if it is not trained.
        seed: seed of every random choice.
        iteration: the latest step, 0 before the first.
    """

    recording: Recording
    field: Field
    trajectory: Trajectory
    network: SpikeToImage | None = None
    seed: int = 0
    iteration: int = 0

    @property
    def gaussian_field(self) -> GaussianField:
        """The field as Gaussians, for parts of training that need them.

        Raises:
            TypeError: the field is not a ``GaussianField``.
        """
        if not isinstance(self.field, GaussianField):
            raise TypeError(f"this part of a training needs Gaussians, not a {type(self.field).__name__}")
        return self.field

    @property
    def gaussians(self) -> GaussianModel:
        """The Gaussians of ``gaussian_field``."""
        return self.gaussian_field.gaussians

    def digest(self) -> str:
        """A short digest of everything learned so far."""
        learned = [*self.field.parameters().values(), self.trajectory.increments]
        learned += [] if self.network is None else list(self.network.parameters())
        digest = hashlib.sha256()
        for value in learned:
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def random(self, ahead: int = 0) -> torch.Generator:
        """Random numbers for this iteration, or ``ahead`` iterations later; a resumed run draws the same ones."""
        return generator("step", self.seed, self.iteration + ahead)

    def render(self, sample: Sample, cameras: slice = slice(None)) -> RenderOutput:
        """I_gs(t_m): render the sampled instants along the trajectories, as the sensor's pixels see them.

        Args:
            cameras: the part of ``sample.cameras`` to render.
        """
        views, times = (values[cameras] for values in sample.cameras(self.recording.u))
        height, width = self.recording.size
        return self._render(views, times, *sample.framed(self.recording.intrinsics(views), width, height, cameras))

    def sight(self, view: int, times: Tensor) -> Tensor:
        """Images [K, C, H, W] of one view at the times u [K], as the sensor's pixels see them, without gradients."""
        recording, views = self.recording, torch.full((len(times),), view)
        height, width = recording.size
        with torch.no_grad():
            out = self._render(views, times.to(recording.device), recording.intrinsics(views), width, height)
            return out.images.detach()

    def _render(self, views: Tensor, times: Tensor, intrinsics: Tensor, width: int, height: int) -> RenderOutput:
        recording = self.recording
        poses = self.trajectory(views.to(recording.device), times)
        out = self.field.render(poses, intrinsics, width, height, self.iteration)
        if recording.mosaic is not None:
            out.images = recording.mosaic.of(out.images)
        return out
