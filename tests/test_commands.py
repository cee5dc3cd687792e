"""train.py, render.py and metrics.py one after the other, as a user runs them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_scene import LEVELS, write_scene

import metrics
import render
import train
from commands.guard import guarded
from gaussians.ply import read_point_ply, write_point_ply
from pictures.kinds import MEASURED
from scene.manifest import read_manifest
from scene.model_folder import load_gaussians
from spike import Mosaic, load_sensor, save_sensor
from utils.io import load_image, save_image

SMALL = (
    "--quiet --iterations 8 --densify_from_iter 0 --densification_interval 3 --densify_until_iter 6 --crop 16 "
    "--init_num_pts 300 --cap_max 330 --recon_from 2 --fixed_pattern_every 3"
).split()


def call(monkeypatch: pytest.MonkeyPatch, command: object, *flags: object) -> int:
    monkeypatch.setattr("sys.argv", [getattr(command, "__name__", ""), *map(str, flags)])
    grad = torch.is_grad_enabled()
    try:
        return guarded(command.main)  # type: ignore[attr-defined]
    finally:
        torch.set_grad_enabled(grad)


@pytest.fixture(scope="module")
def model(scene_folder, tmp_path_factory):
    """A trained, rendered and measured model with one exposure held out."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, train, "-s", scene_folder, "-m", folder, "--eval", "--llffhold", 4, *SMALL) == 0
        assert call(patch, render, "-m", folder, "--quiet", "--fit_steps", 3) == 0
        assert call(patch, metrics, "-m", folder, "--quiet") == 0
    return folder


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.png")}


def test_the_learned_sensor_is_used(model, monkeypatch, tmp_path):
    """What training used is made with the gains that it found; what counts spikes keeps the scene's own."""
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    sensor = load_sensor(copy / "point_cloud/iteration_8/sensor.json")
    assert sensor.gain_map is not None
    save_sensor(copy / "point_cloud/iteration_8/sensor.json", replace(sensor, gain_map=sensor.gain_map * 2))
    assert call(monkeypatch, render, "-m", copy, "--quiet", "--fit_steps", 3) == 0
    for kind, changed in (("recon", True), ("long", True), ("tfp", False), ("timing", True)):
        before, after = (load_image(folder / f"train/ours_8/{kind}/002.png") for folder in (model, copy))
        assert torch.equal(before, after) != changed


def test_pictures_lie_where_3dgs_users_look(model):
    trained, middle = {"001", "002", "003"}, "06"
    shown = trained | {f"{name}_{m:02d}" for name in trained for m in range(13)}
    folder = model / "train/ours_8"
    assert names(folder / "renders") == names(folder / "recon") == names(folder / "gt") == shown
    assert names(folder / "fused") == shown
    assert names(folder / "long") == names(folder / "tfp") == trained
    held = model / "test/ours_8"
    assert {"000", "004", "novel_000", "novel_001"} <= names(held / "renders")
    for kind in ("recon", "fused"):  # both are made of a view's own spikes
        assert {"000", "004"} <= names(held / kind) and "novel_000" not in names(held / kind)
    for kind in ("renders", "recon", "fused", "gt"):
        middle_image, same = load_image(folder / kind / "002.png"), load_image(folder / kind / f"002_{middle}.png")
        assert torch.equal(middle_image, same)
    first, last = (load_image(folder / "renders" / f"002_{m}.png") for m in ("00", "12"))
    assert (first - last).abs().max() > 0.02


def test_cameras_hold_training_and_fitted_views(model):
    cameras = json.loads((model / "cameras.json").read_text())
    splits = {c["name"]: c["split"] for c in cameras}
    assert [n for n, s in splits.items() if s == "train"] == ["001", "002", "003"]
    assert {n for n, s in splits.items() if s == "test"} == {"000", "004", "novel_000", "novel_001"}
    assert [len(c["w2c"]) for c in cameras] == [13, 13, 13, 13, 13, 1, 1]


