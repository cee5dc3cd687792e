"""The evaluation: its jobs, its tables, resuming, and a run that fails."""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small_scene import write_scene

import full_eval
import metrics
import render
import train
from arguments import ImageSettings, PaperSettings
from arguments.parser import current_names, parse_training
from arguments.parts import ImageOptions
from commands.guard import guarded
from evaluation import images as images_module
from evaluation import jobs as jobs_module
from evaluation.jobs import Job, do, jobs_of, measure_baseline
from evaluation.known import Known
from evaluation.methods import BASELINES, GROUPS, METHODS, Method
from evaluation.tables import comma_separated, image_rows, latex, markdown, results_table, rows_of, scene_rows, summary
from scene.manifest import read_manifest
from spike import Mosaic
from utils.io import load_image
from utils.locks import FolderLock
from utils.signals import Stopped, ending


def test_jobs_are_every_combination_that_makes_sense(scene_folder):
    jobs, [note] = jobs_of([scene_folder], ["tfp", "ours"], ["accurate", "noisy", "colmap"], [0, 1])
    # the scene has no COLMAP poses; TFP knows neither poses nor seeds
    assert [(j.method, j.poses, j.seed) for j in jobs] == [
        ("tfp", "accurate", 0), ("ours", "accurate", 0), ("ours", "accurate", 1), ("ours", "noisy", 0),
        ("ours", "noisy", 1),
    ]  # fmt: skip
    assert note.endswith("small: there is no transforms_colmap.json; its rows are left out")
    assert jobs_of([scene_folder], ["tfp"], ["colmap"], [0]) == ([Job(scene_folder, "tfp", "accurate", 0)], [])
    with pytest.raises(ValueError, match=r"small: there is no transforms_colmap\.json; without initial poses"):
        jobs_of([scene_folder], ["tfp", "ours"], ["colmap"], [0])
    with pytest.raises(ValueError, match="no such folder"):
        jobs_of([Path("nowhere")], ["tfp"], ["accurate"], [0])
    with pytest.raises(ValueError, match="two scenes are called small"):
        jobs_of([scene_folder, scene_folder], ["tfp"], ["accurate"], [0])


@pytest.mark.parametrize("folder", ["sparse/0", "sparse", "colmap/sparse/0"])
def test_a_scene_in_colmaps_layout_is_trained(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"there is no transforms\.json"):
        jobs_of([tmp_path], ["ours"], ["accurate"], [0])
    (tmp_path / folder / "images.bin").touch()
    assert jobs_of([tmp_path], ["ours"], ["accurate"], [0]) == ([Job(tmp_path, "ours", "accurate", 0)], [])
    with pytest.raises(ValueError, match=r"there is no transforms_noisy\.json"):
        jobs_of([tmp_path], ["ours"], ["noisy"], [0])


@pytest.mark.parametrize("method", METHODS)
def test_the_flags_of_every_method_are_accepted(method, scene_folder):
    flags = Job(scene_folder, method, "noisy", 3).train_flags(Path("out"))
    assert current_names(flags) == flags  # none of them is an old name
    settings = parse_training([*flags, "-m", "somewhere"])
    assert settings.run.seed == 3 and settings.scene.transforms == "transforms_noisy.json" and settings.from_spikes


def test_groups_name_rows():
    assert {m for rows in GROUPS.values() for m in rows} <= METHODS.keys() | BASELINES.keys()
    assert not METHODS.keys() & BASELINES.keys() and not GROUPS.keys() & METHODS.keys()


def finished(job: Job, out: Path, psnr: float) -> None:
    folder = job.folder(out)
    folder.mkdir(parents=True)
    deblurring = {
        "gaussians": {"PSNR": psnr, "SSIM": 0.9, "PSNR_all_subframes": psnr - 1, "views": 3},
        "recon_net": {"PSNR": psnr + 1, "SSIM": 0.91, "LPIPS": 0.1, "views": 3},
        "long_exposure": {"PSNR": 20.0, "SSIM": 0.5, "views": 3},
    }
    results = {
        "deblurring": deblurring,
        "held out": {"gaussians": {"PSNR": psnr - 2}},
        "trajectory": {"ATE": 0.002, "motion_error": 0.012},
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "run.json").write_text(json.dumps({"seconds": 90.0}))


