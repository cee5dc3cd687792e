"""Scenes written to a folder and read back: the authors' layout and COLMAP's."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch

from gaussians.ply import write_point_ply
from scene.cameras import View, opengl
from scene.dataset import IN_MEMORY, SceneData, read_scene
from scene.lens import FisheyeLens, PerspectiveLens
from scene.views import TargetSpec, spike_exposures
from spike import Layout, SensorModel, SpikeStream, WindowSpec, save_sensor, write_dat
from utils import se3
from utils.io import load_image, save_image

WIDTH, HEIGHT, FRAMES, VIEWS = 16, 8, 20, 9
REAL = Path(__file__).resolve().parents[2] / "shared" / "scenes"


def pose(i: int) -> list[list[float]]:
    """Camera-to-world, OpenGL axes: turned about y and moved along x."""
    c, s = np.cos(0.1 * i), np.sin(0.1 * i)
    return [[c, 0, s, 0.5 * i], [0, 1, 0, 0.2], [-s, 0, c, 1.0], [0, 0, 0, 1]]


def frame(i: int) -> dict:
    return {"file_path": f"sharp_data/{i:03d}.png", "transform_matrix": pose(i)}


def meta() -> dict:
    return {
        "fl_x": 20.0, "fl_y": 21.0, "cx": 8.0, "cy": 4.0, "w": WIDTH, "h": HEIGHT,
        "spike_gain": 0.4, "frames": [frame(i) for i in range(VIEWS)],
    }  # fmt: skip


def spikes(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 2, (FRAMES, HEIGHT, WIDTH), dtype=np.uint8)


def save(root: Path, content: object, name: str = "transforms.json") -> None:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def root(tmp_path):
    for i in range(VIEWS):
        write_dat(tmp_path / f"spike_data/{i:03d}.dat", spikes(i))
        save_image(tmp_path / f"sharp_data/{i:03d}.png", np.full((HEIGHT, WIDTH), i / 10))
    save(tmp_path, meta())
    return tmp_path


def test_poses_come_as_opencv_world_to_camera(root):
    camera = read_scene(root).train[3].camera
    expected = np.linalg.inv(np.array(pose(3)) @ np.diag([1, -1, -1, 1]))
    np.testing.assert_allclose(camera.w2c.numpy(), expected, atol=1e-6)
    # A point in front of an OpenGL camera (its -z) has positive depth here.
    ahead = np.array(pose(3)) @ [0, 0, -2, 1]
    assert (camera.w2c.numpy() @ ahead)[2] == pytest.approx(2)
    assert camera.K.tolist() == [[20, 0, 8], [0, 21, 4], [0, 0, 1]]
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)


def test_views_are_paired_by_name_not_by_order(root):
    m = meta()
    m["frames"].reverse()
    (root / "spike_data/002.dat").unlink()
    save(root, m)
    scene = read_scene(root)
    assert [view.camera.name for view in scene.train] == [f"{i:03d}" for i in (8, 7, 6, 5, 4, 3, 1, 0)]
    for view in scene.train:
        i = int(view.camera.name)
        np.testing.assert_array_equal(scene.open_stream(view).unpack(0, FRAMES), spikes(i))
        assert load_image(view.image_path).mean().item() == pytest.approx(i / 10, abs=0.003)


def test_a_frame_may_name_its_spikes_and_its_recording(root):
    m = meta()
    m["frames"][1] |= {"spike_path": "spike_data/005.dat", "recording": "kitchen"}
    save(root, m)
    view = read_scene(root).train[1]
    assert view.spike_path == root / "spike_data/005.dat"
    assert view.recording == "kitchen"
    assert read_scene(root).train[0].recording == ""


def test_places_in_a_recording_are_counted_before_views_are_held_out(root):
    scene = read_scene(root, eval=True, llffhold=3)
    assert [view.position for view in scene.train] == [1, 2, 4, 5, 7, 8]
    assert [view.position for view in scene.test] == [0, 3, 6]


def test_views_may_say_when_they_were_exposed(root):
    m = meta()
    for i, entry in enumerate(m["frames"]):
        entry["middle_frame"] = 100 * i * i
    save(root, m)
    assert [view.middle_frame for view in read_scene(root).train][:3] == [0, 100, 400]
    m["frames"][2]["middle_frame"] = 90
    save(root, m)
    with pytest.raises(ValueError, match="view 002 has middle_frame 90, expected one after the last"):
        read_scene(root)
    del m["frames"][2]["middle_frame"]
    save(root, m)
    with pytest.raises(ValueError, match="only some views have a middle_frame"):
        read_scene(root)


def test_a_calibration_beside_the_poses_wins(root):
    assert read_scene(root).sensor.gain == pytest.approx(0.4)
    maps = torch.linspace(0.9, 1.1, WIDTH).expand(HEIGHT, WIDTH).contiguous()
    save_sensor(root / "sensor.json", SensorModel(0.5, 0.01, gain_map=maps))
    sensor = read_scene(root).sensor
    assert sensor.gain == 0.5 and sensor.dark_rate == 0.01 and torch.allclose(sensor.gain_map, maps)
    (root / "sensor.json").write_text("{}}")
    with pytest.raises(ValueError, match=r"sensor.json: not a readable sensor file"):
        read_scene(root)


def test_a_view_must_not_be_called_like_another_s_sub_frame(root):
    m = meta()
    m["frames"][1]["file_path"] = "sharp_data/000_04.png"
    (root / "spike_data/001.dat").rename(root / "spike_data/000_04.dat")
    save(root, m)
    assert len(read_scene(root).train) == VIEWS
    save_image(root / "sequence/000_04.png", np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match="view 000_04 is also sub-frame 4"):
        read_scene(root)


def test_sharp_images_and_points_are_optional(root):
    for path in (root / "sharp_data").iterdir():
        path.unlink()
    scene = read_scene(root)
    assert all(view.image_path is None and view.spike_path is not None for view in scene.train)
    assert scene.points is None and scene.rgb is None and scene.truth is None
    assert scene.novel == [] and scene.test == []
    assert scene.frames_per_view == FRAMES


def test_intrinsics_of_a_frame_win_over_the_scene_s(root):
    m = meta()
    m["frames"][4] |= {"fl_x": 33.0, "cx": 7.5}
    save(root, m)
    views = read_scene(root).train
    assert views[4].camera.K[0].tolist() == [33, 0, 7.5]
    assert views[5].camera.K[0].tolist() == [20, 0, 8]


def test_the_field_of_view_stands_in_for_the_focal_length(root):
    m = meta()
    del m["fl_x"], m["fl_y"], m["cx"], m["cy"]
    save(root, m | {"camera_angle_x": np.pi / 2})
    k = read_scene(root).train[0].camera.K
    assert k.diagonal().tolist() == pytest.approx([WIDTH / 2, WIDTH / 2, 1])
    assert k[:2, 2].tolist() == [WIDTH / 2, HEIGHT / 2]
    save(root, m | {"camera_angle_x": np.pi / 2, "camera_angle_y": 2 * np.arctan(0.5)})
    assert read_scene(root).train[0].camera.K.diagonal().tolist() == pytest.approx([WIDTH / 2, HEIGHT, 1])


def test_every_eighth_view_is_held_out_with_eval(root):
    scene = read_scene(root, eval=True)
    assert [v.camera.name for v in scene.test] == ["000", "008"]
    assert [v.camera.name for v in scene.train] == [f"{i:03d}" for i in range(1, 8)]
    assert [v.camera.name for v in read_scene(root, eval=True, llffhold=4).test] == ["000", "004", "008"]
    assert len(read_scene(root).train) == VIEWS


def test_the_sensor_and_the_stream_are_read(root):
    stored = {"dark_rate": 0.01, "spurious_rate": 0.02, "bit_order": "big", "flip": False, "stored_width": 24}
    for i in range(VIEWS):
        write_dat(root / f"spike_data/{i:03d}.dat", spikes(i), Layout("big", flip=False, stored_width=24))
    save(root, meta() | {"spike": stored})
    scene = read_scene(root)
    assert scene.sensor.to_dict() == {"gain": 0.4, "dark_rate": 0.01, "spurious_rate": 0.02}
    np.testing.assert_array_equal(scene.open_stream(scene.train[1]).unpack(0, FRAMES), spikes(1))
    m = meta()
    del m["spike_gain"]
    save(root, m | {"spike": stored | {"gain": 0.3}})
    assert read_scene(root).sensor.gain == 0.3


def test_sub_frames_novel_views_points_and_truth(root):
    save_image(root / "sequence/001_00.png", np.zeros((HEIGHT, WIDTH)))
    save_image(root / "sequence/001_12.png", np.zeros((HEIGHT, WIDTH)))
    save_image(root / "novel/001.png", np.ones((HEIGHT, WIDTH)))
    novel_frames = [{"file_path": "novel/001.png", "transform_matrix": pose(20)}]
    save(root, meta() | {"frames": novel_frames}, "novel.json")
    save(root, {"w2c": {"001": np.tile(np.eye(4), (13, 1, 1)).tolist()}}, "trajectory.json")
    write_point_ply(root / "sparse_pc.ply", torch.rand(5, 3), torch.rand(5, 3))
    scene = read_scene(root, eval=True)
    assert set(scene.train[0].sequence_paths) == {0, 12}
    novel = scene.novel[0]
    # It shares a name with an exposure, but has neither its spikes nor its sub-frames.
    assert novel.spike_path is None and novel.sequence_paths == {}
    assert load_image(novel.image_path).min() == 1
    assert scene.truth is not None and scene.truth["001"].shape == (13, 4, 4)
    assert scene.points is not None and scene.points.shape == (5, 3)


def test_the_extent_is_the_cameras_radius(root):
    centers = 0.5 * np.arange(VIEWS)
    assert read_scene(root).extent == pytest.approx(1.1 * np.abs(centers - centers.mean()).max(), rel=1e-5)


def changed(**fields):
    return lambda m: m | fields


def changed_frame(**fields):
    def change(m):
        m["frames"][2] |= fields
        return m

    return change


def without(key):
    return lambda m: {k: v for k, v in m.items() if k != key}


def matrix(i, j, value):
    p = pose(2)
    p[i][j] = value
    return changed_frame(transform_matrix=p)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("fl_x"), "view 000 has no fl_x"),
        (without("w"), "view 000 has no w"),
        (changed(fl_x="wide"), 'fl_x is "wide", expected a positive number'),
        (changed(fl_y=-1), "fl_y is -1, expected a positive number"),
        (changed(h=0), "h is 0, expected a whole number from 1 to 65535"),
        (without("frames"), "has no frames"),
        (changed(frames=[]), "lists no views"),
        (changed(frames=[{"transform_matrix": pose(0)}]), "neither file_path nor spike_path"),
        (changed_frame(file_path="sharp_data/001.png"), "view 001 is listed more than once"),
        (changed_frame(spike_path="spike_data/777.dat"), "777.dat: the spike stream of view 002 is not"),
        (changed(frames=[{"file_path": "a.png"}]), "view a has no pose"),
        (matrix(0, 0, float("nan")), "pose of view 002 has NaN"),
        (matrix(0, 0, 3.0), "pose of view 002 is not a rigid motion"),
        (changed_frame(transform_matrix=[[1, 2], [3, 4]]), r"view 002 has shape \(2, 2\), expected \(4, 4\)"),
        (changed_frame(transform_matrix=[["a"] * 4] * 4), "pose of view 002 is not a matrix of numbers"),
        (changed(distortion_params="none"), "distortion_params is .none., expected a list"),
        (changed_frame(dist_params=[0.1] * 4), r"view 002 has .*dist_params\[3\]=0.1.*expected no coeff.* but k1, k2"),
        (changed(omega=1e-9), "lens distortion .omega=1e-09., expected no coefficients but k1, k2, p1"),
        (changed(camera_model="OPENCV_FISHEYE", p1=0.1), "distortion .p1=0.1., expected no coeff.* but k1, k2, k3"),
        (changed(camera_model="THIN_PRISM_FISHEYE"), "camera model THIN_PRISM_FISHEYE, expected one of PINHOLE"),
        (changed(k1=-90), "view 000 has lens distortion .k1=-90. that cannot be undone: no pinhole camera of up to 4"),
        (changed(k1=0.1, spike={"bayer": "RGGB"}), "view 000 has lens distortion that cannot be undone: a color"),
        (changed(spike_gain=0), "gain must be "),
        (changed(spike={"dark_rate": 2}), "dark_rate must lie in"),
        (changed(spike={"bit_order": "middle"}), 'spike.bit_order is "middle", expected one of little, big'),
        (changed(spike={"flip": "yes"}), 'flip is "yes", expected true or false'),
        (changed(spike={"stored_width": 16.5}), "stored_width is 16.5"),
        (changed(spike={"darkrate": 0.1}), "expected an object with any of gain, dark_rate"),
        (changed(ply_file_path="cloud.ply"), "cloud.ply: no such PLY file"),
    ],
)
def test_wrong_metadata_is_named(root, change, message):
    save(root, change(meta()))
    with pytest.raises(ValueError, match=message) as error:
        read_scene(root)
    assert str(root) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\x00\xff"])
def test_unreadable_json(root, text):
    save(root, text)
    with pytest.raises(ValueError, match=r"transforms\.json: (not a readable JSON file|is .*, expected an object)"):
        read_scene(root)


def test_no_scene_at_all(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match=r"no transforms\.json and no COLMAP model in sparse/0, sparse, colmap/spa"):
        read_scene(empty)
    with pytest.raises(ValueError, match="no such folder"):
        read_scene(empty / "missing")
    (root / "sparse/0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"there is no transforms_colmap\.json; "):
        read_scene(root, "transforms_colmap.json")


def test_a_split_that_leaves_nothing(root):
    with pytest.raises(ValueError, match="none of 9 views is left"):
        read_scene(root, eval=True, llffhold=1)
    with pytest.raises(ValueError, match="llffhold is 0"):
        read_scene(root, eval=True, llffhold=0)


def test_a_stream_of_another_size_is_named(root):
    (root / "spike_data/000.dat").write_bytes(bytes(17))
    with pytest.raises(ValueError, match=r"000\.dat: 17 bytes are not a whole number of 16x8 frames"):
        read_scene(root)


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        ([[["a"]]], "w2c.001 is .* expected an array of finite numbers, N x 4 x 4"),
        ([[1.0, 2.0]], "expected an array of finite"),
        ([np.full((4, 4), np.nan).tolist()], "expected an array of finite"),
    ],
)
def test_wrong_trajectories(root, poses, message):
    save(root, {"w2c": {"001": poses}}, "trajectory.json")
    with pytest.raises(ValueError, match=rf"trajectory\.json: .*{message}"):
        read_scene(root)


def test_a_novel_view_without_its_image(root):
    frames = [{"file_path": "novel/0.png", "transform_matrix": pose(0)}]
    save(root, meta() | {"frames": frames}, "novel.json")
    with pytest.raises(ValueError, match=r"novel\.json: the sharp image of held-out view 0 is not there"):
        read_scene(root)


def colmap(root: Path, camera: str = "PINHOLE 16 8 20 21 8 4", binary: bool = False) -> None:
    """A COLMAP model with the cameras of ``pose``, as text or binary."""
    (root / "transforms.json").unlink()
    folder = root / "sparse/0"
    folder.mkdir(parents=True)
    images = []
    for i in range(VIEWS):
        w2c = np.linalg.inv(np.array(pose(i)) @ np.diag([1, -1, -1, 1]))
        x, y, z, w = pycolmap.Rotation3d(w2c[:3, :3]).quat
        numbers = " ".join(f"{v:.9g}" for v in (w, x, y, z, *w2c[:3, 3]))
        images.append(f"{VIEWS - i} {numbers} 1 {i:03d}.png\n\n")
    (folder / "cameras.txt").write_text(f"1 {camera}\n")
    (folder / "images.txt").write_text("".join(images))
    (folder / "points3D.txt").write_text("1 0.5 0.25 2 255 0 51 0.1\n")
    if binary:
        pycolmap.Reconstruction(str(folder)).write_binary(str(folder))
        for file in folder.glob("*.txt"):
            file.unlink()


@pytest.mark.parametrize("binary", [False, True])
def test_colmap_gives_the_same_scene(root, binary):
    expected = read_scene(root, eval=True)
    colmap(root, binary=binary)
    save(root, {"spike_gain": 0.4}, "spike.json")
    scene = read_scene(root, eval=True)
    for mine, theirs in zip(scene.train + scene.test, expected.train + expected.test, strict=True):
        assert mine.camera.name == theirs.camera.name
        torch.testing.assert_close(mine.camera.w2c, theirs.camera.w2c, atol=1e-6, rtol=0)
        torch.testing.assert_close(mine.camera.K, theirs.camera.K)
        assert (mine.spike_path, mine.image_path) == (theirs.spike_path, theirs.image_path)
    assert scene.sensor == expected.sensor
    assert scene.points is not None and scene.points.tolist() == [[0.5, 0.25, 2.0]]
    assert scene.rgb is not None and scene.rgb[0].tolist() == pytest.approx([1, 0, 0.2])


def test_distortion_that_moves_no_pixel_is_none(root):
    """COLMAP and the authors' tool leave 1e-7; a hundredth of a pixel at the corner is the limit."""
    corner = 21 * np.hypot(8 / 20, 4 / 21) ** 3  # pixels that k1 = 1 moves there, at most
    lens = {"k1": 1e-7, "p2": -1e-7, "is_fisheye": False, "distortion_params": [0] * 6, "k2": "0.0", "k3": None}
    save(root, meta() | lens)
    assert len(read_scene(root).train) == VIEWS
    for share, is_none in ((0.9, True), (1.1, False)):
        save(root, meta() | {"k1": share * 0.01 / corner})
        assert (read_scene(root).train[0].camera.lens is None) == is_none


