"""metrics.py on small made-up model folders: means, directions of time, what is missing."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_paths import path
from rendered_model import H, M, Model, W, entry, put_subframes

import metrics
from evaluation import images
from evaluation.images import Frame, decoded, measure, measure_frames, rendered_images, summarize
from evaluation.measuring import measure_model
from evaluation.tables import results_table
from evaluation.trajectories import _initial_poses, measure_trajectories, read_trajectories
from pictures.kinds import GAUSSIANS, RECON_NET, TRUTH
from scene.manifest import MANIFEST, PROTOCOLS
from utils.image_metrics import ssim
from utils.io import load_image, save_image

# ---- which images there are ------------------------------------------------------------------------------


def test_views_that_end_in_two_digits_are_all_measured(tmp_path):
    model = Model(tmp_path, names=("cam_01", "cam_02", "cam_03"))
    for i, name in enumerate(model.names):
        model.put("train", TRUTH, name, 0.5)
        model.put("train", GAUSSIANS, name, 0.5 + 0.1 * (i + 1))
    means = measure_frames(model.frames(), None).means[GAUSSIANS]
    assert means["views"] == 3 and "PSNR_all_subframes" not in means
    assert means["PSNR"] == pytest.approx(np.mean([20, 13.979, 10.458]), abs=0.01)


def test_names_are_not_parsed(tmp_path, monkeypatch):
    """A view that is called like another one's sub-frame is a view; the manifest alone says what is what."""
    model = Model(tmp_path, names=("a", "a_01"))
    for name in ("a", "a_01"):
        model.put("train", TRUTH, name, 0.5)
        model.put("train", GAUSSIANS, name, 0.6)
    model.put("train", TRUTH, "a", 0.5, 2)
    model.put("train", GAUSSIANS, "a", 0.51, 2)
    row = model.run(monkeypatch)["deblurring"]["gaussians"]
    assert row["views"] == 2
    assert row["PSNR"] == pytest.approx(20, abs=0.01) and row["PSNR_all_subframes"] == pytest.approx(40, abs=0.05)


