"""convert.py: windows, poses by structure from motion, the folder it leaves, and the way to a trained model."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import convert
import metrics
import render
import train
from commands.guard import guarded
from commands.spike import main as spike_main
from conversion import structure_from_motion as sfm
from conversion.structure_from_motion import Solution, all_poses, disagreement, normalized
from conversion.windows import CANDIDATES, HELPERS, Window, choose_windows, image_motion
from scene.dataset import read_scene
from scene.lens import FisheyeLens, PerspectiveLens
from scene.tum import write_tum
from simulation import Simulator
from spike import SensorModel, SpikeStream, WindowSpec, save_sensor, write_dat
from utils.io import load_image, save_image
from utils.trajectory_metrics import centers, umeyama

SPEC = WindowSpec()
WIDTH, HEIGHT, FOCAL = 128, 96, 110.0
BETWEEN = 6
FRAMES = 1500


def noise_texture(seed: int, side: int = 512) -> np.ndarray:
    """Blobs of all sizes in [0.05, 0.95]: features everywhere, nothing repeats."""
    rng = np.random.default_rng(seed)
    image = sum(
        cv2.resize(rng.random((side // s, side // s), np.float32), (side, side), interpolation=cv2.INTER_CUBIC) * w
        for s, w in ((4, 0.6), (16, 1.0), (64, 0.7))
    )
    low, high = np.percentile(image, [2, 98])
    return np.asarray(((image - low) / (high - low)).clip(0, 1) * 0.9 + 0.05, np.float32)


# Planes across the view: depth, center, half size, texture.
PLANES = [(4.0, (0, 0), 3.2, 0), (3.0, (-0.7, 0.3), 0.5, 1), (2.5, (0.6, -0.2), 0.4, 2), (2.0, (0.0, 0.5), 0.25, 3)]
TEXTURES = [noise_texture(i) for i in range(4)]


def camera(t: float) -> np.ndarray:
    """World-to-camera pose at the time ``t`` in 0..1: an arc to the right that keeps looking at the middle."""
    eye = np.array([1.4 * t - 0.7, 0.15 * math.sin(5 * t), 0.25 * math.sin(3 * t)])
    forward = np.array([0.1 * math.sin(4 * t), 0.05 * math.cos(6 * t), 3.2]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross([0, 1, 0], forward)
    right /= np.linalg.norm(right)
    w2c = np.eye(4)
    w2c[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    w2c[:3, 3] = -w2c[:3, :3] @ eye
    return w2c


def seen(lens: PerspectiveLens | None = None) -> np.ndarray:
    """Where the pixels look [H, W, 3], in the camera's frame."""
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    if lens is None:
        return np.stack([(u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL, np.ones_like(u)], -1)
    xy = lens.unproject(torch.from_numpy(np.stack([u, v], -1))).numpy()
    return np.concatenate([xy, np.ones_like(xy[..., :1])], -1)


def view(w2c: np.ndarray, looking: np.ndarray | None = None) -> np.ndarray:
    """A sharp picture [H, W] of the planes."""
    rays = (seen() if looking is None else looking) @ w2c[:3, :3]
    eye = -w2c[:3, :3].T @ w2c[:3, 3]
    image = np.zeros((HEIGHT, WIDTH), np.float32)
    for depth, center, half, texture in PLANES:
        hit = eye + rays * ((depth - eye[2]) / rays[..., 2])[..., None]
        at = ((hit[..., :2] - center) / half + 1) / 2
        inside = ((at > 0) & (at < 1)).all(-1)
        xy = (at * 511).astype(np.float32)
        shade = cv2.remap(TEXTURES[texture], xy[..., 0], xy[..., 1], cv2.INTER_LINEAR)
        image = np.where(inside, shade, image)
    return image


def run(monkeypatch, main, *words):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    return guarded(main)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A hand-held recording, simulated through the command line."""
    folder = tmp_path_factory.mktemp("recording")
    for t in range(0, FRAMES + 1, BETWEEN):
        save_image(folder / "frames" / f"{t:05d}.png", view(camera(t / FRAMES)), bits=16)
    with pytest.MonkeyPatch.context() as patch:
        words = ("simulate", folder / "frames", "--between", BETWEEN, "--out", folder / "rec.dat", "--quiet")
        assert run(patch, spike_main, *words, "--spurious_gap", 140, 50) == 0
    return folder / "rec.dat"


@pytest.fixture(scope="module")
def converted(recording, tmp_path_factory):
    """The scene made from it, poses and focal length unknown."""
    root = tmp_path_factory.mktemp("converted") / "scene"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sfm, "WIDE", 400)  # smaller previews do here, in half the time
        assert run(patch, convert.main, "-s", root, "--recording", recording, "--quiet") == 0
    return root


def true_middles(root):
    frames = [f["middle_frame"] for f in json.loads((root / "transforms.json").read_text())["frames"]]
    return np.array([camera(f / FRAMES) for f in frames])


def relative_ate(found, truth):
    """RMS error of the camera centers after alignment, relative to the path's extent."""
    ours, theirs = centers(np.array(found)), centers(np.array(truth))
    scale, rotation, translation = umeyama(ours, theirs)
    error = np.linalg.norm(scale * ours @ rotation.T + translation - theirs, axis=-1)
    return float(np.sqrt((error**2).mean()) / np.linalg.norm(theirs.max(0) - theirs.min(0)))


def test_the_scene_is_what_training_reads(converted):
    scene = read_scene(converted)
    assert len(scene.train) >= 6 and scene.points is not None and len(scene.points) > 200
    assert all(len(scene.open_stream(v)) == 177 and v.recording == "recording" for v in scene.train)
    assert all(v.image_path is None for v in scene.train)  # previews are no truth
    assert relative_ate([v.camera.w2c.double().numpy() for v in scene.train], true_middles(converted)) < 0.02
    camera_ = scene.train[0].camera
    assert (camera_.width, camera_.height) == (WIDTH, HEIGHT)
    assert float(camera_.K[0, 0]) == pytest.approx(FOCAL, rel=0.05)
    depths = torch.cat([scene.points @ v.camera.w2c[2, :3] + v.camera.w2c[2, 3] for v in scene.train])
    assert float(depths.median()) == pytest.approx(sfm.DEPTH, rel=0.1)
    assert 0.3 < scene.sensor.gain < 0.6 and 0.003 < scene.sensor.spurious_rate < 0.012


def test_windows_are_the_recordings_frames(converted, recording):
    frames = json.loads((converted / "transforms.json").read_text())["frames"]
    scene, whole = read_scene(converted), SpikeStream.open(recording, HEIGHT, WIDTH)
    for view_, frame in zip(scene.train, frames, strict=True):
        first = int(frame["middle_frame"]) - 88
        np.testing.assert_array_equal(scene.open_stream(view_).unpack(0, 177), whole.unpack(first, first + 177))


def test_colmap_files_say_the_same(converted, tmp_path):
    (tmp_path / "scene").mkdir()
    for name in ("sparse", "spike_data"):
        (tmp_path / "scene" / name).symlink_to(converted / name)
    ours, theirs = read_scene(converted), read_scene(tmp_path / "scene")
    assert [v.camera.name for v in ours.train] == [v.camera.name for v in theirs.train]
    for a, b in zip(ours.train, theirs.train, strict=True):
        torch.testing.assert_close(a.camera.w2c, b.camera.w2c, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.camera.K, b.camera.K)


def test_the_report_says_how_sure_it_is(converted):
    text = (converted / "report.md").read_text()
    assert "Poses are sure" in text or "Poses are likely" in text
    assert "| 000 | recording |" in text and "Tried:" in text and " helpers: " in text
    for picture in ("views", "from_above", "motion"):
        assert (converted / "report" / f"{picture}.png").exists()
    assert len(list((converted / "previews").glob("*.png"))) == len(read_scene(converted).train)


def test_nothing_is_overwritten_without_force(converted, recording, monkeypatch, capsys):
    before = (converted / "transforms.json").read_bytes()
    assert run(monkeypatch, convert.main, "-s", converted, "--recording", recording, "--quiet") == 1
    assert "already exists; give --force" in capsys.readouterr().err
    assert (converted / "transforms.json").read_bytes() == before


def test_own_colmap_poses(converted, recording, tmp_path, monkeypatch, capsys):
    root = tmp_path / "own"
    words = ("-s", root, "--recording", recording, "--from_colmap", converted / "sparse" / "0", "--quiet")
    assert run(monkeypatch, convert.main, *words) == 0
    again, first = read_scene(root), read_scene(converted)
    assert relative_ate(*([v.camera.w2c.double().numpy() for v in s.train] for s in (again, first))) < 1e-3
    torch.testing.assert_close(again.train[0].camera.K, first.train[0].camera.K)
    assert run(monkeypatch, convert.main, *words[:-2], tmp_path, "--force") == 1
    assert "not a readable COLMAP model" in capsys.readouterr().err
    # Images in a folder, as when COLMAP ran in the scene's.
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(converted / "sparse" / "0"))
    for image in model.images.values():
        image.name = f"previews/{image.name}" if "/" not in image.name else image.name
    (tmp_path / "moved").mkdir()
    model.write(str(tmp_path / "moved"))
    moved = ("-s", tmp_path / "moved_scene", "--recording", recording, "--from_colmap", tmp_path / "moved", "--quiet")
    assert run(monkeypatch, convert.main, *moved) == 0
    assert [v.camera.name for v in read_scene(tmp_path / "moved_scene").train] == [v.camera.name for v in first.train]
    # A fisheye without coefficients is no pinhole camera.
    lens = model.cameras[next(iter(model.cameras))]
    k = lens.calibration_matrix()
    lens.model = pycolmap.CameraModelId.OPENCV_FISHEYE
    lens.params = [k[0, 0], k[1, 1], k[0, 2], k[1, 2], 0, 0, 0, 0]
    model.write(str(tmp_path / "moved"))
    assert run(monkeypatch, convert.main, *moved, "--force") == 0
    assert isinstance(read_scene(tmp_path / "moved_scene").train[0].camera.lens, FisheyeLens)
    for flags, expected in (
        (["--fl_x", "99"], "--fl_x is for the search for poses, which --from_colmap leaves to you"),
        (["--previews_only"], "--previews_only makes no scene: leave out --from_colmap"),
    ):
        assert run(monkeypatch, convert.main, *words, *flags, "--force") == 1
        assert expected in capsys.readouterr().err
    assert (root / "transforms.json").exists()  # what was there stays when a run fails


