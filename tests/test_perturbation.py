"""Noise on initial poses: what a level means, what the seed decides, and who is not touched by it."""

import json
import math

import pytest
import torch

import metrics
import render
import train
from arguments.parts import SceneOptions
from commands.guard import guarded
from scene.cameras import look_at
from scene.dataset import read_scene, scene_of
from scene.perturbation import LEVELS, median_distance, perturbed
from utils import se3

POINTS = torch.tensor([[0.0, 0.0, 3.0], [0.0, 4.0, 3.0], [0.0, 0.0, -9.0]])


def cameras(count: int) -> torch.Tensor:
    eyes = torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
    return torch.as_tensor(look_at(eyes, eyes * 0 + [0, 0, 20.0], torch.tensor([0.0, 1.0, 0.0]).numpy()))


def test_the_distance_is_that_of_points_in_front_of_the_camera():
    assert median_distance(torch.eye(4)[None], POINTS) == 3  # of 3 and 5, the lower; the third is behind
    assert median_distance(torch.eye(4)[None], POINTS[1:]) == 5
    with pytest.raises(ValueError, match="no point of the scene is in front"):
        median_distance(torch.eye(4)[None], POINTS[2:])


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_in_degrees_and_percent_along_the_cameras_own_axes(level):
    """Against the definition, c2w' = c2w Exp(xi): statistics of xi = Log(c2w^-1 c2w')."""
    w2c = cameras(4000)
    moved = perturbed(w2c, level, 5.0, seed=2)
    xi = se3.log(w2c @ se3.inverse(moved))
    deviation = xi.square().mean(0).sqrt()
    assert deviation[:3].numpy() == pytest.approx([0.05 * level] * 3, rel=0.05)
    assert deviation[3:].numpy() == pytest.approx([math.radians(level)] * 3, rel=0.05)
    assert float(xi.mean(0).abs().max()) < 0.1 * float(deviation.max())


def test_a_views_noise_is_a_function_of_its_seed_and_index():
    w2c = cameras(6)
    first = perturbed(w2c, 1.0, 3.0, seed=0)
    assert torch.equal(first, perturbed(w2c, 1.0, 3.0, seed=0))
    assert torch.equal(first[:3], perturbed(w2c[:3], 1.0, 3.0, seed=0))
    assert not torch.allclose(first, perturbed(w2c, 1.0, 3.0, seed=1))
    twice = se3.log(w2c @ se3.inverse(perturbed(w2c, 2.0, 3.0, seed=0)))
    torch.testing.assert_close(twice, 2 * se3.log(w2c @ se3.inverse(first)))


def test_only_the_poses_of_exposures_are_moved(scene_folder):
    plain, moved = read_scene(scene_folder), read_scene(scene_folder, perturb=1.0)
    pairs = list(zip(plain.train, moved.train, strict=True))
    assert not any(torch.equal(a.camera.w2c, b.camera.w2c) for a, b in pairs)
    assert all(torch.equal(a.camera.K, b.camera.K) for a, b in pairs)
    assert all(torch.equal(a.camera.w2c, b.camera.w2c) for a, b in zip(plain.novel, moved.novel, strict=True))
    held = read_scene(scene_folder, eval=True, llffhold=2, perturb=1.0)
    assert torch.equal(held.train[0].camera.w2c, moved.train[1].camera.w2c)  # holding out changes nobody's noise
    seeded = read_scene(scene_folder, perturb=1.0, perturb_seed=4).train[0].camera.w2c
    options = SceneOptions(source_path=str(scene_folder), perturb=1.0, perturb_seed=4)
    assert torch.equal(scene_of(options).train[0].camera.w2c, seeded)
    assert not torch.equal(pairs[0][1].camera.w2c, seeded)


def test_noise_in_percent_needs_points(scene_folder, tmp_path):
    root = tmp_path / "scene"
    root.mkdir()
    (root / "spike_data").symlink_to(scene_folder / "spike_data")
    stored = json.loads((scene_folder / "transforms.json").read_text())
    del stored["ply_file_path"]
    (root / "transforms.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="scene: has no points, which --perturb needs"):
        read_scene(root, perturb=1.0)


def test_errors_before_and_after_training_are_reported(scene_folder, tmp_path, monkeypatch, capsys):
    flags = {
        train: ["-s", scene_folder, *"--iterations 1 --init_num_pts 300 --cap_max 330 --perturb 2 --quiet".split()],
        render: ["--quiet", "--skip_test"],
        metrics: [],
    }
    for command, given in flags.items():
        monkeypatch.setattr("sys.argv", ["command", "-m", str(tmp_path), *map(str, given)])
        assert guarded(command.main) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    before, after = results["initial_trajectory"], results["trajectory"]
    # One step hardly moves anything, and 2 degrees and percent are far more than the interpolated motion's error.
    assert before["ATE"] == pytest.approx(after["ATE"], rel=0.2) and before["ATE"] > 0.01
    assert "initial     ATE" in capsys.readouterr().out