def test_means_and_spread_over_seeds_by_output(tmp_path):
    jobs = [Job(Path("room"), "ours", "accurate", seed) for seed in (0, 1, 2)]
    for job, psnr in zip(jobs, (30.0, 31.0, 32.0), strict=True):
        finished(job, tmp_path, psnr)
    assert rows_of(jobs[0], tmp_path)["Recon-Net"].keys() == {"PSNR", "SSIM", "LPIPS", "views", "minutes"}
    failing = Job(Path("room"), "paper", "accurate", 0)
    rows = summary([*jobs, failing], tmp_path, {failing: "train.py failed"})
    gaussians, network, lost = rows
    assert gaussians["PSNR"] == 31 and gaussians["PSNR sd"] == 1 and gaussians["seeds"] == 3
    assert gaussians["PSNR, held out"] == 29 and gaussians["motion %"] == pytest.approx(1.2)
    assert network["PSNR"] == 32 and "ATE" not in network and "PSNR, held out" not in network
    assert lost["failed"] == "train.py failed"
    table = markdown(rows)
    # Values without a spread are written without it, and columns without values are left out.
    assert "| room | accurate | ours | Gaussians | 3 | 31.00 ± 1.00 | 0.9000 |  | 30.00 ± 1.00 |" in table
    assert "RPE" not in table.splitlines()[0] and "ATE" in table.splitlines()[0]
    assert "train.py failed" in table
    assert r"31.00 $\pm$ 1.00" in latex(rows) and r"motion \%" in latex(rows)
    read = list(csv.DictReader(comma_separated(rows).splitlines()))
    assert float(read[0]["PSNR sd"]) == 1 and read[0]["LPIPS"] == "" and read[2]["failed"] == "train.py failed"


def test_all_instants_are_compared_as_recovered(tmp_path):
    job = Job(Path("room"), "ours", "accurate", 0)
    finished(job, tmp_path, 30.0)
    file = job.folder(tmp_path) / "results.json"
    results = json.loads(file.read_text())
    results["deblurring"]["gaussians"]["PSNR_all_subframes_as_recovered"] = 22.0
    file.write_text(json.dumps(results))
    assert rows_of(job, tmp_path)["Gaussians"]["PSNR, all u"] == 22


def test_results_of_another_version_are_named(tmp_path):
    job = Job(Path("room"), "ours", "accurate", 0)
    job.folder(tmp_path).mkdir(parents=True)
    (job.folder(tmp_path) / "results.json").write_text('{"deblurring": {"Recon-Net": {"PSNR": 30}}}')
    with pytest.raises(ValueError, match=r"seed0/results\.json: has results of 'Recon-Net', expected some of .*gaussi"):
        rows_of(job, tmp_path)


def test_one_seed_has_no_spread(tmp_path):
    job = Job(Path("room"), "ours", "accurate", 0)
    finished(job, tmp_path, 30.0)
    assert not any(key.endswith(" sd") for row in summary([job], tmp_path, {}) for key in row)


# Images that need neither weights nor training.
PLAIN = ("tfp", "tfp-long", "tfi", "timing")


