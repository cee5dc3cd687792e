"""Files for other programs: TUM trajectories, .splat, PLYs of others."""

import dataclasses
import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation
from tiny_model import HEIGHT, ITERATION, WIDTH, make_model, pose, tiny_gaussians

from arguments import TimingSettings
from commands.guard import guarded
from commands.scene import convert, export_all, export_trajectories, main
from gaussian_renderer.backends import get_rasterizer
from gaussian_renderer.drawing import Drawing
from gaussians.formats import read_gaussians, read_splat, read_spz, write_splat, write_spz
from gaussians.model import GaussianModel
from gaussians.ply import GaussianParams, LowPass, read_gaussian_ply, write_gaussian_ply
from recon_net import make_network
from recon_net.onnx import export_onnx
from scene.dataset import read_scene
from scene.model_folder import camera_entry, iteration_folder, load_gaussians, write_cameras
from scene.tum import read_tum, write_tum
from training.trained_model import TrainedModel
from utils.checkpoint import save_checkpoint


def params(channels: int = 3) -> GaussianParams:
    return tiny_gaussians(channels=channels).params.on_cpu()


def render(p: GaussianParams, w2c: torch.Tensor | None = None, low_pass: LowPass | None = None) -> torch.Tensor:
    """A picture, with the low-pass of ``tiny_gaussians`` where no other is given: not all formats keep it."""
    model = GaussianModel.of(dataclasses.replace(p, low_pass=low_pass or params().low_pass))
    k = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60, HEIGHT / 2], [0, 0, 1]])
    drawing = Drawing(model, get_rasterizer("cpu", torch.device("cpu")))
    return drawing((pose(0.2) if w2c is None else w2c)[None], k, WIDTH, HEIGHT).images[0]


def test_surroundings_are_drawn_too():
    """A block of a large scene is shown among its neighbors, in videos and in the viewer."""
    rasterizer, k = get_rasterizer("cpu", torch.device("cpu")), torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    raw, degree = tiny_gaussians(channels=1).raw, tiny_gaussians(channels=1).sh_degree
    low_pass = tiny_gaussians(channels=1).low_pass
    parts = [
        GaussianModel({name: value.detach()[part] for name, value in raw.items()}, degree, low_pass)
        for part in (slice(0, 10), slice(10, None), slice(None))
    ]
    shown = Drawing(parts[0], rasterizer, surroundings=parts[1])(pose(0.2)[None], k, 64, 48).images
    whole, alone = (Drawing(part, rasterizer)(pose(0.2)[None], k, 64, 48).images for part in (parts[2], parts[0]))
    torch.testing.assert_close(shown, whole, atol=1e-5, rtol=0)
    assert float((shown - alone).abs().max()) > 0.05


# ---- TUM ---------------------------------------------------------------------------------------------------


def test_tum_lines_are_cameras_in_the_world(tmp_path):
    w2c = torch.stack([pose(0.0), pose(0.5, 0.3)])
    write_tum(tmp_path / "t.tum", np.array([1.5, 20.25]), w2c)
    lines = (tmp_path / "t.tum").read_text().splitlines()
    assert lines[0].startswith("#") and len(lines) == 3
    row = [float(word) for word in lines[2].split()]
    to_world = torch.linalg.inv(w2c[1]).numpy()
    assert row[0] == 20.25
    np.testing.assert_allclose(row[1:4], to_world[:3, 3], atol=1e-6)
    # Scalar last, Hamilton's convention, as evo reads it.
    np.testing.assert_allclose(Rotation.from_quat(row[4:]).as_matrix(), to_world[:3, :3], atol=1e-6)
    times, back = read_tum(tmp_path / "t.tum")
    np.testing.assert_array_equal(times, [1.5, 20.25])
    torch.testing.assert_close(back, w2c, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("times", "message"),
    [([0.0], "2 poses have times"), ([1.0, 1.0], "must increase"), ([0.0, math.nan], "NaN or infinite")],
)
def test_bad_trajectories_are_refused(tmp_path, times, message):
    with pytest.raises(ValueError, match=rf"t\.tum: .*{message}"):
        write_tum(tmp_path / "t.tum", np.array(times), torch.eye(4).repeat(2, 1, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no poses"),
        ("# only words\n", "no poses"),
        ("0 0 0 0 0 0 0 1\n1 2 3\n", "line 2 is not a pose"),
        ("0 0 0 0 0 0 0 0\n", "line 1"),
        ("a b c d e f g h\n", "line 1"),
        ("0 0 nan 0 0 0 0 1\n", "line 1"),
    ],
)
def test_broken_tum_files_are_named(tmp_path, text, message):
    (tmp_path / "t.tum").write_text(text)
    with pytest.raises(ValueError, match=rf"t\.tum: .*{message}"):
        read_tum(tmp_path / "t.tum")
    with pytest.raises(ValueError, match=r"none\.tum"):
        read_tum(tmp_path / "none.tum")