def test_images_that_the_manifest_does_not_list_are_left_alone(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    save_image(model.train / "renders" / "000_07.png", torch.zeros(1, H, W))  # of an earlier run, say
    save_image(model.train / "fused" / "000.png", torch.zeros(1, H, W))
    assert list(model.run(monkeypatch)["deblurring"]) == ["gaussians", "recon_net"]


def test_an_interrupted_rendering_is_said_in_one_sentence(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    command = rf"run render\.py -m {model.root} --iteration 7$"
    (model.train / "renders" / "001.png").unlink()
    with pytest.raises(ValueError, match=rf"{model.train}.*renders/001\.png is listed but missing\); {command}"):
        model.run(monkeypatch)
    (model.train / MANIFEST).unlink()
    with pytest.raises(ValueError, match=rf"{model.train}/manifest\.json: .*no such list of images.*{command}"):
        model.run(monkeypatch)


def test_a_split_that_was_never_rendered_has_no_images(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    assert rendered_images(model.root, "test", 7) == []
    assert "held out" not in model.run(monkeypatch)


def test_every_file_is_decoded_once(tmp_path, monkeypatch):
    model, read = Model(tmp_path), []
    put_subframes(model)
    monkeypatch.setattr(images, "load_image", lambda file, channels: read.append(file) or load_image(file, channels))
    model.run(monkeypatch)
    assert len(read) == len(set(read)) == len(model.images["train"])
    assert (model.root / "comparison.png").exists()


# ---- one image -------------------------------------------------------------------------------------------


def test_raw_and_gain_matched():
    truth = torch.rand(1, H, W, generator=torch.Generator().manual_seed(0))
    [values] = measure([truth * 0.5], truth, None)
    assert values["gain"] == pytest.approx(2)
    assert values["PSNR_gain"] == pytest.approx(120) and values["SSIM_gain"] == pytest.approx(1)
    assert values["PSNR"] == pytest.approx(float(-10 * torch.log10((truth * 0.5).square().mean())))
    assert "LPIPS" not in values


def test_images_of_different_sizes_are_refused(tmp_path):
    model = Model(tmp_path)
    model.put("train", TRUTH, "001", 0.5)
    model.put("train", GAUSSIANS, "001", 0.5)
    model.put("train", RECON_NET, "001", 0.5)
    save_image(model.train / "recon" / "001.png", torch.zeros(1, H, 2 * W))
    with pytest.raises(ValueError, match=r"recon/001\.png: 48x16 pixels, expected 24x16 as the true image has"):
        list(decoded(model.frames()))


def test_several_images_measure_as_each_alone(monkeypatch):
    g = torch.Generator().manual_seed(4)
    truth, *several = torch.rand(4, 1, 20, 24, generator=g)
    calls = []

    def distances(model, compared, true):
        assert torch.equal(true[0], truth)
        calls.append(len(compared))
        return [float((image - true).abs().mean()) for image in compared]

    monkeypatch.setattr(images, "lpips_distances", distances)
    network = SimpleNamespace(smallest=20)
    together = measure(several, truth, network)
    alone = [measure([image], truth, network)[0] for image in several]
    assert calls == [6, 2, 2, 2]  # with and without the gain, the truth once for all of them
    for row, own, image in zip(together, alone, several, strict=True):
        assert row == pytest.approx(own, rel=1e-6)
        matched = (image * row["gain"]).clamp(0, 1)
        assert row["SSIM"] == pytest.approx(float(ssim(image[None], truth[None])), rel=1e-6)
        assert row["SSIM_gain"] == pytest.approx(float(ssim(matched[None], truth[None])), rel=1e-6)
        assert row["LPIPS_gain"] == pytest.approx(float((matched - truth).abs().mean()), rel=1e-6)


def test_pictures_too_small_for_lpips_are_measured_otherwise(tmp_path, monkeypatch):
    """What LPIPS's network cannot take is said; the rest is measured."""
    model = Model(tmp_path)
    model.put("train", TRUTH, "000", 0.5)
    model.put("train", GAUSSIANS, "000", 0.6)
    monkeypatch.setattr(images, "lpips_distances", lambda *_: pytest.fail("asked for too small an image"))
    measured = measure_model(model.trained, SimpleNamespace(smallest=H + 1), "vgg")
    assert measured.results["LPIPS"] == f"not measured: it needs images of at least {H + 1}x{H + 1} pixels"
    row = measured.results["deblurring"]["gaussians"]
    assert row["PSNR"] == pytest.approx(20, abs=0.01) and "LPIPS" not in row
    assert "missing" in results_table(measured.results)


# ---- sub-frames and the direction of time ----------------------------------------------------------------

def test_all_subframes_in_order(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    results = model.run(monkeypatch)
    row = results["deblurring"]["gaussians"]
    assert row["views"] == 3
    assert row["PSNR"] == pytest.approx(20, abs=0.01)
    assert row["PSNR_all_subframes"] == pytest.approx(20, abs=0.01)
    assert "PSNR_all_subframes_as_recovered" not in row
    assert results["trajectory"]["reversed_views"] == []
    assert results["trajectory"]["ATE"] == pytest.approx(0, abs=1e-6)


def test_reversed_views_are_compared_in_reverse_and_as_recovered(tmp_path, monkeypatch, capsys):
    truth = path(4, M)
    estimate = truth.copy()
    estimate[[1, 3]] = estimate[[1, 3], ::-1]
    model = Model(tmp_path, ("000", "001", "002", "003"), estimate, truth)
    put_subframes(model, back=("001", "003"))
    results = model.run(monkeypatch)
    assert results["trajectory"]["reversed_views"] == ["001", "003"]
    row = results["deblurring"]["gaussians"]
    assert row["PSNR_all_subframes"] == pytest.approx(20, abs=0.01)
    # 0.1 off in order; reversed: 0.8 + 0.1 against 0.2, and 0.2 + 0.1 against 0.8
    wrong = -20 * np.log10([0.7, 0.1, 0.5])
    assert row["PSNR_all_subframes_as_recovered"] == pytest.approx((6 * 20 + 2 * wrong.sum()) / 12, abs=0.01)
    recon = results["deblurring"]["recon_net"]
    assert recon["PSNR_all_subframes"] == pytest.approx(40, abs=0.05), "Recon-Net's time is the spikes' own"
    assert "PSNR_all_subframes_as_recovered" not in recon
    printed = capsys.readouterr().out
    assert "2 views reversed in time" in printed and "as recovered: " in printed


def test_a_reversed_subframe_without_its_opposite_is_left_out(tmp_path):
    model = Model(tmp_path)
    put_subframes(model)
    model.images["train"].pop("renders/000_02.png")
    model.list_images("train")
    rows = measure_frames(model.frames(), None, {"000": M}).table[GAUSSIANS]
    assert "000_00" not in rows and "000_01" in rows


def test_means_are_of_the_middles_and_of_all_subframes():
    frames = [Frame("v", m, {}) for m in (None, 0, 1)]
    assert [frame.name for frame in frames] == ["v", "v_00", "v_01"]
    rows = {"v": {"PSNR": 30.0}, "v_00": {"PSNR": 10.0, "PSNR_as_recovered": 5.0}, "v_01": {"PSNR": 20.0}}
    means = summarize(rows, frames)
    assert means == {"PSNR": 30, "PSNR_all_subframes": 15, "PSNR_all_subframes_as_recovered": 12.5, "views": 1}


def test_errors_before_are_not_those_of_a_scene_that_training_did_not_start_from():
    started = SimpleNamespace(settings=SimpleNamespace(values=lambda: {"start_from": "a/model"}))
    assert _initial_poses(started, ["000"]) is None


def test_held_out_subframes_are_no_views(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    model.cameras += [entry("009", model.truth[0], "test")]
    model.save_cameras()
    for m in (None, 0, 2):
        model.put("test", TRUTH, "009", 0.5, m)
        model.put("test", GAUSSIANS, "009", 0.6 if m is None else 0.51, m)
    row = model.run(monkeypatch)["held out"]["gaussians"]
    assert row["views"] == 1
    assert row["PSNR"] == pytest.approx(20, abs=0.01)
    assert row["PSNR_all_subframes"] == pytest.approx(40, abs=0.05)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ({"009": (0.6, "held out")}, {"held out": 20}),
        ({"009": (0.6, "held out"), "novel_00": (0.51, "novel views")}, {"held out": 20, "novel views": 40}),
    ],
)
def test_poses_fitted_to_spikes_and_to_the_truth_are_not_averaged(tmp_path, monkeypatch, capsys, views, expected):
    model = Model(tmp_path)
    for name, (value, protocol) in views.items():
        model.put("test", TRUTH, name, 0.5, protocol=protocol)
        model.put("test", GAUSSIANS, name, value, protocol=protocol)
    results = model.run(monkeypatch)
    found = {name: results[name]["gaussians"]["PSNR"] for name in PROTOCOLS if name in results}
    assert found == pytest.approx(expected, abs=0.05)
    printed, page = capsys.readouterr().out, (model.root / "report.html").read_text()
    per_view = json.loads((model.root / "per_view.json").read_text())
    assert all(f"{name:<14} Gaussians" in printed and name in page and name in per_view for name in expected)


def test_subframes_alone_leave_the_middle_missing(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    for m in (0, 2):
        model.put("train", TRUTH, "000", 0.5, m)
        model.put("train", GAUSSIANS, "000", 0.6, m)
    row = model.run(monkeypatch)["deblurring"]["gaussians"]
    assert row["views"] == 0 and "PSNR" not in row
    assert row["PSNR_all_subframes"] == pytest.approx(20, abs=0.01)
    assert "missing" in capsys.readouterr().out


# ---- trajectories ----------------------------------------------------------------------------------------


def why(model):
    found, reason = measure_trajectories(read_trajectories(model.trained, model.cameras))
    assert found is None
    return reason


def test_why_there_are_no_trajectory_errors(tmp_path):
    model = Model(tmp_path / "short")
    truth = json.loads((model.scene / "trajectory.json").read_text())
    truth["w2c"] = {name: poses[:2] for name, poses in truth["w2c"].items()}
    (model.scene / "trajectory.json").write_text(json.dumps(truth))
    assert "has view 000 at 2 instants, not at the model's 3" in why(model)
    truth["w2c"].pop("001")
    (model.scene / "trajectory.json").write_text(json.dumps(truth))
    assert "trajectory.json lacks 1 of 3 training views (001)" in why(model)
    (model.scene / "trajectory.json").unlink()
    assert why(model).startswith("there is no ") and why(model).endswith("trajectory.json with true poses")
    model.settings.replaced(source_path=str(tmp_path / "gone")).save(model.root)
    assert "the scene cannot be read" in why(model) and "gone" in why(model)
    model.cameras[0]["w2c"] = model.cameras[0]["w2c"][:1]
    assert "different numbers of sub-frames" in why(model)
    model.cameras = []
    assert why(model)


def test_poses_of_another_iteration_are_not_measured(tmp_path):
    model = Model(tmp_path)
    model.cameras[1]["iteration"] = 9
    assert "cameras.json has the poses of iteration 9, not 7" in why(model)
    for camera in model.cameras:  # as earlier versions wrote them
        del camera["iteration"]
    assert measure_trajectories(read_trajectories(model.trained, model.cameras))[0] is not None


def test_the_reason_is_printed_and_stored(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    (model.scene / "trajectory.json").unlink()
    put_subframes(model)
    results = model.run(monkeypatch)
    assert "trajectory" not in results and "there is no " in results["trajectory_missing"]
    printed = capsys.readouterr().out
    assert "trajectory  not measured: there is no " in printed
    assert "LPIPS: no weights here" in printed and "missing" in printed.splitlines()[2]


def test_one_instant_has_an_ate_and_no_motion(tmp_path):
    model = Model(tmp_path, truth=path(3, 1))
    found, _ = measure_trajectories(read_trajectories(model.trained, model.cameras))
    assert found["RPE_translation"] is None and found["motion_error"] is None
    printed = results_table({"LPIPS": "", "trajectory": found})
    assert "ATE 0.0000" in printed and "RPE missing" in printed and "motion error missing" in printed
    assert "0 views reversed" in printed
    printed = results_table({"LPIPS": "", "trajectory": found | {"reversed_views": ["001"]}})
    assert "1 view reversed" in printed


# ---- the command -----------------------------------------------------------------------------------------


def test_everything_is_written(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    put_subframes(model)
    results = model.run(monkeypatch)
    assert results["iteration"] == 7
    per_view = json.loads((model.root / "per_view.json").read_text())
    assert per_view["deblurring"]["gaussians"]["001"]["PSNR"] == pytest.approx(20, abs=0.01)
    assert (model.root / "comparison.png").exists()
    assert "<title>scene, iteration 7</title>" in (model.root / "report.html").read_text()
    assert "results.json, per_view.json, report.html, comparison.png" in capsys.readouterr().out


def test_without_sharp_images_there_is_still_a_trajectory(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    for name in model.names:
        model.put("train", GAUSSIANS, name, 0.5)
    results = model.run(monkeypatch)
    assert "trajectory" in results and "deblurring" not in results
    assert "no sharp images" in capsys.readouterr().out


def test_nothing_rendered_and_nothing_given(tmp_path, monkeypatch):
    model = Model(tmp_path)
    with pytest.raises(ValueError, match=r"no rendered images of iteration 7; run render\.py"):
        model.run(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["metrics.py"])
    with pytest.raises(ValueError, match="say which folder with -m"):
        metrics.main()


@pytest.mark.parametrize("flag", ["--rasterizer", "--device"])
def test_what_only_drawing_needs_is_no_flag(monkeypatch, capsys, flag):
    monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", "somewhere", flag, "cpu"])
    with pytest.raises(SystemExit):
        metrics.main()
    assert f"metrics.py has no flag {flag};" in capsys.readouterr().err
