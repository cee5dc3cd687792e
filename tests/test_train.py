"""Training: every flag matters, a resumed run is the same run, and mistakes end in one sentence."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

import train
from arguments import GROUPS, PRESETS, WITHOUT_SPIKES, Config, as_flag, given_flags, parse_training
from commands.guard import guarded
from train import Training, resumed, run
from utils.io import load_image, save_image
from utils.run_log import RunLog

# Small enough for tests; everything of the method happens within six iterations.
SMALL = "--iterations 6 --quiet --densify_from 0 --densify_every 2 --densify_until 6 --crop 16 --pose_every 2".split()
CPU = [*SMALL, "--preset", "cpu", "--init_points", "300", "--cap", "330", "--recon_from", "1", "--sh_every", "2"]
CPU += ["--fixed_pattern_every", "2", "--window_from", "3"]
PAPER = [*SMALL, "--preset", "paper", "--init_points", "300", "--densify_grad", "1e-6", "--sh_every", "2"]


def training(scene: Path, model: Path, *flags: str) -> Training:
    return Training(parse_training(["-s", str(scene), "-m", str(model), "--spike", *flags], cuda=False))


def state(t: Training) -> dict[str, torch.Tensor]:
    """Everything learned so far."""
    network = {} if t.network is None else t.network.state_dict()
    return {
        **{name: value.detach().clone() for name, value in t.gaussians.raw.items()},
        "poses": t.trajectory.view(1, t.u).detach(),
        **{name: value.clone() for name, value in network.items()},
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def base(scene_folder, tmp_path_factory):
    """The state after training with each of the two sets of flags."""
    found = {}
    for name, flags in (("cpu", CPU), ("paper", PAPER)):
        t = training(scene_folder, tmp_path_factory.mktemp(name), *flags)
        for _ in range(6):
            t.step()
        found[name] = state(t)
    return found


# Every flag that changes what is learned, with another value, in the preset where it matters.
CHANGES = {
    "targets": ("cpu", "--targets counting --no-fuse"),
    "exposure": ("cpu", "--exposure 73"),
    "short": ("paper", "--short 33"),
    "subframes": ("cpu", "--subframes 9"),
    "subframe_width": ("cpu", "--subframe_width 21"),
    "window_points": ("cpu", "--window_points 1"),
    "window_from": ("cpu", "--window_from 5"),
    "fixed_pattern_every": ("cpu", "--fixed_pattern_every 0"),
    "long_grouping": ("paper", "--long_grouping strided"),
    "transforms": ("cpu", "--transforms transforms_noisy.json"),
    "eval": ("cpu", "--eval"),
    "llffhold": ("cpu", "--eval --llffhold 2"),
    "sh_degree": ("cpu", "--sh_degree 1"),
    "sh_every": ("cpu", "--sh_every 3"),
    "low_pass": ("cpu", "--low_pass 0.2"),
    "antialiased": ("cpu", "--no-antialiased"),
    "init_points": ("cpu", "--init_points 310"),
    "init_opacity": ("cpu", "--init_opacity 0.2"),
    "strategy": ("cpu", "--strategy none"),
    "cap": ("cpu", "--cap 310"),
    "densify_from": ("cpu", "--densify_from 4"),
    "densify_until": ("cpu", "--densify_until 3"),
    "densify_every": ("cpu", "--densify_every 5"),
    "densify_grad": ("paper", "--densify_grad 1"),
    "densify_subframes": ("paper", "--densify_grad 2e-3 --densify_subframes last"),
    "opacity_reset_every": ("paper", "--opacity_reset_every 3"),
    "min_opacity": ("paper", "--min_opacity 0.099"),
    "trajectory": ("cpu", "--trajectory cubic"),
    "knot_spacing": ("cpu", "--trajectory spline --knot_spacing 0.7"),
    "optimise_poses": ("cpu", "--no-optimise_poses"),
    "motion_init": ("cpu", "--no-motion_init"),
    "view_spacing": ("cpu", "--view_spacing 150"),
    "recon_net": ("cpu", "--recon_net paper"),
    "recon_from": ("cpu", "--recon_from 3"),
    "recon_every": ("cpu", "--recon_every 2"),
    "fuse": ("cpu", "--no-fuse"),
    "crop": ("cpu", "--crop 20"),
    "lambda_gs": ("paper", "--no-gs"),
    "lambda_rec": ("paper", "--no-rec"),
    "lambda_joint": ("paper", "--no-joint"),
    "lambda_sub": ("paper", "--lambda_sub 1"),
    "lambda_dssim": ("paper", "--no-dssim"),
    "multi_interval": ("paper", "--no-multi_interval"),
    "lambda_opacity": ("cpu", "--lambda_opacity 0.1"),
    "lambda_scale": ("cpu", "--lambda_scale 0.1"),
    "iterations": ("cpu", "--iterations 60"),
    "instants": ("cpu", "--instants 7"),
    "means_lr": ("cpu", "--means_lr 3e-3"),
    "means_lr_final": ("cpu", "--means_lr_final 1e-3"),
    "means_unit": ("cpu", "--means_unit extent"),
    "sh0_lr": ("cpu", "--sh0_lr 1e-3"),
    "shN_lr": ("cpu", "--shN_lr 1e-3"),
    "opacity_lr": ("cpu", "--opacity_lr 1e-3"),
    "scale_lr": ("cpu", "--scale_lr 3e-3"),
    "rotation_lr": ("cpu", "--rotation_lr 1e-3"),
    "pose_lr": ("cpu", "--pose_lr 2e-3"),
    "pose_lr_final": ("cpu", "--pose_lr_final 1e-3"),
    "pose_every": ("cpu", "--pose_every 3"),
    "recon_lr": ("cpu", "--recon_lr 5e-3"),
    "recon_lr_final": ("cpu", "--recon_lr_final 1e-3"),
    "seed": ("cpu", "--seed 1"),
}
# Flags whose tests stand elsewhere: folders, what is printed or kept, and the two that need a special start.
ELSEWHERE = {
    "source_path", "model_path", "spike", "rasterizer", "device", "save_iterations", "checkpoint_every", "resume",
    "quiet", "log_every", "json_log", "viewer", "viewer_port", "tensorboard", "flip", "lambda_scale_ratio",
}  # fmt: skip


def test_no_flag_is_forgotten():
    fields = {item.name for group in GROUPS.values() for item in dataclasses.fields(group)}
    assert fields == CHANGES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", CHANGES)
def test_every_flag_changes_what_is_learned(name, base, scene_folder, tmp_path):
    preset, flags = CHANGES[name]
    t = training(scene_folder, tmp_path, *(CPU if preset == "cpu" else PAPER), *flags.split())
    for _ in range(6):
        t.step()
    assert not same(state(t), base[preset])


def test_the_same_flags_learn_the_same(base, scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *CPU)
    for _ in range(6):
        t.step()
    assert same(state(t), base["cpu"])


def test_flip_lets_reversed_frames_pass(scene_folder, tmp_path, monkeypatch):
    """Recon-Net's frames equal to the renders in reverse cost nothing with the flip, and something without."""
    terms = {}
    for flag in ("--flip", "--no-flip"):
        t = training(scene_folder, tmp_path, *PAPER, flag, "--crop", "0")
        t.iteration = 1
        sample = t._sample(torch.Generator())
        out = t._render(sample)
        monkeypatch.setattr(train, "recon_frames", lambda *_, images=out.images: images.flip(0))
        terms[flag] = float(t._network_terms(sample, out, torch.Generator())["joint"][1].detach())
    assert terms["--flip"] < 1e-7 < terms["--no-flip"]