def test_from_spikes_to_a_trained_model(converted, tmp_path, monkeypatch):
    """simulate -> convert -> train -> render -> metrics, poses unknown: ATE of all sub-frames after alignment."""
    names = [v.camera.name for v in read_scene(converted).train]
    frames = json.loads((converted / "transforms.json").read_text())["frames"]
    offsets = np.array(SPEC.centers) - SPEC.context // 2
    truth = {
        name: [camera((f["middle_frame"] + o) / FRAMES).tolist() for o in offsets]
        for name, f in zip(names, frames, strict=True)
    }
    root = tmp_path / "scene"
    root.mkdir()
    for item in converted.iterdir():
        (root / item.name).symlink_to(item)
    (root / "trajectory.json").write_text(json.dumps({"w2c": truth}))
    model = tmp_path / "model"
    small = "--iterations 200 --init_num_pts 3000 --cap_max 4000 --recon_from 150 --crop 32 --quiet".split()
    assert run(monkeypatch, train.main, "-s", root, "-m", model, *small) == 0
    assert run(monkeypatch, render.main, "-m", model, "--quiet") == 0
    assert run(monkeypatch, metrics.main, "-m", model, "--quiet") == 0
    found = json.loads((model / "results.json").read_text())["trajectory"]
    path = np.array(list(truth.values()))
    extent = np.linalg.norm(np.ptp(centers(path.reshape(-1, 4, 4)), axis=0))
    assert found["ATE"] < 0.05 * extent


