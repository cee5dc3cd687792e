"""Scenes far from the origin of their world: read as if they were near it, and given back where they are."""

import json
import shutil

import numpy as np
import pycolmap
import pytest
import torch
from training_runs import TIMING, small_training

from commands.scene import export_trajectories
from gaussians.ply import read_point_ply
from scene.dataset import SceneData, read_cameras, read_scene
from scene.origin import origin_of
from spike import SpikeStream
from training.checkpoint import save_model
from training.trained_model import TrainedModel

FAR = np.array([500_000.0, -4_649_776.0, 120.0])  # eastings, northings and a height in UTM


def move_frames(path):
    meta = json.loads(path.read_text())
    for frame in meta["frames"]:
        for row, offset in zip(frame["transform_matrix"], FAR, strict=False):
            row[3] += offset
    path.write_text(json.dumps(meta))


def moved_w2c(w2c):
    """World-to-camera poses [..., 4, 4] of cameras that were moved by ``FAR``."""
    moved = np.array(w2c, np.float64)
    moved[..., :3, 3] -= moved[..., :3, :3] @ FAR
    return moved


@pytest.fixture(scope="module")
def far(scene_folder, tmp_path_factory):
    """The small scene, somewhere else."""
    root = shutil.copytree(scene_folder, tmp_path_factory.mktemp("far") / "scene")
    for name in ("transforms", "transforms_noisy", "novel"):
        move_frames(root / f"{name}.json")
    truth = json.loads((root / "trajectory.json").read_text())["w2c"]
    moved = {name: moved_w2c(poses).tolist() for name, poses in truth.items()}
    (root / "trajectory.json").write_text(json.dumps({"w2c": moved}))
    points = read_point_ply(root / "sparse_pc.ply")[0].double().numpy() + FAR
    rows = "".join(" ".join(f"{value:.15g}" for value in point) + "\n" for point in points)
    head = "".join(f"property double {axis}\n" for axis in "xyz")
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n{head}end_header\n"
    (root / "sparse_pc.ply").write_text(head + rows)
    return root


def test_a_far_scene_is_read_like_a_near_one(far, scene_folder):
    scene, near = read_scene(far), read_scene(scene_folder)
    assert not near.origin.any() and near.notes == ()
    assert (scene.origin - torch.from_numpy(FAR)).norm() < 1.5
    [note] = scene.notes
    assert note.endswith("the model's coordinates are relative to 500000, -4649776, 120")
    back = scene.origin - torch.from_numpy(FAR)
    for kind in ("train", "novel"):
        for view, known in zip(getattr(scene, kind), getattr(near, kind), strict=True):
            expected = known.camera.w2c.double().clone()
            expected[:3, 3] += expected[:3, :3] @ back
            torch.testing.assert_close(view.camera.w2c, expected.float(), atol=1e-6, rtol=0)
    expected = torch.cat([*near.truth.values()]).double()
    expected[:, :3, 3] += expected[:, :3, :3] @ back
    torch.testing.assert_close(torch.cat([*scene.truth.values()]), expected.float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(scene.points, (near.points.double() - back).float(), atol=1e-6, rtol=0)
    assert scene.extent == pytest.approx(near.extent, rel=1e-5)


def test_a_far_model_of_colmap(tmp_path):
    folder = tmp_path / "sparse/0"
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("1 PINHOLE 16 8 20 21 8 4\n")
    centers = FAR + np.array([[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]])
    turn = pycolmap.Rotation3d(np.array([0, 0, np.sin(0.4), np.cos(0.4)]))
    moves = -centers @ turn.matrix().T
    w = f"{np.cos(0.4):.17g} 0 0 {np.sin(0.4):.17g}"
    rows = (f"{i} {w} {' '.join(f'{v:.17g}' for v in move)} 1 {i}.png\n\n" for i, move in enumerate(moves, 1))
    (folder / "images.txt").write_text("".join(rows))
    (folder / "points3D.txt").write_text(f"1 {' '.join(f'{v:.17g}' for v in FAR + 0.25)} 255 0 51 0.1\n")
    scene = read_scene(tmp_path)
    origin = scene.origin.numpy()
    found = [-(v.camera.w2c[:3, :3].T @ v.camera.w2c[:3, 3]).numpy() for v in scene.train]
    np.testing.assert_allclose(found, centers - origin, atol=1e-6)
    np.testing.assert_allclose(scene.points.numpy(), [FAR + 0.25 - origin], atol=1e-6)


def test_what_is_exported_is_where_the_scene_is(far, tmp_path):
    training = small_training(far, tmp_path, *TIMING)
    save_model(training)
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    origin = np.array(json.loads((tmp_path / "origin.json").read_text())["origin"])
    assert np.abs(cameras[0]["position"]).max() < 10
    own, _ = export_trajectories(TrainedModel.load(tmp_path))
    text = np.loadtxt(own)[6, 1:4]  # the middle of the first view
    np.testing.assert_allclose(text, np.array(cameras[0]["position"]) + origin, atol=1e-5)
    known = json.loads((far / "transforms.json").read_text())["frames"][0]["transform_matrix"]
    np.testing.assert_allclose(text, np.array(known)[:3, 3], atol=0.05)


def test_a_near_model_says_nothing_about_an_origin(scene_folder, tmp_path):
    save_model(small_training(scene_folder, tmp_path, *TIMING))
    assert not (tmp_path / "origin.json").exists()


def test_streams_in_memory_far_away(scene_folder):
    near = read_scene(scene_folder)
    streams = [SpikeStream.from_array(near.open_stream(view).unpack(0, 177)) for view in near.train]
    w2c = torch.from_numpy(moved_w2c(torch.stack([view.camera.w2c for view in near.train]).numpy()))
    points = near.points.double() + torch.from_numpy(FAR)
    scene = SceneData.from_streams(streams, near.train[0].camera.K, w2c, points=points, rgb=near.rgb)
    assert scene.extent == pytest.approx(near.extent, rel=1e-5)
    assert float(scene.points.norm(dim=-1).max()) < 10 and scene.points.dtype == torch.float32


@pytest.mark.parametrize(("offset", "expected"), [(0.0, 0.0), (1e3, 0.0), (1e4, 10_000.0), (-123_456.0, -123_456.0)])
def test_only_what_is_far_is_moved(offset, expected):
    """The cameras are half a unit from their middle."""
    w2c = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    w2c[:, 0, 3] = -torch.tensor([-0.5, 0, 0.5]) - offset
    assert origin_of(w2c).tolist() == [expected, 0, 0]
    small = w2c.clone()
    small[:, :3, 3] *= 1e-3  # the same in other units
    assert origin_of(small).tolist() == pytest.approx([expected * 1e-3, 0, 0])


def test_one_place_is_no_far_scene():
    w2c = torch.eye(4).repeat(3, 1, 1)
    w2c[:, 0, 3] = 1e8
    assert not origin_of(w2c).any() and not origin_of(w2c[:1]).any()


def test_cameras_of_a_file_stay_where_they_are(far):
    """``python -m spike simulate --path``, for example, writes poses again."""
    cameras, _ = read_cameras(far / "transforms.json")
    assert all(camera.w2c.dtype == torch.float32 and camera.w2c[:3, 3].norm() > 1e6 for camera in cameras)