@pytest.mark.parametrize(("flags", "turned"), [((), True), (("--lambda_sub", "1"), False), (("--no-flip",), False)])
def test_a_view_whose_reverse_keeps_winning_is_turned_round(flags, turned, scene_folder, tmp_path, monkeypatch):
    """For good, with what the optimiser gathered, and no other view; not where L_sub knows the direction."""
    t = training(scene_folder, tmp_path, *PAPER, "--iterations", "60", "--crop", "0", "--no-rec", *flags)
    monkeypatch.setattr(t, "_view_of", lambda iteration: 2)
    monkeypatch.setattr(t, "_update", lambda out: None)  # the knots stay where they are
    render, drawn = t._render, []

    def noted(sample):
        drawn.append(render(sample))
        return drawn[-1]

    monkeypatch.setattr(t, "_render", noted)
    # Recon-Net's frames are the renders in reverse.
    monkeypatch.setattr(train, "recon_frames", lambda *_: drawn[-1].images.detach().flip(0))
    before, beside = (t.trajectory.view(view, t.u).detach() for view in (2, 1))
    for _ in range(16):  # the memory is at -0.79 after 15 steps, at -0.81 after 16
        assert torch.equal(t.trajectory.view(2, t.u), before)
        t.step()
    if turned:
        torch.testing.assert_close(t.trajectory.view(2, t.u), before.flip(0), atol=1e-5, rtol=0)
        assert float(t.direction[2]) == 0
    else:
        assert torch.equal(t.trajectory.view(2, t.u), before)
    assert torch.equal(t.trajectory.view(1, t.u), beside)


