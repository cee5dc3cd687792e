"""Textured meshes seen by a camera, paths past them, and recordings simulated along those."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch

from commands.guard import guarded
from commands.spike import main
from scene.cameras import look_at
from scene.dataset import read_cameras
from scene.tum import read_tum, write_tum
from simulation import mesh as meshes
from simulation import simulate
from simulation.mesh import BACKGROUND, Pyramid, read_mesh
from simulation.walk import camera_of, read_walk, walk_past
from spike import SpikeStream
from utils.io import LUMA, load_image
from utils.trajectory_metrics import centers

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("embreex")
from PIL import Image  # noqa: E402  (comes with trimesh's textures)

WIDTH, HEIGHT = 64, 48
K = np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]])
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)  # the texture's quarters


def square(visual=None):
    """Two units wide, in the plane z = 0, seen from +z with x to the right and y up."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def painted(picture):
    """The square with a picture on it."""
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture))
    return square(trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], material=material))


def textured(side=64):
    """A square with a color in each quarter: red and green above, blue and white below."""
    image = np.kron(np.arange(4).reshape(2, 2), np.ones((side // 2, side // 2), int))
    return painted(COLORS[image])


def from_front(distance, x=0.0):
    return look_at(np.array([[x, 0, distance]]), np.array([x, 0, 0.0]), np.array([0, 1.0, 0]))[0]


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_textures_are_where_they_belong(tmp_path, kind):
    mesh = textured()
    if kind == "ply":  # no texture: a color at every corner, bottom left first
        mesh = square(trimesh.visual.ColorVisuals(vertex_colors=COLORS[[2, 3, 1, 0]]))
    mesh.export(tmp_path / f"m.{kind}")
    seen = read_mesh(tmp_path / f"m.{kind}", 3).picture(from_front(2.5), K, WIDTH, HEIGHT)
    assert seen.shape == (HEIGHT, WIDTH, 3)
    for (x, y), color in zip(((-1, 1), (1, 1), (-1, -1), (1, -1)), COLORS, strict=True):
        at = seen[round(24 - 22 * y), round(32 + 22 * x) - (x > 0)]
        np.testing.assert_allclose(at, color / 255, atol=0.02 if kind != "ply" else 0.2)
    np.testing.assert_allclose(seen[24, 2], BACKGROUND)  # past the square, which reaches 24 pixels to either side


def test_gray_is_the_luma_of_the_colors(tmp_path):
    textured().export(tmp_path / "m.glb")
    gray, colors = (read_mesh(tmp_path / "m.glb", c).picture(from_front(2.0), K, WIDTH, HEIGHT) for c in (1, 3))
    assert gray.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(gray, colors @ np.array(LUMA, np.float32), atol=1e-5)


def test_far_textures_are_averaged_not_picked(tmp_path):
    rng = np.random.default_rng(0)
    painted(np.repeat(rng.integers(0, 2, (512, 512, 1), np.uint8) * 255, 3, -1)).export(tmp_path / "m.glb")
    seen = read_mesh(tmp_path / "m.glb").picture(from_front(4.0), K, WIDTH, HEIGHT)[14:34, 22:42]
    assert seen.mean() == pytest.approx(0.5, abs=0.02)
    assert seen.std() < 0.06  # 17 texels a pixel: 0.03 is left; 0.25 of four texels picked


def test_pyramids():
    image = np.random.default_rng(0).random((8, 4, 3)).astype(np.float32)
    pyramid = Pyramid.of(image)
    assert pyramid.sizes.tolist() == [[8, 4], [4, 2], [2, 1], [1, 1]]
    center = np.array([[1.5 / 4, 1 - 2.5 / 8]], np.float32)
    np.testing.assert_allclose(pyramid.at(center, np.ones(1, np.float32))[0], image[2, 1], atol=1e-5)
    np.testing.assert_allclose(pyramid.at(center + 3, np.ones(1, np.float32))[0], image[2, 1], atol=1e-5)  # repeats
    whole = image.mean((0, 1))
    np.testing.assert_allclose(pyramid.at(center, np.full(1, 99, np.float32))[0], whole, atol=1e-5)


def test_bare_surfaces_show_their_shape(tmp_path):
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "m.stl")
    seen = read_mesh(tmp_path / "m.stl").picture(from_front(3.0), K, WIDTH, HEIGHT)
    inside = seen[14:34, 22:42]
    assert inside.std() > 0.05 and 0.1 < inside.min() < inside.max() <= 0.8


def test_edges_are_free_of_aliasing(tmp_path, monkeypatch):
    """Otherwise no scene explains the truth: with two rays across a pixel, it is 47 dB from the pixels' means."""
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "m.stl")
    mesh = read_mesh(tmp_path / "m.stl")
    drawn = mesh.picture(from_front(4.0), K, WIDTH, HEIGHT)
    monkeypatch.setattr(meshes, "supersampling", lambda width, across: 16)
    fine = mesh.picture(from_front(4.0), K, WIDTH, HEIGHT)
    assert float(np.square(drawn - fine).mean()) < 10**-5.2


def test_geometry_is_a_pinhole_cameras(tmp_path):
    square().export(tmp_path / "m.ply")
    mesh = read_mesh(tmp_path / "m.ply")
    for x, distance in ((0.0, 3.0), (0.5, 4.0)):
        covered = mesh.picture(from_front(distance, x), K, WIDTH, HEIGHT) != BACKGROUND
        columns, rows = np.flatnonzero(covered.any(0)), np.flatnonzero(covered.any(1))
        expected = 32 + 60 * (np.array([-1, 1]) - x) / distance
        np.testing.assert_allclose([columns[0], columns[-1] + 1], expected, atol=1)
        np.testing.assert_allclose([rows[0], rows[-1] + 1], 24 + 60 * np.array([-1, 1]) / distance, atol=1)


# ---- paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", ["y", "z", "-x"])
def test_the_walk_looks_at_the_mesh_upright(up):
    low, high = np.array([-1.0, 0, 2]), np.array([1.0, 3, 3])
    walk = walk_past(low, high, up, 0.6)
    poses = walk.at(200)
    middle = np.append((low + high) / 2, 1)
    seen = poses @ middle
    assert (seen[:, 2] > 1).all() and np.abs(seen[:, :2] / seen[:, 2:3]).max() < 0.15
    axis = np.zeros(3)
    axis["xyz".index(up[-1])] = -1 if up[0] == "-" else 1
    assert (poses[:, 1, :3] @ axis < -0.6).all()  # the camera's y points down
    eyes = centers(poses)
    assert np.linalg.norm(eyes[-1] - eyes[0]) > np.linalg.norm(high - low) / 2


def test_paths_are_read(tmp_path):
    poses = walk_past(np.zeros(3), np.ones(3), "y", 0.6).at(5)
    write_tum(tmp_path / "p.tum", np.array([0.0, 1, 2, 3, 7]), torch.from_numpy(poses))
    walk = read_walk(tmp_path / "p.tum")
    np.testing.assert_allclose(walk.at(8)[[0, 1, 2, 3, 7]], poses, atol=1e-5)
    assert camera_of(walk, None, None, 50.0)[0][0, 0] == 50 and camera_of(None, None, None, None)[1:] == (400, 250)
    write_tum(tmp_path / "one.tum", np.zeros(1), torch.from_numpy(poses[:1]))
    (tmp_path / "bad.json").write_text('{"w": 8, "h": 8, "fl_x": 9, "frames": []}')
    for name, expected in (
        ("one.tum", "a path needs two poses or more"),
        ("none.tum", "no such trajectory"),
        ("none.json", "no such file"),
        ("bad.json", "lists no views"),
    ):
        with pytest.raises(ValueError, match=expected):
            read_walk(tmp_path / name)


# ---- the command -----------------------------------------------------------------------------------------


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["spike", "simulate", *map(str, words), "--quiet"])
    status = guarded(main)
    return status, *capsys.readouterr()


