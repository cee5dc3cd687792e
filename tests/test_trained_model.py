"""A trained model is opened in one place, reads its parts when asked, and says in one sentence what is amiss."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_model import ITERATION, make_model, tiny_gaussians

from arguments import ImageSettings, PaperSettings, TimingSettings
from recon_net import make_network
from scene.dataset import read_scene
from scene.model_folder import iteration_folder, save_gaussians, save_iteration
from scene.trajectory import Trajectory
from training.trained_model import TrainedModel


def make(folder, scene_folder, kind=TimingSettings, network=None, sensor=None, **values):
    """A model of the small scene with two saved iterations."""
    scene = read_scene(scene_folder)
    kind.of(source_path=str(scene_folder), **values).save(folder)
    trajectory = Trajectory(torch.stack([view.camera.w2c for view in scene.train]), "linear")
    for iteration in (3, 12):
        save = partial(save_gaussians, gaussians=tiny_gaussians())
        save_iteration(folder, iteration, save, trajectory, network, sensor)
    return scene


def test_the_newest_iteration_or_the_one_asked_for(scene_folder, tmp_path):
    make(tmp_path, scene_folder)
    assert TrainedModel.load(tmp_path).iteration == 12
    assert TrainedModel.load(tmp_path, 3).iteration == 3
    with pytest.raises(ValueError, match="iteration 4 was not saved; there are 3, 12"):
        TrainedModel.load(tmp_path, 4)
    with pytest.raises(ValueError, match=r"cfg_args\.json: not found"):
        TrainedModel.load(tmp_path / "nowhere")


def test_parts_are_what_was_saved(scene_folder, tmp_path):
    network = make_network("slim", 41, 34)
    scene = make(tmp_path, scene_folder, network=network, sensor=read_scene(scene_folder).sensor)
    model = TrainedModel.load(tmp_path)
    torch.testing.assert_close(model.load_gaussians().means, tiny_gaussians().means)
    assert (model.load_gaussians().channels, model.load_gaussians(3).channels) == (1, 3)
    poses = model.trajectory.view(1, torch.tensor([0.5]))[0]
    torch.testing.assert_close(poses, scene.train[1].camera.w2c, atol=1e-5, rtol=0)
    assert model.network is not None and model.learned_sensor is not None
    assert all(torch.equal(a, b) for a, b in zip(model.network.parameters(), network.parameters(), strict=True))
    assert [exposure.camera.name for exposure in model.exposures(model.scene.train[:2])] == ["000", "001"]
    assert len(model.timing(model.scene.train).middle) == 5


def test_what_was_not_saved_is_none(scene_folder, tmp_path):
    make(tmp_path, scene_folder)
    model = TrainedModel.load(tmp_path)
    assert model.network is None and model.learned_sensor is None and model.learned_scene is model.scene


def test_exposures_are_read_with_the_learned_sensor(scene_folder, tmp_path):
    scene = read_scene(scene_folder)
    make(tmp_path, scene_folder, sensor=replace(scene.sensor, gain=scene.sensor.gain / 2))
    model = TrainedModel.load(tmp_path)
    assert model.scene.sensor.gain == scene.sensor.gain
    [own], [plain] = model.exposures(scene.train[:1]), model.exposures(scene.train[:1], scene)
    assert own.long.mean() > 1.5 * plain.long.mean()


def test_a_model_without_its_scene_is_still_opened(scene_folder, tmp_path):
    copy = tmp_path / "scene"
    shutil.copytree(scene_folder, copy)
    make(tmp_path / "m", copy)
    shutil.rmtree(copy)
    model = TrainedModel.load(tmp_path / "m")
    assert len(model.load_gaussians()) == 60 and model.source_path == str(copy)
    with pytest.raises(ValueError, match=f"cfg_args.json: the scene {copy} is not there; if it was moved,"):
        _ = model.scene


def test_values_come_from_the_stored_settings(scene_folder, tmp_path):
    values = {"subframe_width": 7, "trajectory": "spline", "motion_init": False, "exposure": 41, "subframes": 5}
    make(tmp_path, scene_folder, **values)
    model = TrainedModel.load(tmp_path)
    assert (model.window_spec.exposure, model.window_spec.middle) == (41, 2)
    assert model.u.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert model.learns_from_spikes and model.supervised_by_timing and model.subframe_width == 7
    assert (model.curve, model.motion_init) == ("spline", False)
    window = model.quadrature
    assert window.offsets.shape == window.weights.shape == (3,) and float(window.weights.sum()) == pytest.approx(1)


def test_only_timing_supervises_single_instants(scene_folder, tmp_path):
    """Fused images need Gaussians and spikes that know the direction of time."""
    for i, (kind, values) in enumerate(
        [(TimingSettings, {"targets": "counting", "fuse": False}), (PaperSettings, {"targets": "timing"})]
    ):
        make(tmp_path / str(i), scene_folder, kind, **values)
        assert not TrainedModel.load(tmp_path / str(i)).supervised_by_timing


def test_the_network_sums_frames_as_it_was_trained(scene_folder, tmp_path):
    make(tmp_path, scene_folder, PaperSettings, make_network("paper", 41, 34, "strided"), long_grouping="strided")
    assert TrainedModel.load(tmp_path).network.grouping == "strided"


def test_a_model_of_images_reads_images(scene_folder, tmp_path):
    scene = make(tmp_path, scene_folder, ImageSettings)
    model = TrainedModel.load(tmp_path)
    assert not model.learns_from_spikes and model.exposures(scene.train[:1])[0].subframes is None


def test_a_model_folder_without_configuration_is_named(tmp_path):
    make_model(tmp_path)
    assert iteration_folder(tmp_path, ITERATION).is_dir()
    with pytest.raises(ValueError, match=r"cfg_args\.json: not found; is .* the folder of a trained model"):
        TrainedModel.load(tmp_path)