def test_images_from_spikes_alone_rank_as_they_should(scene_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_lpips", lambda: (None, "not asked for"))
    psnr = {}
    for kind in PLAIN:
        results = measure_baseline(scene_folder, kind, tmp_path / kind)
        psnr[kind] = results["deblurring"]["image"]["PSNR"]
        assert len(list((tmp_path / kind / "train/ours_0/image").glob("*.png"))) == 5
        assert [image.view for image in read_manifest(tmp_path / kind, "train", 0)] == [f"{i:03d}" for i in range(5)]
    assert psnr["timing"] > psnr["tfp"] > psnr["tfi"] and psnr["tfp"] > psnr["tfp-long"]


def test_images_of_a_color_sensor_are_compared_in_color(tmp_path, monkeypatch):
    """As metrics.py compares render.py's pictures of the same spikes."""
    monkeypatch.setattr(jobs_module, "_lpips", lambda: (None, "not asked for"))
    root, model = tmp_path / "scene", tmp_path / "model"
    write_scene(root, Mosaic("GBRG"))
    psnr = {
        kind: measure_baseline(root, kind, tmp_path / kind)["deblurring"]["image"]["PSNR"]
        for kind in PLAIN
    }
    assert all(load_image(file, None).shape[0] == 3 for file in tmp_path.glob("*/train/ours_0/image/*.png"))
    assert psnr["timing"] > psnr["tfp"] > psnr["tfi"]
    tiny = "--iterations 1 --init_num_pts 300 --cap_max 330 --quiet".split()
    for command, flags in ((train, ["-s", root, *tiny]), (render, ["--quiet"]), (metrics, ["--quiet"])):
        monkeypatch.setattr("sys.argv", ["command", "-m", str(model), *map(str, flags)])
        assert guarded(command.main) == 0
    rows = json.loads((model / "results.json").read_text())["deblurring"]
    assert psnr["tfp"] == pytest.approx(rows["tfp"]["PSNR"], abs=1e-3)


def test_commands_that_leave_nothing_have_failed(scene_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_run", lambda *args, **more: argparse.Namespace(returncode=0))
    with pytest.raises(RuntimeError, match=r"metrics\.py left no .*results\.json"):
        do(Job(scene_folder, "ours", "accurate", 0), tmp_path)


def test_a_job_that_is_being_done_is_left_alone(scene_folder, tmp_path, monkeypatch):
    """Also if only a command of a killed evaluation goes on: it has inherited the lock."""
    job, started = Job(scene_folder, "ours", "accurate", 0), tmp_path / "started"
    sleeper = [sys.executable, "-c", f"import time; open({str(started)!r}, 'w').close(); time.sleep(60)"]
    real = subprocess.Popen
    monkeypatch.setattr(jobs_module.subprocess, "Popen", lambda command, **more: real(sleeper, **more))
    pid = os.fork()
    if not pid:
        try:
            do(job, tmp_path)
        finally:
            os._exit(1)
    while not started.exists():
        time.sleep(0.01)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    child = int(children.read_text()) if children.exists() else None
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with pytest.raises(ValueError, match=f"is in use by full_eval.py, or a command that it started, process {pid}"):
            do(job, tmp_path)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_signal_ends_the_command_first(tmp_path, monkeypatch):
    """train.py gets the time to write its checkpoint."""
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n    time.sleep(0.3)\n    print('saved', flush=True)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    real, log = subprocess.Popen, tmp_path / "log.txt"
    monkeypatch.setattr(jobs_module.subprocess, "Popen", lambda _, **more: real([sys.executable, "-c", code], **more))

    def terminate() -> None:
        while log.read_text() != "ready\n":
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    with open(log, "w") as file, FolderLock(tmp_path, "test") as lock, pytest.raises(Stopped), ending():
        threading.Thread(target=terminate).start()
        jobs_module._run(["train.py"], file, lock)
    assert log.read_text() == "ready\nsaved\n"


def test_relative_paths_mean_the_folder_one_is_in(scene_folder, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(full_eval, "do", lambda job, out, options: done.append((job.scene, out, job.start_from)))
    monkeypatch.chdir(scene_folder.parent)
    evaluate(monkeypatch, "-s", "small", "-o", "out", "--methods", "tfp", "ours", "--start_from", "coarse")
    here = scene_folder.parent.resolve()
    assert done == [(here / "small", here / "out", ""), (here / "small", here / "out", str(here / "coarse"))]


def test_trainings_of_gaussians_start_from_a_model(scene_folder, tmp_path):
    for method, starts in (("ours", True), ("spikegs", True), ("spikenerf", False)):
        flags = Job(scene_folder, method, "accurate", 0, "/coarse").train_flags(tmp_path)
        assert parse_training(flags).values().get("start_from") == ("/coarse" if starts else None)


def evaluate(monkeypatch, *flags: object) -> int:
    monkeypatch.setattr("sys.argv", ["full_eval.py", *map(str, flags)])
    return guarded(full_eval.main)


def test_the_command_runs_resumes_and_reports(scene_folder, tmp_path, monkeypatch, capsys):
    tiny = "--iterations 3 --recon_from 1 --init_num_pts 300 --cap_max 330".split()
    monkeypatch.setitem(METHODS, "ours", Method("ours", tiny))
    monkeypatch.setitem(METHODS, "paper", Method("paper", ["--sh_degree", "9"]))
    flags = ("-s", scene_folder, "-o", tmp_path, "--methods", "tfp", "timing", "ours", "paper")
    assert evaluate(monkeypatch, *flags) == 1
    out = capsys.readouterr().out
    assert "TFP(41)" in out and "train.py failed; see" in out
    log = (tmp_path / "small/paper/accurate/seed0/log.txt").read_text()
    assert "--sh_degree must be at least 0 and at most 3, not 9" in log
    rows = {(r["method"], r["output"]): r for r in csv.DictReader((tmp_path / "table.csv").read_text().splitlines())}
    psnr = {key: float(row["PSNR"]) for key, row in rows.items() if row["PSNR"]}
    assert psnr[("timing", "image")] > psnr[("tfp", "image")]
    assert rows[("ours", "Gaussians")]["ATE"] and ("ours", "Recon-Net") in psnr
    page = (tmp_path / "report.html").read_text()
    pages = {path.stem: load_image(path, channels=None) for path in (tmp_path / "pages").iterdir()}
    # Figure 13 has TFP, spike timing, our Recon-Net and the truth, each 300 pixels wide and once more enlarged.
    assert pages.keys() == {"figure_12", "figure_13"}
    assert pages["figure_12"].shape == (3, 26 + 2 * 204, 2 * 304)
    assert pages["figure_13"].shape == (3, 26 + 2 * 204, 4 * 304)
    # Three views, each as the truth, TFP, timing, the Gaussians, fused and Recon-Net.
    table = (tmp_path / "table.md").read_text()
    images, scenes = table.split("## ")[1:]
    assert table in out and images.startswith("Images") and scenes.startswith("Scenes")
    assert "| small | - | TFP(41) | image | 1 |" in images and "ours | Recon-Net | 1 |" in images
    assert "ours | Gaussians | 1 |" in scenes and "train.py failed; see" in scenes and "TFP" not in scenes
    assert page.count("<img") == 3 * 6 and "src=\"http" not in page and (tmp_path / "table.tex").exists()
    assert page.count('<option value="ours-gaussians"') == 2 and "minutes" in page
    best = max(psnr.values())
    assert f"<b>{best:.2f}</b>" in page and f"<b>{min(psnr.values()):.2f}</b>" not in page

    monkeypatch.setattr(full_eval, "do", lambda job, out: (_ for _ in ()).throw(RuntimeError("again")))
    assert evaluate(monkeypatch, *flags[:-1]) == 0  # everything but the failed row is there already
    assert "again" not in capsys.readouterr().out


def test_what_is_finished_can_be_shown_at_any_time(scene_folder, tmp_path, monkeypatch):
    finished(Job(scene_folder, "ours", "perturbed-1", 0), tmp_path, 30.0)
    monkeypatch.setattr(full_eval, "do", lambda *given: pytest.fail("started a run"))
    flags = ("-s", scene_folder, "-o", tmp_path, "--methods", "tables", "--poses", "accurate", "perturbed-1")
    assert evaluate(monkeypatch, *flags, "--finished") == 0
    rows = [*csv.DictReader((tmp_path / "table.csv").read_text().splitlines())]
    assert {(row["poses"], row["method"]) for row in rows} == {("perturbed-1", "ours")}


def test_weights_of_spk2imgnet_are_passed_on(scene_folder, tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(full_eval, "do", lambda job, out, options: given.append(options.spk2imgnet_weights))
    monkeypatch.setattr(full_eval, "write_tables", lambda jobs, out, failed: "")
    argv = ["full_eval.py", "-s", str(scene_folder), "--methods", "spk2imgnet", "-o", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*argv, "--spk2imgnet_weights", str(tmp_path / "w.pth")])
    assert full_eval.main() == 0 and given == [str(tmp_path / "w.pth")]
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", argv)
    assert full_eval.main() == 1
    said = capsys.readouterr()
    assert "small spk2imgnet: Spk2ImgNet needs its published weights: --spk2imgnet_weights FILE" in said.out + said.err


# ---- the paper's tables ----------------------------------------------------------------------------------


def test_the_image_of_a_method_that_learns_from_anothers_is_that_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "borrower", Method("Borrower", image="tfi"))
    row = {"scene": "room", "seeds": 1}
    rows = [
        row | {"poses": "accurate", "method": "tfi", "output": "image", "PSNR": 20.0},
        row | {"poses": "accurate", "method": "borrower", "output": "Gaussians", "PSNR": 25.0},
        row | {"poses": "accurate", "method": "tfp", "output": "image", "PSNR": 21.0},
    ]
    images, scenes = image_rows(rows), scene_rows(rows)
    found = [(r["method"], r["output"], r["PSNR"]) for r in images]
    assert found == [("tfp", "image", 21), ("tfi", "image", 20), ("borrower", "its targets: TFI", 20)]
    assert [r["PSNR"] for r in scenes] == [25]


def test_renders_of_a_radiance_field_are_called_so(tmp_path):
    jobs = [Job(Path("room"), method, "accurate", 0) for method in ("spikenerf", "ours")]
    for job in jobs:
        finished(job, tmp_path, 30.0)
    rows = summary(jobs, tmp_path, {})
    assert [(row["method"], row["output"]) for row in scene_rows(rows)] == [
        ("spikenerf", "radiance field"), ("ours", "Gaussians")
    ]  # fmt: skip
    assert {row["output"] for row in image_rows(rows)} == {"Recon-Net"}
    measured = {"deblurring": {"gaussians": {"PSNR": 30.0, "views": 3}}, "trajectory_missing": "", "LPIPS": ""}
    assert "radiance field" in results_table(measured | {"renders": "radiance field"})
    assert "Gaussians" in results_table(measured)


def test_a_scenes_blind_spot_network_is_trained_once(scene_folder, tmp_path, monkeypatch):
    """The images, the poses found on them and SpikeGS share it."""
    given = []
    monkeypatch.setattr(jobs_module, "measure_baseline", lambda *args: given.append(args[3].bsn_weights) or {})
    do(Job(scene_folder, "bsn", "accurate", 0), tmp_path)
    [file] = given
    assert Path(file).parent == tmp_path / "small"
    for method in ("spikegs", "bsn-3dgs"):
        first, second = (Job(scene_folder, method, "accurate", seed).train_flags(tmp_path) for seed in (0, 1))
        settings = parse_training([*first, "-m", "somewhere"])
        assert settings.images.bsn_weights == file and file not in second
    assert "--bsn_weights" not in Job(scene_folder, "tfi-3dgs", "accurate", 0).train_flags(tmp_path)
    calls = []

    def run(command, *args, **options):
        calls.append(command)
        return argparse.Namespace(returncode=1, stderr="error: registered 2 of 5 views")

    monkeypatch.setattr(jobs_module, "_run", run)
    do(Job(scene_folder, "spikegs", "sfm", 1), tmp_path)
    assert calls[0][calls[0].index("--bsn_weights") + 1] == file


def test_rows_have_the_papers_order():
    rows = [
        {"scene": scene, "poses": poses, "method": method, "output": "Gaussians", "seeds": 1}
        for scene in ("b", "a") for poses in ("sfm", "accurate") for method in ("ours", "tfi-3dgs", "tfp-3dgs")
    ]  # fmt: skip
    shown = [(r["scene"], r["poses"], r["method"]) for r in scene_rows(rows)]
    assert shown[:4] == [
        ("b", "accurate", "tfp-3dgs"), ("b", "accurate", "tfi-3dgs"), ("b", "accurate", "ours"),
        ("b", "sfm", "tfp-3dgs"),
    ]  # fmt: skip
    assert [scene for scene, _, _ in shown] == ["b"] * 6 + ["a"] * 6


def test_errors_of_poses_before_and_after_have_columns(tmp_path):
    job = Job(Path("room"), "ours", "perturbed-1", 0)
    finished(job, tmp_path, 30.0)
    file = job.folder(tmp_path) / "results.json"
    results = json.loads(file.read_text()) | {"initial_trajectory": {"ATE": 0.05}}
    results["trajectory"] |= {"RPE_translation": 0.0004, "RPE_rotation_deg": 0.02}
    file.write_text(json.dumps(results))
    [scene] = scene_rows(summary([job], tmp_path, {}))
    assert (scene["ATE before"], scene["ATE"], scene["RPE"], scene["RPE deg"]) == (0.05, 0.002, 0.0004, 0.02)
    assert (scene["PSNR, held out"], scene["views"]) == (28, 3)


def test_initial_poses_are_flags(scene_folder, tmp_path):
    def flags(poses, method="ours"):
        words = Job(scene_folder, method, poses, 3).train_flags(tmp_path)
        return parse_training([*words, "-m", "somewhere"]).scene

    assert (flags("accurate").transforms, flags("accurate").perturb) == ("transforms.json", 0)
    assert flags("colmap").transforms == "transforms_colmap.json"
    noisy = flags("perturbed-0.5")
    assert (noisy.transforms, noisy.perturb, noisy.perturb_seed) == ("transforms.json", 0.5, 3)
    assert flags("sfm").transforms == str(tmp_path / "small/poses/timing.json")
    assert flags("sfm", "tfi-3dgs").transforms == str(tmp_path / "small/poses/tfi.json")
    # Structure from motion and noise start from the accurate poses.
    assert jobs_of([scene_folder], ["ours"], ["sfm", "perturbed-2"], [0])[1] == []


def test_poses_that_cannot_be_found_are_a_result(scene_folder, tmp_path, monkeypatch):
    """The row says why, and the search is not repeated; a crash is no result."""
    said = "error: structure from motion on tfi images registered 2 of 5 views, 3 are needed: too blurred"
    calls = []

    def run(command, *args, **options):
        calls.append(command)
        return argparse.Namespace(returncode=1, stderr=f"a warning\n{said}\n")

    monkeypatch.setattr(jobs_module, "_run", run)
    job = Job(scene_folder, "tfi-3dgs", "sfm", 0)
    do(job, tmp_path)
    assert len(calls) == 1 and job.is_done(tmp_path) and "registered 2 of 5 views" in job.failure(tmp_path)
    [row] = scene_rows(summary([job], tmp_path, {}))
    assert row["failed"] == said.removeprefix("error: ")
    said = "error: out of memory"
    other = Job(scene_folder, "tfp-3dgs", "sfm", 0)
    with pytest.raises(RuntimeError, match=r"python -m scene poses failed; see .*log\.txt"):
        do(other, tmp_path)
    assert not other.is_done(tmp_path) and "out of memory" in (other.folder(tmp_path) / "log.txt").read_text()


def test_what_does_not_change_is_measured_once(tmp_path, monkeypatch):
    """Known values are found by content, and shared by runs; other images and truths are measured."""
    measured = []

    def measure(found, truth, model):
        measured.append(len(found))
        return [{"PSNR": float(image.mean())} for image in found]

    monkeypatch.setattr(images_module, "measure", measure)
    a, b, truth = torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.3), torch.zeros(1, 4, 4)
    first, file = Known(tmp_path / "known.json", "vgg"), tmp_path / "known.json"
    assert [r["PSNR"] for r in images_module.measure_known([a, b], truth, None, first)] == pytest.approx([0.2, 0.3])
    first.save()
    again = Known(file, "vgg")
    rows = images_module.measure_known([b, a, a + 0.2], truth, None, again)
    assert [r["PSNR"] for r in rows] == pytest.approx([0.3, 0.2, 0.4]) and measured == [2, 1]
    images_module.measure_known([a], truth + 0.1, None, again)
    images_module.measure_known([a], truth, None, Known(file, "alex"))
    assert measured == [2, 1, 1, 1]
    images_module.measure_known([b + 0.5], truth, None, first)
    again.save()
    first.save()  # neither loses what the other added
    assert len(json.loads(file.read_text())) == 5
    file.write_text("[1]")
    with pytest.raises(ValueError, match=r"known\.json: is \[1\], expected an object; without the file"):
        Known(file)


def test_weights_of_spk2imgnet_reach_the_recipes_that_read_them(scene_folder, tmp_path):
    options = ImageOptions(spk2imgnet_weights="/w.pth")
    for method, reads in (("spk2imgnet-3dgs", True), ("spikegs", False), ("ours", False)):
        flags = Job(scene_folder, method, "accurate", 0).train_flags(tmp_path, options)
        assert ("/w.pth" in flags) == reads, method
        assert parse_training(flags)


def test_our_rates_are_not_the_papers():
    """Those of poses that are not preconditioned, as the paper's are not."""
    given = parse_training(current_names(["-s", "x", *METHODS["paper-rates"].flags])).values()
    names = "means_lr means_lr_final means_unit scales_lr quats_lr pose_opt_lr_final pose_every"
    for name in names.split():
        assert given[name] == ImageSettings.of().values()[name] != PaperSettings.of().values()[name], name