def test_the_truth_of_a_simulation_is_taken_along(converted, recording, tmp_path, monkeypatch, capsys):
    truth, root = tmp_path / "truth", tmp_path / "scene"
    poses = torch.from_numpy(np.array([camera(t / FRAMES) for t in range(FRAMES + 1)]))
    write_tum(truth / "trajectory.tum", np.arange(FRAMES + 1.0), poses)
    middle = json.loads((converted / "transforms.json").read_text())["frames"][2]["middle_frame"]
    for t, level in ((middle, 0.25), (middle + 8, 0.75)):
        save_image(truth / f"{t:06.0f}.png", np.full((HEIGHT, WIDTH), level))
    words = ("-s", root, "--recording", recording, "--from_colmap", converted / "sparse" / "0", "--quiet")
    assert run(monkeypatch, convert.main, *words, "--truth", truth) == 0
    scene = read_scene(root)
    assert [v.camera.name for v in scene.train if v.image_path is not None] == ["002"]
    assert sorted(scene.train[2].sequence_paths) == [6, 7]
    assert float(load_image(scene.train[2].sequence_paths[7]).mean()) == pytest.approx(0.75, abs=0.01)
    assert scene.truth is not None and all(scene.truth[v.camera.name].shape == (13, 4, 4) for v in scene.train)
    torch.testing.assert_close(scene.truth["002"][6].double(), poses[int(middle)], atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.truth["002"][12].double(), poses[int(middle) + 48], atol=1e-5, rtol=0)
    (truth / "trajectory.tum").write_text("0 0 0 0 0 0 0 1\n")
    for folder, expected in ((truth, "has no pose of spike frame"), (tmp_path, "holds no truth of a simulation")):
        assert run(monkeypatch, convert.main, *words, "--force", "--truth", folder) == 1
        assert expected in capsys.readouterr().err


