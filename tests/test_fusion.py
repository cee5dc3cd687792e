import math

import pytest
import torch

from scene.fusion import PATCH, fuse, patch_energies, white
from utils.image_metrics import psnr

NOISE = 0.02
WHITE = white(torch.tensor(NOISE**2))


def scene():
    """Two pictures, their spikes' intensity with known noise, and renders of which the second is wrong."""
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 60, 80, generator=random)
    spikes = truth + NOISE * torch.randn(truth.shape, generator=random)
    render = truth + torch.tensor([0.005, 0.1]).view(2, 1, 1, 1) * torch.randn(truth.shape, generator=random)
    return truth, spikes, render


def test_the_spikes_mend_a_wrong_render_and_spare_a_good_one():
    truth, spikes, render = scene()
    good, wrong = psnr(fuse(render, spikes - render, WHITE), truth).tolist()
    assert good > float(psnr(spikes, truth)[0]) + 6
    assert wrong > float(psnr(spikes, truth)[1]) - 0.2 and wrong > float(psnr(render, truth)[1]) + 10


def test_an_error_in_one_place_is_mended_there_and_nowhere_else():
    """An edge that the render has four pixels too far to the right, below the noise of the whole image."""
    random = torch.Generator().manual_seed(1)
    truth = torch.full((1, 1, 60, 81), 0.3)
    truth[..., 40:] = 0.45
    render = truth.clone()
    render[..., 40:44] = 0.3
    noise = NOISE * torch.randn(truth.shape, generator=random)
    fused = fuse(render, truth + noise - render, WHITE)
    assert float((render - truth).square().mean()) < 3 * NOISE**2
    near, far = slice(36, 48), slice(60, None)
    assert float((fused - truth)[..., near].square().mean()) < 0.06 * float((render - truth)[..., near].square().mean())
    assert float((fused - truth)[..., far].square().mean()) < 0.05 * NOISE**2
    assert float((fused - truth).square().mean()) < 0.5 * NOISE**2  # better than the spikes, and the render


@pytest.mark.parametrize(("energy", "gain"), [(1.0, 0), (1.2, 0), (2.4, 0.5), (12.0, 0.9), (0.1, 0)])
@pytest.mark.parametrize("size", [(30, 40), (31, 41), (6, 7)])
def test_the_gain_is_the_share_of_an_energy_that_noise_does_not_explain(energy, gain, size):
    """A residual that is the same everywhere has all of its energy, 64 times its square, at one frequency."""
    value = NOISE * math.sqrt(energy) / PATCH
    render, residual = torch.full((1, 1, *size), 0.5), torch.full((1, 1, *size), value)
    torch.testing.assert_close(fuse(render, residual, WHITE), render + gain * residual)


def test_the_noise_of_each_frequency_counts():
    """Columns that alternate in sign are noise if the noise has that frequency, and an error if it has not."""
    render, residual = torch.full((1, 1, 30, 40), 0.5), torch.full((1, 1, 30, 40), NOISE / 2)
    residual[..., ::2] *= -1
    there, elsewhere = WHITE.clone(), WHITE.clone()
    there[0, 1::2] *= 4
    elsewhere[1, :] *= 4
    assert float((fuse(render, residual, there) - render).abs().max()) < 0.5 * NOISE / 2
    assert float((fuse(render, residual, elsewhere) - render).abs()[..., 8:-8].min()) > 0.5 * NOISE / 2


def test_noise_that_is_not_white_has_a_larger_margin():
    render, residual = torch.full((1, 1, 30, 40), 0.5), torch.full((1, 1, 30, 40), NOISE * math.sqrt(2.4) / PATCH)
    colored = WHITE.clone()
    colored[4:] /= 10
    assert float((fuse(render, residual, WHITE) - render).abs().min()) > 0.4 * float(residual[0, 0, 0, 0])
    assert torch.equal(fuse(render, residual, colored), render)


def test_energies_are_those_of_the_images():
    images = NOISE * torch.randn(5, 61, 80, generator=torch.Generator().manual_seed(2))
    found = patch_energies(images)
    assert found.shape == (PATCH, PATCH)
    assert float(found.mean()) == pytest.approx(NOISE**2, rel=0.03)
    assert float(found.max() / found.min()) < 1.3
    # A slow wave along x has its energy at a low frequency along x.
    wave = torch.cos(2 * math.pi * torch.arange(80) / 16).expand(1, 64, 80)
    share = patch_energies(wave) / patch_energies(wave).sum()
    assert float(share[0, :3].sum()) > 0.97


def test_a_pixel_that_its_neighbors_contradict_is_not_believed():
    render, residual = torch.full((1, 1, 30, 40), 0.5), torch.full((1, 1, 30, 40), 0.1)
    residual[0, 0, 10, 20] = -0.4  # dead
    residual[0, 0, 20, 5:8] = 0.3  # an edge, rendered in a wrong place
    fused = fuse(render, residual, white(torch.zeros(1)))
    assert float(fused[0, 0, 10, 20]) == pytest.approx(0.5, abs=1e-6)
    fused[0, 0, 10, 20] += residual[0, 0, 10, 20]
    torch.testing.assert_close(fused, render + residual)


def test_without_a_residual_or_noise_nothing_breaks():
    image = torch.rand(3, 1, 12, 9)
    torch.testing.assert_close(fuse(image, torch.zeros_like(image), white(torch.zeros(1))), image)
    torch.testing.assert_close(fuse(image, torch.ones_like(image), white(torch.zeros(1))), image + 1)


@pytest.mark.parametrize("size", [(32, 48), (62, 100)])
def test_the_number_of_threads_does_not_matter(size):
    """Processes with other numbers of threads write the same files."""
    random = torch.Generator().manual_seed(3)
    image, residual = torch.rand(2, 1, *size, generator=random), 0.03 * torch.randn(2, 1, *size, generator=random)
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append((fuse(image, residual, WHITE), patch_energies(residual[:, 0])))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        assert all(torch.equal(a, b) for a, b in zip(made[0], other, strict=True))
