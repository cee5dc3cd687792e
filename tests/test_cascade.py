"""Cascades: an image per view from its spikes, poses from these images, and Gaussians from both."""

import json

import numpy as np
import pytest
import torch
from training_runs import CASCADE, small_training

import train
from arguments.parser import current_names
from baselines import providers
from baselines.images import image_of
from commands import scene as scene_command
from commands.guard import guarded
from conversion import posing
from conversion.structure_from_motion import Solution
from scene.dataset import read_scene
from utils import se3


@pytest.mark.parametrize("method", ["tfp", "tfi"])
def test_the_targets_are_the_methods_images_and_poses_stay(method, scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *CASCADE, "--image_method", method)
    scene = read_scene(scene_folder)
    provider = providers.prepare(method, scene)
    for view, exposure in zip(scene.train, t.state.recording.exposures, strict=True):
        assert torch.equal(exposure.long, image_of(provider, scene, view))
    before = t.state.gaussians.means.detach().clone()
    first = t.step()
    losses = [t.step()["gs"] for _ in range(5)]
    assert first.keys() == {"gs", "loss"} and min(losses) < first["gs"]
    poses = t.state.trajectory.view(2, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(poses, scene.train[2].camera.w2c.expand(3, 4, 4))
    assert not torch.equal(t.state.gaussians.means, before)


def broken(stream, spec, sensor, u=0.5):
    return torch.full((1, stream.height, stream.width), torch.nan)


def test_what_cannot_be_learned_from_is_one_sentence(scene_folder, tmp_path, monkeypatch, capsys):
    method = providers.ImageMethod("broken", lambda scene, options, run: broken)
    monkeypatch.setitem(providers.PROVIDERS, "broken", method)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("transforms.json", "sparse_pc.ply"):
        (bare / name).write_bytes((scene_folder / name).read_bytes())
    for scene, method, words in (
        (scene_folder, "broken", "broken made an image with 1536 values that are not finite"),
        (scene_folder, "sharp", "there is no image method 'sharp'; expected one of tfp, "),
        (bare, "tfp", "view 000: no spike stream in"),
    ):
        flags = ["-s", scene, "-m", tmp_path / "model", *CASCADE, "--image_method", method]
        monkeypatch.setattr("sys.argv", ["train.py", *current_names(map(str, flags))])
        assert guarded(train.main) == 1
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1 and not (tmp_path / "model").exists()


# ---- poses from the images -------------------------------------------------------------------------------


def solution(names: list[str], w2c: np.ndarray, xyz: np.ndarray) -> Solution:
    poses = dict(zip(names, w2c, strict=True))
    return Solution(poses, np.ones(4), xyz, np.full((len(xyz), 1), 0.3), 0.5, 9.0, {}, "made up")


@pytest.fixture
def found(monkeypatch):
    """Makes structure from motion find these solutions, in this order."""

    def use(*solutions):
        queue = list(solutions)
        monkeypatch.setattr(
            posing, "structure_from_motion", lambda *a, **k: (queue[0], "") if queue[0] else (queue.pop(0), "why not")
        )
        monkeypatch.setattr(posing, "solution_of", lambda *a: queue.pop(0))

    return use


def elsewhere(w2c: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
    """The poses in another world, and the similarity [4, 4] from the old world to it."""
    turn = se3.exp(torch.tensor([0.3, -1.0, 2.0, 0.4, 0.2, -0.7], dtype=torch.float64))
    moved = w2c.double() @ se3.inverse(turn)
    moved[:, :3, 3] *= 2.5
    similarity = turn.clone()
    similarity[:3] *= 2.5
    return moved.numpy(), similarity


def test_poses_are_found_in_the_old_world(scene_folder, tmp_path, found):
    """A perfect solution in another world gives the old poses and points; a view that is missing stays away."""
    scene = read_scene(scene_folder)
    w2c = torch.stack([view.camera.w2c for view in scene.train])
    moved, similarity = elsewhere(w2c)
    points = scene.points[:7].double()
    xyz = (points @ similarity[:3, :3].T + similarity[:3, 3]).numpy()
    kept = [0, 1, 3, 4]
    found(None, solution([f"{i:05d}" for i in kept], moved[kept], xyz))
    posed = posing.posed_by_images(scene, lambda view: torch.rand(1, 32, 48), "TFP")
    assert [view.camera.name for view in posed.views] == ["000", "001", "003", "004"] and posed.count == 5
    torch.testing.assert_close(torch.stack([v.camera.w2c for v in posed.views]), w2c[kept], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(posed.points, scene.points[:7], atol=1e-5, rtol=1e-5)
    assert posed.against_truth and posed.ate < 1e-5

    path = tmp_path / "found.json"
    posing.write_transforms(path, scene, posed, "TFP")
    again = read_scene(scene_folder, str(path))
    assert [view.camera.name for view in again.train] == ["000", "001", "003", "004"]
    assert again.sensor == scene.sensor and again.layout == scene.layout and len(again.points) == 7
    for old, new in zip((scene.train[i] for i in kept), again.train, strict=True):
        torch.testing.assert_close(new.camera.w2c, old.camera.w2c, atol=1e-5, rtol=1e-5)
        assert torch.equal(new.camera.K, old.camera.K) and new.spike_path.samefile(old.spike_path)
        assert new.image_path.samefile(old.image_path)
    assert "4 of 5 views" in json.loads(path.read_text())["poses"]


def test_a_missing_view_leaves_its_time_empty(scene_folder, tmp_path, found):
    """The motion that is estimated from the neighbors is that of the full list where they are the same."""
    scene = read_scene(scene_folder)
    moved, _ = elsewhere(torch.stack([view.camera.w2c for view in scene.train]))
    kept = [0, 1, 2, 4]
    found(solution([f"{i:05d}" for i in kept], moved[kept], np.zeros((3, 3))), None)
    posed = posing.posed_by_images(scene, lambda view: torch.rand(1, 32, 48), "TFP")
    posing.write_transforms(tmp_path / "found.json", scene, posed, "TFP")
    again = read_scene(scene_folder, str(tmp_path / "found.json"))
    assert [v.middle_frame for v in again.train] == [0, 177, 354, 708]


def test_too_few_views_are_told(scene_folder, found):
    scene = read_scene(scene_folder)
    moved, _ = elsewhere(torch.stack([view.camera.w2c for view in scene.train]))
    found(None, solution(["00000", "00003"], moved[[0, 3]], np.zeros((3, 3))))
    with pytest.raises(ValueError, match=r"motion on TFI images registered 2 of 5 views, 3 are needed: why not"):
        posing.posed_by_images(scene, lambda view: torch.rand(1, 32, 48), "TFI")


def test_the_command_writes_only_what_it_found(scene_folder, tmp_path, found, monkeypatch, capsys):
    scene = read_scene(scene_folder)
    moved, _ = elsewhere(torch.stack([view.camera.w2c for view in scene.train]))
    out = tmp_path / "new" / "poses.json"

    def run(*flags: object) -> int:
        monkeypatch.setattr("sys.argv", ["scene", "poses", "-s", str(scene_folder), *map(str, flags)])
        return guarded(scene_command.main)

    found(None, None)
    assert run("--image_method", "tfi", "--out", out) == 1 and not out.parent.exists()
    assert "registered 0 of 5 views" in capsys.readouterr().err
    assert run("--out", tmp_path / "poses.txt") == 1
    assert "poses.txt: expected a name ending in .json" in capsys.readouterr().err
    found(solution([f"{i:05d}" for i in range(5)], moved, np.zeros((3, 3))))
    assert run("--out", out) == 0
    assert "5 of 5 views" in capsys.readouterr().out
    assert {path.name for path in out.parent.iterdir()} == {"poses.json", "poses.ply"}
    found(solution([f"{i:05d}" for i in range(5)], moved, np.zeros((3, 3))))
    assert run("--out", out, "--force", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