def model_of(scene_folder: Path, folder: Path, use_truth: bool) -> Path:
    """A model folder whose trajectories are the scene's true ones, or its initial poses."""
    settings = TimingSettings.of(source_path=str(scene_folder))
    settings.save(folder)
    scene = read_scene(scene_folder)
    times = torch.linspace(0, 1, settings.window.subframes)
    paths = [scene.truth[v.camera.name] if use_truth else v.camera.w2c.expand(13, 4, 4) for v in scene.train]
    rows = enumerate(zip(scene.train, paths, strict=True))
    write_cameras(folder, [camera_entry(i, view, "train", path, times, 7) for i, (view, path) in rows])
    return folder


def test_exported_trajectories_lie_on_the_recording_s_time(scene_folder, tmp_path):
    folder = model_of(scene_folder, tmp_path, use_truth=True)
    for iteration in (7, 8):
        write_gaussian_ply(iteration_folder(folder, iteration) / "point_cloud.ply", params())
    with pytest.raises(ValueError, match=r"cameras.json has the poses of iteration 7, not 8"):
        export_trajectories(TrainedModel.load(folder, 8))
    written = export_trajectories(TrainedModel.load(folder, 7))
    assert [p.suffix for p in written] == [".tum", ".tum"]
    (times, own), (true_times, true) = (read_tum(path) for path in written)
    np.testing.assert_array_equal(times, true_times)
    torch.testing.assert_close(own, true)
    scene = read_scene(scene_folder)
    assert len(times) == 13 * len(scene.train) and (np.diff(times) > 0).all()
    np.testing.assert_allclose(np.diff(times)[:12], 8, atol=1e-4)  # spike frames between sub-frames
    step = scene.train[1].middle_frame - scene.train[0].middle_frame if scene.train[0].middle_frame else None
    assert times[13] - times[0] == pytest.approx(step or scene.frames_per_view)


def test_what_cannot_be_exported_does_not_keep_the_rest_back(scene_folder, tmp_path, capsys):
    """One Gaussian too far away for .spz, which stores positions with 24 bits."""
    folder = model_of(scene_folder, tmp_path, use_truth=True)
    far = params()
    far.means[0, 0] = 1e7
    write_gaussian_ply(iteration_folder(folder, 7) / "point_cloud.ply", far)
    with pytest.raises(ValueError, match=r"point_cloud\.spz: "):
        export_all(TrainedModel.load(folder, 7))
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["point_cloud.ply", "point_cloud.splat", "trajectory.tum", "trajectory_true.tum"]
    assert all((folder / name).is_file() for name in names[2:])


# ---- .splat ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_splat_bytes(tmp_path, channels):
    p = params(channels)
    write_splat(tmp_path / "g.splat", p)
    stored = (tmp_path / "g.splat").read_bytes()
    assert len(stored) == 32 * len(p.means)
    # The first line is the one with the most opacity times volume, spelled out by hand.
    opacity = torch.sigmoid(p.opacity_logits)
    i = int((opacity * p.log_scales.exp().prod(-1)).argmax())
    first = np.frombuffer(stored[:24], "<f4")
    np.testing.assert_allclose(first[:3], p.means[i], rtol=1e-6)
    np.testing.assert_allclose(first[3:], p.log_scales[i].exp(), rtol=1e-5)
    rgba, quat = stored[24:28], stored[28:32]
    color = 0.5 + 0.28209479 * p.sh0[i, 0]
    np.testing.assert_allclose(list(rgba[:3]), (color * 255).expand(3), atol=0.51)
    assert rgba[3] == pytest.approx(255 * float(opacity[i]), abs=0.51)
    unit = p.quats[i] / p.quats[i].norm()
    np.testing.assert_allclose(list(quat), unit * 128 + 128, atol=1.01)


def test_splat_comes_back_as_the_same_picture(tmp_path):
    p = params()
    write_splat(tmp_path / "g.splat", p)
    plain = dataclasses.replace(p, shN=torch.zeros(len(p.means), 0, 3))
    difference = (render(read_splat(tmp_path / "g.splat")) - render(plain)).abs()
    assert difference.mean() < 0.01 and render(plain).mean() > 0.05


@pytest.mark.parametrize("content", [b"", b"x" * 33, np.full(8, np.nan, "<f4").tobytes(), b"\x00" * 28 + b"\x80" * 4])
def test_broken_splats_are_named(tmp_path, content):
    (tmp_path / "g.splat").write_bytes(content)
    with pytest.raises(ValueError, match=r"g\.splat: (\d+ bytes, expected|1 of 1 Gaussians)"):
        read_splat(tmp_path / "g.splat")
    with pytest.raises(ValueError, match=r"none\.splat: no such .splat file"):
        read_splat(tmp_path / "none.splat")