def test_turning_a_view_turns_its_gradients(scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *PAPER)
    t.trajectory.increments.grad = torch.arange(60.0).reshape(10, 6)
    t.direction[1] = -0.9
    t._turn_round()
    assert t.trajectory.increments.grad[:, 0].tolist() == [0, 6, 18, 12, 24, 30, 36, 42, 48, 54]


def test_a_window_is_the_mean_of_its_renders(scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *CPU, "--instants", "6", "--window_points", "3", "--window_from", "0")
    t.iteration = 1
    sample = t._sample(torch.Generator().manual_seed(1))
    assert len(sample.views) == 2 and len(sample.offsets) == 3 and float(sample.weights.sum()) == pytest.approx(1)
    images = t._render(sample).images
    assert len(images) == 6
    middle = t._render(dataclasses.replace(sample, offsets=torch.zeros(1), weights=torch.ones(1))).images
    torch.testing.assert_close(sample.middle(images), middle)
    expected = sum(float(w) * images[2 * k : 2 * k + 2] for k, w in enumerate(sample.weights))
    torch.testing.assert_close(sample.window(images), expected)


def test_fused_lessons_reach_the_network_alone(scene_folder, tmp_path):
    """With plain renders the Gaussians learn from the network as well."""
    for flag, reached in (("--fuse", False), ("--no-fuse", True)):
        t = training(scene_folder, tmp_path, *CPU, "--window_points", "3", "--window_from", "0", flag)
        t.iteration = 2
        random = torch.Generator().manual_seed(0)
        sample = t._sample(random)
        out = t._render(sample)
        _, joint = t._network_terms(sample, out, random)["joint"]
        scene, network = t.gaussians.raw["means"], t.network.layers[-1].bias
        of_scene, of_network = torch.autograd.grad(joint, [scene, network], allow_unused=True)
        assert (of_scene is not None) == reached and of_network.abs().sum() > 0
        assert torch.equal(t._lessons(sample, out), sample.middle(out.images)) == reached


def test_the_spline_reaches_as_far_as_the_windows(scene_folder, tmp_path):
    wide = "--exposure 25 --subframe_width 21 --window_points 3 --trajectory spline --knot_spacing 0.2".split()
    t = training(scene_folder, tmp_path, *CPU, *wide)
    reach = float(t.window[0].max())
    assert reach > 0.3
    first, last = t.trajectory.first[0], t.trajectory.first[-1]
    assert first - reach / 0.2 > 0 and last + (1 + reach) / 0.2 < len(t.trajectory.anchors) - 3


def test_the_cap_holds_for_the_first_points(scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *CPU, "--cap", "150")
    assert len(t.gaussians) == len(t.first_points[0]) == 150
    t.step()
    t.step()
    assert len(t.gaussians) == 150


def test_needles_are_punished_every_tenth_iteration(scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *PAPER, "--iterations", "20")
    with torch.no_grad():
        t.gaussians.raw["log_scales"][:, 0] += 4
    t.iteration = 9
    assert t.step()["ratio"] > 0 and "ratio" not in t.step()
    t = training(scene_folder, tmp_path, *PAPER, "--iterations", "20", "--no-scale-ratio")
    t.iteration = 9
    assert "ratio" not in t.step()


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_l_rec_alone_teaches_the_network_alone(strategy, scene_folder, tmp_path):
    only = ["--no-gs", "--no-joint", "--strategy", strategy, "--cap", "330", "--opacity_reset_every", "2"]
    t = training(scene_folder, tmp_path, *PAPER, *only)
    before = state(t)
    terms = [t.step() for _ in range(6)]
    assert all(term["rec"] > 0 for term in terms)
    learned = {name for name, value in state(t).items() if not torch.equal(value, before[name])}
    assert learned and learned == set(t.network.state_dict())


