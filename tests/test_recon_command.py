"""python -m recon_net: learning from spikes alone, any instant, weights that are used again, and wrong turns."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_gaussians

from commands.guard import guarded
from commands.recon_net import main
from recon_net import make_network
from recon_net.weights import load_network, save_network
from scene.model_folder import save_gaussians, save_iteration
from scene.trajectory import Trajectory
from simulation import simulate
from spike import Mosaic, SensorModel, SpikeStream, write_array
from spike.window import PAPER
from training.losses import reblur_loss
from training.recon_alone import Clip, learn, sharp, truths
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.image_metrics import psnr
from utils.io import load_image, save_image

WIDTH, HEIGHT, FRAMES, GAIN = 48, 32, 190, 0.45
CPU = torch.device("cpu")


def scene(t):
    """A picture that drifts by 0.05 pixels a frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    x = x + 0.05 * t
    return 0.5 + 0.25 * np.sin(x / 3) * np.cos(y / 4) + 0.2 * np.sin((x + 2 * y) / 7)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "rec.npy"
    write_array(path, simulate([scene(t) for t in range(FRAMES)], gain=GAIN))
    return path


@pytest.fixture(scope="module")
def clip(recording):
    return Clip(SpikeStream.open(recording), SensorModel(GAIN), "timing")


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["recon_net", *map(str, words)])
    status = guarded(main)
    return status, *capsys.readouterr()


def test_any_instant_has_a_window(clip):
    for frame in range(PAPER.half, FRAMES - PAPER.half):
        first, m = clip.at(frame)
        assert 0 <= first <= FRAMES - PAPER.context and first + PAPER.centers[m] == frame
    assert clip.at(95)[1] == 6  # the middle, where there is room on both sides
    for frame in (PAPER.half - 1, FRAMES - PAPER.half):
        with pytest.raises(ValueError, match="too near the ends; frames must lie between 20 and 169"):
            clip.at(frame)


def test_the_slim_network_is_sharp_at_any_instant(clip):
    torch.manual_seed(0)
    network = make_network("slim", PAPER.short, PAPER.long_channels)
    for frame in (20, 77, 169):
        truth = torch.from_numpy(scene(frame)).float()
        assert float(psnr(sharp(network, clip, frame, CPU)[None, None], truth[None, None])) > 25
    moved = sharp(network, clip, 40, CPU) - sharp(network, clip, 120, CPU)
    assert float(moved.abs().mean()) > 0.05


def test_a_color_sensor_gives_colors(tmp_path, monkeypatch, capsys):
    pattern = Mosaic("GBRG")

    def colors(t):
        return torch.from_numpy(np.stack([scene(t), 0.7 * scene(t + 200), 0.4 * scene(t + 400)])).float()

    write_array(tmp_path / "c.npy", simulate([pattern.of(colors(t))[0].numpy() for t in range(150)], gain=GAIN))
    (tmp_path / "s.json").write_text(json.dumps({"gain": GAIN}))
    save_image(tmp_path / "truth.png", colors(75), bits=16)
    words = (tmp_path / "c.npy", "--bayer", "GBRG", "--sensor", tmp_path / "s.json", "--truth", tmp_path / "truth.png")
    more = ("--iterations", 1, "--crop", 16, "--frames", 75, "--quiet", "--out", tmp_path / "o")
    status, _, err = run(monkeypatch, capsys, *words, *more)
    assert status == 0, err
    drawn = load_image(tmp_path / "o" / "frames" / "000075.png", None)
    assert float(psnr(drawn[None], colors(75)[None])) > 25
    table = json.loads((tmp_path / "o" / "results.json").read_text())["PSNR"]
    assert table["Recon-Net"]["PSNR"] > 25  # the lumas


def test_learning_lowers_the_loss_and_needs_no_truth(clip):
    torch.manual_seed(0)
    network = make_network("paper", PAPER.short, PAPER.long_channels)
    truth = torch.from_numpy(scene(95)).float()[None, None]
    before = float(psnr(sharp(network, clip, 95, CPU)[None, None], truth))
    losses, best = learn(network, clip, 15, 16, 0, CPU)
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert float(psnr(sharp(network, clip, 95, CPU)[None, None], truth)) > before + 2
    assert best > 5


