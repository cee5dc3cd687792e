"""SpikeNeRF: the firing sensor against loops, the field against hand computations, and a few steps that learn."""

import json
import math
from dataclasses import replace

import pytest
import torch
from training_runs import SPIKENERF, small_training

import metrics
import render
import train
from arguments import SpikeNerfSettings
from commands.guard import guarded
from gaussian_renderer.radiance import (
    Frustum,
    NerfNet,
    RadianceGrid,
    RadianceNets,
    Rays,
    composite,
    importance_depths,
    load_radiance_field,
    stratified_depths,
)
from scene.cameras import look_at
from scene.dataset import SceneData, read_scene
from spike import Mosaic, SensorModel
from training import checkpoint
from training.objectives import Moment
from training.recipes import build, spikenerf
from training.spiking import PixelSample, RandomPixels, SensorLayer, hard_fire, soft_fire
from utils import se3
from utils.checkpoint import save_checkpoint

CPU = torch.device("cpu")


# ---- the sensor -----------------------------------------------------------------------------------------------------


def loop(light: torch.Tensor, frames: int, start: torch.Tensor, hard: bool) -> torch.Tensor:
    """Spikes per frame, frame by frame; the gradient of a spike goes to all that was accumulated for it."""
    charge, fired = start.clone(), torch.zeros_like(light)
    for _ in range(frames):
        charge = charge + light
        spikes = charge > 1 if hard else charge >= 1
        fired = fired + torch.where(spikes, charge - charge.detach() + 1, torch.zeros_like(charge))
        charge = torch.where(spikes, torch.zeros_like(charge) if hard else charge - 1, charge)
    return fired / frames


def test_hard_reset_is_the_loop_in_value_and_gradient():
    light = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    light = torch.cat([light, torch.tensor([0.25, 0.5, 1.0, 1e-4, 0.0, 1.5], dtype=torch.float64)])
    ours, theirs = (light.clone().requires_grad_() for _ in range(2))
    rate, expected = hard_fire(ours, 256), loop(theirs, 256, torch.zeros_like(light), hard=True)
    torch.testing.assert_close(rate, expected.detach())
    rate.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    # Known values of the released program: .25 and .5 fire late, and what is darker than 1/256 never does.
    assert rate[2000:2002].tolist() == pytest.approx([51 / 256, 85 / 256]) and rate[2003] == 0 and ours.grad[2003] == 0


def test_soft_reset_is_the_loop_and_unbiased():
    random = torch.Generator().manual_seed(1)
    light = torch.rand(500, generator=random, dtype=torch.float64)
    phase = torch.rand(500, generator=random, dtype=torch.float64)
    light.requires_grad_()
    rate = soft_fire(light, 41, phase)
    torch.testing.assert_close(rate, loop(light.detach(), 41, phase, hard=False))
    many = soft_fire(torch.full((20000,), 0.237), 41, torch.rand(20000, generator=random))
    assert float(many.mean()) == pytest.approx(0.237, abs=3e-4) and float(many.std()) > 0.005
    rate.sum().backward()
    assert torch.equal(light.grad, torch.ones_like(light))


def test_the_sensor_is_the_scenes_own():
    """A calibrated sensor: rate = gain map C + dark; what was measured comes back from its intensity."""
    maps = {"gain_map": torch.tensor([[1.0, 1.1]]), "dark_map": torch.tensor([[0.01, 0.02]])}
    sensor = SensorModel(gain=0.5, **maps)
    layer = SensorLayer(sensor, 10**6, 1, 2, "soft", CPU)
    row, column, c = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0.4, 0.8])
    expected = torch.tensor([0.5 * 0.4 + 0.01, 0.5 * 1.1 * 0.8 + 0.02])
    torch.testing.assert_close(layer.rates(c, row, column, torch.zeros(2)), expected, atol=2e-6, rtol=0)
    rate = torch.tensor([[0.3, 0.2]])
    torch.testing.assert_close(layer.measured(sensor.intensity(rate, False)[0], row, column), rate[0])
    assert layer.parameters() == {}


def test_gains_that_no_calibration_knows_are_learned_up_to_their_mean():
    layer = SensorLayer(SensorModel(gain=0.5), 10**6, 1, 2, "soft", CPU)
    with torch.no_grad():
        layer.log_gain.copy_(torch.tensor([[0.3, 0.1]]))
    row, column = torch.tensor([0, 0]), torch.tensor([0, 1])
    rates = layer.rates(torch.ones(2), row, column, torch.zeros(2)).detach()
    torch.testing.assert_close(rates, 0.5 * torch.tensor([0.1, -0.1]).exp(), atol=2e-6, rtol=0)
    assert float(layer.prior().detach()) == pytest.approx((0.1 / 0.03) ** 2, rel=1e-5)
    assert layer.parameters().keys() == {"log_gain"}