@pytest.mark.parametrize("flags", [CPU, [*PAPER, "--pose_every", "4"]], ids=["cpu", "paper"])
def test_a_resumed_run_is_the_same_run(flags, scene_folder, tmp_path):
    straight = training(scene_folder, tmp_path / "a", *flags)
    for _ in range(6):
        straight.step()
    first = training(scene_folder, tmp_path / "b", *flags)
    for _ in range(3):
        first.step()
    path = first.save_checkpoint()
    second = training(scene_folder, tmp_path / "b", *flags)
    second.load_checkpoint(path)
    for _ in range(3):
        second.step()
    assert same(state(straight), state(second)) and torch.equal(straight.direction, second.direction)
    assert bool(straight.direction.any()) == ("paper" in flags)


def arguments_of(monkeypatch, *flags: str) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", *flags])


def test_interrupted_and_resumed_by_the_command(scene_folder, tmp_path, monkeypatch, capsys):
    config = parse_training(["-s", str(scene_folder), "-m", str(tmp_path), "--spike", *CPU], cuda=False)
    config.run.log_every = 2
    config.save(tmp_path)
    t = Training(config)
    step = t.step

    def interrupted() -> dict[str, float]:
        if t.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step()

    t.step = interrupted  # type: ignore[method-assign]
    assert run(t) == 130
    assert "Go on with" in capsys.readouterr().out
    assert (tmp_path / "chkpnt3.pth").exists() and not (tmp_path / "point_cloud").exists()

    with (tmp_path / "log.jsonl").open("a") as file:  # of steps that no checkpoint kept
        file.write('{"iteration": 4, "seconds": 1, "loss": -1, "psnr": 1, "gaussians": 1}\n{"iteration": 5, "sec')
    arguments_of(monkeypatch, "-s", str(scene_folder), "-m", str(tmp_path), "--resume", "--quiet", "--log_every", "2")
    assert guarded(train.main) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [2, 4, 6]
    assert all(row["loss"] > 0 and row["psnr"] > 0 and row["gaussians"] > 0 for row in rows)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["iterations"] == 6 and record["peak_memory_bytes"] > 1e7 and "torch" in record["versions"]

    again = training(scene_folder, tmp_path / "straight", *CPU)
    for _ in range(6):
        again.step()
    again.save_model()
    left, right = (
        (p / "point_cloud/iteration_6/point_cloud.ply").read_bytes() for p in (tmp_path, tmp_path / "straight")
    )
    assert left == right


def test_the_viewer_is_told_pauses_and_stops(scene_folder, tmp_path, monkeypatch, capsys):
    seen: list[int] = []

    class Watching:
        url = "http://localhost:1234"

        def __init__(self, canvas, *, initial, port, trajectory, training):
            assert port == 1234 and training and len(canvas.views) == len(initial) == 5

        def update(self, gaussians, iteration, losses, network, sensor):
            seen.append(iteration)
            assert losses["loss"] > 0 and network is not None and sensor is not None
            return "stopped" if iteration == 4 else "paused" if seen.count(2) < 3 and iteration == 2 else "running"

        def close(self):
            seen.append(-1)

    monkeypatch.setattr(train, "Viewer", Watching)
    assert run(training(scene_folder, tmp_path, *CPU, "--viewer", "--viewer_port", "1234")) == 130
    assert seen == [1, 2, 2, 2, 3, 4, -1] and (tmp_path / "chkpnt4.pth").exists()
    assert (tmp_path / "point_cloud/iteration_4/point_cloud.ply").exists()
    assert "http://localhost:1234" in capsys.readouterr().out


def test_tensorboard_gets_curves_a_render_and_opacities(scene_folder, tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run(training(scene_folder, tmp_path, *CPU, "--tensorboard", "--log_every", "2")) == 0
    found = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"loss/loss", "loss/sub", "loss/joint", "training/psnr"} <= set(tags["scalars"])
    assert [event.step for event in found.Scalars("loss/loss")] == [2, 4, 6]
    assert tags["images"] == ["render"] and tags["histograms"] == ["opacities"]