# ---- little light ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dim(recording):
    """The same walk in little light: 0.03 spikes per frame and pixel."""
    path = recording.with_name("dim.dat")
    words = ("simulate", recording.parent / "frames", "--between", BETWEEN, "--out", path, "--quiet", "--sensor", "dim")
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, spike_main, *words) == 0
    return path


def test_poses_are_found_in_little_light(dim, tmp_path, monkeypatch):
    monkeypatch.setattr(sfm, "WIDE", 256)
    monkeypatch.setattr(sfm, "ATTEMPTS", sfm.ATTEMPTS[:1])
    words = ("-s", tmp_path / "scene", "--recording", dim, "--height", HEIGHT, "--width", WIDTH, "--quiet")
    assert run(monkeypatch, convert.main, *words) == 0
    scene = read_scene(tmp_path / "scene")
    found = [view_.camera.w2c.double().numpy() for view_ in scene.train]
    assert len(found) >= 6 and relative_ate(found, true_middles(tmp_path / "scene")) < 0.03
    assert scene.sensor.gain == pytest.approx(0.06, rel=0.1)


def test_motion_in_little_light_is_that_in_good_light(dim, recording):
    streams = [SpikeStream.open(path, HEIGHT, WIDTH) for path in (dim, recording)]
    (_, found, helpers), (_, expected, fewer) = (choose_windows(s, 0, len(s), 3, "motion", 50.0) for s in streams)
    assert all(w.dim for w in found) and not any(w.dim for w in expected)
    motion = [np.array([w.blur for w in candidates]) for candidates in (found, expected)]
    assert np.median(np.abs(motion[0] - motion[1])) < 0.5
    assert motion[0].mean() == pytest.approx(motion[1].mean(), rel=0.2)
    assert len(helpers) > 1.5 * len(fewer)  # closer to each other


# ---- lenses ----------------------------------------------------------------------------------------------

LENS = PerspectiveLens((FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2), WIDTH, HEIGHT, (-0.2, *[0.0] * 7))  # 8 pixels at a corner


@pytest.fixture(scope="module")
def bent(tmp_path_factory):
    """The same walk through a lens."""
    path, looking = tmp_path_factory.mktemp("bent") / "rec.dat", seen(LENS)
    shown = [view(camera(t / FRAMES), looking) for t in range(0, FRAMES + 1, BETWEEN)]
    light = (image for image in shown for _ in range(BETWEEN))
    write_dat(path, Simulator(spurious_gap=(140, 50))(light))
    return path


def test_a_lens_is_estimated_if_told_to(bent, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sfm, "WIDE", 256)
    monkeypatch.setattr(sfm, "ATTEMPTS", sfm.ATTEMPTS[:1])
    words = ("--recording", bent, "--height", HEIGHT, "--width", WIDTH, "--quiet", "--lens", "radial")
    assert run(monkeypatch, convert.main, "-s", tmp_path / "scene", *words) == 0
    written = json.loads((tmp_path / "scene" / "transforms.json").read_text())
    assert written["camera_model"] == "OPENCV" and set(written) >= {"k1", "k2"}
    scene = read_scene(tmp_path / "scene")
    camera_, corner = scene.train[0].camera, torch.tensor([[WIDTH, HEIGHT]], dtype=torch.float64)
    assert camera_.lens is not None
    # Focal length, k1 and k2 partly replace each other: what they say together of the corner counts.
    where = (camera_.lens.unproject(corner) - LENS.unproject(corner)) * FOCAL
    assert float(where.norm()) < 2  # of 13
    assert relative_ate([v.camera.w2c.double().numpy() for v in scene.train], true_middles(tmp_path / "scene")) < 0.02
    assert "lens distortion k1 = -0." in (tmp_path / "scene" / "report.md").read_text()
    # The model that was written says the same, and may be given instead.
    again = ("-s", tmp_path / "again", *words[:-2], "--from_colmap", tmp_path / "scene" / "sparse" / "0")
    assert run(monkeypatch, convert.main, *again) == 0
    other = read_scene(tmp_path / "again").train[0].camera.lens
    assert other is not None and other.coefficients == pytest.approx(camera_.lens.coefficients, abs=1e-6)
    for flags, expected in (
        (["--previews_only"], "which --previews_only leaves to you"),
        (["--from_colmap", tmp_path], "which --from_colmap leaves to you"),
        (["--bayer", "RGGB"], "a color sensor's filters"),
    ):
        assert run(monkeypatch, convert.main, "-s", tmp_path / "none", *words, *flags) == 1
        assert expected in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.parametrize(("focal", "kind", "numbers"), [(None, "RADIAL", 5), (FOCAL, "OPENCV", 8)])