def test_results_keep_protocols_and_methods_apart(model):
    results = json.loads((model / "results.json").read_text())
    assert results["iteration"] == 8
    assert list(results["deblurring"]) == [kind.name for kind in MEASURED]
    assert results["held out"]["gaussians"]["views"] == results["held out"]["recon_net"]["views"] == 2
    assert {method: row["views"] for method, row in results["novel views"].items()} == {"gaussians": 2}
    row = results["deblurring"]["gaussians"]
    assert row["views"] == 3 and {"PSNR", "SSIM", "PSNR_gain", "PSNR_all_subframes"} <= row.keys()
    assert 5 < row["PSNR"] < 60 and 0 < row["SSIM"] <= 1
    # After eight steps the spikes know better than the scene.
    assert results["deblurring"]["fused"]["PSNR"] > row["PSNR"] + 3
    assert results["held out"]["fused"]["PSNR"] > 20
    assert results["deblurring"]["tfp"]["PSNR"] > results["deblurring"]["long_exposure"]["PSNR"] - 1
    assert results["trajectory"]["ATE"] < 0.2
    per_view = json.loads((model / "per_view.json").read_text())
    assert "002" in per_view["deblurring"]["gaussians"]
    assert load_image(model / "comparison.png", channels=3).shape[1] > 3 * 32


def test_rendering_again_replaces_held_out_cameras(model, monkeypatch):
    before = json.loads((model / "cameras.json").read_text())
    listed = (model / "train/ours_8/manifest.json").read_bytes()
    assert call(monkeypatch, render, "-m", model, "--quiet", "--skip_train", "--fit_steps", 3) == 0
    after = json.loads((model / "cameras.json").read_text())
    assert [c["name"] for c in after] == [c["name"] for c in before]
    assert (model / "train/ours_8/manifest.json").read_bytes() == listed


def test_the_manifest_lists_every_image(model):
    for split in ("train", "test"):
        folder = model / split / "ours_8"
        listed = read_manifest(model, split, 8)
        assert sorted(image.file for image in listed) == sorted(
            str(file.relative_to(folder)) for file in folder.glob("*/*.png")
        )
        assert all(image.u == (0.5 if image.subframe is None else image.subframe / 12) for image in listed)
    # Of held-out exposures and sharp images alone, the latter are no exposures that were held out.
    assert {image.view: image.protocol for image in listed} == {
        "000": "held out", "004": "held out", "novel_000": "novel views", "novel_001": "novel views",
    }  # fmt: skip