def test_a_network_that_gets_worse_is_left_at_its_best(clip, monkeypatch):
    """The loss is turned against it from the start: nothing of that stays."""
    torch.manual_seed(0)
    network = make_network("slim", PAPER.short, PAPER.long_channels)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr("training.recon_alone.reblur_loss", lambda *given: -reblur_loss(*given))
    _, best = learn(network, clip, 4, 16, 0, CPU)
    assert best == 0 and all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_same_seed_same_network(clip):
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        network = make_network("paper", PAPER.short, PAPER.long_channels)
        learn(network, clip, 2, 16, seed, CPU)
        made.append(network.body[-1].weight.detach())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def same_weights(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return a.variant == b.variant and all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


def test_weights_know_their_input(tmp_path):
    """Those of ``--recipe released`` sum other frames."""
    save_network(tmp_path / "w.pth", make_network("paper", PAPER.short, PAPER.long_channels, "strided"))
    assert load_network(tmp_path / "w.pth").grouping == "strided"
    stored = load_checkpoint(tmp_path / "w.pth")
    save_checkpoint(tmp_path / "w.pth", stored | {"grouping": "by color"})
    with pytest.raises(ValueError, match=r"w.pth: expected weights .* \(a long input with the grouping 'by color'\)"):
        load_network(tmp_path / "w.pth")
    del stored["grouping"]  # of an earlier version
    save_checkpoint(tmp_path / "w.pth", stored)
    assert load_network(tmp_path / "w.pth").grouping == "adjacent"


@pytest.mark.parametrize("variant", ["slim", "paper"])
def test_weights_read_back(tmp_path, variant):
    network = make_network(variant, PAPER.short, PAPER.long_channels)
    save_network(tmp_path / "w.pth", network)
    assert same_weights(load_network(tmp_path / "w.pth"), network)
    assert set(load_checkpoint(tmp_path / "w.pth")) == {"variant", "grouping", "weights", "version"}
    # What an earlier python -m recon_net wrote.
    torch.save({"variant": variant, "state": network.state_dict()}, tmp_path / "recon_net.pt")
    assert same_weights(load_network(tmp_path / "recon_net.pt"), network)


def test_other_files_are_no_weights(tmp_path):
    for content in (b"", b"no weights"):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.pth: not a readable checkpoint"):
            load_network(tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"missing\.pth: no such checkpoint"):
        load_network(tmp_path / "missing.pth")
    paper = make_network("paper", PAPER.short, PAPER.long_channels).state_dict()
    one_layer = {name: value for name, value in paper.items() if name.startswith("short")}
    sentence = r"bad\.pth: expected weights of a Recon-Net with 41 short and 34 long inputs \("
    for content in (
        {"variant": "slim", "state": {}},
        {"variant": "paper", "state": None},
        {"variant": "huge", "state": paper},
        {"state": paper},
        {"variant": "paper", "state": one_layer},
    ):
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=sentence) as error:
            load_network(tmp_path / "bad.pth")
        assert "\n" not in str(error.value)
    for content in ({"variant": "slim"}, {"variant": "slim", "weights": paper}, {"gaussians": {}}):
        save_checkpoint(tmp_path / "bad.pth", content)
        with pytest.raises(ValueError, match=sentence):
            load_network(tmp_path / "bad.pth")
    save_checkpoint(tmp_path / "bad.pth", {"variant": "paper", "weights": paper})
    with pytest.raises(ValueError, match=r"with 21 short and 24 long inputs"):
        load_network(tmp_path / "bad.pth", 21, 24)
    torch.save({"variant": "paper", "weights": paper, "version": 0}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth: checkpoint version 0, expected 1"):
        load_network(tmp_path / "bad.pth")


def test_nothing_in_a_file_of_weights_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"variant": "slim", "state": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt: not a readable checkpoint"):
        load_network(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_the_network_of_a_trained_model_draws_a_clip(recording, tmp_path, monkeypatch, capsys):
    """recon_net.pth of a model folder, as it is, in --weights."""
    network = make_network("slim", PAPER.short, PAPER.long_channels)
    with torch.no_grad():
        network.layers[-1].bias += 0.25
    trajectory = Trajectory(torch.eye(4)[None], "linear")
    save = partial(save_gaussians, gaussians=tiny_gaussians())
    folder = save_iteration(tmp_path / "model", 7, save, trajectory, network, None)
    words = (recording, "--weights", folder / "recon_net.pth", "--iterations", 0, "--frames", 95, "--quiet")
    status, _, err = run(monkeypatch, capsys, *words, "--out", tmp_path / "out")
    assert status == 0, err
    plain = make_network("slim", PAPER.short, PAPER.long_channels)
    clip = Clip.of(SpikeStream.open(recording), None, "timing")
    drawn = load_image(tmp_path / "out" / "frames" / "000095.png")[0]
    torch.testing.assert_close(drawn, (sharp(plain, clip, 95, CPU) + 0.25).clamp(0, 1), atol=0.02, rtol=0)
    assert same_weights(load_network(tmp_path / "out" / "recon_net.pth"), network)


def test_the_command_and_its_weights_again(recording, tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    for frame in (60, 95):
        save_image(tmp_path / "truth" / f"{frame:06d}.png", scene(frame), bits=16)
    words = (recording, "--iterations", 2, "--crop", 16, "--frames", "60:100:10")
    status, out, err = run(monkeypatch, capsys, *words, "--out", tmp_path / "a", "--truth", tmp_path / "truth")
    assert status == 0, err
    assert all(name in out for name in ("Recon-Net", "TFP(41)", "TFI", "timing(9)"))
    assert sorted(os.listdir(tmp_path / "a" / "frames")) == [f"{f:06d}.png" for f in (60, 70, 80, 90)]
    assert (tmp_path / "a" / "video.mp4").stat().st_size > 500
    record = json.loads((tmp_path / "a" / "results.json").read_text())
    table = record["PSNR"]
    assert table["timing(9)"]["PSNR_gain"] > table["TFI"]["PSNR_gain"]
    assert table["Recon-Net"]["PSNR_gain"] > table["TFI"]["PSNR_gain"]
    assert record["sensor"]["gain"] == pytest.approx(GAIN, rel=0.15)

    again = (recording, "--iterations", 0, "--weights", tmp_path / "a" / "recon_net.pth", "--frames", 60, "--quiet")
    assert run(monkeypatch, capsys, *again, "--out", tmp_path / "b")[0] == 0
    same = [load_image(tmp_path / x / "frames" / "000060.png") for x in "ab"]
    assert torch.equal(*same)
    assert not (tmp_path / "b" / "video.mp4").exists()


def test_truth_is_found(clip, tmp_path):
    save_image(tmp_path / "one.png", scene(0))
    assert truths(tmp_path / "one.png", clip) == {95: tmp_path / "one.png"}
    with pytest.raises(ValueError, match="named by spike frames 20 to 169"):
        truths(tmp_path, clip)


def test_wrong_turns_end_in_one_sentence(recording, tmp_path, monkeypatch, capsys):
    write_array(tmp_path / "short.npy", np.ones((100, 8, 8), np.uint8))
    write_array(tmp_path / "zeros.npy", np.zeros((150, 8, 8), np.uint8))
    save_image(tmp_path / "small.png", np.zeros((8, 8)))
    save_network(tmp_path / "slim.pth", make_network("slim", PAPER.short, PAPER.long_channels))
    for flags, expected in (
        ([recording, "--weights", tmp_path / "slim.pth", "--recon_net", "paper"], "of the slim network, not of paper"),
        ([tmp_path / "short.npy"], "100 frames, Recon-Net needs at least 137"),
        ([tmp_path / "zeros.npy"], "the stream is all zeros"),
        ([recording, "--iterations", 0], "give its --weights"),
        ([recording, "--iterations", -1], "must be at least 0"),
        ([recording, "--fps", 0], "--fps must be positive"),
        ([recording, "--frames", 3], "frames must lie between 20 and 169"),
        ([recording, "--truth", tmp_path / "none"], "not an image"),
        ([recording, "--truth", tmp_path / "small.png", "--iterations", 1], "8x8 pixels, expected 48x32"),
        ([recording, "--weights", tmp_path / "none.pth"], "none.pth: no such checkpoint"),
    ):
        status, _, err = run(monkeypatch, capsys, *flags, "--out", tmp_path / "out", "--quiet", "--crop", 8)
        assert status == 1 and expected in err and err.count("\n") == 1, flags


SPIKE_ZOO = Path(os.environ.get("SPIKE_ZOO", "spike-zoo-is-not-here"))


@pytest.mark.skipif(not SPIKE_ZOO.is_dir(), reason="give the path of a Spike-Zoo checkout as SPIKE_ZOO")
def test_a_clip_that_no_one_here_made(tmp_path, monkeypatch, capsys):
    base = SPIKE_ZOO / "spikezoo" / "data" / "base" / "test"
    words = (base / "spike" / "200_part1_key_id151.dat", "--truth", base / "gt" / "200_part1_key_id151.png")
    status, _, err = run(
        monkeypatch, capsys, *words, "--iterations", 5, "--frames", 150, "--out", tmp_path / "o", "--quiet"
    )
    assert status == 0, err
    table = json.loads((tmp_path / "o" / "results.json").read_text())["PSNR"]
    assert table["Recon-Net"]["PSNR_gain"] > table["TFP(41)"]["PSNR_gain"] + 3
