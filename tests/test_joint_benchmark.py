"""The model of the paper's eq. 23 in benchmarks/joint.py, on images whose blur and noise are known, and its runs."""

import argparse
import json
import math

import pytest
import torch

from benchmarks.joint import degradation, flags_of, perform, table
from simulation import demo
from utils.checkpoint import latest_checkpoint

SIGMA, NOISE = 1.2, 0.03


def textures(count=6, height=62, width=100):
    """Images [B, H, W] whose power falls with the frequency, as that of photographs does."""
    random = torch.Generator().manual_seed(0)
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    spectrum = torch.fft.fft2(torch.randn(count, height, width, generator=random)) / (0.02 + radius)
    images = torch.fft.ifft2(spectrum).real
    return 0.5 + 0.2 * images / images.std()


def blurred(images):
    height, width = images.shape[-2:]
    square = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width) ** 2
    return torch.fft.ifft2(torch.fft.fft2(images) * torch.exp(-2 * math.pi**2 * SIGMA**2 * square)).real


def noise_like(images):
    return NOISE * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))


def test_blur_and_noise_are_told_apart():
    truth = textures()
    soft = blurred(truth)
    found = degradation(soft + noise_like(truth), truth)
    expected = torch.exp(-2 * math.pi**2 * SIGMA**2 * found.frequencies**2)
    assert found.frequencies[0] == pytest.approx(0.01) and found.frequencies[-1] == pytest.approx(0.49)
    assert (found.response - expected).abs().max() < 0.06
    assert found.noise == pytest.approx(NOISE**2, rel=0.05)
    assert found.blur == pytest.approx(float((soft - truth).square().mean()), rel=0.15)


def test_each_alone():
    truth = textures()
    only_noise, same = degradation(truth + noise_like(truth), truth), degradation(truth, truth)
    assert only_noise.blur < 0.01 * only_noise.noise and only_noise.response == pytest.approx([1.0] * 25, abs=0.06)
    assert same.blur < 1e-12 and same.noise < 1e-12


def test_a_different_mean_is_no_blur():
    truth = textures()
    found = degradation(0.8 * truth + 0.3, truth)
    assert found.response == pytest.approx([0.8] * 25, abs=1e-3) and found.noise < 1e-6


def test_their_sum_is_the_mean_squared_error():
    truth = textures()
    images = blurred(truth) + noise_like(truth)
    found = degradation(images, truth)
    assert found.blur + found.noise == pytest.approx(float((images - truth).square().mean()), rel=0.15)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    demo.make(folder, demo.Recipe(2, 24, 16, seed=3, spacing=8), processes=0)
    return folder


def asked(room, out, at):
    return argparse.Namespace(scene=room, out=out, log=out / "log.jsonl", steps=4, at=at, seed=0)


def test_runs_are_measured_once_and_continue(room, tmp_path):
    for at in ([2], [2, 4]):
        for run in ("joint", "separate"):
            perform(run, asked(room, tmp_path, at))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [(row["run"], row["output"], row["step"]) for row in rows]
    assert found == [
        (run, output, step)
        for step in (2, 4)
        for run in ("joint", "separate")
        for output in ("Gaussians", "Recon-Net")
    ]
    # The first step is the same with and without L_joint, so the Gaussians of the two differ by it alone.
    assert rows[0]["PSNR"] != rows[2]["PSNR"]
    assert latest_checkpoint(tmp_path / "joint-4-0").name == "chkpnt4.pth"
    assert table(tmp_path / "log.jsonl").count("\n") == 9


def test_what_the_runs_train_with(tmp_path):
    assert "--no-joint" in flags_of("separate", tmp_path, tmp_path, 100, 0)
    assert "--no-joint" not in flags_of("joint", tmp_path, tmp_path, 100, 0)
