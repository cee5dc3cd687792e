"""Videos: the paths go where they say, the frames are the renders, files are whole and play."""

import argparse
import json
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from tiny_model import HEIGHT, TIMES, WIDTH, make_model, pose, tiny_drawing, tiny_views

import render
from arguments import TimingSettings, Video
from arguments.parser import add_model_arguments
from commands.guard import guarded
from commands.video import add_video_arguments, parse_video
from gaussian_renderer.paths import (
    SavedView,
    Surround,
    exposure_path,
    file_path,
    interpolate,
    look_at,
    orbit_path,
    read_views,
    recording_path,
    save_camera_file,
)
from gaussian_renderer.video import choose_path, record
from gaussians.model import GaussianModel
from pictures.colors import (
    depth_colors,
    depth_range,
    error_colors,
    rgb,
)
from pictures.sheets import labeled, letterboxed, side_by_side, wipe
from pictures.video import write_mp4, write_pngs
from recon_net import make_network
from scene.dataset import read_scene
from scene.model_folder import camera_entries, save_gaussians, save_iteration, write_cameras
from scene.trajectory import Trajectory
from utils import se3
from utils.io import load_image
from utils.se3 import camera_centers

# ---- paths -------------------------------------------------------------------------------------------------


def test_saved_views_keep_what_was_written(tmp_path):
    views = tiny_views(tmp_path)
    assert [v.name for v in views] == ["v0", "v1", "v2"]
    view = views[1]
    assert (view.width, view.height, view.split) == (WIDTH, HEIGHT, "train")
    torch.testing.assert_close(view.K, torch.tensor([[60.0, 0, WIDTH / 2], [0, 60, HEIGHT / 2], [0, 0, 1]]))
    torch.testing.assert_close(view.at(TIMES), view.w2c)
    assert [view.nearest(u) for u in (0.0, 0.12, 0.13, 1.0)] == [0, 0, 1, 4]


def test_interpolation_is_the_geodesic():
    twist = torch.tensor([0.3, -0.2, 0.1, 0.4, 0.2, -0.5])
    first = pose(0.2)
    w2c = torch.stack([first, se3.exp(twist) @ first])
    times = torch.tensor([0.0, 1.0])
    between = interpolate(w2c, times, torch.tensor([-1.0, 0.0, 0.25, 1.0, 3.0]))
    for got, share in zip(between, (0, 0, 0.25, 1, 1), strict=True):
        torch.testing.assert_close(got, se3.exp(share * twist) @ first, atol=1e-5, rtol=0)
    assert interpolate(w2c[:1], times[:1], torch.rand(3)).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w2c": [[1, 2], [3, 4]]}, r"\[0\]\.w2c is .*expected an array of finite numbers, N x 4 x 4"),
        ({"w2c": None}, "w2c is null"),
        ({"time": [0.0, 1.0]}, "view v0 has 5 poses and 2 times"),
        ({"w2c": [], "time": []}, "w2c is "),
        ({"fx": "wide"}, 'fx is "wide", expected a positive number'),
    ],
)
def test_broken_entries_are_named(tmp_path, change, message):
    path = make_model(tmp_path) / "cameras.json"
    [entry, *_] = json.loads(path.read_text())
    path.write_text(json.dumps([entry | change]))
    with pytest.raises(ValueError, match=rf"cameras\.json: .*{message}"):
        read_views(path.parent)


def test_an_exposure_goes_from_its_start_to_its_end(tmp_path):
    view = tiny_views(tmp_path)[2]
    path = exposure_path(view, 9)
    torch.testing.assert_close(path.w2c[::2], view.w2c)
    assert [m[1] for m in path.moments] == pytest.approx([i / 8 for i in range(9)])
    assert exposure_path(view, 1).moments[0][1] == 0.5


