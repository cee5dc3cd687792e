"""The command train.py: progress, files, signals, resuming, and mistakes that end in one sentence."""

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from training_runs import IMAGES, PAPER, TIMING, small_training, stepped

import train
from arguments import load_settings
from commands.guard import guarded
from training import checkpoint, hooks
from utils.io import load_image, save_image
from utils.run_log import RunLog
from utils.signals import STOPPING


def command(monkeypatch, *flags: str) -> int:
    """The exit status of train.py."""
    monkeypatch.setattr("sys.argv", ["train.py", *flags])
    return guarded(train.main)


def refused(monkeypatch, capsys, *flags: str) -> str:
    """The one sentence that the command ends with."""
    assert command(monkeypatch, *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_interrupted_and_resumed(number, scene_folder, tmp_path, monkeypatch, capsys):
    t = small_training(scene_folder, tmp_path, *TIMING, "--log_every", "2")
    t.settings.save(tmp_path)
    step, handler = t.step, signal.getsignal(number)

    def interrupted() -> dict[str, float]:
        if t.iteration == 2:
            os.kill(os.getpid(), number)
        return step()

    monkeypatch.setattr(t, "step", interrupted)
    assert train.run(t) == 128 + number and signal.getsignal(number) is handler
    assert f"Stopped by {number.name} after iteration 3" in capsys.readouterr().out
    assert (tmp_path / "chkpnt3.pth").exists() and not (tmp_path / "point_cloud").exists()

    made = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(made | {"seconds": 500}))  # most of it after the last row of the log
    with (tmp_path / "log.jsonl").open("a") as file:  # of steps that no checkpoint kept
        file.write('{"iteration": 4, "seconds": 1, "loss": -1, "psnr": 1, "gaussians": 1}\n{"iteration": 5, "sec')
    flags = ["-s", str(scene_folder), "-m", str(tmp_path), "--resume", "--quiet", "--log_every", "2"]
    assert command(monkeypatch, *flags) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [2, 4, 6]
    assert all(row["loss"] > 0 and row["psnr"] > 0 and row["gaussians"] > 0 for row in rows)
    record = json.loads((tmp_path / "run.json").read_text())
    assert 500 < record["seconds"] < 700
    assert record["iterations"] == 6 and record["peak_memory_bytes"] > 1e7 and "torch" in record["versions"]

    again = stepped(small_training(scene_folder, tmp_path / "straight", *TIMING))
    checkpoint.save_model(again)
    left, right = (
        (p / "point_cloud/iteration_6/point_cloud.ply").read_bytes() for p in (tmp_path, tmp_path / "straight")
    )
    assert left == right


def test_the_line_that_continues_can_be_given_to_a_shell(scene_folder, tmp_path, monkeypatch, capsys):
    scene, model = tmp_path / "a scene", tmp_path / "it's"
    scene.symlink_to(scene_folder)
    t = small_training(scene, model, *TIMING)
    step = t.step
    monkeypatch.setattr(t, "step", lambda: (os.kill(os.getpid(), signal.SIGINT), step())[1])
    assert train.run(t) == 130
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words == ["python", "train.py", "-s", str(scene), "-m", str(model), "--resume"]


def test_the_viewer_is_told_pauses_and_stops(scene_folder, tmp_path, monkeypatch, capsys):
    seen: list[int] = []

    class Viewer:
        url = "http://localhost:1234"

        def __init__(self, canvas, *, initial, host, port, trajectory, training):
            assert host == "127.0.0.1" and port == 1234 and training and len(canvas.views) == len(initial) == 5

        def update(self, gaussians, iteration, losses, network, sensor):
            seen.append(iteration)
            assert losses["loss"] > 0 and network is not None and sensor is not None
            return "stopped" if iteration == 4 else "paused" if seen.count(2) < 3 and iteration == 2 else "running"

        def close(self):
            seen.append(-1)

    monkeypatch.setattr(hooks, "Viewer", Viewer)
    assert train.run(small_training(scene_folder, tmp_path, *TIMING, "--viewer", "--viewer_port", "1234")) == 130
    assert seen == [1, 2, 2, 2, 3, 4, -1] and (tmp_path / "chkpnt4.pth").exists()
    assert (tmp_path / "point_cloud/iteration_4/point_cloud.ply").exists()
    assert "http://localhost:1234" in capsys.readouterr().out