SIZE = ("--width", WIDTH, "--height", HEIGHT, "--fl_x", 60)


def test_a_recording_of_a_mesh_has_its_truth(tmp_path, monkeypatch, capsys):
    textured().export(tmp_path / "m.glb")
    poses = np.array([from_front(2.5, x) for x in (-0.3, 0.0, 0.3)])
    write_tum(tmp_path / "p.tum", np.arange(3.0), torch.from_numpy(poses))
    out, truth = tmp_path / "rec.dat", tmp_path / "rec_truth"
    words = (tmp_path / "m.glb", "--path", tmp_path / "p.tum", "--between", 20, *SIZE, "--out", out)
    assert run(monkeypatch, capsys, *words, "--truth_every", 10)[0] == 0
    times, true = read_tum(truth / "trajectory.tum")
    assert times.tolist() == list(range(41))
    np.testing.assert_allclose(true[[0, 20, 40]], poses, atol=1e-5)
    cameras, _ = read_cameras(truth / "transforms.json")
    assert [c.name for c in cameras] == [f"{t:06d}" for t in range(0, 41, 10)]
    torch.testing.assert_close(cameras[2].w2c, true[20], atol=1e-5, rtol=0)
    np.testing.assert_allclose(cameras[0].K, K)
    mesh = read_mesh(tmp_path / "m.glb")
    sharp = [mesh.picture(pose, K, WIDTH, HEIGHT) for pose in true.double().numpy()]
    np.testing.assert_allclose(load_image(truth / "000030.png")[0], sharp[30], atol=0.01)
    spikes = SpikeStream.open(out, HEIGHT, WIDTH).unpack(0, 41)
    assert (spikes != simulate(sharp)).mean() < 2e-3  # the poses' digits in the file
    assert json.loads((truth / "sensor.json").read_text())["gain"] == 0.4964
    # The same again along its own truth, by the pose file.
    again = (tmp_path / "m.glb", "--path", truth / "transforms.json", "--between", 10, "--out", tmp_path / "b.dat")
    assert run(monkeypatch, capsys, *again)[0] == 0
    repeated = SpikeStream.open(tmp_path / "b.dat", HEIGHT, WIDTH).unpack(0, 41)
    assert (repeated != spikes).mean() < 0.01