@pytest.mark.parametrize("camera", ["OPENCV 16 8 20 21 8 4 0 0 0 0", "SIMPLE_RADIAL 16 8 20 8 4 0"])
def test_colmap_with_zero_distortion_is_a_pinhole(root, camera):
    colmap(root, camera)
    assert read_scene(root).train[0].camera.K[0].tolist() == [20, 0, 8]


PERSPECTIVE = PerspectiveLens((20, 21, 8, 4), WIDTH, HEIGHT, (-0.1, 0.02, 0.003, -0.004, 0.05, 0.01, 0.02, 0.03))
FISHEYE = FisheyeLens((20, 21, 8, 4), WIDTH, HEIGHT, (-0.05, 0.01, 0.002, 0.003))


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ("FULL_OPENCV 16 8 20 21 8 4 -0.1 0.02 0.003 -0.004 0.05 0.01 0.02 0.03", PERSPECTIVE),
        ("OPENCV 16 8 20 21 8 4 -0.1 0.02 0.003 -0.004",
         replace(PERSPECTIVE, coefficients=PERSPECTIVE.coefficients[:4] + (0,) * 4)),
        ("RADIAL 16 8 20 8 4 -0.1 0.02", PerspectiveLens((20, 20, 8, 4), WIDTH, HEIGHT, (-0.1, 0.02) + (0,) * 6)),
        ("SIMPLE_RADIAL 16 8 20 8 4 -0.1", PerspectiveLens((20, 20, 8, 4), WIDTH, HEIGHT, (-0.1,) + (0,) * 7)),
        ("OPENCV_FISHEYE 16 8 20 21 8 4 -0.05 0.01 0.002 0.003", FISHEYE),
        ("RADIAL_FISHEYE 16 8 20 8 4 -0.05 0.01", FisheyeLens((20, 20, 8, 4), WIDTH, HEIGHT, (-0.05, 0.01, 0, 0))),
    ],
)  # fmt: skip
def test_lenses_of_colmap(root, camera, expected):
    colmap(root, camera)
    found = read_scene(root).train[0].camera
    assert found.lens == expected and torch.equal(found.K, expected.matrix)
    # COLMAP's own projection of a point.
    model = pycolmap.Reconstruction(str(root / "sparse" / "0")).cameras[1]
    point = np.array([0.3, -0.15])
    pixels = model.img_from_cam(np.append(point, 1.0)[None])[0]
    np.testing.assert_allclose(expected.project(torch.from_numpy(point)), pixels, atol=1e-9)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"camera_model": "OPENCV", "k1": -0.1, "k2": 0.02, "p1": 0.003, "p2": -0.004, "k3": 0.05, "k4": 0.01,
          "k5": 0.02, "k6": "0.03"}, PERSPECTIVE),
        ({"distortion_params": [-0.1, 0.02, 0.05, 0, 0.003, -0.004], "k4": 0.01, "k5": 0.02, "k6": 0.03}, PERSPECTIVE),
        ({"camera_model": "OPENCV_FISHEYE", "k1": -0.05, "k2": 0.01, "k3": 0.002, "k4": 0.003}, FISHEYE),
        ({"is_fisheye": True, "distortion_params": [-0.05, 0.01, 0.002, 0.003, 0, 0]}, FISHEYE),
        ({"is_fisheye": True}, replace(FISHEYE, coefficients=(0,) * 4)),
    ],
)  # fmt: skip
def test_lenses_of_transforms(root, keys, expected):
    save(root, meta() | keys)
    found = read_scene(root).train[0].camera
    assert found.lens == expected and torch.equal(found.K, expected.matrix)
    save(root, meta() | {"frames": [frame(0), frame(1) | keys]})
    assert [v.camera.lens for v in read_scene(root).train] == [None, expected]