def test_held_out_exposures_start_from_their_neighbors_motion(model, scene_folder, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    assert call(monkeypatch, render, "-m", copy, "--quiet", "--skip_train", "--fit_steps", 0) == 0
    cameras = {c["name"]: torch.tensor(c["w2c"]) for c in json.loads((copy / "cameras.json").read_text())}
    truth = json.loads((scene_folder / "trajectory.json").read_text())["w2c"]
    for name in ("000", "004"):
        true, guess = torch.tensor(truth[name]), cameras[name]
        moved, wanted = (poses[12, :3, 3] - poses[0, :3, 3] for poses in (guess, true))
        # a guess beyond the recording's ends, after 8 training steps: the direction, not the length
        assert torch.cosine_similarity(moved, wanted, dim=0) > 0.95 and moved.norm() < 3 * wanted.norm(), name
        assert (guess[6, :3, 3] - true[6, :3, 3]).norm() < 0.1, name


def test_poses_and_truth_may_be_in_different_worlds(scene_folder, monkeypatch, tmp_path):
    """Structure from motion has a world of its own: held-out exposures start there, novel images from the truth's."""
    scene, folder = tmp_path / "scene", tmp_path / "model"
    shutil.copytree(scene_folder, scene)
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    meta, before = json.loads((scene / "transforms.json").read_text()), {}
    for frame in meta["frames"]:
        to_world = torch.tensor(frame["transform_matrix"])
        before[Path(frame["file_path"]).stem] = to_world[:3, 3].clone()
        to_world[:3] = turn @ to_world[:3]
        to_world[:3, 3] = 3 * to_world[:3, 3] + 1
        frame["transform_matrix"] = to_world.tolist()
    (scene / "transforms.json").write_text(json.dumps(meta))
    points, colors = read_point_ply(scene / "sparse_pc.ply")
    write_point_ply(scene / "sparse_pc.ply", 3 * points @ turn.T + 1, colors)
    flags = ("--eval", "--llffhold", 4, *SMALL)
    assert call(monkeypatch, train, "-s", scene, "-m", folder, *flags) == 0
    assert call(monkeypatch, render, "-m", folder, "--quiet", "--skip_train", "--fit_steps", 0) == 0
    cameras = {c["name"]: torch.tensor(c["position"]) for c in json.loads((folder / "cameras.json").read_text())}
    novel = json.loads((scene / "novel.json").read_text())["frames"][0]["transform_matrix"]
    before["novel_000"] = torch.tensor(novel)[:3, 3]
    for name in ("000", "004", "novel_000"):
        assert torch.allclose(cameras[name], 3 * turn @ before[name] + 1, atol=0.3), name


@pytest.mark.parametrize("subframes", [1, 7])
def test_truth_of_other_subframes_is_left_out(subframes, scene_folder, monkeypatch, tmp_path):
    flags = ("--exposure", 97 if subframes > 1 else 41, "--subframes", subframes, *SMALL, "--no-fuse")
    assert call(monkeypatch, train, "-s", scene_folder, "-m", tmp_path, *flags, "--no-joint") == 0
    assert call(monkeypatch, render, "-m", tmp_path, "--quiet", "--fit_steps", 0) == 0
    train_folder = tmp_path / "train/ours_8"
    expected = {"002", *(f"002_{m:02d}" for m in range(subframes))}
    assert {name for name in names(train_folder / "gt") if name.startswith("002")} == expected
    # Without held-out exposures the sharp images are the held-out views.
    assert {image.protocol for image in read_manifest(tmp_path, "test", 8)} == {"held out"}
    last = load_image(scene_folder / f"sequence/002_{12 if subframes > 1 else 6:02d}.png")
    assert torch.equal(load_image(train_folder / f"gt/002_{subframes - 1:02d}.png"), last)


def test_each_iteration_is_rendered_and_measured_with_its_own_poses(scene_folder, monkeypatch, tmp_path, capsys):
    flags = (*SMALL, "--save_iterations", 2)
    assert call(monkeypatch, train, "-s", scene_folder, "-m", tmp_path, *flags) == 0
    ate = {}
    for iteration in (8, 2):
        assert call(monkeypatch, render, "-m", tmp_path, "--quiet", "--fit_steps", 0, "--iteration", iteration) == 0
        assert call(monkeypatch, metrics, "-m", tmp_path, "--quiet", "--iteration", iteration) == 0
        ate[iteration] = json.loads((tmp_path / "results.json").read_text())["trajectory"]["ATE"]
    assert ate[2] != ate[8]
    capsys.readouterr()
    assert call(monkeypatch, metrics, "-m", tmp_path, "--iteration", 8) == 0
    assert "cameras.json has the poses of iteration 2, not 8" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["sharp_data/002.png", "sequence/002_03.png", "novel/000.png"])
def test_a_true_image_of_another_size_is_named(file, model, scene_folder, monkeypatch, tmp_path, capsys):
    scene, copy = tmp_path / "scene", tmp_path / "copy"
    shutil.copytree(scene_folder, scene)
    shutil.copytree(model, copy)
    config = json.loads((copy / "cfg_args.json").read_text())
    config["scene"]["source_path"] = str(scene)
    (copy / "cfg_args.json").write_text(json.dumps(config))
    save_image(scene / file, torch.zeros(1, 20, 30))
    assert call(monkeypatch, render, "-m", copy, "--quiet", "--fit_steps", 0) == 1
    error = capsys.readouterr().err
    assert f"{file}: 30x20 pixels, expected 48x32" in error and error.count("\n") == 1
    # Half of the images are new: nothing is measured.
    assert call(monkeypatch, metrics, "-m", copy, "--quiet") == 1
    error = capsys.readouterr().err
    assert "train/ours_8/manifest.json: not a complete list of images" in error
    assert error.endswith(f"run render.py -m {copy} --iteration 8\n") and error.count("\n") == 1