def test_a_known_focal_length_stays(focal, kind, numbers, tmp_path, monkeypatch):
    asked = []
    pycolmap = pytest.importorskip("pycolmap")

    def extract(*args, reader_options, **rest):
        asked.append((reader_options.camera_model, reader_options.camera_params))
        raise ValueError("that was all")

    monkeypatch.setattr(pycolmap, "extract_features", extract)
    intrinsics = None if focal is None else np.array([focal, focal + 1, 64, 48])
    with pytest.raises(ValueError, match="that was all"):
        sfm.structure_from_motion(tmp_path, tmp_path, False, True, intrinsics, 0, radial=True)
    assert asked[0][0] == kind
    if focal is not None:
        given = [float(value) for value in asked[0][1].split(",")]
        assert len(given) == numbers and given[:4] == [110, 111, 64, 48] and not any(given[4:])


# ---- recordings larger than memory -----------------------------------------------------------------------

HUGE = 12_000_000 * 250 * 400 // 8  # bytes: ten minutes at 20 kHz of a sensor with 400x250 pixels


@pytest.fixture(scope="module")
def huge(recording, tmp_path_factory):
    """A sparse file of 150 GB with the recording somewhere in it: where that begins, and where else there is light."""
    path = tmp_path_factory.mktemp("huge") / "rec.dat"
    frame = WIDTH * HEIGHT // 8
    count = HUGE // frame
    start = count * 2 // 3 + 1000
    content = recording.read_bytes()
    lit = np.linspace(0, count - 177, CANDIDATES).round().astype(int)[::30]
    with open(path, "wb") as file:
        try:
            file.truncate(count * frame)
        except OSError:
            pytest.skip("no room for a sparse file of 150 GB")
        for i, first in enumerate(lit):  # where it is looked at, some light
            file.seek(int(first) * frame)
            file.write(content[180 * i * frame :][: 177 * frame])
        file.seek(start * frame)
        file.write(content)
    yield path, start, lit
    path.unlink()


def limited(*words, megabytes):
    """Run a command with as much memory of its own (files that are mapped do not count) and return what it said."""
    code = (
        "import resource, runpy, sys; size = int(sys.argv[1]) << 20; resource.setrlimit(resource.RLIMIT_DATA, "
        "(size, size)); sys.argv = sys.argv[2:]; sys.path.insert(0, '.'); "
        "runpy.run_path(sys.argv[0], run_name='__main__') if sys.argv[0].endswith('.py') else "
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code, str(megabytes), *map(str, words)]
    single = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=single, cwd=Path(convert.__file__).parent)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_ten_minutes_of_recording_need_no_more_memory(huge, converted, tmp_path):
    path, start, _ = huge
    size = ("--height", HEIGHT, "--width", WIDTH, "--quiet")
    part = ("--start", start, "--stop", start + FRAMES + 1)
    for words in (
        ("spike", "inspect", path, "--out", tmp_path / "found"),
        ("spike", "preview", path, "--out", tmp_path / "p.png", "--frames", start + 700),
        ("convert.py", "-s", tmp_path / "scene", "--recording", path, *part, "--from_colmap", converted / "sparse/0"),
    ):
        status, said = limited(*words, *size, megabytes=1500)
        assert status == 0, said
    ours, theirs = read_scene(tmp_path / "scene"), read_scene(converted)
    for a, b in zip(ours.train, theirs.train, strict=True):
        np.testing.assert_array_equal(*(s.open_stream(v).unpack(0, 177) for s, v in ((ours, a), (theirs, b))))
    assert load_image(tmp_path / "p.png").std() > 0.1


def test_places_all_along_a_long_recording_are_looked_at(huge):
    path, _, lit = huge
    stream = SpikeStream.open(path, HEIGHT, WIDTH)
    windows, found, helpers = choose_windows(stream, 0, len(stream), None, "motion", 50.0)
    assert len(found) == CANDIDATES and sum(w.refused == "too dark" for w in found) == CANDIDATES - len(lit)
    assert [w.first for w in windows] == lit.tolist() and len(helpers) <= HELPERS