@pytest.mark.parametrize("key", ["ftheta_p0", "latlong", "equirectangular", "orthographic"])
def test_other_projections_are_refused_by_name(root, key):
    save(root, meta() | {"frames": [frame(0), frame(1) | {key: 1}]})
    with pytest.raises(ValueError, match=f"view 001 has the projection {key} of instant-ngp, expected a"):
        read_scene(root)
    save(root, meta() | {"latlong": False, "ftheta_p0": None})
    assert read_scene(root).train[0].camera.lens is None


def test_a_broken_colmap_model_is_named(root):
    colmap(root, "TELESCOPE 16 8 20")
    with pytest.raises(ValueError, match=r"sparse/0.*: not a readable"):
        read_scene(root)


def test_a_name_of_colmap_that_no_file_can_have(root):
    colmap(root)
    images = root / "sparse/0/images.txt"
    images.write_text(images.read_text().replace("001.png", "x" * 300 + ".png"))
    with pytest.raises(ValueError, match=r"sparse/0/images\..*'xxx.*has a part of 304 bytes, expected at most 200"):
        read_scene(root)


@pytest.mark.skipif(not REAL.is_dir(), reason="the evaluation scenes are not here")
@pytest.mark.parametrize(("name", "views", "novel"), [("tiny", 16, 6), ("living", 24, 8), ("den", 14, 6)])
def test_the_evaluation_scenes(name, views, novel):
    scene = read_scene(REAL / name)
    assert (len(scene.train), len(scene.novel), scene.frames_per_view) == (views, novel, 177)
    assert scene.truth is not None
    for view in scene.train:
        # The mid-exposure pose is the true pose of the middle sub-frame.
        torch.testing.assert_close(view.camera.w2c, scene.truth[view.camera.name][6], atol=2e-4, rtol=0)