# ---- .spz --------------------------------------------------------------------------------------------------


def full_params(channels: int = 3, degree: int = 3) -> GaussianParams:
    """Blobs with large harmonics of every degree."""
    p = params(channels)
    rest = 0.3 * torch.randn(len(p.means), (degree + 1) ** 2 - 1, channels, generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(p, shN=rest)


@pytest.mark.parametrize(("channels", "degree", "antialiased"), [(1, 3, True), (3, 1, False), (3, 0, True)])
def test_spz_comes_back(tmp_path, channels, degree, antialiased):
    p = dataclasses.replace(full_params(channels, degree), low_pass=LowPass(compensated=antialiased))
    write_spz(tmp_path / "g.spz", p)
    back = read_spz(tmp_path / "g.spz")
    assert back.low_pass == p.low_pass
    torch.testing.assert_close(back.means, p.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(back.log_scales, p.log_scales, atol=1 / 32 + 1e-6, rtol=0)
    torch.testing.assert_close(back.sh0, p.sh0.expand_as(back.sh0), atol=0.5 / 255 / 0.15 + 1e-6, rtol=0)
    torch.testing.assert_close(back.shN, p.shN.clamp(-1, 1).expand_as(back.shN), atol=1 / 16 + 1e-6, rtol=0)
    same = (back.quats * torch.nn.functional.normalize(p.quats, dim=-1)).sum(-1).abs()
    assert same.min() > 1 - 1e-5
    assert (render(back) - render(p)).abs().mean() < 0.015
    assert (tmp_path / "g.spz").stat().st_size < 0.3 * 4 * 59 * len(p.means)


def test_spz_is_what_others_read(tmp_path):
    """gaussforge has the format's own C++ library inside; it leaves the axes as they are stored."""
    gaussforge = pytest.importorskip("gaussforge").GaussForge()
    p = full_params()
    write_spz(tmp_path / "g.spz", p)
    found = gaussforge.read((tmp_path / "g.spz").read_bytes(), "spz")["data"]
    arrays = {
        name: torch.from_numpy(np.frombuffer(found[name], np.float32).reshape(len(p.means), -1).copy())
        for name in ("positions", "rotations", "scales", "alphas", "colors", "sh")
    }
    theirs = GaussianParams(
        arrays["positions"], arrays["rotations"], arrays["scales"], arrays["alphas"][:, 0], arrays["colors"][:, None],
        arrays["sh"].reshape(len(p.means), 15, 3),
    )  # fmt: skip
    # y up and z backward: our camera turned half a turn about x sees the same, harmonics included.
    turned = pose(0.2) @ torch.diag(torch.tensor([1.0, -1, -1, 1]))
    assert (render(theirs, w2c=turned) - render(p)).abs().mean() < 0.015
    # A file of theirs, with rotations of the older version.
    write_gaussian_ply(tmp_path / "g.ply", p)
    for version in (2, 3):
        stored = gaussforge.convert((tmp_path / "g.ply").read_bytes(), "ply", "spz", spz_version=version)["data"]
        (tmp_path / "theirs.spz").write_bytes(stored)
        back = read_spz(tmp_path / "theirs.spz")
        assert back.low_pass == LowPass() and (render(back, w2c=turned) - render(p)).abs().mean() < 0.015


def test_broken_spz_files_are_named(tmp_path):
    path = tmp_path / "g.spz"
    write_spz(path, params())
    stored = path.read_bytes()
    raw = gzip.decompress(stored)
    for content, message in [
        (b"", "not a readable"), (stored[:-30], "not a readable"), (b"ply", "not a readable"),
        (gzip.compress(b"PLY " + raw[4:]), "does not begin with NGSP"), (gzip.compress(raw[:-1]), "bytes, expected"),
        (gzip.compress(raw[:4] + b"\x09" + raw[5:]), "version 9"),
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"g\.spz: .*{message}"):
            read_spz(path)
    far = dataclasses.replace(params(), means=params().means * 1e8)
    with pytest.raises(ValueError, match=r"g\.spz: Gaussians of 1.1e\+03 units, \.spz holds at most 379"):
        write_spz(path, dataclasses.replace(params(), log_scales=params().log_scales + 7 - params().log_scales.max()))
    with pytest.raises(ValueError, match=r"g\.spz: Gaussians .* from the origin"):
        write_spz(path, far)
    # A scene of kilometres has fewer binary places.
    write_spz(path, dataclasses.replace(params(), means=params().means * 5000))
    torch.testing.assert_close(read_spz(path).means, params().means * 5000, atol=1e-3, rtol=0)


# ---- ONNX --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "short", "long"), [("slim", 6, 1), ("paper", 41, 34)])
def test_recon_net_without_torch(tmp_path, variant, short, long):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    network = make_network(variant, 41, 34)
    for i, value in enumerate(network.parameters()):
        torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(i))
    export_onnx(tmp_path / "n.onnx", network)
    session = runtime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    for views, instants, height, width in ((1, 1, 9, 13), (2, 3, 20, 16)):
        inputs = [
            torch.rand(views, instants, short, height, width), torch.rand(views, long, height, width),
            torch.rand(views, instants),
        ]  # fmt: skip
        [frames] = session.run(["frames"], dict(zip(("short", "long", "u"), (x.numpy() for x in inputs), strict=True)))
        with torch.no_grad():
            wanted = network.frames(*inputs)
        np.testing.assert_allclose(frames, wanted, atol=1e-4)


def test_onnx_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"n\.onnx: .*pip install onnx"):
        export_onnx(tmp_path / "n.onnx", make_network("slim", 41, 34))
    assert list(tmp_path.iterdir()) == []


