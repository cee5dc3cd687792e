"""Scenes in blocks: partition, merging, seams."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_model import pose, tiny_gaussians
from training_runs import TIMING, learned, same, small_training, stepped

import metrics
import render
from commands.guard import guarded
from commands.scene import main
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.field import GaussianField
from gaussians.initialization import median_depth
from gaussians.model import PARAMETERS, GaussianModel
from scene.blocks import BLOCK, Block, Neighbor, Region, partition, read_block, regions, shown, visible
from scene.cameras import Camera, View
from scene.dataset import IN_MEMORY, SceneData, read_scene
from scene.dataset import read_cameras as cameras_of
from scene.lens import PerspectiveLens
from scene.model_folder import load_gaussians, load_trajectory, read_cameras, save_gaussians
from scene.partition import _Writer
from scene.preconditioning import preconditioners
from scene.trajectory import Trajectory
from spike import Layout, SensorModel
from training import checkpoint
from training.checkpoint import save_model
from training.merging import MERGE, Similarity, attach, load_blocks, merge_sensors, motion_between
from training.sampling import Sample
from training.trained_model import TrainedModel
from training.training import Training
from utils.checkpoint import save_checkpoint

CPU = torch.device("cpu")


def command(monkeypatch, *flags: object) -> int:
    """The exit status of python -m scene."""
    monkeypatch.setattr("sys.argv", ["scene", *map(str, flags)])
    return guarded(main)


def refused(monkeypatch, capsys, *flags: object) -> str:
    """The one sentence that python -m scene ends with."""
    capsys.readouterr()
    assert command(monkeypatch, *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


# ---- regions and views ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_regions_fill_space_once_with_as_many_cameras_in_each(count):
    centers = torch.rand(61, 3, generator=torch.Generator().manual_seed(1)).double() * torch.tensor([9.0, 4, 1])
    cores = regions(centers, count)
    inside = torch.stack([core.contains(centers) for core in cores])
    assert (inside.sum(0) == 1).all() and abs(inside.sum(1) - 61 / count).max() <= 2
    anywhere = torch.randn(1000, 3, generator=torch.Generator().manual_seed(2)).double() * 100
    assert (torch.stack([core.contains(anywhere) for core in cores]).sum(0) == 1).all()


def test_a_cut_is_across_the_axis_along_which_cameras_spread():
    centers = torch.tensor([[0.0, 0, 0], [1, 3, 0], [0, 6, 0], [1, 9, 0]]).double()
    low, high = regions(centers, 2)
    assert low == Region(high=(math.inf, 4.5, math.inf)) and high == Region(low=(-math.inf, 4.5, -math.inf))
    assert low.touches(high) and not low.touches(Region(low=(0, 5, 0)))
    assert bool(high.contains(torch.tensor([[0, 4.5, 0]]))) and not bool(low.contains(torch.tensor([[0, 4.5, 0]])))


def test_cameras_in_one_place_cannot_be_cut():
    with pytest.raises(ValueError, match="4 cameras in too few places to cut them into 2 blocks"):
        regions(torch.zeros(4, 3).double(), 2)
    with pytest.raises(ValueError, match="3 views, expected at least one for each of 4 blocks"):
        regions(torch.zeros(3, 3).double(), 4)


def row_of_cameras(count: int) -> list[Camera]:
    """Cameras at x = 0, 1, 2, ... that look along z, 90 degrees wide."""
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = -torch.arange(count)
    k = torch.tensor([[50.0, 0, 50], [0, 50, 50], [0, 0, 1]])
    return [Camera(f"{i:03d}", 100, 100, k, w2c) for i, w2c in enumerate(poses)]


def test_blocks_have_their_own_views_those_in_the_margin_and_those_that_see_much_of_them():
    cameras = row_of_cameras(16)
    cut = partition(cameras, None, 4, margin=0.4)
    assert cut.owner == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 and cut.across is None
    # The cores are 3 wide by their cameras: 1.2 beyond 3.5 reaches 4, and 1.2 below 3.5 reaches 3.
    assert cut.members == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8], [7, 8, 9, 10, 11, 12], [11, 12, 13, 14, 15]]
    assert partition(cameras, None, 4, margin=0.0).members[1] == [4, 5, 6, 7]
    # A wall at z = 2: a camera sees x - 2 to x + 2, so camera 5 sees (2 - 1.5) / 4 of block 0.
    x, y = torch.meshgrid(torch.arange(-3, 19, 0.1), torch.arange(-2, 2, 0.1), indexing="ij")
    wall = torch.stack([x, y, torch.full_like(x, 2)], -1).reshape(-1, 3)
    shares = shown(cameras[5], wall, cut.cores)
    assert shares == pytest.approx([0.125, 0.875, 0, 0], abs=0.05)
    seen = partition(cameras, wall, 4, margin=0.0, seen=0.3)
    assert seen.members[0] == [0, 1, 2, 3, 4] and seen.across[5] == pytest.approx(0.125, abs=0.05)
    assert seen.across[0] == pytest.approx(0, abs=0.03) and seen.across[3] == pytest.approx(0.375, abs=0.05)


def test_what_lies_behind_a_wall_is_not_visible():
    camera = row_of_cameras(1)[0]
    x, y = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40), indexing="ij")
    wall = torch.stack([x, y, torch.full_like(x, 2)], -1).reshape(-1, 3)
    index, nearest, cells = visible(camera, torch.cat([wall, 2 * wall, wall * torch.tensor([1, 1, -1])]))
    assert set(index.tolist()) == set(range(1600)) and set(nearest.tolist()) <= set(range(1600)) and cells == 256


# ---- folders -------------------------------------------------------------------------------------------------


def as_colmap(root: Path) -> None:
    """Replace the scene's pose file by a COLMAP model, whose camera has a lens."""
    scene = read_scene(root)
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 SIMPLE_RADIAL 48 32 40 24 16 -0.05\n")
    rows = []
    for i, view in enumerate(scene.train, 1):
        x, y, z, w = Rotation.from_matrix(view.camera.w2c[:3, :3].numpy()).as_quat()
        place = " ".join(map(str, [w, x, y, z, *view.camera.w2c[:3, 3].tolist()]))
        rows.append(f"{i} {place} 1 {view.image_path.name}\n\n")
    (model / "images.txt").write_text("".join(rows))
    points = [f"{i} {x} {y} {z} 100 100 100 0.1\n" for i, (x, y, z) in enumerate(scene.points.tolist(), 1)]
    (model / "points3D.txt").write_text("".join(points))
    (root / "spike.json").write_text(json.dumps({"spike_gain": scene.sensor.gain}))
    (root / "transforms.json").unlink()
    (root / "sparse_pc.ply").unlink()


