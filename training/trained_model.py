"""A trained model at one saved iteration, for the commands that read models.

Code that renders, measures, shows or exports a model takes values from ``TrainedModel`` instead of reading the stored
configuration.  Each part is read from disk on first use, so a command that needs no Gaussians reads none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from arguments import CONFIG_NAME, Settings, load_settings
from gaussian_renderer import Rasterizer
from gaussian_renderer.field import Field, GaussianField
from gaussian_renderer.radiance import load_radiance_field
from gaussians.model import GaussianModel
from recon_net import SpikeToImage
from scene.cameras import View
from scene.dataset import SceneData, scene_of
from scene.exposure import Exposure, Sight
from scene.model_folder import (
    RADIANCE_FIELD,
    find_iteration,
    iteration_folder,
    load_gaussians,
    load_learned_sensor,
    load_network,
    load_surroundings,
    load_trajectory,
)
from scene.trajectory import Timing, Trajectory
from scene.views import Quadrature, TargetSpec, image_exposures, spike_exposures, view_timing
from spike import SensorModel, WindowSpec
from training.building import start_trajectory, target_spec


@dataclass(frozen=True)
class TrainedModel:
    """One saved iteration of a model; tensors are on ``device``."""

    folder: Path
    iteration: int
    device: torch.device
    settings: Settings

    @classmethod
    def load(
        cls, folder: str | Path, iteration: int | None = None, device: str | torch.device = "cpu", source: str = ""
    ) -> TrainedModel:
        """Open the model in ``folder``.

        Args:
            iteration: a saved iteration (None: the newest).
            source: the scene's folder, if it is no longer where training read it.

        Raises:
            ValueError: no model there, no such iteration, a configuration of another version, or no folder ``source``.
        """
        settings = load_settings(folder)
        if source:
            if not Path(source).is_dir():
                raise ValueError(f"{source}: no such folder")
            settings = settings.replaced(source_path=source)
        return cls(Path(folder), find_iteration(folder, iteration), torch.device(device), settings)

    # ---- what is on disk -------------------------------------------------------------------------------------

    def load_gaussians(self, channels: int | None = None) -> GaussianModel:
        """The Gaussians with ``channels`` color channels (None: one if all three are equal)."""
        return load_gaussians(self.folder, self.iteration, channels).to(self.device)

    def load_field(self, channels: int, rasterizer: Rasterizer) -> Field:
        """The scene, to be rendered in ``channels`` color channels."""
        path = iteration_folder(self.folder, self.iteration) / RADIANCE_FIELD
        if path.exists():
            return load_radiance_field(path, self.device)
        return GaussianField(
            self.load_gaussians(channels), rasterizer, surroundings=self.load_surroundings(channels)
        )

    def load_surroundings(self, channels: int) -> GaussianModel | None:
        """What is seen of the neighbors of a block that started from a model of the whole scene, or None."""
        around = load_surroundings(self.folder, self.iteration, channels)
        return None if around is None else around.to(self.device)

    @cached_property
    def trajectory(self) -> Trajectory:
        """The curves of the training views, in the order of ``scene.train``."""
        return load_trajectory(self.folder, self.iteration).to(self.device)

    @cached_property
    def initial_trajectory(self) -> Trajectory:
        """The curves that training started from."""
        return start_trajectory(self.settings, self.scene, self.quadrature).to(self.device)

    @cached_property
    def network(self) -> SpikeToImage | None:
        """Recon-Net, or None if the model was trained without it."""
        network = load_network(self.folder, self.iteration, self.window_spec, self.settings.grouping)
        return None if network is None else network.to(self.device)

    @cached_property
    def learned_sensor(self) -> SensorModel | None:
        """The sensor with the gains that training estimated, or None if it estimated none."""
        return load_learned_sensor(self.folder, self.iteration)

    @cached_property
    def scene(self) -> SceneData:
        """The scene that the model was trained on, with the scene's own sensor model.

        Raises:
            ValueError: the scene no longer exists, or cannot be read.
        """
        options = self.settings.scene
        if not Path(options.source_path).is_dir():
            raise ValueError(
                f"{self.folder / CONFIG_NAME}: the scene {options.source_path} is not there; "
                "if it was moved, give its folder with -s"
            )
        return scene_of(options, from_images=not self.learns_from_spikes)

    @cached_property
    def learned_scene(self) -> SceneData:
        """The scene with the sensor that training estimated; its stuck pixels are found in the scene's spikes."""
        if self.learned_sensor is None:
            return self.scene
        return replace(self.scene, sensor=self.learned_sensor.with_stuck(self.scene.sensor.stuck))

    # ---- what the configuration says -------------------------------------------------------------------------

    @property
    def source_path(self) -> str:
        """Folder of the scene."""
        return self.settings.scene.source_path

    @cached_property
    def target_spec(self) -> TargetSpec:
        """How the spikes were converted to targets, without the intervals that only training needs."""
        return target_spec(self.settings, wide=True)

    @property
    def window_spec(self) -> WindowSpec:
        """Frames of the exposure, the short window and the sub-frames."""
        return self.target_spec.window

    @cached_property
    def quadrature(self) -> Quadrature:
        """The instants whose averaged renders were compared with the spikes of a sub-frame."""
        return self.target_spec.quadrature(self.settings.window_points)

    @property
    def u(self) -> Tensor:
        """Times [M] of the sub-frames in the exposure."""
        return torch.tensor(self.window_spec.times, device=self.device)

    @property
    def learns_from_spikes(self) -> bool:
        """Whether training used spikes; otherwise it used the views' images as long exposures."""
        return self.settings.from_spikes

    @property
    def learned(self) -> str:
        """What was learned and is rendered, as a label."""
        return self.settings.learns

    @property
    def keeps_poses(self) -> bool:
        """Whether every view has the one pose that it was given, so that held-out poses need not be fitted."""
        return not (self.settings.is_blurred or self.settings.path.pose_opt)

    @property
    def supervised_by_timing(self) -> bool:
        """Whether single instants were compared with narrow windows of spike timing."""
        return self.settings.supervises_instants and self.settings.target_mode == "timing"

    @property
    def retimes(self) -> bool:
        """Whether renders shaped the intervals between spikes in training (``training.after.Retiming``)."""
        return self.settings.retimes

    @property
    def subframe_width(self) -> int:
        """Width of the window around a sub-frame, spike frames."""
        return self.target_spec.width

    @property
    def curve(self) -> str:
        """The kind of curve that describes a view's motion."""
        return self.settings.path.trajectory

    @property
    def motion_init(self) -> bool:
        """Whether a view's initial motion was estimated from its neighbors."""
        return self.settings.path.motion_init

    # ---- what both together give -----------------------------------------------------------------------------

    def exposures(
        self, views: Sequence[View], scene: SceneData | None = None, sights: Sequence[Sight] | None = None
    ) -> list[Exposure]:
        """The recorded exposures of ``views``, read with the sensor of ``scene`` (None: ``learned_scene``).

        ``sights`` give what each view should have seen, to shape the intervals between its spikes.
        """
        scene = scene or self.learned_scene
        if not self.learns_from_spikes:
            return image_exposures(views, scene, self.device)
        return spike_exposures(views, scene, self.target_spec, self.device, sights=sights)

    def timing(self, views: Sequence[View]) -> Timing:
        """When each of ``views`` was exposed."""
        return view_timing(views, self.scene, self.window_spec.exposure, self.settings.path.view_spacing)
