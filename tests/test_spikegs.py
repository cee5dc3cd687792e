"""The recipe spikegs: its targets, its losses against hand computations, its fixed poses, and steps that learn."""

from dataclasses import replace

import pytest
import torch
from training_runs import SPIKEGS, learned, same, small_training, stepped

from baselines import providers
from baselines.images import WindowMean, instants_of
from scene.dataset import SceneData, read_scene
from spike import SensorModel, WindowSpec
from training import recipes
from training.losses import photometric_loss
from training.objectives import ExposureLoss, InstantLoss, Moment
from utils.image_metrics import ssim


def test_the_photometric_loss_is_that_of_3dgs():
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 1, 16, 16, generator=random)
    expected = 0.8 * (a - b).abs().mean() + 0.2 * (1 - ssim(a, b))
    assert float(photometric_loss(a, b, 0.2)) == pytest.approx(float(expected))
    assert float(photometric_loss(a, b, 0)) == pytest.approx(float((a - b).abs().mean()))


def test_the_losses_of_a_step_are_the_two_relations(scene_folder, tmp_path):
    """Renders against the network's images at every sub-frame, and their mean against TFP(97)."""
    t = small_training(scene_folder, tmp_path, *SPIKEGS, "--no-dssim", "--lambda_exp", "0.5")
    state, scene = t.state, read_scene(scene_folder)
    sample = t.sample(1, torch.Generator())
    with torch.no_grad():
        renders = state.render(sample)
    view, spec = scene.train[sample.view], WindowSpec()
    stream = scene.open_stream(view)
    network = providers.blind_spot(scene, t.settings.images, t.settings.run)
    images = torch.stack([network(stream, spec, scene.sensor, u) for u in spec.times])
    long = WindowMean(97)(stream, spec, scene.sensor)
    inst, exp = (next(o for o in t.objectives if isinstance(o, kind)) for kind in (InstantLoss, ExposureLoss))
    moment = Moment(state, sample, renders)
    assert len(renders.images) == 13 and (inst.weight, exp.weight) == (1, 0.5)
    assert float(inst(moment)) == pytest.approx(float((renders.images - images).abs().mean()), rel=1e-5)
    assert float(exp(moment)) == pytest.approx(float((renders.images.mean(0) - long).abs().mean()), rel=1e-5)


def test_poses_move_between_the_views_and_stay_fixed(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *SPIKEGS)
    before = learned(t)["poses"]
    assert (before[0] - before[-1]).abs().max() > 1e-3
    after = learned(stepped(t))
    assert torch.equal(after["poses"], before)


def stills(scene: SceneData) -> SceneData:
    return replace(scene, train=[replace(view, recording=str(i)) for i, view in enumerate(scene.train)])


@pytest.mark.parametrize("why", ["recordings", "flag"])
def test_views_without_motion_are_compared_at_their_middle(scene_folder, tmp_path, monkeypatch, why):
    scene = read_scene(scene_folder)
    c = small_training(scene_folder, tmp_path, *SPIKEGS, *(["--no-motion_init"] if why == "flag" else [])).settings
    t = recipes.spikegs(c, stills(scene) if why == "recordings" else scene)
    assert [o.name for o in t.objectives if o.name in ("inst", "gs")] == ["inst"]
    sample = t.sample(1, torch.Generator())
    assert sample.subframes.tolist() == [0] and t.state.recording.u.tolist() == [0.5]
    terms = t.step()
    assert {"inst", "loss"} <= terms.keys() and "gs" not in terms


def test_both_weights_zero_is_nothing_to_learn_from(scene_folder, tmp_path):
    with pytest.raises(ValueError, match="nothing to learn from"):
        small_training(scene_folder, tmp_path, *SPIKEGS, "--no-inst", "--no-exp", "--lambda_scale_ratio", "0")


def test_a_few_steps_learn(scene_folder, tmp_path, monkeypatch):
    """With perfect images instead of a trained network's."""
    monkeypatch.setattr(recipes, "blind_spot", lambda scene, options, run: WindowMean(9, "timing"))
    faster = "--iterations 60 --means_lr 1e-2 --sh0_lr 2e-2".split()
    t = small_training(scene_folder, tmp_path, *SPIKEGS, *faster)
    rows = [t.step() for _ in range(40)]
    first, last = (sum(row["inst"] for row in part) for part in (rows[:5], rows[-5:]))
    assert last < 0.85 * first


def test_a_run_with_a_stored_network_repeats_itself(scene_folder, tmp_path):
    path = tmp_path / "bsn.pth"
    first = learned(stepped(small_training(scene_folder, tmp_path, *SPIKEGS, "--bsn_weights", str(path))))
    assert path.exists()
    assert same(first, learned(stepped(small_training(scene_folder, tmp_path, *SPIKEGS, "--bsn_weights", str(path)))))


def test_images_of_instants_are_checked_too(scene_folder):
    scene = read_scene(scene_folder)

    def broken(stream, spec, sensor, u=0.5):
        return torch.full((1, 32, 48), torch.nan if u == 1 else 0.5)

    with pytest.raises(ValueError, match=r"000\.dat: broken made an image with 1536 values that are not finite"):
        instants_of(broken, scene, scene.train[0], WindowSpec(), SensorModel())