def test_what_is_kept(scene_folder, tmp_path, monkeypatch, capsys):
    flags = [*CPU, "--save_iterations", "2", "4", "--checkpoint_every", "2", "--log_every", "3", "--json_log"]
    arguments_of(monkeypatch, "-s", str(scene_folder), "-m", str(tmp_path), "--spike", *flags)
    assert guarded(train.main) == 0
    for iteration in (2, 4, 6):
        folder = tmp_path / f"point_cloud/iteration_{iteration}"
        assert {p.name for p in folder.iterdir()} == {
            "point_cloud.ply", "trajectory.pth", "recon_net.pth", "sensor.json", "sensor_gain_map.npy",
        }
    assert {p.name for p in tmp_path.glob("chkpnt*")} == {"chkpnt6.pth"}
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    assert len(cameras) == 5 and all(len(c["w2c"]) == 13 for c in cameras)
    assert (tmp_path / "input.ply").exists() and Config.load(tmp_path).preset == "cpu"
    out = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["iteration"] for line in out if line.startswith("{")] == [3, 6]


def test_an_earlier_run_is_set_aside(scene_folder, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    for iterations in ("4", "2", "2"):
        arguments_of(
            monkeypatch, "-s", str(scene_folder), "-m", str(model), "--spike", *CPU, "--iterations", iterations
        )
        assert guarded(train.main) == 0
    assert {p.name for p in (model / "point_cloud").iterdir()} == {"iteration_2"}
    assert (tmp_path / "model.1/point_cloud/iteration_4").is_dir() and (tmp_path / "model.2/chkpnt2.pth").exists()
    assert "held an earlier run; it is now" in capsys.readouterr().out
    refused(monkeypatch, capsys, "-s", "nowhere", "-m", str(model), "--spike")
    assert (model / "chkpnt2.pth").exists()  # nothing is moved for a run that cannot start


@pytest.mark.parametrize("model", ["scene", "scene/../scene", "."])
def test_a_model_folder_with_the_scene_in_it_is_refused(model, tmp_path, monkeypatch, capsys):
    """Setting an earlier run aside would move the scene."""
    monkeypatch.chdir(tmp_path)
    error = refused(monkeypatch, capsys, "-s", str(tmp_path / "scene"), "-m", model, "--spike", *CPU)
    assert f"-m {model} holds the scene" in error


def test_learning_brings_the_renders_nearer(scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *CPU, "--iterations", "40", "--densify_every", "20", "--recon_from", "30")
    before, image = t.probe()
    assert image.shape == (1, 32, 48)
    first = t.step()["sub"]
    for _ in range(39):
        last = t.step()["sub"]
    assert t.probe()[0] > before + 1 and last < 0.9 * first


def test_without_spikes_the_images_are_the_exposures(scene_folder, tmp_path):
    flags = ["-s", str(scene_folder), "-m", str(tmp_path), *SMALL, "--init_points", "300"]
    for preset in ("cpu", "paper"):
        t = Training(parse_training([*flags, "--preset", preset], cuda=False))
        assert t.network is None
        terms = t.step()
        assert terms["gs"] > 0 and "sub" not in terms


def test_blurred_photographs_alone_are_enough(scene_folder, tmp_path, monkeypatch, capsys):
    """No spikes say how long a view is; and where there are some, leaving out --spike is worth a word."""
    scene, model = tmp_path / "scene", tmp_path / "model"
    shutil.copytree(scene_folder, scene)
    flags = ["-s", str(scene), "-m", str(model), *SMALL, "--preset", "cpu", "--init_points", "300"]
    for warned in (True, False):
        arguments_of(monkeypatch, *flags)
        assert guarded(train.main) == 0
        error = capsys.readouterr().err
        assert (f"{scene} has spike streams; without --spike its sharp images are learned from" in error) == warned
        shutil.rmtree(scene / "spike_data", ignore_errors=True)


def test_views_of_another_size_or_colour_are_refused(scene_folder, tmp_path):
    scene, model = tmp_path / "scene", tmp_path / "model"
    shutil.copytree(scene_folder, scene)
    grey = load_image(scene / "sharp_data/003.png")
    save_image(scene / "sharp_data/003.png", grey.expand(3, -1, -1))
    photographs = ["-s", str(scene), "-m", str(model), *SMALL, "--preset", "cpu"]
    with pytest.raises(ValueError, match="view 003 is 48x32 and colour, expected 48x32 and grey as view 000 is"):
        Training(parse_training(photographs, cuda=False))
    meta = json.loads((scene / "transforms.json").read_text())
    meta["frames"][2] |= {"w": 64, "h": 24}
    (scene / "transforms.json").write_text(json.dumps(meta))
    for flags in (CPU, PAPER):
        with pytest.raises(ValueError, match="view 002 is 64x24 and grey, expected 48x32 and grey as view 000 is"):
            training(scene, model, *flags)


def refused(monkeypatch, capsys, *flags: str) -> str:
    """The one sentence that the command ends with."""
    arguments_of(monkeypatch, *flags)
    assert guarded(train.main) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


def test_bad_input_ends_in_one_sentence(scene_folder, tmp_path, monkeypatch, capsys):
    scene, model = tmp_path / "scene", tmp_path / "model"
    shutil.copytree(scene_folder, scene)
    run_flags = ["-s", str(scene), "-m", str(model), "--spike", *CPU]
    assert "no such folder" in refused(monkeypatch, capsys, "-s", str(tmp_path / "none"), "--spike")
    assert "no checkpoint" in refused(monkeypatch, capsys, *run_flags, "--resume")

    stream = sorted((scene / "spike_data").iterdir())[0]
    whole = stream.read_bytes()
    stream.write_bytes(whole[:-100])
    assert stream.name in refused(monkeypatch, capsys, *run_flags)
    stream.write_bytes(whole[: 48 * 32 // 8 * 100])
    assert f"{stream.name}: a stream of 100 frames, expected at least 137" in refused(monkeypatch, capsys, *run_flags)
    stream.write_bytes(whole)

    model.mkdir(exist_ok=True)
    parse_training(run_flags, cuda=False).save(model)
    (model / "chkpnt3.pth").write_bytes(b"nothing of the kind")
    assert "chkpnt3.pth: not a readable checkpoint" in refused(monkeypatch, capsys, *run_flags, "--resume")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--iterations 0", "--iterations must be at least 1"),
        ("--means_lr nan", "--means_lr must be a finite number"),
        ("--pose_lr -1", "--pose_lr must be a finite number"),
        ("--sh_degree 4", "--sh_degree must be 0 to 3"),
        ("--cap 0", "--strategy mcmc needs a number"),
        ("--no-sub", "--instants draws single sub-frames"),
        ("--lambda_gs 1", "--instants draws single sub-frames"),
        ("--no-sub --instants 0 --window_points 1", "nothing to learn from"),
        ("--no-sub --instants 0 --window_points 1 --no-fuse --lambda_rec 1", "has no loss: give --recon_from 0"),
        ("--preset paper --no-gs --recon_every 2", "give --recon_from 0 --recon_every 1, not 0 and 2"),
        ("--subframe_width 8", "must be odd"),
        ("--window_points 4", "must be odd"),
        ("--lambda_rec 1", "--fuse corrects single instants"),
        ("--targets counting", "--fuse takes spikes by their timing"),
        ("--instants 0", "--window_points spreads single instants"),
        ("--window_points 31", "is worth 1 to"),
        ("--log_every 0", "--log_every must be at least 1"),
        ("--min_opacity 0", "--min_opacity must be more than 0 and less than 0.5"),
        ("--min_opacity 0.5", "--min_opacity must be more than 0 and less than 0.5"),
        ("--init_opacity 0", "--init_opacity must be more than 0 and less than 1"),
        ("--init_opacity 1", "--init_opacity must be more than 0 and less than 1"),
        ("--knot_spacing 0", "--knot_spacing must be more than 0"),
        ("--means_lr_final 0", "--means_lr_final must be more than 0"),
        ("--pose_lr_final 0", "--pose_lr_final must be more than 0"),
        ("--recon_lr_final 0", "--recon_lr_final must be more than 0"),
        ("--crop 8", "--crop 8 has no pixel 4 from its sides, as far as --recon_net slim looks"),
        ("--crop 10 --recon_net paper", "expected 0 or at least 11"),
        ("--no-spike --lambda_rec 1", "without --spike Recon-Net has no input"),
        ("--exposure 96", "85 or 97 would"),
    ],
)
def test_contradictions_are_refused(flags, words, scene_folder, tmp_path, monkeypatch, capsys):
    start = ["-s", str(scene_folder), "-m", str(tmp_path), "--spike", "--preset", "cpu", "--quiet", "--iterations", "2"]
    assert words in refused(monkeypatch, capsys, *start, *flags.split())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_names_the_curves(tmp_path):
    log = RunLog(tmp_path, 0)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"log.jsonl: could not be written \(No space left"):
        log.add(1, 0.0, loss=1.0)