@pytest.mark.parametrize("colmap", [False, True])
def test_blocks_are_scenes_with_the_same_views(colmap, scene_folder, tmp_path, monkeypatch, capsys):
    scene = tmp_path / "scene"
    shutil.copytree(scene_folder, scene)
    if colmap:
        as_colmap(scene)
    cut = ["-s", scene, "--blocks", 2, "--eval", "--llffhold", 4, "--margin", 0, "--seen", 2]
    assert command(monkeypatch, "partition", *cut) == 0
    assert "01: 1 views, and 0 of its neighbors" in capsys.readouterr().out
    shutil.move(scene, tmp_path / "moved")  # links are relative
    whole = read_scene(tmp_path / "moved", eval=True, llffhold=4)
    known = {view.camera.name: view for view in whole.train}
    owned, held_out = [], set()
    for name in ("00", "01"):
        folder = tmp_path / "moved" / "blocks" / name
        block, part = read_block(folder), read_scene(folder)
        assert [view.camera.name for view in part.train] == sorted([*block.own, *block.others])
        assert (folder / block.scene).samefile(tmp_path / "moved") and block.eval and block.llffhold == 4
        assert [n.block for n in block.neighbors] == [1 - block.block] and not part.test
        for view in part.train:
            other = known[view.camera.name]
            torch.testing.assert_close(view.camera.w2c, other.camera.w2c, atol=1e-6, rtol=0)
            assert torch.equal(view.camera.K, other.camera.K) and view.camera.lens == other.camera.lens
            assert (view.camera.lens is not None) == colmap and view.spike_path.is_symlink()
            assert torch.equal(
                torch.as_tensor(part.open_stream(view).unpack(0, 177)),
                torch.as_tensor(whole.open_stream(other).unpack(0, 177)),
            )
            assert view.middle_frame == other.position * 177 and view.sequence_paths.keys() == set(range(13))
            assert view.image_path.is_file()
            assert torch.equal(part.truth[view.camera.name], whole.truth[view.camera.name])
        assert part.sensor.gain == pytest.approx(whole.sensor.gain) and 0 < len(part.points) <= len(whole.points)
        owned += block.own
        held_out |= block.across.keys() - set(block.own)
        held_out_here = {f"novel_{view.camera.name}" for view in part.novel}
        assert held_out_here <= block.across.keys()
    assert sorted(owned) == sorted(known) and held_out == {"000", "004", "novel_000", "novel_001"}