# ---- clips -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    whole = SpikeStream.open(recording, HEIGHT, WIDTH)
    for i in range(6):
        write_dat(folder / f"clip{i}.dat", whole.unpack(i * 200, i * 200 + 177))
    return folder


def test_clips_with_known_intrinsics_and_sensor(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(sfm, "ATTEMPTS", sfm.ATTEMPTS[:1])  # one is quick, and cannot be compared
    save_sensor(tmp_path / "s.json", SensorModel(0.45, gain_map=torch.full((HEIGHT, WIDTH), 1.1)))
    flags = ("--fl_x", FOCAL, "--sensor", tmp_path / "s.json", "--consecutive", "--clip_gap", 23, "--quiet")
    root = tmp_path / "scene"
    assert run(monkeypatch, convert.main, "-s", root, "--clips", clips, *flags) == 0
    scene = read_scene(root)
    assert [v.camera.name for v in scene.train] == [f"clip{i}" for i in range(6)]
    assert [v.middle_frame for v in scene.train] == [88.0 + 200 * i for i in range(6)]
    assert float(scene.train[0].camera.K[0, 0]) == pytest.approx(FOCAL, abs=1e-3)
    assert "Poses are a guess: no second attempt" in (root / "report.md").read_text()
    assert scene.sensor.gain == 0.45 and scene.sensor.gain_map is not None
    assert relative_ate([v.camera.w2c.double().numpy() for v in scene.train], true_middles(root)) < 0.05


def test_unregistered_views_lie_between_their_neighbors():
    stream = SpikeStream.from_array(np.ones((5, 2, 4), np.uint8))
    windows = [Window(f"{i}", stream, 0, 5, "rec" if i < 5 else "alone", float(i)) for i in range(6)]
    known = {f"{i}": camera(i / 10) for i in (0, 1, 3)}
    solution = Solution(known, np.ones(4), np.zeros((0, 3)), np.zeros((0, 3)), 0, 0, {}, "")
    found = all_poses(windows, [], solution)
    # A clip on its own has no neighbors, and beyond the last registered instant nothing is known.
    assert set(found) == {"0", "1", "2", "3"}
    between = centers(camera(0.2)[None])[0]
    np.testing.assert_allclose(centers(found["2"][None])[0], between, atol=0.01)

    # Helpers that registered are such instants, too, and are moved with the world.
    helpers = [Window("", stream, 0, 5, "rec", middle) for middle in (9.0, 2.25, 4.5)]
    moved, similarity = normalized(replace(solution, between={1: camera(0.225), 2: camera(0.45)}))
    helped = all_poses(windows, helpers, moved)
    assert set(helped) == {"0", "1", "2", "3", "4"}
    for name, near in (("2", 0.003), ("4", 0.03)):
        expected = similarity[:3, :3] @ centers(camera(int(name) / 10)[None])[0] + similarity[:3, 3]
        np.testing.assert_allclose(centers(helped[name][None])[0], expected, atol=near)


def test_the_world_is_turned_upright_and_scaled():
    poses = {str(i): camera(i / 4) for i in range(5)}
    points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 4), (100, 3))
    solution = Solution(poses, np.ones(4), points, np.ones((100, 3)), 0, 0, {}, "")
    moved, similarity = normalized(solution)
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    for name, pose in poses.items():
        before = points @ pose[:3, :3].T + pose[:3, 3]
        after = moved.xyz @ moved.w2c[name][:3, :3].T + moved.w2c[name][:3, 3]
        np.testing.assert_allclose(after, scale * before, atol=1e-9)
        assert moved.w2c[name][1, 2] < -0.95  # the camera's y looks down the world's z
    assert disagreement(solution, moved) < 1e-6
    bent = {n: p + (np.arange(16).reshape(4, 4) == 3) * 0.2 * (n == "2") for n, p in poses.items()}
    assert disagreement(solution, Solution(bent, *([None] * 7))) > 0.05  # type: ignore[arg-type]


# ---- windows and wrong turns -----------------------------------------------------------------------------


def test_image_motion_is_measured():
    wide = (noise_texture(7)[:100, :220] * 255).astype(np.uint8)
    assert image_motion(wide[:, :200], np.ascontiguousarray(wide[:, 7:207])) == pytest.approx(7 / 200, rel=0.05)
    assert math.isnan(image_motion(np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)))