# ---- PLY ---------------------------------------------------------------------------------------------------


def test_a_mono_model_looks_the_same_from_its_color_ply(tmp_path):
    folder = make_model(tmp_path, channels=1)
    mono, color = (load_gaussians(folder, ITERATION, c) for c in (1, 3))
    assert (mono.channels, color.channels) == (1, 3)
    one, three = (render(m.params.on_cpu()) for m in (mono, color))
    torch.testing.assert_close(one.expand(3, -1, -1), three, atol=1e-5, rtol=0)
    assert mono.low_pass == params().low_pass
    for other in (LowPass(0.1, compensated=False), LowPass(0.3, compensated=True)):
        assert (one - render(mono.params.on_cpu(), low_pass=other)).abs().max() > 0.003


def foreign_ply(path: Path, p: GaussianParams) -> None:
    """A 3DGS PLY as other programs write it: other order, no normals, double precision, an extra property."""
    columns = {"opacity": p.opacity_logits, **{f"rot_{i}": p.quats[:, i] for i in range(4)}}
    columns |= {f"scale_{i}": p.log_scales[:, i] for i in range(3)} | dict(zip("zyx", p.means.flip(-1).T, strict=True))
    rest = p.shN.transpose(1, 2).flatten(1)
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns |= {f"f_dc_{i}": p.sh0[:, 0, i] for i in range(3)} | {"segment": torch.zeros(len(p.means))}
    table = np.empty(len(p.means), [(name, "f8") for name in columns])
    for name, values in columns.items():
        table[name] = values.numpy()
    PlyData([PlyElement.describe(table, "vertex")], byte_order=">").write(str(path))


def test_a_ply_of_others_is_read_and_converted(tmp_path):
    p = params()
    foreign_ply(tmp_path / "other.ply", p)
    read = read_gaussians(tmp_path / "other.ply")
    assert read.low_pass == LowPass()
    torch.testing.assert_close(render(read), render(p))
    assert convert(tmp_path / "other.ply", tmp_path / "a.splat") == len(p.means)
    assert convert(tmp_path / "a.splat", tmp_path / "b.ply") == len(p.means)
    assert (render(read_gaussian_ply(tmp_path / "b.ply")) - render(p)).abs().mean() < 0.05
    write_gaussian_ply(tmp_path / "own.ply", p)
    convert(tmp_path / "own.ply", tmp_path / "copy.ply")
    assert read_gaussian_ply(tmp_path / "copy.ply").low_pass == p.low_pass
    with pytest.raises(ValueError, match=r"a\.obj: expected a name ending in"):
        convert(tmp_path / "a.obj", tmp_path / "b.ply")


def test_the_command(scene_folder, tmp_path, monkeypatch, capsys):
    model = model_of(scene_folder, make_model(tmp_path / "m"), use_truth=False)
    network = make_network("slim", 41, 34)
    weights = {"variant": "slim", "weights": network.state_dict()}
    save_checkpoint(iteration_folder(model, ITERATION) / "recon_net.pth", weights)
    monkeypatch.setattr(sys, "argv", ["scene", "export", "-m", str(model)])
    assert guarded(main) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    names = ["point_cloud.ply", "point_cloud.splat", "point_cloud.spz", "recon_net.onnx"]
    assert [p.name for p in written[:4]] == names
    assert all(p.exists() for p in written)
    assert len(json.loads((model / "cameras.json").read_text())) * 13 == len(read_tum(written[4])[0])
    monkeypatch.setattr(sys, "argv", ["scene", "convert", str(tmp_path / "none.ply"), "x.splat"])
    assert guarded(main) == 1
    assert capsys.readouterr().err.endswith("none.ply: no such PLY file\n")