def test_a_checkpoint_of_another_configuration_is_refused(scene_folder, tmp_path):
    path = training(scene_folder, tmp_path, *CPU).save_checkpoint()
    for flags in ("--sh_degree 1", "--trajectory linear"):
        with pytest.raises(ValueError, match=r"chkpnt0.pth: does not fit this scene and configuration \([^\n]+\)$"):
            training(scene_folder, tmp_path, *CPU, *flags.split()).load_checkpoint(path)


def test_resuming_keeps_what_was_learned_with(scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *CPU, "--seed", "5", "--checkpoint_every", "7")
    t.config.save(tmp_path)
    t.save_checkpoint()
    moved = tmp_path.rename(tmp_path.with_name("moved"))

    def again(*flags: str) -> tuple[Config, Path]:
        argv = ["-s", "elsewhere", "-m", str(moved), "--resume", *flags]
        return resumed(parse_training(argv, cuda=False), given_flags(argv))

    config, path = again("--spike", *CPU, "--no-quiet")  # the same flags again, and one that does not matter
    assert (config.data.source_path, config.data.model_path) == ("elsewhere", str(moved))
    assert config.run.seed == 5 and not config.run.quiet and config.scene.cap == 330 and path.name == "chkpnt0.pth"
    assert config.run.checkpoint_every == 7 and again("--checkpoint_every", "8")[0].run.checkpoint_every == 8
    for flags, words in {
        "--iterations 9": "--iterations 6, not --iterations 9",
        "--no-fuse": "--fuse, not --no-fuse",
        "--no-sub": "--lambda_sub 1.0, not --lambda_sub 0.0",
        "--seed 6": "--seed 5, not --seed 6",
        "--preset paper": "--preset cpu, not --preset paper",
    }.items():
        with pytest.raises(ValueError, match=f"--resume goes on with the stored {words}"):
            again(*flags.split())
    with pytest.raises(ValueError, match="--log_every must be at least 1"):
        again("--log_every", "0")