def test_windows_follow_the_motion(recording):
    stream = SpikeStream.open(recording, HEIGHT, WIDTH)
    for spacing in ("motion", "even"):
        windows, found, helpers = choose_windows(stream, 0, len(stream), 5, spacing, 50.0)
        assert len(windows) == 5 and len(found) == FRAMES // 177
        assert [w.name for w in windows] == [f"{i:03d}" for i in range(5)]
        assert all(b.first - a.first >= 177 - 2 for a, b in pairwise(windows))
        assert len(helpers) > 6 and not any(h.name for h in helpers)
    blurred = sorted(w.blur for w in found)
    limited, _, _ = choose_windows(stream, 0, len(stream), 8, "even", blurred[-2])
    assert max(w.blur for w in limited) <= blurred[-2]


def noise_stream(level, frames=800, still=True):
    image = noise_texture(9)[:48, :64] * level
    light = [image if still else np.roll(image, t // 4, axis=1) for t in range(frames)]
    return SpikeStream.from_array(Simulator(gain=0.5)(light), "rec")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (SpikeStream.from_array(np.ones((100, 48, 64), np.uint8), "rec"), "100 frames are fewer than one view needs"),
        (SpikeStream.from_array(np.ones((400, 48, 64), np.uint8), "rec"), "400 frames hold 2 views of 177"),
        (SpikeStream.from_array(np.ones((600, 48, 64), np.uint8), "rec"), "the stream is all ones"),
        (SpikeStream.from_array(np.zeros((600, 48, 64), np.uint8), "rec"), "the stream is all zeros"),
        (SpikeStream.from_array(np.eye(600, 48 * 64, dtype=np.uint8).reshape(600, 48, 64), "rec"), "no features to"),
        (noise_stream(1.0), "no parallax; move the camera sideways"),
    ],
)
def test_recordings_without_a_scene(stream, expected):
    with pytest.raises(ValueError, match=expected):
        choose_windows(stream, 0, len(stream), None, "motion", 50.0)


def test_views_without_use_are_refused(recording):
    stream = SpikeStream.open(recording, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"0 of 8 windows are usable, 3 are needed \(the others: blur of"):
        choose_windows(stream, 0, len(stream), None, "motion", 0.01)