def test_lenses_are_kept(tmp_path):

    lens = PerspectiveLens((40.0, 41.0, 24.0, 16.0), 48, 32, (-0.12, 0.01, 0.001, 0.0, 0.0, 0.0, 0.0, 0.0))
    view = View(Camera("v", 48, 32, lens.matrix, torch.eye(4), lens))
    (tmp_path / "scene").mkdir()
    scene = SceneData(IN_MEMORY, [view], [], [], None, None, SensorModel(), None, Layout(), None, 1.0)
    _Writer(scene, tmp_path / "block", tmp_path / "block").write_views([view], [7.0])
    [found], middles = cameras_of(tmp_path / "block" / "transforms.json")
    assert found.lens == lens and torch.equal(found.K, lens.matrix) and middles.tolist() == [7.0]


# ---- motions -------------------------------------------------------------------------------------------------


def motion() -> Similarity:
    rotation = torch.as_tensor(Rotation.from_rotvec([0.5, -0.8, 0.3]).as_matrix())
    return Similarity(1.3, rotation, torch.tensor([0.4, -2.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("degree", [1, 3])
def test_moved_gaussians_look_the_same_to_moved_cameras(degree):
    g = tiny_gaussians()
    if degree == 3:
        more = torch.randn(len(g), 15, 1, generator=torch.Generator().manual_seed(3)) * 0.1
        g = GaussianModel({name: g.raw[name].data for name in PARAMETERS} | {"shN": more}, 3, g.low_pass)
    poses = torch.stack([pose(angle) for angle in (-0.3, 0.2)])
    k = torch.tensor([[60.0, 0, 24], [0, 60, 18], [0, 0, 1]]).expand(2, 3, 3)
    rasterizer = get_rasterizer("cpu", CPU)
    with torch.no_grad():
        before = GaussianField(g, rasterizer).render(poses, k, 48, 36).images
        moved = GaussianModel.of(motion().gaussians(g.params.on_cpu()))
        after = GaussianField(moved, rasterizer).render(motion().poses(poses), k, 48, 36).images
    assert float(before.std()) > 0.1
    torch.testing.assert_close(after, before, atol=2e-4, rtol=0)


@pytest.mark.parametrize("curve", ["bezier", "linear"])
def test_moved_curves_pass_through_moved_poses(curve):
    path = Trajectory(torch.stack([pose(0.1), pose(0.4, 0.5)]), curve)
    with torch.no_grad():
        path.increments += 0.1 * torch.randn(path.increments.shape, generator=torch.Generator().manual_seed(0))
        u = torch.linspace(0, 1, 5)
        moved = motion().trajectory(path)
        for view in (0, 1):
            expected = motion().poses(path.view(view, u).double())
            torch.testing.assert_close(moved.view(view, u).double(), expected, atol=1e-5, rtol=0)


def test_the_motion_between_cameras_on_a_line_is_found():
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[:, 0, 3] = -torch.arange(5)
    found = motion_between(poses, motion().poses(poses))
    assert found.scale == pytest.approx(1.3)
    torch.testing.assert_close(found.rotation, motion().rotation)
    torch.testing.assert_close(found.translation, motion().translation)
    twice = motion().after(motion())
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(twice.points(x), motion().points(motion().points(x)))


# ---- merging -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_blocks(scene_folder, tmp_path_factory) -> Path:
    """Two trained blocks of the small scene, as ``blocks`` and ``models``."""
    root = tmp_path_factory.mktemp("in_blocks")
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, "partition", "-s", scene_folder, "--blocks", 2, "--out", root / "blocks", "--quiet") == 0
    for name in ("00", "01"):
        save_model(stepped(small_training(root / "blocks" / name, root / "models" / name, *TIMING, "--seed", name), 4))
    return root


def models(root: Path) -> list[Path]:
    return [root / "models" / name for name in ("00", "01")]


def copied(trained_blocks: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_blocks / "models", tmp_path / "models")
    return tmp_path


def test_merged_blocks_have_each_their_gaussians_and_views(trained_blocks, tmp_path, monkeypatch, capsys):
    """One block has drifted by a known motion; merging takes it back."""
    root = copied(trained_blocks, tmp_path)
    blocks = load_blocks(models(root))
    first, second = blocks
    turn = torch.as_tensor(Rotation.from_rotvec([0.01, 0.02, -0.01]).as_matrix())
    drift = Similarity(1.02, turn, torch.ones(3) * 0.1)
    shared = sorted(set(first.names) & set(second.names))
    assert len(shared) >= 3 and set(first.block.own) | set(second.block.own) == {f"{i:03d}" for i in range(5)}
    # As if the second block had been trained in the world of the first, and then drifted.
    aligned = motion_between(second.middle_poses(shared), first.middle_poses(shared))
    moved = drift.after(aligned)
    folder = second.model.folder / "point_cloud" / f"iteration_{second.model.iteration}"
    expected = aligned.gaussians(second.model.load_gaussians().params.on_cpu())
    paths = aligned.trajectory(second.model.trajectory)
    save_gaussians(folder, GaussianModel.of(moved.gaussians(second.model.load_gaussians().params.on_cpu())))
    save_checkpoint(folder / "trajectory.pth", moved.trajectory(second.model.trajectory).checkpoint())

    assert command(monkeypatch, "merge", "-m", *models(root), "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "Block 01: " in said and "views shared with block 0" in said
    iteration = first.model.iteration
    found = load_gaussians(tmp_path / "out", iteration)
    inside = [
        first.block.core.contains(first.model.load_gaussians().means), second.block.core.contains(expected.means)
    ]
    kept = [int(mask.sum()) for mask in inside]
    assert 0 < kept[0] < len(inside[0]) and 0 < kept[1] < len(inside[1]) and len(found) == sum(kept)
    for name, parameter in found.raw.items():
        torch.testing.assert_close(parameter[: kept[0]], first.model.load_gaussians().raw[name][inside[0]])
        torch.testing.assert_close(parameter[kept[0] :], getattr(expected, name)[inside[1]], atol=2e-3, rtol=2e-3)
    merged, u = load_trajectory(tmp_path / "out", iteration), torch.linspace(0, 1, 5)
    names = [entry["name"] for entry in read_cameras(tmp_path / "out")]
    assert names == [f"{i:03d}" for i in range(5)]
    for i, name in enumerate(names):
        one, path = (first, first.model.trajectory) if name in first.block.own else (second, paths)
        torch.testing.assert_close(merged.view(i, u), path.view(one.names.index(name), u), atol=1e-4, rtol=0)
    made = json.loads((tmp_path / "out" / MERGE).read_text())["blocks"]
    assert made[1]["apart_before"] > 0.02 > 0.01 > made[1]["apart_after"] and made[1]["attached_to"] == 0
    gains = [one.model.learned_sensor.gain_map for one in blocks]
    expected_gain = (gains[0].log() * len(first.block.own) + gains[1].log() * len(second.block.own)) / 5
    torch.testing.assert_close(merge_sensors(blocks).gain_map, expected_gain.exp())


def test_a_merged_model_is_rendered_and_measured_and_its_seams_too(trained_blocks, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    for _ in range(2):  # the earlier model is set aside
        assert command(monkeypatch, "merge", "-m", *reversed(models(trained_blocks)), "--out", out) == 0
    assert (tmp_path / "out.1" / MERGE).is_file()
    assert "run render.py" in refused(monkeypatch, capsys, "seams", "-m", out)
    for door, flags in ((render, ["--fit_steps", "1"]), (metrics, ["--lpips", "alex"])):
        monkeypatch.setattr("sys.argv", [door.__name__, "-m", str(out), "--quiet", *flags])
        assert guarded(door.main) == 0
    record = json.loads((out / MERGE).read_text())
    record["across"] |= {"000": 0.09, "001": 0.1, "002": 0.5, "003": 0.0, "004": 0.0, "novel_000": 0, "novel_001": 0}
    (out / MERGE).write_text(json.dumps(record))
    capsys.readouterr()
    assert command(monkeypatch, "seams", "-m", out, "--against", out) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " deblurring " in line and "Gaussians" in line]
    rows = json.loads((out / "per_view.json").read_text())["deblurring"]["gaussians"]
    psnr = {name: row["PSNR"] for name, row in rows.items()}
    across, rest = np.mean([psnr["001"], psnr["002"]]), np.mean([psnr["000"], psnr["003"], psnr["004"]])
    assert len(lines) == 2 and f"{across:.2f} (   2)" in lines[0] and f"{rest:.2f} (   3)" in lines[1]


def test_mistakes_are_told_in_one_sentence(scene_folder, trained_blocks, tmp_path, monkeypatch, capsys):
    def sentence(*flags: object) -> str:
        return refused(monkeypatch, capsys, *flags)

    first, second = models(trained_blocks)
    out = tmp_path / "out"
    assert "--blocks 1: expected at least 2" in sentence("partition", "-s", scene_folder, "--blocks", 1, "--out", out)
    assert "5 views, expected at least" in sentence("partition", "-s", scene_folder, "--blocks", 9, "--out", out)
    assert "--margin -1: expected" in sentence("partition", "-s", scene_folder, "--blocks", 2, "--margin", -1)
    taken = sentence("partition", "-s", scene_folder, "--blocks", 2, "--out", trained_blocks / "blocks")
    assert "already exists; remove it, or give another folder with --out" in taken
    assert "block 01 of 2 is missing, expected every block once" in sentence("merge", "-m", first, "--out", out)
    twice = sentence("merge", "-m", first, second, second, "--out", out)
    assert "block 01 of 2 is there 2 times" in twice
    root = copied(trained_blocks, tmp_path)
    stored = json.loads((root / "models" / "01" / "cfg_args.json").read_text())

    def with_settings(part: str, **values: object) -> None:
        (root / "models" / "01" / "cfg_args.json").write_text(json.dumps(stored | {part: stored[part] | values}))

    with_settings("motion", trajectory="linear")
    assert "--trajectory is linear, expected bezier as in" in sentence("merge", "-m", *models(root), "--out", out)
    with_settings("gaussians", low_pass=0.3)
    assert "--low_pass is 0.3, expected 0.1 as in" in sentence("merge", "-m", *models(root), "--out", out)
    with_settings("gaussians", sh_degree=1)
    assert "--sh_degree is 1, expected 3 as in" in sentence("merge", "-m", *models(root), "--out", out)
    with_settings("gaussians")
    for place in (models(root)[1], root / "models"):
        assert "holds the block" in sentence("merge", "-m", *models(root), "--out", place)
    assert all(folder.is_dir() for folder in models(root))
    with_settings("scene", source_path=str(scene_folder))
    assert "has no block.json, so it is no block" in sentence("merge", "-m", *models(root), "--out", out)
    shutil.copytree(trained_blocks / "blocks", tmp_path / "blocks", symlinks=True)
    path = tmp_path / "blocks" / "01" / "block.json"
    block = json.loads(path.read_text())
    with_settings("scene", source_path=str(path.parent))
    path.write_text(json.dumps(block | {"partition": "other"}))
    assert "is a block of another partition than" in sentence("merge", "-m", *models(root), "--out", out)
    path.write_text(json.dumps(block | {"core": {"low": [1, 1, 1], "high": [1, 2, 2]}}))
    assert "expected low < high" in sentence("merge", "-m", *models(root), "--out", out)
    assert "has no merge.json, so it is no merged model" in sentence("seams", "-m", first)
    assert not out.exists()


# ---- starting from a model of the whole scene ----------------------------------------------------------------


@pytest.fixture(scope="module")
def coarse(scene_folder, tmp_path_factory) -> Path:
    """A model of the small scene."""
    folder = tmp_path_factory.mktemp("coarse")
    training = stepped(small_training(scene_folder, folder, *TIMING), 4)
    # So few steps leave colors that hardly depend on the direction.
    rest = training.state.gaussians.raw["shN"]
    with torch.no_grad():
        rest += 0.1 * torch.randn(rest.shape, generator=torch.Generator().manual_seed(0))
    save_model(training)
    return folder


def assert_looks_like(model: TrainedModel, training: Training) -> None:
    """A training that has not begun renders what the model shows of its views, where they are in the model."""
    state, names = training.state, [view.camera.name for view in model.scene.train]
    whole = GaussianField(model.load_gaussians(), state.gaussian_field.rasterizer)
    with torch.no_grad():
        for i, view in enumerate(state.recording.scene.train):
            poses = model.trajectory.view(names.index(view.camera.name), model.u[:3])
            expected = whole.render(poses, view.camera.K.expand(3, 3, 3), *state.recording.size[::-1]).images
            torch.testing.assert_close(state.render(Sample.exposure(i, 3)).images, expected, atol=1e-3, rtol=0)


def test_a_training_starts_where_a_model_ended(scene_folder, coarse, tmp_path):
    model = TrainedModel.load(coarse)
    training = small_training(scene_folder, tmp_path / "again", *TIMING, "--start_from", str(coarse))
    for name, value in model.load_gaussians().raw.items():
        torch.testing.assert_close(training.state.gaussians.raw[name], value)
    gains = model.learned_sensor.gain_map
    assert torch.equal(training.state.recording.sensor.gain_map, gains) and float(gains.std()) > 0
    u = torch.linspace(0, 1, 4)
    for i in range(5):
        assert torch.equal(training.state.trajectory.view(i, u), model.trajectory.view(i, u))
    assert training.state.field.sizes() == {"gaussians": len(model.load_gaussians())}
    assert_looks_like(model, training)


def test_blocks_that_start_from_a_model_train_their_part_of_it(
    trained_blocks, coarse, tmp_path, monkeypatch, capsys
):  # fmt: skip
    model = TrainedModel.load(coarse)
    every = model.load_gaussians()
    flags = [*TIMING, "--fixed_pattern_every", "0", "--cap_max", "400", "--start_from", str(coarse)]
    trainings = []
    for name in ("00", "01"):
        scene = trained_blocks / "blocks" / name
        training = small_training(scene, tmp_path / "models" / name, *flags, "--seed", name)
        block, field = read_block(scene), training.state.field
        inside = block.core.contains(every.means.detach())
        assert 0 < len(field.surroundings) <= int((~inside).sum()) < len(every)
        assert torch.equal(field.gaussians.means, every.means[inside])
        assert not block.core.contains(field.surroundings.means).any()
        assert_looks_like(model, training)
        # Steps are as long in every block: in units of the depth of all that it sees.
        means = torch.cat([field.gaussians.means, field.surroundings.means]).detach()
        curves = training.state.trajectory
        poses = torch.cat([curves.view(i, torch.tensor([0.5])) for i in range(len(curves.first))]).detach()
        depth = median_depth(means, poses)
        assert training.optimizers.field_rates["means"].unit == pytest.approx(depth)
        cameras = [exposure.camera for exposure in training.state.recording.exposures]
        known = preconditioners(means, poses, torch.stack([c.K for c in cameras]), cameras[0].width, cameras[0].height)
        assert torch.equal(training.optimizers.preconditioners, training.state.trajectory.per_knot(known))
        around = {key: value.clone() for key, value in field.surroundings.raw.items()}
        if name == "00":  # interrupted
            stepped(training, 2)
            stored = checkpoint.save(training)
            training = small_training(scene, tmp_path / "models" / name, *flags, "--seed", name)
            checkpoint.load(training, stored)
            stepped(training, 2)
            straight = stepped(small_training(scene, tmp_path / "straight", *flags, "--seed", name), 4)
            assert same(learned(training), learned(straight))
        else:
            stepped(training, 4)
        field = training.state.field
        with torch.no_grad():  # one leaves the core
            field.gaussians.means[0] += 100 if name == "00" else -100
        save_model(training)
        for key, value in around.items():
            assert torch.equal(field.surroundings.raw[key], value)
        assert len(field.gaussians) > int(inside.sum())
        saved = TrainedModel.load(tmp_path / "models" / name)
        assert Path(saved.settings.gaussians.start_from) == coarse
        assert torch.equal(saved.learned_sensor.gain_map, model.learned_sensor.gain_map)
        with torch.no_grad():
            size, k = training.state.recording.size[::-1], model.scene.train[0].camera.K[None]
            poses = training.state.trajectory.view(0, torch.tensor([0.5]))
            seen = saved.load_field(1, field.rasterizer).render(poses, k, *size).images
            torch.testing.assert_close(seen, field.render(poses, k, *size).images, atol=1e-5, rtol=0)
        trainings.append(training)
    assert command(monkeypatch, "merge", "-m", *models(tmp_path), "--out", tmp_path / "out") == 0
    assert "its world is that of the model it started from" in capsys.readouterr().out
    merged = TrainedModel.load(tmp_path / "out")
    parts = [training.state.gaussians.means.detach() for training in trainings]
    places = [block.place for block in load_blocks(models(tmp_path))]
    means = torch.cat([part[place.contains(part)] for part, place in zip(parts, places, strict=True)])
    assert places[0].high[0] > read_block(trained_blocks / "blocks" / "00").core.high[0]
    assert len(means) < sum(map(len, parts))  # what has left its core is before other blocks' cameras
    torch.testing.assert_close(merged.load_gaussians().means, means)
    assert merged.settings.gaussians.start_from == ""
    for i, view in enumerate(merged.scene.train):
        first = view.camera.name in read_block(trained_blocks / "blocks" / "00").own
        owner = trainings[0 if first else 1].state
        own = [known.camera.name for known in owner.recording.scene.train].index(view.camera.name)
        u = torch.linspace(0, 1, 4)
        torch.testing.assert_close(merged.trajectory.view(i, u), owner.trajectory.view(own, u))


def test_models_that_cannot_be_started_from(scene_folder, trained_blocks, coarse, tmp_path, monkeypatch):
    def why(folder: Path, *flags: str, scene: Path = scene_folder) -> str:
        with pytest.raises(ValueError) as error:
            small_training(scene, tmp_path / "out", *TIMING, "--start_from", str(folder), *flags)
        return str(error.value)

    assert "train this model first" in why(tmp_path)
    assert "its curves are bezier, expected linear (--trajectory)" in why(coarse, "--trajectory", "linear")
    assert "its Gaussians have a low-pass 0.1 square pixels, compensated, expected" in why(coarse, "--low_pass", "0.2")
    assert "colors of degree 3, expected 2 (--sh_degree)" in why(coarse, "--sh_degree", "2")
    assert "--perturb moves the poses of the scene, but training starts from those of" in why(coarse, "--perturb", "1")
    assert "is also the folder of the results" in why(coarse, "-m", str(coarse))
    shutil.copytree(coarse, tmp_path / "coarse")
    cameras = json.loads((coarse / "cameras.json").read_text())
    (tmp_path / "coarse" / "cameras.json").write_text(json.dumps(cameras[1:]))
    assert "was trained without view 000, expected all 5 of the scene" in why(tmp_path / "coarse")
    block = trained_blocks / "blocks" / "00"
    nowhere = replace(read_block(block), core=Region((50, 50, 50), (51, 51, 51)))
    monkeypatch.setattr("training.starting.read_block", lambda folder: nowhere)
    assert "Gaussians is in the core of block 00" in why(coarse, scene=block)
    monkeypatch.undo()
    shutil.copytree(trained_blocks / "models", tmp_path / "models")
    stored = json.loads((tmp_path / "models" / "01" / "cfg_args.json").read_text())
    stored["gaussians"]["start_from"] = str(coarse)
    (tmp_path / "models" / "01" / "cfg_args.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"--start_from is .*, expected  as in"):
        load_blocks(models(tmp_path))
    # A curve of another degree reads other knots, whatever the settings say.
    stored["gaussians"]["start_from"] = ""
    (tmp_path / "models" / "01" / "cfg_args.json").write_text(json.dumps(stored))
    curves = next((tmp_path / "models" / "01").glob("point_cloud/*/trajectory.pth"))
    kept = torch.load(curves, weights_only=True)
    torch.save(kept | {"degree": kept["degree"] - 1}, curves)
    with pytest.raises(ValueError, match=rf"--curve_degree is {kept['degree'] - 1}, expected {kept['degree']} as in"):
        load_blocks(models(tmp_path))


def test_blocks_without_shared_views_stay_where_they_are(trained_blocks):
    blocks = load_blocks(models(trained_blocks))
    for one in blocks:
        one.cameras[:] = [entry | {"name": f"{one.block.name}{entry['name']}"} for entry in one.cameras]
    assert [how.to for how in attach(blocks)] == [None, None]
    assert all(how.motion.scale == 1.0 for how in attach(blocks))


def test_a_block_survives_its_file(tmp_path):
    whole = Region()
    low, high = whole.cut(0, 1.5)
    block = Block("p", 0, 2, "../..", "transforms.json", False, 8, low, [Neighbor(1, high)], ["a"], ["b"], {"a": 0.2})
    (tmp_path / BLOCK).write_text(json.dumps(block.as_json()))
    assert read_block(tmp_path) == block