def test_the_configuration_survives_its_file(tmp_path):
    config = parse_training(["-s", "x", "-m", str(tmp_path), "--spike", *CPU], cuda=False)
    config.save(tmp_path)
    assert Config.load(tmp_path) == config
    (tmp_path / "cfg_args.json").write_text('{"preset": "cpu"}')
    with pytest.raises(ValueError, match="not a configuration of this version"):
        Config.load(tmp_path)


def test_the_model_folder_s_default_is_output_and_the_scene_s_name():
    config = parse_training(["-s", "data/tanabata", "--spike"], cuda=False)
    assert Path(config.data.model_path) == Path("output/tanabata")


@pytest.mark.parametrize(
    ("flags", "cuda", "preset"),
    [
        ("", False, "cpu"),
        ("", True, "paper"),
        ("--preset auto --device cuda", True, "paper"),
        ("--device cpu", True, "cpu"),
        ("--device cpu --preset parity", True, "parity"),
    ],
)
def test_the_preset_follows_the_device(flags, cuda, preset):
    assert parse_training(["-s", "a", "--spike", *flags.split()], cuda).preset == preset


def test_flags_are_written_as_they_are_read():
    for changes in (*PRESETS.values(), WITHOUT_SPIKES):
        words = " ".join(as_flag(name, value) for name, value in changes.items()).split()
        assert given_flags(words) == changes


@pytest.mark.parametrize("flags", [[*CPU, "--crop", "9"], [*PAPER, "--crop", "1"], [*PAPER, "--subframes", "1"]])
def test_the_least_that_is_accepted_learns(flags, scene_folder, tmp_path):
    t = training(scene_folder, tmp_path, *flags)
    for _ in range(4):
        t.step()
    assert all(bool(value.isfinite().all()) for value in state(t).values())


def test_a_loss_that_is_no_number_stops_before_it_is_learned_from(scene_folder, tmp_path, monkeypatch):
    t = training(scene_folder, tmp_path, *CPU, "--checkpoint_every", "1")
    monkeypatch.setattr(train, "l1", lambda *_: torch.tensor(float("nan")))
    t.step()
    before = state(t)
    with pytest.raises(ValueError, match="iteration 2: the loss joint is nan, expected a finite number"):
        t.step()
    assert same(state(t), before)
