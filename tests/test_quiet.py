"""``--quiet``: nothing on standard output and standard error but errors; without it, what is said and progress."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_scene import FRAMES, GAP, HEIGHT, WIDTH, path, picture
from test_layers import FILES

import convert
import full_eval
import metrics
import render
import train
from commands import make_demo, recon_net, scene, spike
from commands.guard import guarded
from evaluation.jobs import Job
from simulation import Simulator
from spike import write_dat
from utils import telling
from utils.io import save_image


def said(capfd, command, *words):
    """What a command writes on standard output and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, words)])
        capfd.readouterr()
        grad = torch.is_grad_enabled()
        status = guarded(command.main)
        torch.set_grad_enabled(grad)
    seen = capfd.readouterr()
    assert status == 0, seen.err
    return seen.out + seen.err


def test_training_rendering_and_measuring(scene_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(metrics, "load_lpips", lambda name: (None, "not asked for"))  # it is slow
    words = ("-s", scene_folder, "-m", tmp_path / "model", *"--iterations 2 --init_num_pts 300 --cap_max 330".split())
    assert said(capfd, train, *words, "--preset", "cpu", "--quiet") == ""  # nor a note on the old name
    assert said(capfd, train, *words, "--resume", "--quiet") == ""
    assert said(capfd, render, "-m", tmp_path / "model", "--fit_steps", 1, "--skip_test", "--quiet") == ""
    assert said(capfd, metrics, "-m", tmp_path / "model", "--quiet") == ""
    assert said(capfd, scene, "export", "-m", tmp_path / "model", "--quiet") == ""
    assert "Gaussians" in said(capfd, metrics, "-m", tmp_path / "model")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """One recording of the small scene, long enough for three views."""
    file = tmp_path_factory.mktemp("recording") / "rec.dat"
    write_dat(file, Simulator(seed=1)(picture(path(np.arange(3 * (FRAMES + GAP)))[0]), 0))
    return file


def test_recordings(recording, tmp_path, capfd):
    size = ("--height", HEIGHT, "--width", WIDTH, "--quiet")
    assert said(capfd, spike, "inspect", recording, "--out", tmp_path / "seen", "--quiet") == ""  # with a guess
    assert said(capfd, spike, "preview", recording, "--out", tmp_path / "p.mp4", "--frames", "100:140:8", *size) == ""
    assert said(capfd, spike, "convert", recording, tmp_path / "rec.npz", *size) == ""
    assert said(capfd, spike, "calibrate", "--flat", recording, "--out", tmp_path / "sensor.json", *size) == ""
    for i in range(3):
        save_image(tmp_path / "frames" / f"{i}.png", np.full((16, 16), 0.2 + 0.2 * i, np.float32))
    assert said(capfd, spike, "simulate", tmp_path / "frames", "--out", tmp_path / "s.dat", "--quiet") == ""
    assert said(capfd, convert, "-s", tmp_path / "c", "--recording", recording, "--previews_only", *size) == ""
    small = ("--iterations", 1, "--crop", 16, "--frames", "100:120:10", "--out", tmp_path / "net", *size)
    assert said(capfd, recon_net, recording, *small) == ""


def test_demo_and_evaluation(scene_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(make_demo, "make", lambda out, recipe: None)  # it is slow
    words = ("--out", tmp_path / "demo", "--views", 2, "--size", "16x16")
    assert said(capfd, make_demo, *words, "--quiet") == ""
    assert "The scene is in" in said(capfd, make_demo, *words)
    job = Job(scene_folder, "tfp", "accurate", 0)
    results = job.folder(tmp_path / "eval") / "results.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"deblurring": {"image": {"PSNR": 20.0, "views": 2}}}))
    words = ("-s", scene_folder, "-o", tmp_path / "eval", "--methods", "tfp")
    assert said(capfd, full_eval, *words, "--quiet") == ""
    assert "Written to" in said(capfd, full_eval, *words)


def test_errors_are_said(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", str(tmp_path), "--quiet"])
    assert guarded(metrics.main) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ")


def test_what_takes_long_has_a_bar_with_the_time_left(capfd, monkeypatch):
    """And what is over at once has none."""
    list(telling.progress(range(3), "Short"))
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(telling, "_DELAY", 0.05)
    for _ in telling.progress(range(10), "Long"):
        time.sleep(0.03)
    shown = capfd.readouterr().err
    assert "Long" in shown and "<00:0" in shown
    telling.be_quiet(True)
    for _ in telling.progress(range(4), "Long"):
        time.sleep(0.03)
    telling.say("nothing")
    assert capfd.readouterr() == ("", "")


def test_only_one_module_makes_bars():
    """A second place would have to know --quiet."""
    root = Path(telling.__file__).resolve().parents[1]
    assert [str(file) for file in FILES if "import tqdm" in (root / file).read_text()] == ["utils/telling.py"]