def test_a_color_sensor_sees_its_own_channels(tmp_path, monkeypatch, capsys):
    textured().export(tmp_path / "m.glb")
    write_tum(tmp_path / "p.tum", np.arange(2.0), torch.from_numpy(np.array([from_front(1.6), from_front(1.6, 1e-6)])))
    words = (tmp_path / "m.glb", "--path", tmp_path / "p.tum", "--between", 99, *SIZE, "--bayer", "RGGB")
    assert run(monkeypatch, capsys, *words, "--out", tmp_path / "rec.npy")[0] == 0
    rate = np.load(tmp_path / "rec.npy")[:, :20, :28].mean(0)  # the red quarter
    assert rate[0::2, 0::2].mean() == pytest.approx(0.4964, abs=0.01)
    assert rate[1::2].max() < 0.03 and rate[0::2, 1::2].max() < 0.03
    assert load_image(tmp_path / "rec_truth" / "000000.png", None).shape == (3, HEIGHT, WIDTH)


def test_a_mesh_without_a_path_gets_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("simulation.sources.WALK", 5)
    textured().export(tmp_path / "m.glb")
    made = []
    for up in ("y", "z"):
        out = tmp_path / f"{up}.dat"
        assert run(monkeypatch, capsys, tmp_path / "m.glb", "--out", out, "--up", up, *SIZE)[0] == 0
        made.append(read_tum(tmp_path / f"{up}_truth" / "trajectory.tum")[1])
    assert made[0].shape == (5, 4, 4) and not torch.allclose(*made)


def test_what_meshes_refuse(tmp_path, monkeypatch, capsys):
    textured().export(tmp_path / "m.glb")
    (tmp_path / "bad.obj").write_text("no mesh")
    (tmp_path / "cut.glb").write_bytes((tmp_path / "m.glb").read_bytes()[:500])
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames" / "a.png"), np.zeros((8, 8), np.uint8))
    for words, expected in (
        (["none.glb"], "none.glb: no such mesh"),
        (["bad.obj"], "bad.obj: "),
        (["cut.glb"], "cut.glb: not a readable mesh"),
        (["m.glb", "--path", tmp_path / "none.txt"], "none.txt: no such trajectory"),
        (["m.glb", "--width", 7], "is too small"),
        (["m.glb", "--fl_x", -1], "--fl_x must be positive"),
        (["m.glb", "--truth_every", 0], "--truth_every must be at least 1"),
        (["frames", "--fl_x", 5], "--fl_x is for meshes"),
    ):
        status, _, err = run(monkeypatch, capsys, tmp_path / words[0], *words[1:], "--out", tmp_path / "o.dat")
        assert status == 1 and expected in err.splitlines()[-1], words
        assert not (tmp_path / "o.dat").exists()
    monkeypatch.setitem(sys.modules, "embreex", None)
    status, _, err = run(monkeypatch, capsys, tmp_path / "m.glb", "--out", tmp_path / "o.dat")
    assert status == 1 and err == "error: meshes need the package embreex: pip install embreex\n"