# ---- the field ------------------------------------------------------------------------------------------------------


def cameras(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    eyes = torch.tensor([[0.3 * i - 0.3, 0.1 * i, 0.0] for i in range(count)]).double().numpy()
    w2c = torch.as_tensor(look_at(eyes, eyes * 0.5 + [0, 0, 5.0], torch.tensor([0.0, -1.0, 0.0]).numpy())).float()
    return w2c, torch.tensor([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]]).expand(count, 3, 3)


def frustum() -> Frustum:
    w2c, k = cameras()
    return Frustum.around(w2c, k, 24, 16, 1.0, 8.0)


def test_the_frustum_holds_what_every_camera_sees():
    (w2c, k), shared = cameras(), frustum()
    rays = Rays.of(w2c, k, 24, 16)
    for depth in (1.05, 3.0, 7.5):
        at, _ = shared.coordinates(rays.points(torch.full((len(rays), 1), depth)))
        assert float(at[..., :2].abs().max()) <= 1.0 + 1e-4
    ends, depths = shared.coordinates(se3.inverse(shared.w2c)[:3, 3] + torch.tensor([[1.0], [8.0]]) * shared.w2c[2, :3])
    torch.testing.assert_close(ends, torch.tensor([[0.0, 0, 1], [0, 0, -1]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(depths, torch.tensor([1.0, 8.0]))
    around = torch.cat([w2c, w2c @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))])
    with pytest.raises(ValueError, match="too different directions"):
        Frustum.around(around, k.repeat(2, 1, 1), 24, 16, 1.0, 8.0)


def test_rays_go_through_their_pixels():
    w2c, k = cameras()
    rays = Rays.of(w2c, k, 24, 16)
    pixel = 2 * 16 * 24 + 5 * 24 + 7  # row 5, column 7 of the last camera
    point = rays.points(torch.full((len(rays), 1), 3.0))[pixel, 0]
    local = w2c[2, :3, :3] @ point + w2c[2, :3, 3]
    assert float(local[2]) == pytest.approx(3)
    torch.testing.assert_close((k[2] @ local)[:2] / 3, torch.tensor([7.5, 5.5]), atol=1e-4, rtol=0)


def test_compositing_by_hand():
    density, lengths = torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[1.0, 0.5, 1.0]])
    gray, weights = composite(density, torch.tensor([[0.9, 0.2, 0.6]]), lengths)
    alpha = 1 - math.exp(-1)
    torch.testing.assert_close(weights, torch.tensor([[0.0, alpha, 1 - alpha]]))  # the last is all that is left
    assert float(gray[0]) == pytest.approx(alpha * 0.2 + (1 - alpha) * 0.6)


def test_samples_are_spread_in_disparity():
    middles = 1 / stratified_depths(1.0, 4.0, (1, 3), None)
    torch.testing.assert_close(middles, torch.tensor([[0.875, 0.625, 0.375]]))
    drawn = 1 / stratified_depths(1.0, 4.0, (500, 3), torch.Generator().manual_seed(0))
    assert ((drawn <= torch.tensor([1.0, 0.75, 0.5]) + 1e-6) & (drawn >= torch.tensor([0.75, 0.5, 0.25]) - 1e-6)).all()
    more = importance_depths(torch.tensor([[1.0, 2, 3, 4, 5]]), torch.tensor([[0.0, 0, 1, 0, 0]]), 7, None)
    assert more.shape == (1, 7) and bool(((more > 2.49) & (more < 3.51)).all())


def test_a_wall_in_the_grid_is_seen_where_it_is():
    """An opaque layer across the grid: its depth and its gray level are those of the wall."""
    w2c, k = cameras()
    values = torch.zeros(1, 5, 33, 6, 8)
    values[:, 0], values[:, 0, :20] = -30.0, 30.0  # cells from the 20th on are nearer, and empty
    values[:, 1] = math.log(0.3 / 0.7)
    grid = RadianceGrid(frustum(), values, 256, 0)
    with torch.no_grad():
        out = grid.render(w2c, k, 24, 16)
    wall = 1 / (1 / 8 + (1 - 1 / 8) * 19.5 / 32)
    torch.testing.assert_close(out.images, torch.full_like(out.images, 0.3), atol=1e-2, rtol=0)
    middle = out.depths[1, 0, 8, 12]
    assert float(middle) == pytest.approx(wall, rel=0.03)


