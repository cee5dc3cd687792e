"""What another method needs: any field, any network and any images go through the same step."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from arguments import ImageSettings, TimingSettings
from gaussian_renderer import RenderOutput
from recon_net.network import SpikeToImage
from scene.dataset import read_scene
from scene.trajectory import Trajectory
from scene.views import Quadrature, TargetSpec
from spike import WindowSpec
from training.objectives import ExposureLoss, InstantJointLoss, MeanOpacity, SubframeLoss
from training.optimizers import Optimizers, Rate
from training.reconstruction import InstantFrames
from training.sampling import Instants, WholeExposures
from training.state import Recording, State
from training.training import Training

CPU = torch.device("cpu")


class Constant:
    """A field that is equally bright everywhere."""

    def __init__(self):
        self.level = nn.Parameter(torch.tensor(0.1))

    def render(self, w2c, intrinsics, width, height, iteration):
        return RenderOutput(self.level.expand(len(w2c), 1, height, width), torch.ones(len(w2c), 1, height, width))

    def parameters(self):
        return {"level": self.level}

    def restore(self, stored):
        self.level = nn.Parameter(stored["level"])

    def sizes(self):
        return {"levels": 1}


class Doubled(SpikeToImage):
    """The narrow window's intensity times a learned factor."""

    variant, channels, receptive_radius = "doubled", (1, 1), 0

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def inputs(self, exposure, subframes, crop):
        return crop.of(exposure.subframes)[subframes][None, :, 0][:, :, None], crop.of(exposure.long)[None]

    def frames(self, short, long, u):
        return short * self.factor


@dataclass
class Run:
    state: State
    training: Training


def run(recording, sample, objectives, network=None, reconstruct=None, settings=None) -> Run:
    poses = torch.stack([view.camera.w2c for view in recording.scene.train])
    state = State(recording, Constant(), Trajectory(poses), network)
    optimizers = Optimizers(state, 200, {"level": Rate(0.02, 0.002)}, poses=None, network=Rate(0.02))
    training = Training(settings or TimingSettings.of(), state, sample, objectives, optimizers, reconstruct)
    return Run(state, training)


def test_another_field_learns_what_a_view_shows(scene_folder):
    scene = read_scene(scene_folder)
    recording = Recording.of_spikes(scene, TargetSpec(WindowSpec()), CPU)
    one = run(recording, Instants(5, 13, 4, Quadrature.middle()), [SubframeLoss(1.0)])
    for _ in range(one.training.steps):
        one.training.step()
    mean = torch.cat([e.subframes for e in recording.exposures]).mean()
    assert float(one.state.field.level.detach()) == pytest.approx(float(mean), abs=0.05)
    assert one.training.probe()[1].shape == (1, 32, 48)


def test_given_images_are_learned_from(scene_folder):
    """Image by another method, then 3D: the cascades of the paper's comparison."""
    scene = read_scene(scene_folder)
    recording = Recording.of_images(scene, WindowSpec(), CPU, lambda view: torch.full((1, 32, 48), 0.7))
    one = run(recording, WholeExposures(5, 13), [ExposureLoss(1.0, dssim=0.0)], settings=ImageSettings.of())
    for _ in range(one.training.steps):
        one.training.step()
    assert float(one.state.field.level.detach()) == pytest.approx(0.7, abs=0.02)


def test_another_network_learns_from_the_scene(scene_folder):
    """The field goes to the mean of what the network shows, and the network toward the field."""
    scene = read_scene(scene_folder)
    recording, network = Recording.of_spikes(scene, TargetSpec(WindowSpec()), CPU), Doubled()
    frames = InstantFrames(network, crop=8, begins=0)
    objectives = [SubframeLoss(1.0), InstantJointLoss(0.2)]
    one = run(recording, Instants(5, 13, 2, Quadrature.middle()), objectives, network, frames)
    for _ in range(one.training.steps):
        terms = one.training.step()
    assert terms.keys() == {"sub", "joint", "loss"} and float(network.factor.detach()) == pytest.approx(1, abs=0.3)


def test_what_needs_gaussians_says_so(scene_folder):
    recording = Recording.of_spikes(read_scene(scene_folder), TargetSpec(WindowSpec()), CPU)
    one = run(recording, Instants(5, 13, 2, Quadrature.middle()), [MeanOpacity(1.0)])
    with pytest.raises(TypeError, match="needs Gaussians, not a Constant"):
        one.training.step()