def test_tensorboard_gets_curves_a_render_and_opacities(scene_folder, tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train.run(small_training(scene_folder, tmp_path, *TIMING, "--tensorboard", "--log_every", "2")) == 0
    found = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"loss/loss", "loss/sub", "loss/joint", "training/psnr"} <= set(tags["scalars"])
    assert [event.step for event in found.Scalars("loss/loss")] == [2, 4, 6]
    assert tags["images"] == ["render"] and tags["histograms"] == ["opacities"]


def test_what_is_kept(scene_folder, tmp_path, monkeypatch, capsys):
    flags = [*TIMING, "--save_iterations", "2", "4", "--checkpoint_every", "2", "--log_every", "3", "--json_log"]
    assert command(monkeypatch, "-s", str(scene_folder), "-m", str(tmp_path), *flags, "--no-quiet") == 0
    for iteration in (2, 4, 6):
        folder = tmp_path / f"point_cloud/iteration_{iteration}"
        assert {p.name for p in folder.iterdir()} == {
            "point_cloud.ply", "trajectory.pth", "recon_net.pth", "sensor.json", "sensor_gain_map.npy",
        }
    assert {p.name for p in tmp_path.glob("chkpnt*")} == {"chkpnt6.pth"}
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    assert len(cameras) == 5 and all(len(c["w2c"]) == 13 for c in cameras)
    assert (tmp_path / "input.ply").exists() and load_settings(tmp_path).recipe == "timing"
    out = capsys.readouterr().out.splitlines()
    assert "timing: 5 views of 48x32, 6 steps, 300 gaussians at first" in out
    assert [json.loads(line)["iteration"] for line in out if line.startswith("{")] == [3, 6]