def test_gray_levels_depend_on_the_direction():
    values = torch.zeros(1, 5, 4, 4, 4)
    values[:, 2] = 2.0  # brighter for rays toward +x
    grid = RadianceGrid(frustum(), values, 8, 0)
    rays = Rays(torch.zeros(2, 3), torch.tensor([[0.4, 0.0, 1.0], [-0.4, 0.0, 1.0]]))
    [(gray, _)] = grid.trace(rays, None)
    toward = 0.4 / math.sqrt(1.16)
    expected = torch.tensor([2 * toward, -2 * toward]).sigmoid()
    torch.testing.assert_close(gray.detach(), expected)


def test_gradients_reach_the_grid_and_the_poses():
    w2c, k = cameras()
    random = torch.Generator().manual_seed(0)
    values = torch.randn(1, 5, 5, 4, 6, generator=random, dtype=torch.float64)
    small = Frustum(frustum().w2c.double(), 1.0, 8.0, frustum().reach)
    grid = RadianceGrid(small, values, 6, 0)
    poses = w2c[:1].double().requires_grad_()

    def level(poses, values):
        grid.values = values
        return grid.trace(Rays.of(poses, k[:1].double(), 3, 2), None)[0][0]

    assert torch.autograd.gradcheck(level, (poses, values.requires_grad_()), atol=1e-6)


def test_refining_changes_nothing_but_the_resolution():
    grid = RadianceGrid(frustum(), torch.randn(1, 5, 3, 4, 5), 8, 0)
    w2c, k = cameras()
    with torch.no_grad():
        before = grid.render(w2c, k, 12, 8).images
        grid.refine()
        after = grid.render(w2c, k, 12, 8).images
    assert grid.values.shape == (1, 5, 6, 8, 10) and grid.sizes() == {"cells": 480}
    assert float((before - after).abs().mean()) < 0.03  # trilinear between the same values, at other corners
    flat = RadianceGrid(frustum(), torch.ones(1, 5, 2, 2, 2), 8, 0)
    assert float(flat.variation().detach()) == 0 and float(grid.variation().detach()) > 0


def test_the_networks_have_the_published_sizes(tmp_path):
    net = NerfNet()
    assert sum(p.numel() for p in net.parameters()) == 595_844
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["pts_linears.0.weight"] == (256, 63) and shapes["pts_linears.5.weight"] == (256, 319)
    assert shapes["views_linears.0.weight"] == (128, 283) and shapes["rgb_linear.weight"] == (3, 128)
    assert shapes["feature_linear.weight"] == (256, 256) and shapes["alpha_linear.weight"] == (1, 256)
    nets = RadianceNets(frustum(), 4, 0)
    w2c, k = cameras()
    assert nets.render(w2c[:1], k[:1], 3, 2, iteration=1).images.shape == (1, 2, 2, 3)  # coarse and fine
    assert nets.render(w2c[:1], k[:1], 3, 2).images.shape == (1, 1, 2, 3)
    assert nets.sizes() == {"weights": 2 * 595_844}
    nets.save(tmp_path)
    again = load_radiance_field(tmp_path / "radiance_field.pth", CPU)
    with torch.no_grad():
        torch.testing.assert_close(again.render(w2c, k, 3, 2).images, nets.render(w2c, k, 3, 2).images)
    (tmp_path / "radiance_field.pth").unlink()
    save_checkpoint(tmp_path / "radiance_field.pth", {"kind": "grid"})
    with pytest.raises(ValueError, match=r"radiance_field\.pth: holds no radiance field"):
        load_radiance_field(tmp_path / "radiance_field.pth", CPU)


# ---- the recipe -----------------------------------------------------------------------------------------------------


def test_the_loss_by_hand(scene_folder, tmp_path):
    """Gamma-corrected rates: of the window's counts, and of the rendered intensities after the pixels fired."""
    t = small_training(scene_folder, tmp_path, *SPIKENERF, "--fire", "hard")
    sample = PixelSample(torch.tensor([1, 3]), torch.tensor([0, 0]), t.sample(1, torch.Generator()).window,
                         pixels=torch.tensor([[4, 9], [20, 40]]))  # fmt: skip
    renders = t.state.render(sample)
    assert renders.images.shape == (2, 1, 1, 1)
    value = t.objectives[0](Moment(t.state, sample, renders))
    gain, scene, terms = t.state.recording.scene.sensor.gain, t.state.recording.scene, []
    for i, (view, row, column) in enumerate([(1, 4, 9), (3, 20, 40)]):
        stream = scene.open_stream(scene.train[view])
        counted = float(stream.unpack(88 - 20, 88 + 21)[:, row, column].mean())
        light = gain * float(renders.images[i].detach())
        fired = math.floor(41 / (math.floor(1 / light) + 1)) / 41
        shown = [max(rate, 1 / 164) ** (1 / 2.2) for rate in (counted, fired)]
        terms.append((shown[0] - shown[1]) ** 2)
    assert float(value.detach()) == pytest.approx(sum(terms) / 2, rel=1e-4)