def test_holding_still_and_skipping(model, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    shutil.rmtree(copy / "test")
    shutil.rmtree(copy / "train")
    assert call(monkeypatch, render, "-m", copy, "--quiet", "--skip_test", "--iteration", 8) == 0
    assert (copy / "train/ours_8/renders/001.png").exists() and not (copy / "test").exists()


def test_a_scene_without_sharp_images_still_renders(scene_folder, monkeypatch, tmp_path, capsys):
    scene = tmp_path / "scene"
    shutil.copytree(scene_folder, scene)
    for name in ("sharp_data", "sequence", "novel"):
        shutil.rmtree(scene / name)
    for name in ("novel.json", "trajectory.json"):
        (scene / name).unlink()
    folder = tmp_path / "model"
    assert call(monkeypatch, train, "-s", scene, "-m", folder, *SMALL) == 0
    assert call(monkeypatch, render, "-m", folder, "--quiet", "--fit_steps", 3) == 0
    assert names(folder / "train/ours_8/renders") == {"000", "001", "002", "003", "004"}
    assert call(monkeypatch, metrics, "-m", folder) == 0
    assert "no sharp images" in capsys.readouterr().out
    # Gaussians, fused, Recon-Net, spike timing, TFP and long exposure of five views are there to look at.
    assert (folder / "report.html").read_text().count("data:image/jpeg") == 30


def test_a_color_sensor_makes_a_color_scene(monkeypatch, tmp_path):
    """Red, green and blue pixels of a Bayer sensor see scenes of their own brightness; so do the Gaussians."""
    scene = tmp_path / "scene"
    write_scene(scene, Mosaic("GBRG"))
    folder = tmp_path / "model"
    assert call(monkeypatch, train, "-s", scene, "-m", folder, *SMALL, "--iterations", 30) == 0
    assert call(monkeypatch, render, "-m", folder, "--quiet", "--fit_steps", 2) == 0
    assert call(monkeypatch, metrics, "-m", folder, "--quiet") == 0
    assert load_gaussians(folder, 30, channels=3).channels == 3
    for kind in ("renders", "recon", "fused", "tfp", "gt"):
        image = load_image(folder / f"train/ours_30/{kind}/002.png", channels=None)
        balance = image.mean((1, 2)) / image[1].mean()
        assert image.shape[0] == 3 and torch.allclose(balance, torch.tensor(LEVELS), atol=0.12), kind
    meta = json.loads((scene / "transforms.json").read_text())
    (scene / "transforms.json").write_text(json.dumps(meta | {"spike": {"bayer": "GBGB"}}))
    assert call(monkeypatch, train, "-s", scene, "-m", folder, *SMALL) == 1


def test_the_saved_gaussians_are_the_trained_ones(model):
    gaussians = load_gaussians(model, 8, channels=1)
    assert 300 <= len(gaussians) <= 330 and gaussians.channels == 1 and gaussians.sh_degree == 3


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        (render, [], "no model given"),
        (metrics, [], "no model given"),
        (render, ["-m", "MODEL", "--fit_steps", "-1"], "--fit_steps must be at least 0"),
        (render, ["-m", "nowhere"], "cfg_args.json: not found"),
        (metrics, ["-m", "nowhere"], "cfg_args.json: not found"),
        (render, ["-m", "MODEL", "--iteration", "7"], "iteration 7 was not saved; there are 8"),
        (render, ["-m", "MODEL", "--device", "cuda"], "no CUDA device"),
        (render, ["-m", "MODEL", "-s", "nowhere"], "error: nowhere: no such folder"),
        (metrics, ["-m", "MODEL", "-s", "nowhere"], "error: nowhere: no such folder"),
    ],
)
def test_mistakes_end_in_one_sentence(command, flags, words, model, monkeypatch, capsys):
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert call(monkeypatch, command, *[str(model) if f == "MODEL" else f for f in flags]) == 1
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize("file", ["point_cloud.ply", "trajectory.pth", "recon_net.pth"])
def test_damaged_models_are_named(file, model, monkeypatch, capsys, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    damaged = copy / "point_cloud/iteration_8" / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert call(monkeypatch, render, "-m", copy, "--quiet") == 1
    error = capsys.readouterr().err
    assert f"iteration_8/{file}" in error and error.count("\n") == 1


@pytest.mark.parametrize(("said", "written"), [("images need 9.0 GB", "images need 9.0 GB"), ("", "out of memory")])
def test_lack_of_memory_is_one_sentence(said, written, capsys):
    def main() -> int:
        raise MemoryError(said)

    assert guarded(main) == 1
    assert capsys.readouterr().err == f"error: {written}\n"