def test_the_recording_passes_through_every_exposure_at_an_even_speed(tmp_path):
    views = tiny_views(tmp_path)
    path = recording_path(views, 401)
    torch.testing.assert_close(path.w2c[0], views[0].w2c[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(path.w2c[-1], views[2].w2c[-1], atol=1e-5, rtol=0)
    for view in views:
        for key in view.w2c:
            assert (path.w2c - key).abs().amax((1, 2)).min() < 0.01
    # Inside an exposure the stated moment is where the camera is.
    inside = [i for i, m in enumerate(path.moments) if m is not None]
    assert 30 < len(inside) < 401
    for i in inside[::10]:
        view, u = path.moments[i]
        torch.testing.assert_close(path.w2c[i], view.at(torch.tensor([u]))[0], atol=1e-4, rtol=0)
    c = camera_centers(torch.cat([v.w2c for v in views]))
    spread = (c - c.mean(0)).norm(dim=-1).mean()
    step = (camera_centers(path.w2c)[1:] - camera_centers(path.w2c)[:-1]).norm(dim=-1) / spread
    step += se3.log(path.w2c[1:] @ se3.inverse(path.w2c[:-1]))[:, 3:].norm(dim=-1)
    assert step.max() < 1.1 * step.median()


def test_a_recording_at_rest_stays_there(tmp_path):
    view = tiny_views(tmp_path)[0]
    still = SavedView(view.name, "train", WIDTH, HEIGHT, view.K, TIMES, view.w2c[:1].expand(5, 4, 4))
    path = recording_path([still, still], 4)
    torch.testing.assert_close(path.w2c, view.w2c[:1].expand(4, 4, 4))


def test_look_at_sees_its_target_upright():
    up, target = np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])
    w2c = look_at(np.array([[4.0, -1.0, 5.0]]), target, up)[0]
    x, y, z = (w2c @ [*target, 1])[:3]
    assert abs(x) < 1e-9 and abs(y) < 1e-9 and z > 0
    assert (w2c @ [*(target + 0.1 * up), 1])[1] < 0  # higher points lie higher in the picture (y down)
    np.testing.assert_allclose(w2c[:3, :3] @ w2c[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(w2c[:3, :3]) > 0
    with pytest.raises(ValueError, match="own up"):
        look_at(np.array([[1.0, 2.0, 9.0]]), target, up)


@pytest.mark.parametrize("angles", [(-0.3, 0.0, 0.3), (0.0, 1.6, 3.2, 4.8)])
def test_an_orbit_looks_at_the_scene_from_around(tmp_path, angles):
    views = read_views(make_model(tmp_path, angles))
    focus = Surround.of(views).focus
    np.testing.assert_allclose(focus, 0, atol=0.05)
    path = orbit_path(views, 40)
    seen = path.w2c.double().numpy() @ [*focus, 1]
    assert np.abs(seen[:, :2]).max() < 1e-4 and seen[:, 2].min() > 3
    c = camera_centers(path.w2c).numpy()
    # A closed curve: the last step is as long as the others, and all directions occur where the cameras surround.
    steps = np.linalg.norm(np.roll(c, -1, 0) - c, axis=1)
    assert 0.5 * steps.mean() < steps[-1] < 2 * steps.mean()
    assert (c[:, 2].max() > 2) == (len(angles) == 4)


def test_parallel_cameras_have_a_focus_in_front(tmp_path):
    view = tiny_views(tmp_path)[1]
    shifted = view.w2c.clone()
    shifted[:, 1, 3] += 0.5
    beside = SavedView("b", "train", WIDTH, HEIGHT, view.K, view.times, shifted)
    s = Surround.of([view, beside])
    assert np.isfinite(s.focus).all() and ((s.focus - s.centers) * s.forward).sum(-1).min() > 0
    assert torch.isfinite(orbit_path([view], 5).w2c).all()


def test_camera_files(tmp_path):
    views = tiny_views(tmp_path)
    keys = [views[0].w2c[2], views[1].w2c[2], views[2].w2c[2]]
    save_camera_file(tmp_path / "keys.json", keys)
    path = file_path(tmp_path / "keys.json", views, 5)
    torch.testing.assert_close(path.w2c[::2], torch.stack(keys), atol=1e-5, rtol=0)
    assert (path.width, path.height) == (WIDTH, HEIGHT)
    torch.testing.assert_close(path.K, views[0].K)
    other = {"keyframes": [{"position": [0, 0, -4], "look_at": [0, 0, 0]}], "width": 20, "fx": 30}
    (tmp_path / "one.json").write_text(json.dumps(other))
    path = file_path(tmp_path / "one.json", views, 3)
    torch.testing.assert_close(path.w2c, pose(0.0).expand(3, 4, 4), atol=1e-5, rtol=0)
    assert (path.width, path.height, float(path.K[0, 0]), float(path.K[1, 1])) == (20, HEIGHT, 30, 60)
    assert len(file_path(tmp_path / "cameras.json", views, 7).w2c) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "has no keyframes"),
        ("[]", "keyframes is \\[\\], expected a list of at least 1"),
        ('{"keyframes": [{}]}', "expected w2c, or position and look_at"),
        ('{"keyframes": [3]}', r"keyframes\[0\] is 3, expected an object"),
        ('{"keyframes": [{"w2c": [[1]]}]}', "4 x 4"),
        ('{"keyframes": [{"w2c": [[NaN,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}]}', "finite"),
        ('{"keyframes": [{"w2c": [[-1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}]}', "w2c is not a rigid motion"),
        ('{"keyframes": [{"w2c": [[[1,0,0,0],[0,1,0,0],[0,0,0,0],[0,0,0,1]]]}]}', "w2c is not a rigid motion"),
        ('{"keyframes": [{"w2c": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,0]]}]}', "last row 0 0 0 1"),
        ('{"keyframes": [{"position": [0,0,1], "look_at": [0,0,1]}]}', "camera"),
        ('{"keyframes": [{"position": [0,0,-4], "look_at": [0,0,0]}], "width": 0}', "width is 0, expected a whole"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_broken_camera_files_are_named(tmp_path, content, message):
    views = tiny_views(tmp_path)
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ValueError, match=rf"p\.json: .*{message}"):
        file_path(tmp_path / "p.json", views, 3)
    with pytest.raises(ValueError, match=r"none\.json: no such camera file"):
        file_path(tmp_path / "none.json", views, 3)


# ---- pictures ----------------------------------------------------------------------------------------------


def test_depth_colors():
    depth = torch.tensor([[[1.0, 2.0, 4.0, 3.0]]])
    alpha = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    near, far = depth_range(depth, alpha)
    assert 1 <= near < 1.1 and 3.8 < far <= 4
    colors = depth_colors(depth, alpha, 1.0, 4.0)[0]
    assert colors[0].argmax() == 0 and colors[2].argmax() == 2  # turbo: near is red, far is blue
    assert (colors[3] == 0).all()
    assert depth_range(depth, 0 * alpha)[0] < depth_range(depth, 0 * alpha)[1]


def test_compositions():
    left, right = np.zeros((10, 20, 3), np.float32), np.ones((10, 20, 3), np.float32)
    assert side_by_side([left, right]).shape == (10, 42, 3)
    mixed = wipe(left, right, 0.25)
    assert (mixed[:, :5] == 0).all() and (mixed[:, 6:] == 1).all()
    assert (wipe(left, right, 0.0) == right).all() and (wipe(left, right, 1.0) == left).all()
    framed = letterboxed(right, 4.0)
    assert framed.shape == (10, 40, 3) and (framed[:, 10:30] == 1).all() and framed[:, :10].max() < 0.1
    assert letterboxed(right, 1.0).shape == (20, 20, 3)
    error = error_colors(left, np.linspace(0, 1, 20, dtype=np.float32)[None, :, None].repeat(10, 0).repeat(3, 2))
    assert (np.diff(error.sum(-1)[0, :5]) > 0).all()
    dark = np.zeros((60, 120, 3), np.float32)
    assert labeled(dark, "word").max() > 0.9 and dark.max() == 0
    assert (rgb(torch.full((1, 2, 2), 0.5)) == 0.5).all()


# ---- videos ------------------------------------------------------------------------------------------------


def decoded(path):
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [f.to_ndarray(format="rgb24") for f in container.decode(stream)], float(stream.average_rate)


def test_the_video_shows_the_renders(tmp_path):
    views, drawing = tiny_views(tmp_path), tiny_drawing()
    video = Video(video="exposure", video_view="v2", video_frames=11, video_fps=30, video_out=str(tmp_path / "a/x.mp4"))
    out = record(video, views, drawing, None)
    frames, rate = decoded(out)
    assert len(frames) == 11 and rate == 30
    assert frames[0].shape == (36, 50, 3)  # an odd width is padded
    path = exposure_path(views[2], 11)
    for i in (0, 5, 10):
        wanted = rgb(drawing(path.w2c[i : i + 1], path.K, WIDTH, HEIGHT).images[0])
        assert np.abs(frames[i][:, :WIDTH] / 255 - wanted).mean() < 0.02
    assert np.abs(frames[0].astype(float) - frames[10]).mean() > 5
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["x.mp4"]


@pytest.mark.parametrize("kind", ["trajectory", "orbit"])
def test_other_paths_and_pngs(tmp_path, kind):
    views, out = tiny_views(tmp_path), tmp_path / "frames"
    video = Video(video=kind, video_frames=9, video_out=str(out), video_bits=16)
    record(video, views, tiny_drawing(channels=3), None)
    assert sorted(p.name for p in out.iterdir()) == [f"{i:05d}.png" for i in range(9)]
    assert cv2.imread(str(out / "00003.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    path = choose_path(video, views)
    wanted = tiny_drawing(channels=3)(path.w2c[8:], path.K, WIDTH, HEIGHT).images[0].clamp(0, 1)
    torch.testing.assert_close(load_image(out / "00008.png", 3), wanted.expand(3, -1, -1), atol=1e-4, rtol=0)


def test_depth_videos(tmp_path):
    views, drawing = tiny_views(tmp_path), tiny_drawing()
    request = {"video": "exposure", "video_frames": 3, "video_of": "depth"}
    record(Video(**request, video_out=str(tmp_path / "c")), views, drawing, None)
    colors = load_image(tmp_path / "c/00001.png", 3)
    assert (colors[0] - colors[2]).abs().max() > 0.3
    record(Video(**request, video_bits=16, video_out=str(tmp_path / "d")), views, drawing, None)
    white = json.loads((tmp_path / "d/depth.json").read_text())["world_units_at_white"]
    measured = load_image(tmp_path / "d/00001.png", None) * white
    assert len(measured) == 1
    path = exposure_path(views[1], 3)
    out = drawing(path.w2c[1:2], path.K, WIDTH, HEIGHT, depth=True)
    solid = out.alphas[0] > 0.5
    torch.testing.assert_close(measured[solid], out.depths[0][solid], atol=1e-3, rtol=0)
    assert 3 < float(measured[solid].median()) < 5 and (measured[~solid] == 0).all()


def test_side_by_side_takes_the_nearest_sub_frame(tmp_path):
    views = tiny_views(tmp_path)
    # Every view has grays of its own: (10 m + number of the view) / 50.
    grays = {view.name: (10 * torch.arange(5) + i) / 50 for i, view in enumerate(views)}
    frames = {name: gray[:, None, None, None].expand(5, 1, HEIGHT, WIDTH) for name, gray in grays.items()}
    video = Video(video="trajectory", video_frames=40, video_of="side", video_out=str(tmp_path / "s"))
    record(video, views, tiny_drawing(), lambda view: frames[view.name])
    last = None
    for i, moment in enumerate(choose_path(video, views).moments):
        left = load_image(tmp_path / f"s/{i:05d}.png", 1)[0, 5, 5]
        if moment is not None:
            last = float(grays[moment[0].name][round(moment[1] * 4)])
            assert float(left) == pytest.approx(last, abs=0.005)
        else:
            assert float(left) == pytest.approx(0.4 * last, abs=0.005)  # the last of the view before, dimmed
    with pytest.raises(ValueError, match="without Recon-Net"):
        record(video, views, tiny_drawing(), None)


def test_nothing_half_written(tmp_path):
    def broken():
        yield np.zeros((4, 4, 3), np.float32)
        raise ValueError("stop")

    for write in (lambda p: write_mp4(p, broken(), 24), lambda p: write_pngs(p, broken(), 8)):
        with pytest.raises(ValueError, match="stop"):
            write(tmp_path / "out.mp4")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(tmp_path / "out.mp4", iter([]), 24)


def test_folders_of_others_are_left_alone(tmp_path):
    frames = [np.zeros((4, 4, 3), np.float32)] * 3
    write_pngs(tmp_path / "f", frames, 8)
    write_pngs(tmp_path / "f", frames[:2], 8)
    assert len(list((tmp_path / "f").iterdir())) == 2
    (tmp_path / "f/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        write_pngs(tmp_path / "f", frames, 8)
    assert (tmp_path / "f/notes.txt").exists()


# ---- flags -------------------------------------------------------------------------------------------------


def parsed(*argv: str) -> Video:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_video_arguments(parser)
    return parse_video(parser.parse_args(["-m", "output/x", *argv]))


def test_flags():
    assert parsed() == Video()
    assert parsed("--video", "orbit").video_out == "output/x/video_orbit.mp4"
    assert parsed("--video", "a/p.json", "--video_of", "depth").video_out == "output/x/video_p_depth.mp4"
    assert parsed("--video", "orbit", "--video_bits", "16").video_out == "output/x/video_orbit"
    got = parsed("--video", "exposure", "--video_view", "v1", "--video_frames", "9", "--video_fps", "12.5")
    assert (got.video_view, got.video_frames, got.video_fps) == ("v1", 9, 12.5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--video_frames", "3"], "give --video"),
        (["--video", "orbit", "--video_frames", "0"], "at least 1"),
        (["--video", "orbit", "--video_fps", "nan"], "video_fps"),
        (["--video", "orbit", "--video_bits", "12"], "8 or 16"),
        (["--video", "orbit", "--video_bits", "16", "--video_out", "a.mp4"], "writes PNGs"),
        (["--video", "orbit", "--video_out", "a.gif"], r"a.gif: expected a name ending in \.mp4, or a folder"),
        (["--video", "orbit", "--video_view", "v1"], "--video exposure"),
        (["--video", "orbit", "--video_of", "side"], "needs spikes"),
    ],
)
def test_contradicting_flags(argv, message):
    with pytest.raises(ValueError, match=message):
        parsed(*argv)


def test_render_py_makes_the_video(scene_folder, tmp_path, monkeypatch, capsys):
    settings = TimingSettings.of(source_path=str(scene_folder))
    settings.save(tmp_path)
    scene, times = read_scene(scene_folder), torch.linspace(0, 1, settings.window.subframes)
    gaussians = GaussianModel.from_points(scene.points, torch.full((len(scene.points), 1), 0.5), 0)
    trajectory = Trajectory(torch.stack([view.camera.w2c for view in scene.train]), "linear")
    torch.manual_seed(0)
    save = partial(save_gaussians, gaussians=gaussians)
    save_iteration(tmp_path, 3, save, trajectory, make_network("slim", 41, 34), None)
    write_cameras(tmp_path, camera_entries(scene.train, trajectory, times, 3))
    flags = ["--video", "exposure", "--video_view", "002", "--video_frames", "3", "--video_of", "side"]
    out = tmp_path / "frames"
    monkeypatch.setattr(sys, "argv", ["render.py", "-m", str(tmp_path), *flags, "--video_out", str(out)])
    assert guarded(render.main) == 0
    assert capsys.readouterr().out == f"The video is in {out}\n"
    shots = [load_image(path, 1)[0] for path in sorted(out.iterdir())]
    width = scene.train[0].camera.width
    assert len(shots) == 3 and shots[0].shape[1] == 2 * width + 2
    # The spikes of the view's start and end differ; the camera of this trajectory stands still.
    assert (shots[0] - shots[2])[:20, :width].abs().mean() > 10 * (shots[0] - shots[2])[:20, width + 2 :].abs().mean()
    assert not (tmp_path / "train").exists()


def test_unknown_paths_and_views(tmp_path):
    views = tiny_views(tmp_path)
    with pytest.raises(ValueError, match="expected trajectory, exposure, orbit or a camera file"):
        choose_path(Video(video="spiral"), views)
    with pytest.raises(ValueError, match="no such view; there are v0, v1, v2"):
        choose_path(Video(video="exposure", video_view="v9"), views)