def test_a_pixel_is_that_of_the_whole_image(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *SPIKENERF)
    with torch.no_grad():
        t.state.field.field.values.normal_(generator=torch.Generator().manual_seed(0))
        view = t.state.recording.scene.train[2].camera
        image = t.state.field.render(view.w2c[None], view.K[None], view.width, view.height).images[0, 0]
        sample = PixelSample(torch.tensor([2, 2]), torch.tensor([0, 0]), t.sample(1, torch.Generator()).window,
                             pixels=torch.tensor([[3, 30], [31, 0]]))  # fmt: skip
        pixels = t.state.render(sample).images.flatten()
    torch.testing.assert_close(pixels, torch.stack([image[3, 30], image[31, 0]]), atol=1e-5, rtol=0)


def test_pixels_are_drawn_from_all_views():
    sample = RandomPixels(5, 32, 48, 0, 4000)(1, torch.Generator().manual_seed(0))
    for index, high in ((sample.views, 5), (sample.row, 32), (sample.column, 48)):
        assert set(index.tolist()) == set(range(high))


def test_a_few_steps_learn_and_the_grid_is_refined(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *SPIKENERF, *"--iterations 40 --rays 512 --values_lr_final 0.1".split())
    coarse = t.state.field.sizes()["cells"]
    before = t.probe()[0]
    losses = [t.step()["spike"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5]) and t.probe()[0] > before + 2
    assert t.state.field.sizes()["cells"] == 8 * coarse
    assert float(t.state.field.parameters()["log_gain"].detach().abs().max()) > 0
    poses = t.state.trajectory.view(1, torch.tensor([0.5]))
    torch.testing.assert_close(poses[0], t.state.recording.scene.train[1].camera.w2c)


def test_only_gray_scenes_are_learned(scene_folder):
    scene: SceneData = replace(read_scene(scene_folder), mosaic=Mosaic("RGGB"))
    with pytest.raises(ValueError, match="small: a color sensor, but --recipe spikenerf learns gray scenes only"):
        spikenerf(SpikeNerfSettings.of(), scene)


def test_what_needs_gaussians_is_refused():
    with pytest.raises(ValueError, match="--viewer shows Gaussians, but --recipe spikenerf learns a radiance field"):
        SpikeNerfSettings.of(viewer=True)


def test_commands_take_its_models(scene_folder, tmp_path, monkeypatch, capsys):
    """Trained, stopped and resumed, rendered and measured like any other; what needs Gaussians says so."""

    def run(command, *flags):
        monkeypatch.setattr("sys.argv", ["command", "-m", str(tmp_path / "model"), *map(str, flags)])
        return guarded(command.main)

    flags = ["-s", scene_folder, *SPIKENERF, "--no-quiet", "--log_every", 3, "--checkpoint_every", 4]
    assert run(train, *flags) == 0
    assert "spikenerf: 5 views of 48x32, 6 steps, " in capsys.readouterr().out
    (tmp_path / "model/chkpnt6.pth").unlink()
    rows = [json.loads(line) for line in (tmp_path / "model/log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [3, 6] and rows[0]["cells"] > 0
    assert run(render, "--fit_steps", 2, "--quiet") == 0 and run(metrics, "--quiet") == 0
    results = json.loads((tmp_path / "model/results.json").read_text())
    assert results["deblurring"]["gaussians"]["views"] == 5 and results["held out"]["gaussians"]["views"] == 2
    assert results["trajectory"]["ATE"] == pytest.approx(0, abs=1e-5)
    capsys.readouterr()
    assert run(render, "--video", "orbit") == 1
    assert "radiance_field.pth: a radiance field, expected Gaussians" in capsys.readouterr().err


def test_a_resumed_run_learns_the_same(scene_folder, tmp_path):
    flags = [*SPIKENERF, "--iterations", "5"]
    whole = small_training(scene_folder, tmp_path / "a", *flags)
    for _ in range(5):
        whole.step()
    half = small_training(scene_folder, tmp_path / "b", *flags)
    for _ in range(3):
        half.step()
    path = checkpoint.save(half)
    again = build(half.settings, read_scene(scene_folder))
    checkpoint.load(again, path)
    for _ in range(2):
        again.step()
    for name, value in whole.state.field.parameters().items():
        assert torch.equal(value, again.state.field.parameters()[name]), name