def test_an_earlier_run_is_set_aside(scene_folder, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    for iterations in ("4", "2", "2"):
        flags = ["-s", str(scene_folder), "-m", str(model), "--spike", *TIMING, "--iterations", iterations]
        assert command(monkeypatch, *flags, "--no-quiet") == 0
    assert {p.name for p in (model / "point_cloud").iterdir()} == {"iteration_2"}
    assert (tmp_path / "model.1/point_cloud/iteration_4").is_dir() and (tmp_path / "model.2/chkpnt2.pth").exists()
    assert "contained an earlier run, which is now in" in capsys.readouterr().out
    refused(monkeypatch, capsys, "-s", "nowhere", "-m", str(model))
    assert (model / "chkpnt2.pth").exists()  # nothing is moved for a run that cannot start


@pytest.mark.parametrize("model", ["scene", "scene/../scene", "."])
def test_a_model_folder_with_the_scene_in_it_is_refused(model, tmp_path, monkeypatch, capsys):
    """Setting an earlier run aside would move the scene."""
    monkeypatch.chdir(tmp_path)
    error = refused(monkeypatch, capsys, "-s", str(tmp_path / "scene"), "-m", model, *TIMING)
    assert f"-m {model} holds the scene" in error


def test_streams_are_learned_from_even_without_a_flag(scene_folder, tmp_path, monkeypatch):
    """Forgetting --spike must never train on the sharp truth."""
    for flags, recipe in (((), "timing"), (("--spike",), "timing"), (("--images",), "images")):
        model = tmp_path / f"{recipe}{len(flags)}"
        shared = ["-s", str(scene_folder), "-m", str(model)]
        assert command(monkeypatch, *shared, *(IMAGES if recipe == "images" else TIMING), *flags) == 0
        assert load_settings(model).recipe == recipe


def test_photographs_alone_are_enough(scene_folder, tmp_path, monkeypatch):
    """No spikes say how long a view is, and none are needed to know what to learn from."""
    scene = tmp_path / "scene"
    shutil.copytree(scene_folder, scene)
    shutil.rmtree(scene / "spike_data")
    flags = [flag for flag in IMAGES if flag != "--images"]
    assert command(monkeypatch, "-s", str(scene), "-m", str(tmp_path / "model"), *flags) == 0
    assert load_settings(tmp_path / "model").recipe == "photos"


def test_views_of_another_size_or_color_are_refused(scene_folder, tmp_path):
    scene, model = tmp_path / "scene", tmp_path / "model"
    shutil.copytree(scene_folder, scene)
    gray = load_image(scene / "sharp_data/003.png")
    save_image(scene / "sharp_data/003.png", gray.expand(3, -1, -1))
    with pytest.raises(ValueError, match="view 003 is 48x32 and color, expected 48x32 and gray as view 000 is"):
        small_training(scene, model, *IMAGES)
    meta = json.loads((scene / "transforms.json").read_text())
    meta["frames"][2] |= {"w": 64, "h": 24}
    (scene / "transforms.json").write_text(json.dumps(meta))
    for flags in (TIMING, PAPER):
        with pytest.raises(ValueError, match="view 002 is 64x24 and gray, expected 48x32 and gray as view 000 is"):
            small_training(scene, model, *flags)


def test_bad_input_ends_in_one_sentence(scene_folder, tmp_path, monkeypatch, capsys):
    scene, model = tmp_path / "scene", tmp_path / "model"
    shutil.copytree(scene_folder, scene)
    run_flags = ["-s", str(scene), "-m", str(model), *TIMING]
    assert "no such folder" in refused(monkeypatch, capsys, "-s", str(tmp_path / "none"))
    assert "cfg_args.json: not found" in refused(monkeypatch, capsys, *run_flags, "--resume")

    stream = sorted((scene / "spike_data").iterdir())[0]
    whole = stream.read_bytes()
    stream.write_bytes(whole[:-100])
    assert stream.name in refused(monkeypatch, capsys, *run_flags)
    stream.write_bytes(whole[: 48 * 32 // 8 * 100])
    assert f"{stream.name}: a stream of 100 frames, expected at least 137" in refused(monkeypatch, capsys, *run_flags)
    stream.write_bytes(whole)

    small_training(scene, model, *TIMING).settings.save(model)
    assert "no checkpoint" in refused(monkeypatch, capsys, *run_flags, "--resume")
    (model / "chkpnt3.pth").write_bytes(b"nothing of the kind")
    assert "chkpnt3.pth: not a readable checkpoint" in refused(monkeypatch, capsys, *run_flags, "--resume")
    (model / "chkpnt2.pth").write_bytes(b"an older one")
    hint = "; without chkpnt3.pth, --resume would continue with chkpnt2.pth"
    assert hint in refused(monkeypatch, capsys, *run_flags, "--resume")
    shutil.rmtree(scene / "spike_data")
    assert "no spike stream" in refused(monkeypatch, capsys, *run_flags, "--recipe", "timing")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--window_points 31", "allows 1 to"),
        ("--crop 8", "--crop 8 has no pixel 4 from its sides, as far as --recon_net slim looks"),
        ("--crop 10 --recon_net paper", "expected 0 or at least 11"),
        ("--exposure 96", "85 or 97 would"),
        ("--recipe paper --no-gs --no-rec --no-joint --no-scale_ratio", "nothing to learn from"),
        ("--cap 0", "--strategy mcmc needs a number"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, words, scene_folder, tmp_path, monkeypatch, capsys):
    start = ["-s", str(scene_folder), "-m", str(tmp_path), "--quiet", "--iterations", "2"]
    monkeypatch.setattr("sys.argv", ["train.py", *start, *flags.split()])
    assert guarded(train.main) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and words in error


def test_help_shows_what_this_scene_would_use(scene_folder, monkeypatch, capsys):
    assert command(monkeypatch, "-s", str(scene_folder), "--seed", "5", "--help") == 0
    shown = capsys.readouterr().out
    assert "by the scene's size" not in shown and "(default: 5)" in shown and "--low_pass" not in shown
    assert command(monkeypatch, "--help-all") == 0
    assert "--low_pass" in capsys.readouterr().out
    assert command(monkeypatch, "--recipe", "paper", "--help") == 0
    shown = capsys.readouterr().out
    assert "--lambda_gs" in shown and "(default: 30000)" in shown


def test_a_moved_scene_is_remembered(scene_folder, tmp_path, monkeypatch):
    """Training goes on elsewhere: render.py finds the scene where it is now."""
    first, second, model = tmp_path / "first", tmp_path / "second", tmp_path / "model"
    shutil.copytree(scene_folder, first)
    t = stepped(small_training(first, model, *TIMING), 2)
    t.settings.save(model)
    checkpoint.save(t)
    first.rename(second)
    assert command(monkeypatch, "-s", str(second), "-m", str(model), "--resume", "--quiet") == 0
    stored = load_settings(model)
    assert stored.scene.source_path == str(second) and not stored.run.resume and stored.run.quiet
    assert stored.replaced(source_path=str(first)) == t.settings


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_names_the_curves(tmp_path):
    log = RunLog(tmp_path, 0)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"log.jsonl: could not be written \(No space left"):
        log.add(1, 0.0, loss=1.0)


def test_a_command_stays_short():
    """The loop and the command can be read in one go."""
    assert len(Path(train.__file__).read_text().splitlines()) <= 200