# ---- scenes in memory ------------------------------------------------------------------------------------


def in_memory(root: Path, **given) -> SceneData:
    """The scene of ``root`` from streams and tensors alone."""
    known = read_scene(root)
    streams = [SpikeStream.from_array(spikes(i), f"stream {i}") for i in range(VIEWS)]
    w2c = torch.stack([view.camera.w2c for view in known.train])
    settings = {"sensor": SensorModel(0.4), "points": known.points, "rgb": known.rgb} | given
    K = settings.pop("K", known.train[0].camera.K)
    return SceneData.from_streams(settings.pop("streams", streams), K, settings.pop("w2c", w2c), **settings)


def test_a_scene_in_memory_is_that_of_its_files(root):
    known, scene = read_scene(root), in_memory(root)
    assert scene.root == IN_MEMORY and not scene.root.exists() and scene.mosaic is None
    assert (scene.extent, scene.frames_per_view) == (pytest.approx(known.extent), FRAMES)
    assert (scene.sensor, scene.test, scene.novel, scene.truth) == (SensorModel(0.4), [], [], None)
    for i, (mine, theirs) in enumerate(zip(scene.train, known.train, strict=True)):
        assert mine.has_spikes and theirs.has_spikes and mine.spike_path is None
        for name in ("name", "width", "height"):
            assert getattr(mine.camera, name) == getattr(theirs.camera, name)
        assert torch.equal(mine.camera.K, theirs.camera.K) and torch.equal(mine.camera.w2c, theirs.camera.w2c)
        assert (mine.recording, mine.position, mine.middle_frame) == ("", i, None)
        np.testing.assert_array_equal(scene.open_stream(mine).unpack(0, FRAMES), spikes(i))


