"""Plain photographs in 3DGS's layout, from train.py to the printed table."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
from small_scene import HEIGHT, WIDTH, K, path, picture

import metrics
import render
import train
from arguments import PhotoSettings, load_settings
from benchmarks.photographs import image_of, our_renders, row, write_scene
from scene.dataset import read_scene
from scene.model_folder import read_cameras
from training.trained_model import TrainedModel
from utils.io import save_image, write_json

VIEWS = 9


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of photographs of the small scene, trained for a few steps and rendered."""
    root = tmp_path_factory.mktemp("photos")
    sparse = root / "photos/sparse/0"
    sparse.mkdir(parents=True)
    centers, w2c = path(50 * np.arange(VIEWS))
    for i, image in enumerate(picture(centers)):
        save_image(root / f"photos/images/IMG_{i}.JPG", np.repeat(image[..., None], 3, -1) * [1, 0.8, 0.6])
    camera = f"1 PINHOLE {WIDTH} {HEIGHT} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n"
    (sparse / "cameras.txt").write_text(camera)
    rows = (f"{i + 1} 1 0 0 0 {' '.join(map(str, w2c[i, :3, 3]))} 1 IMG_{i}.JPG\n\n" for i in range(VIEWS))
    (sparse / "images.txt").write_text("".join(rows))
    patch = pytest.MonkeyPatch()
    words = ("-s", root / "photos", "-m", root / "model", "--eval", "--iterations", 20, "--init-num-pts", 300)
    out = ["train.py", *map(str, words), "--quiet", "--device", "cpu"]
    with patch.context() as p:
        p.setattr(sys, "argv", out)
        assert train.main() == 0
        p.setattr(sys, "argv", ["render.py", "-m", str(root / "model"), "--quiet", "--device", "cpu"])
        assert render.main() == 0
    return root / "model"


def test_the_defaults_are_those_of_photographs(model):
    settings = load_settings(model)
    assert isinstance(settings, PhotoSettings) and settings.window.subframes == 1
    assert not settings.motion.pose_opt and not settings.motion.motion_init


def test_every_eighth_view_is_held_out_at_its_own_pose(model):
    scene = TrainedModel.load(model).scene
    assert [view.camera.name for view in scene.test] == ["IMG_0", "IMG_8"]
    entries = {entry["name"]: entry for entry in read_cameras(model)}
    for view in (*scene.test, scene.train[0]):
        entry = entries[view.camera.name]
        np.testing.assert_allclose(entry["w2c"], view.camera.w2c[None].numpy(), atol=1e-5)
    assert entries["IMG_0"]["split"] == "test"


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("bent", [False, True])
def test_another_program_gets_the_same_images_and_poses(model, tmp_path, factor, bent):
    """benchmarks/photographs.py: none of the held-out views, and cameras of the reduced images, without a lens."""
    photos = model.parent / "photos"
    if bent:
        photos = shutil.copytree(photos, tmp_path / "bent")
        camera = f"1 OPENCV {WIDTH} {HEIGHT} 40 41 23 17 0.1 -0.02 0.001 0.002\n"
        (photos / "sparse/0/cameras.txt").write_text(camera)
    scene = read_scene(photos, eval=True, resolution=factor)
    write_scene(scene.train, photos, tmp_path / "scene")
    written = read_scene(tmp_path / "scene")
    assert [view.camera.name for view in written.train] == [f"IMG_{i}" for i in range(1, 8)]
    for ours, theirs in zip(scene.train, written.train, strict=True):
        assert (theirs.camera.width, theirs.camera.height) == (WIDTH // factor, HEIGHT // factor)
        assert theirs.camera.lens is None and (ours.camera.lens is not None) == bent
        np.testing.assert_allclose(theirs.camera.K, ours.camera.K, atol=1e-3)
        np.testing.assert_allclose(theirs.camera.w2c, ours.camera.w2c, atol=1e-5)
        np.testing.assert_allclose(image_of(theirs), image_of(ours), atol=0.51 / 255)


def test_the_benchmark_measures_what_metrics_does(model, monkeypatch):
    scene = TrainedModel.load(model).scene
    ply = model / "point_cloud/iteration_20/point_cloud.ply"
    cells = row("ours", ply, scene.test, our_renders(ply, scene.test), 20, 1.5).strip("| ").split(" | ")
    monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", str(model), "--quiet"])
    assert metrics.main() == 0
    [measured] = [v for k, v in json.loads((model / "results.json").read_text()).items() if "held out" in k]
    wanted = [measured["gaussians"][name] for name in ("PSNR", "SSIM")]
    assert [float(cell) for cell in cells[4:6]] == pytest.approx(wanted, abs=0.006)


def test_nerfs_synthetic_scenes_have_the_size_of_their_images(tmp_path):
    """No w and h, files without an ending, a transparent background, keys of no use here."""
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]
    (tmp_path / "train").mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"train/r_{i}.png"), np.full((20, 30, 4), 100, np.uint8))
    frames = [{"file_path": f"./train/r_{i}", "rotation": 0.1, "transform_matrix": pose} for i in range(2)]
    write_json(tmp_path / "transforms_train.json", {"camera_angle_x": 0.8, "frames": frames})
    scene = read_scene(tmp_path, "transforms_train.json")
    assert scene.size == (30, 20) and [view.camera.name for view in scene.train] == ["r_0", "r_1"]
    assert float(scene.train[0].camera.K[0, 0]) == pytest.approx(15 / np.tan(0.4))
    (tmp_path / "train/r_0.png").unlink()
    with pytest.raises(ValueError, match=r"transforms_train\.json: view r_0 has no w"):
        read_scene(tmp_path, "transforms_train.json")


def test_images_are_not_measured_against_themselves(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", str(model), "--lpips", "none"])
    assert metrics.main() == 0
    results = json.loads((model / "results.json").read_text())
    assert "deblurring" not in results
    assert {name: list(results[name]) for name in ("training views", "held out")} == {
        "training views": ["gaussians"], "held out": ["gaussians"]
    }  # fmt: skip
    assert results["training views"]["gaussians"]["views"] == 7 and results["held out"]["gaussians"]["views"] == 2
    assert 15 < results["held out"]["gaussians"]["PSNR"] < 60
    lines = capsys.readouterr().out.splitlines()
    assert "LPIPS: not asked for" in lines and "LPIPS" not in results["held out"]["gaussians"]
    assert f"  PSNR :{results['held out']['gaussians']['PSNR']:13.7f}" in lines  # the format of 3DGS's metrics.py
    assert (model / "comparison.png").is_file()