def test_wrong_turns_end_in_one_sentence(recording, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").mkdir()
    write_dat(tmp_path / "short" / "a.dat", np.ones((20, 8, 8), np.uint8))
    size = ["--height", HEIGHT, "--width", WIDTH]
    for flags, expected in (
        (["--recording", tmp_path / "none.dat"], "no such recording"),
        (["--recording", recording, *size, "--start", 2000], "--start 2000 and --stop 1501 do not fit its 1501 frames"),
        (["--recording", recording, *size, "--stop", 300], "300 frames hold 1 view of 177"),
        (["--recording", recording, *size, "--views", 2], "--views must be at least 3"),
        (["--recording", recording, *size, "--max_blur", 0], "--max_blur must be positive"),
        (["--recording", recording, *size, "--fl_y", 5], "give --fl_x too"),
        (["--recording", recording, *size, "--fl_x", -5], "must be positive"),
        (["--clips", tmp_path / "empty"], "no clips"),
        (["--clips", tmp_path / "empty", "--truth", tmp_path], "--truth belongs to one --recording, not to --clips"),
        (["--clips", tmp_path / "empty", "--views", 5], "--views belongs to one --recording"),
        (["--clips", tmp_path / "empty", "--start", 0], "--start belongs to one --recording"),
        (["--clips", tmp_path / "empty", "--stop", 9], "--stop belongs to one --recording"),
        (["--clips", tmp_path / "empty", "--spacing", "motion"], "--spacing belongs to one --recording"),
        (["--clips", tmp_path / "empty", "--max_blur", 3], "--max_blur belongs to one --recording"),
        (["--clips", tmp_path / "empty", "--clip_gap", 3], "--clip_gap needs --consecutive"),
        (["--recording", recording, "--consecutive"], "--consecutive belongs to --clips, not to --recording"),
        (["--recording", recording, "--clip_gap", 0], "--clip_gap belongs to --clips"),
        (["--clips", tmp_path / "short", "--height", 8, "--width", 8], "20 frames are fewer than one view needs"),
        (["--recording", recording, *size, "--sensor", tmp_path / "none.json"], "no such sensor file"),
    ):
        status = run(monkeypatch, convert.main, "-s", tmp_path / "scene", "--quiet", *flags)
        error = capsys.readouterr().err
        assert status == 1 and expected in error and error.count("\n") == 1, flags
        assert not (tmp_path / "scene").exists()
    assert run(monkeypatch, convert.main, "-s", tmp_path / "file", "--recording", recording) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_previews_alone(recording, tmp_path, monkeypatch):
    flags = ("--previews_only", "--preview_scale", 2, "--quiet", "--views", 3)
    assert run(monkeypatch, convert.main, "-s", tmp_path / "s", "--recording", recording, *flags) == 0
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["convert.json", "previews"]
    image = cv2.imread(str(tmp_path / "s" / "previews" / "000.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.shape == (2 * HEIGHT, 2 * WIDTH)


def test_new_previews_leave_the_rest_of_the_scene(recording, tmp_path, monkeypatch, capsys):
    for name in ("transforms.json", "sensor.json", "spike_data/000.dat"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept")
    words = ("-s", tmp_path, "--recording", recording, "--previews_only", "--quiet", "--views", 3)
    assert run(monkeypatch, convert.main, *words, "--start", 100) == 0
    assert run(monkeypatch, convert.main, *words) == 1
    assert "previews: already exists; give --force" in capsys.readouterr().err
    assert run(monkeypatch, convert.main, *words, "--force") == 0
    assert sorted(p.name for p in (tmp_path / "previews").iterdir()) == ["000.png", "001.png", "002.png"]
    for name in ("transforms.json", "sensor.json", "spike_data/000.dat"):
        assert (tmp_path / name).read_text() == "kept"


def some_windows(count=6):
    stream = SpikeStream.from_array(np.random.default_rng(0).integers(0, 2, (177, 32, 40)).astype(np.uint8))
    return [Window(f"{i:03d}", stream, 0, 177, f"{i}", 88.0) for i in range(count)]


@pytest.mark.parametrize(
    ("registered", "angle", "expected"),
    [
        (0, 9.0, "only 0 of 6 views could be registered, 3 are needed: the camera turns"),
        (2, 9.0, "only 2 of 6 views could be registered"),
        (6, 0.5, r"seen under 0\.5 degrees only: no parallax"),
    ],
)
def test_poses_that_cannot_be_found(monkeypatch, registered, angle, expected):
    class Model:
        images: dict = {}  # noqa: RUF012

    poses = {f"{i:03d}": camera(i / 6) for i in range(registered)}
    found = Solution(poses, np.ones(4), np.ones((9, 3)), np.ones((9, 3)), 0.5, angle, {}, "")
    outcome = (Model(), "") if registered else (None, "the camera turns without moving, so there is no parallax")
    monkeypatch.setattr(sfm, "structure_from_motion", lambda *a, **k: outcome)
    monkeypatch.setattr(sfm, "solution_of", lambda *a: found)
    with pytest.raises(ValueError, match=expected):
        sfm.find_poses(some_windows(), [], None, SensorModel())


@pytest.mark.parametrize(
    ("errors", "observed", "better"),
    [
        ((0.19, 0.31, 0.13), (17_000, 16_000, 2_100), 0),  # a statue: the second is off by four, the third by 1.4 times
        ((0.31, 0.19, 0.13), (17_000, 16_000, 2_100), 1),
        ((0.19, 0.31, 0.13), (1_000, 1_000, 1_000), 2),
    ],
)
def test_many_observations_count_for_more_than_a_small_error(monkeypatch, errors, observed, better):
    class Model:
        images: dict = {}  # noqa: RUF012

    def found(number, origin):  # no two attempts agree
        poses = {f"{i:03d}": camera(i / 6) for i in range(6)}
        for i, pose in enumerate(poses.values()):
            pose[:3, 3] += np.random.default_rng([number, i]).normal(0, 1, 3)
        nine = np.ones((9, 3))
        return Solution(poses, np.ones(4), nine, nine, errors[number], 9.0, {}, origin, observed=observed[number])

    numbers = iter(range(3))
    monkeypatch.setattr(sfm, "ATTEMPTS", sfm.ATTEMPTS[:3])
    monkeypatch.setattr(sfm, "structure_from_motion", lambda *a, **k: (Model(), ""))
    monkeypatch.setattr(sfm, "solution_of", lambda model, scale, origin: found(next(numbers), origin))
    monkeypatch.setattr(sfm, "save_previews", lambda *a: None)
    windows = some_windows(8)
    best, _, notes = sfm.find_poses(windows[:6], windows[6:], None, SensorModel())
    assert len(notes) == 3
    assert best.origin == notes[better].split(":")[0]


def test_a_solution_counts_its_observations():
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions(num_frames_per_rig=4, num_points3D=30)
    model = pycolmap.synthesize_dataset(options)
    found = sfm.solution_of(model, 2.0, "made up")
    assert found.observed == sum(image.num_points3D for image in model.images.values()) > 60