def test_the_extent_is_the_cameras_spread(root):
    centers = np.array([[0.5 * i, 0.2, 1.0] for i in range(VIEWS)])
    expected = 1.1 * np.linalg.norm(centers - centers.mean(0), axis=1).max()
    assert read_scene(root).extent == pytest.approx(expected, rel=1e-5)
    poses = se3.exp(torch.randn(VIEWS, 6, generator=torch.Generator().manual_seed(0)))
    centers = torch.linalg.inv(poses)[:, :3, 3]
    expected = 1.1 * float((centers - centers.mean(0)).norm(dim=1).max())
    assert in_memory(root, w2c=poses).extent == pytest.approx(expected, rel=1e-5)
    eye = torch.eye(4).expand(VIEWS, 4, 4)
    assert in_memory(root, w2c=eye).extent == 1.0  # all at one place


def test_what_is_given_in_memory_is_kept(root):
    middles, names = [88.0 + 100 * i for i in range(VIEWS)], [f"v{i}" for i in range(VIEWS)]
    images = [root / f"sharp_data/{i:03d}.png" for i in range(VIEWS)]
    truth, K = {"v3": torch.eye(4).repeat(13, 1, 1)}, torch.eye(3).repeat(VIEWS, 1, 1)
    K[5, 0, 0] = 7.0
    points = torch.rand(30, 3)
    filtered = [SpikeStream.from_array(spikes(i)).with_filters("GBRG") for i in range(VIEWS)]
    scene = in_memory(
        root, streams=filtered, K=K, points=points, rgb=points / 2, middle_frames=middles, names=names, truth=truth,
        images=images,
    )  # fmt: skip
    assert [v.camera.name for v in scene.train] == names and [v.middle_frame for v in scene.train] == middles
    assert [v.image_path for v in scene.train] == images and scene.truth.keys() == truth.keys()
    assert all(torch.equal(scene.truth[name], poses) for name, poses in truth.items())
    assert [float(v.camera.K[0, 0]) for v in scene.train] == [1.0] * 5 + [7.0] + [1.0] * 3
    assert torch.equal(scene.points, points) and scene.mosaic is not None and scene.mosaic.pattern == "GBRG"


