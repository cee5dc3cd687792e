"""metrics.py on small made-up model folders: names, means, directions of time, what is missing."""

import json
import sys

import numpy as np
import pytest
import torch
from test_trajectory_metrics import path

import metrics
from arguments import Config
from metrics import Picture, measure, measure_folder, measure_trajectories, pictures_in, read_trajectories, summarise
from utils.image_metrics import ssim
from utils.io import save_image

M = 3
H, W = 16, 24
OPENGL = np.diag([1.0, -1, -1, 1])


def image(value):
    return torch.full((1, H, W), float(value))


def entry(name, poses, split="train"):
    known = {"name": name, "split": split, "iteration": 7}
    return known | {"w2c": np.asarray(poses).tolist(), "time": np.linspace(0, 1, M).tolist()}


def write_scene(root, names, truth):
    root.mkdir(parents=True)
    frames = [
        {"file_path": f"sharp_data/{n}.png", "transform_matrix": (np.linalg.inv(p[len(p) // 2]) @ OPENGL).tolist()}
        for n, p in zip(names, truth, strict=True)
    ]
    meta = {"fl_x": 20.0, "w": W, "h": H, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(meta))
    table = {n: p.tolist() for n, p in zip(names, truth, strict=True)}
    (root / "trajectory.json").write_text(json.dumps({"w2c": table}))


class Model:
    """A rendered model: pictures whose error is known, from a scene whose trajectory is known."""

    def __init__(self, root, names=("000", "001", "002"), estimate=None, truth=None):
        self.root, self.names = root / "out", list(names)
        self.truth = path(len(self.names), M) if truth is None else truth
        self.scene = root / "scene"
        write_scene(self.scene, self.names, self.truth)
        config = Config()
        config.data.source_path, config.data.model_path = str(self.scene), str(self.root)
        config.data.subframes = self.truth.shape[1]
        config.save(self.root)
        (self.root / "point_cloud" / "iteration_7").mkdir(parents=True)
        (self.root / "point_cloud" / "iteration_7" / "point_cloud.ply").touch()
        estimate = self.truth if estimate is None else estimate
        self.cameras = [entry(n, p) for n, p in zip(self.names, estimate, strict=True)]
        self.save_cameras()
        self.config = config

    def save_cameras(self):
        (self.root / "cameras.json").write_text(json.dumps(self.cameras))

    def put(self, split, kind, name, value):
        save_image(self.root / split / "ours_7" / kind / f"{name}.png", image(value), bits=16)

    @property
    def train(self):
        return self.root / "train" / "ours_7"

    def run(self, monkeypatch, *flags):
        monkeypatch.setattr(metrics, "load_lpips", lambda net: (None, "no weights here"))
        monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", str(self.root), "--quiet", *flags])
        assert metrics.main() == 0
        return json.loads((self.root / "results.json").read_text())


# ---- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, views, names, expected",
    [
        ("000", {"000"}, {"000"}, ("000", None)),
        ("000_03", {"000"}, {"000", "000_03"}, ("000", 3)),
        ("000_103", {"000"}, {"000"}, ("000", 103)),
        ("cam_01", {"cam_01", "cam_02"}, {"cam_01", "cam_02"}, ("cam_01", None)),
        ("cam_01_05", {"cam_01"}, {"cam_01", "cam_01_05"}, ("cam_01", 5)),
        ("a_01", {"a", "a_01"}, {"a", "a_01"}, ("a_01", None)),  # a view's own name wins
        ("novel_03", {"novel_03"}, {"novel_03"}, ("novel_03", None)),
        ("novel_003_02", {"novel_003_02"}, {"novel_003_02"}, ("novel_003_02", None)),
        ("shot_12", set(), {"shot_12", "shot_13"}, ("shot_12", None)),
        ("x_03", set(), {"x", "x_03"}, ("x", 3)),  # a picture whose camera is not listed
        ("x_3", {"x"}, {"x"}, ("x_3", None)),
    ],
)
def test_a_subframe_needs_a_view_to_belong_to(name, views, names, expected):
    found = Picture.of(name, views, names)
    assert (found.view, found.subframe) == expected


def test_views_that_end_in_two_digits_are_all_measured(tmp_path):
    model = Model(tmp_path, names=("cam_01", "cam_02", "cam_03"))
    for i, name in enumerate(model.names):
        model.put("train", "gt", name, 0.5)
        model.put("train", "renders", name, 0.5 + 0.1 * (i + 1))
    pictures = pictures_in(model.train, model.cameras)
    rows = measure_folder(model.train, pictures, None, {}, quiet=True)["renders"]
    means = summarise(rows, pictures)
    assert means["views"] == 3 and "PSNR_all_subframes" not in means
    assert means["PSNR"] == pytest.approx(np.mean([20, 13.979, 10.458]), abs=0.01)


# ---- one picture -----------------------------------------------------------------------------------------


def test_raw_and_gain_matched():
    truth = torch.rand(1, 1, H, W, generator=torch.Generator().manual_seed(0))
    values = measure(truth * 0.5, truth, None)
    assert values["gain"] == pytest.approx(2)
    assert values["PSNR_gain"] == pytest.approx(120) and values["SSIM_gain"] == pytest.approx(1)
    assert values["PSNR"] == pytest.approx(float(-10 * torch.log10((truth * 0.5).square().mean())))
    assert "LPIPS" not in values


def test_pictures_of_different_sizes_are_refused(tmp_path):
    model = Model(tmp_path)
    model.put("train", "gt", "001", 0.5)
    save_image(model.train / "recon" / "001.png", torch.zeros(1, H, 2 * W))
    pictures = pictures_in(model.train, model.cameras)
    with pytest.raises(ValueError, match=r"recon/001\.png: 48x16 pixels, expected 24x16 as the true picture has"):
        measure_folder(model.train, pictures, None, {}, quiet=True)


def test_several_pictures_measure_as_each_alone(monkeypatch):
    g = torch.Generator().manual_seed(4)
    truth, *images = torch.rand(4, 1, 1, 20, 24, generator=g)
    calls = []

    def distances(model, pictures, true):
        assert true is truth
        calls.append(len(pictures))
        return [float((picture - true).abs().mean()) for picture in pictures]

    monkeypatch.setattr(metrics, "lpips_distances", distances)
    together = metrics.measure_all(images, truth, torch.nn.Identity())
    alone = [measure(image, truth, torch.nn.Identity()) for image in images]
    assert calls == [6, 2, 2, 2]  # with and without the gain, the truth once for all of them
    for row, own, image in zip(together, alone, images, strict=True):
        assert row == pytest.approx(own, rel=1e-6)
        matched = (image * row["gain"]).clamp(0, 1)
        assert row["SSIM"] == pytest.approx(float(ssim(image, truth)), rel=1e-6)
        assert row["SSIM_gain"] == pytest.approx(float(ssim(matched, truth)), rel=1e-6)
        assert row["LPIPS_gain"] == pytest.approx(float((matched - truth).abs().mean()), rel=1e-6)


# ---- sub-frames and the direction of time ----------------------------------------------------------------

TRUTH = (0.2, 0.5, 0.8)


def put_subframes(model, back=()):
    """Renders that are 0.1 off; those of ``back`` run backwards in time.  Recon-Net is 0.01 off."""
    for name in model.names:
        order = TRUTH[::-1] if name in back else TRUTH
        model.put("train", "gt", name, TRUTH[1])
        model.put("train", "renders", name, TRUTH[1] + 0.1)
        model.put("train", "recon", name, TRUTH[1] + 0.01)
        for m in range(M):
            model.put("train", "gt", f"{name}_{m:02d}", TRUTH[m])
            model.put("train", "renders", f"{name}_{m:02d}", order[m] + 0.1)
            model.put("train", "recon", f"{name}_{m:02d}", TRUTH[m] + 0.01)


def test_all_subframes_in_order(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    results = model.run(monkeypatch)
    row = results["deblurring"]["Gaussians"]
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
    row = results["deblurring"]["Gaussians"]
    assert row["PSNR_all_subframes"] == pytest.approx(20, abs=0.01)
    # 0.1 off in order; reversed: 0.8 + 0.1 against 0.2, and 0.2 + 0.1 against 0.8
    wrong = -20 * np.log10([0.7, 0.1, 0.5])
    assert row["PSNR_all_subframes_as_recovered"] == pytest.approx((6 * 20 + 2 * wrong.sum()) / 12, abs=0.01)
    recon = results["deblurring"]["Recon-Net"]
    assert recon["PSNR_all_subframes"] == pytest.approx(40, abs=0.05), "Recon-Net's time is the spikes' own"
    assert "PSNR_all_subframes_as_recovered" not in recon
    printed = capsys.readouterr().out
    assert "2 views reversed in time" in printed and "as recovered: " in printed


def test_a_reversed_subframe_without_its_opposite_is_left_out(tmp_path):
    model = Model(tmp_path)
    put_subframes(model)
    (model.train / "renders" / "000_02.png").unlink()
    pictures = pictures_in(model.train, model.cameras)
    rows = measure_folder(model.train, pictures, None, {"000": M}, quiet=True)["renders"]
    assert "000_00" not in rows and "000_01" in rows


def test_held_out_subframes_are_no_views(tmp_path, monkeypatch):
    model = Model(tmp_path)
    put_subframes(model)
    model.cameras += [entry("009", model.truth[0], "test")]
    model.save_cameras()
    for name in ("009", "009_00", "009_02"):
        model.put("test", "gt", name, 0.5)
        model.put("test", "renders", name, 0.51 if "_" in name else 0.6)
    row = model.run(monkeypatch)["held out"]["Gaussians"]
    assert row["views"] == 1
    assert row["PSNR"] == pytest.approx(20, abs=0.01)
    assert row["PSNR_all_subframes"] == pytest.approx(40, abs=0.05)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ({"009": 0.6}, {"held out": 20}),
        ({"novel_00": 0.51}, {"held out": 40}),
        ({"009": 0.6, "novel_00": 0.51}, {"held out": 20, "novel views": 40}),
    ],
)
def test_poses_fitted_to_spikes_and_to_the_truth_are_not_averaged(tmp_path, monkeypatch, capsys, views, expected):
    model = Model(tmp_path)
    for name, value in views.items():
        model.put("test", "gt", name, 0.5)
        model.put("test", "renders", name, value)
    results = model.run(monkeypatch)
    found = {name: results[name]["Gaussians"]["PSNR"] for name in metrics.PROTOCOLS if name in results}
    assert found == pytest.approx(expected, abs=0.05)
    printed, page = capsys.readouterr().out, (model.root / "report.html").read_text()
    per_view = json.loads((model.root / "per_view.json").read_text())
    assert all(f"{name:<11} Gaussians" in printed and name in page and name in per_view for name in expected)


def test_subframes_alone_leave_the_middle_missing(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    for m in (0, 2):
        model.put("train", "gt", f"000_{m:02d}", 0.5)
        model.put("train", "renders", f"000_{m:02d}", 0.6)
    row = model.run(monkeypatch)["deblurring"]["Gaussians"]
    assert row["views"] == 0 and "PSNR" not in row
    assert row["PSNR_all_subframes"] == pytest.approx(20, abs=0.01)
    assert "missing" in capsys.readouterr().out


# ---- trajectories ----------------------------------------------------------------------------------------


def why(model):
    found, reason = measure_trajectories(read_trajectories(model.config, model.cameras, 7))
    assert found is None
    return reason


def test_why_there_are_no_trajectory_errors(tmp_path):
    model = Model(tmp_path / "short")
    truth = json.loads((model.scene / "trajectory.json").read_text())
    truth["w2c"] = {name: poses[:2] for name, poses in truth["w2c"].items()}
    (model.scene / "trajectory.json").write_text(json.dumps(truth))
    assert "has view 000 at 2 instants, which are not the model's 3" in why(model)
    truth["w2c"].pop("001")
    (model.scene / "trajectory.json").write_text(json.dumps(truth))
    assert "trajectory.json lacks 1 of 3 training views (001)" in why(model)
    (model.scene / "trajectory.json").unlink()
    assert why(model).startswith("there is no ") and why(model).endswith("trajectory.json")
    model.config.data.source_path = str(tmp_path / "gone")
    assert "the scene cannot be read" in why(model) and "gone" in why(model)
    model.cameras[0]["w2c"] = model.cameras[0]["w2c"][:1]
    assert "different numbers of sub-frames" in why(model)
    model.cameras = []
    assert why(model)


def test_poses_of_another_iteration_are_not_measured(tmp_path):
    model = Model(tmp_path)
    model.cameras[1]["iteration"] = 9
    assert "cameras.json has the poses of iteration 9, not 7" in why(model)
    for entry in model.cameras:  # as earlier versions wrote them
        del entry["iteration"]
    assert measure_trajectories(read_trajectories(model.config, model.cameras, 7))[0] is not None


def test_the_reason_is_printed_and_stored(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    (model.scene / "trajectory.json").unlink()
    put_subframes(model)
    results = model.run(monkeypatch)
    assert "trajectory" not in results and "there is no " in results["trajectory_missing"]
    printed = capsys.readouterr().out
    assert "trajectory  missing: there is no " in printed
    assert "LPIPS: no weights here" in printed and "missing" in printed.splitlines()[2]


def test_one_instant_has_an_ate_and_no_motion(tmp_path, capsys):
    model = Model(tmp_path, truth=path(3, 1))
    found, _ = measure_trajectories(read_trajectories(model.config, model.cameras, 7))
    assert found["RPE_translation"] is None and found["motion_error"] is None
    metrics.print_table({"LPIPS": "", "trajectory": found})
    printed = capsys.readouterr().out
    assert "ATE 0.0000" in printed and "RPE missing" in printed and "motion error missing" in printed


# ---- the command -----------------------------------------------------------------------------------------


def test_everything_is_written(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    put_subframes(model)
    results = model.run(monkeypatch)
    assert results["iteration"] == 7
    per_view = json.loads((model.root / "per_view.json").read_text())
    assert per_view["deblurring"]["Gaussians"]["001"]["PSNR"] == pytest.approx(20, abs=0.01)
    assert (model.root / "comparison.png").exists()
    assert "<title>scene, iteration 7</title>" in (model.root / "report.html").read_text()
    assert "results.json, per_view.json, report.html, comparison.png" in capsys.readouterr().out


def test_without_sharp_images_there_is_still_a_trajectory(tmp_path, monkeypatch, capsys):
    model = Model(tmp_path)
    for name in model.names:
        model.put("train", "renders", name, 0.5)
    results = model.run(monkeypatch)
    assert "trajectory" in results and "deblurring" not in results
    assert "no sharp images" in capsys.readouterr().out


def test_nothing_rendered_and_nothing_given(tmp_path, monkeypatch):
    model = Model(tmp_path)
    with pytest.raises(ValueError, match=r"no rendered pictures of iteration 7; run render\.py"):
        model.run(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["metrics.py"])
    with pytest.raises(ValueError, match="say which folder with -m"):
        metrics.main()


@pytest.mark.parametrize("flag", ["--rasterizer", "--device"])
def test_what_only_drawing_needs_is_no_flag(monkeypatch, capsys, flag):
    monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", "somewhere", flag, "cpu"])
    with pytest.raises(SystemExit):
        metrics.main()
    assert f"unrecognized arguments: {flag}" in capsys.readouterr().err