def test_a_stream_in_memory_stands_for_the_file(root):
    scene = read_scene(root)
    view = replace(scene.train[0], spikes=SpikeStream.from_array(spikes(7)))
    np.testing.assert_array_equal(scene.open_stream(view).unpack(0, FRAMES), spikes(7))
    assert not View(view.camera).has_spikes


def test_training_targets_come_from_streams_in_memory(scene_folder):
    known, spec = read_scene(scene_folder), TargetSpec(WindowSpec())
    streams = [known.open_stream(view) for view in known.train]
    w2c = torch.stack([view.camera.w2c for view in known.train])
    scene = SceneData.from_streams(streams, known.train[0].camera.K, w2c, sensor=known.sensor)
    device = torch.device("cpu")
    for mine, theirs in zip(*(spike_exposures(s.train, s, spec, device) for s in (scene, known)), strict=True):
        assert torch.equal(mine.long, theirs.long) and torch.equal(mine.subframes, theirs.subframes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"streams": []}, "at least one spike stream"),
        ({"w2c": torch.eye(4)[None]}, r"w2c has the shape \(1, 4, 4\), expected \(9, 4, 4\)"),
        ({"w2c": 2 * torch.eye(4).repeat(VIEWS, 1, 1)}, "w2c has poses that are not rigid motions"),
        ({"w2c": torch.full((VIEWS, 4, 4), torch.nan)}, "w2c has poses that are not rigid motions"),
        ({"K": torch.eye(4)}, r"K has the shape \(4, 4\), expected \(3, 3\) or \(9, 3, 3\)"),
        ({"names": ["a"]}, "names has 1 entries, expected 9"),
        ({"names": ["a"] * VIEWS}, "view a is listed more than once"),
        ({"middle_frames": [1.0]}, "middle_frames has 1 entries, expected 9"),
        ({"middle_frames": [5.0] * VIEWS}, "view 001 has middle_frame 5, expected one after the last"),
        ({"images": []}, "images has 0 entries, expected 9"),
        ({"points": torch.rand(3, 3)}, r"points and rgb have the shapes \(3, 3\) and None"),
        ({"truth": {"000": torch.eye(4)}}, r"view 000 has poses of shape \(4, 4\), expected finite \(M, 4, 4\)"),
        (
            {"streams": [SpikeStream.from_array(np.ones((9, HEIGHT + i, WIDTH), np.uint8)) for i in range(VIEWS)]},
            "array: 16x9 pixels with the filters None, expected 16x8",
        ),
    ],
)
def test_scenes_in_memory_that_do_not_fit(root, given, expected):
    with pytest.raises(ValueError, match=expected):
        in_memory(root, **given)


def test_poses_are_written_as_they_are_read(root):
    w2c = read_scene(root).train[3].camera.w2c.double().numpy()
    np.testing.assert_allclose(opengl(w2c), pose(3), atol=1e-6)
