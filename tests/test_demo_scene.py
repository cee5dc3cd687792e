"""The demo's scene: geometry, light, sensor, and the same reader as real data."""

import json
import sys

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from commands.make_demo import main
from scene.cameras import supersampling
from scene.dataset import read_scene
from simulation import Simulator, corridor, demo, still_life
from spike import WindowSpec
from spike.window import STORED
from utils.io import load_image

WIDTH, HEIGHT = 48, 32
K = np.array([[0.78 * WIDTH, 0, WIDTH / 2], [0, 0.78 * WIDTH, HEIGHT / 2], [0, 0, 1]])
FIRST_RAY = 0.5 / supersampling(WIDTH, still_life.RAYS_ACROSS)  # in a pixel
RECIPE = demo.Recipe(2, WIDTH, HEIGHT, seed=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The pictures are too small for more, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "demo"
    demo.make(out, RECIPE, processes=0)
    return out


@pytest.fixture(scope="module")
def scene(folder):
    return read_scene(folder)


def pose(frame=40.0):
    return demo.poses_at(np.array([frame]), 370, seed=3)[0]


def project(points, w2c):
    camera = points @ w2c[:3, :3].T + w2c[:3, 3]
    return (camera @ K.T)[:, :2] / camera[:, 2:], np.linalg.norm(camera, axis=1), camera[:, 2]


# ---- geometry --------------------------------------------------------------------------------------------


def test_a_ray_cast_point_reprojects_onto_its_pixel():
    points, _ = still_life.surface(pose(), K, WIDTH, HEIGHT, 200, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    u, v = rng.integers(0, WIDTH, 200), rng.integers(0, HEIGHT, 200)
    pixels, _, depth = project(points, pose())
    assert (depth > 0).all()
    assert np.allclose(pixels, np.stack([u, v], -1) + FIRST_RAY, atol=1e-3)


def test_images_are_free_of_aliasing(monkeypatch):
    """Otherwise no scene explains the truth: with two rays across a pixel, it is 34 dB from the pixels' means."""
    width, height = 100, 62
    k = np.array([[0.78 * width, 0, width / 2], [0, 0.78 * width, height / 2], [0, 0, 1]])
    drawn, _ = still_life.picture(pose(), k, width, height)
    monkeypatch.setattr(still_life, "supersampling", lambda width, across: 12)
    fine, _ = still_life.picture(pose(), k, width, height)
    assert float((drawn - fine).square().mean()) < 10**-4.2


def test_points_lie_on_the_surfaces_that_another_view_sees():
    points, _ = still_life.surface(pose(40), K, WIDTH, HEIGHT, 300, np.random.default_rng(1))
    other = pose(90)
    eye = -other[:3, :3].T @ other[:3, 3]
    offset = points - eye
    length = np.linalg.norm(offset, axis=1)
    rays = torch.as_tensor(offset / length[:, None], dtype=torch.float32)
    _, distance = still_life.trace(torch.as_tensor(eye, dtype=torch.float32), rays)
    # Nothing is seen behind a surface; most points are seen from there too, and where they were found.
    assert (distance.numpy() < length + 1e-3).all()
    assert (np.abs(distance.numpy() - length) < 1e-3).mean() > 0.7


def test_a_ball_and_a_box_are_where_the_tables_say():
    (x, y, z), radius, _ = still_life.BALLS[0]
    eye = torch.tensor([x, y - 1.5, z])
    _, distance = still_life.trace(eye, torch.tensor([[0.0, 1.0, 0.0]]))
    assert float(distance) == pytest.approx(1.5 - radius, abs=1e-5)
    (x, y), half, _, _ = still_life.BOXES[1]
    _, distance = still_life.trace(torch.tensor([x, y, 2.0]), torch.tensor([[0.0, 0.0, -1.0]]))
    assert float(distance) == pytest.approx(2 - 2 * half[2], abs=1e-5)


def test_the_cameras_stay_in_the_room_and_out_of_the_solids():
    w2c = demo.poses_at(np.arange(0, 2960, 37), 2960, seed=0)
    eyes = -np.einsum("fji,fj->fi", w2c[:, :3, :3], w2c[:, :3, 3])
    assert (np.abs(eyes[:, :2]) < still_life.ROOM - 0.2).all() and (eyes[:, 2] > 0.2).all()
    gap = np.linalg.norm(eyes[:, None] - still_life._AROUND.numpy(), axis=-1) - still_life._REACH.numpy()
    assert gap.min() > 0.1
    assert np.allclose(np.linalg.det(w2c[:, :3, :3]), 1)


# ---- light -----------------------------------------------------------------------------------------------


def floor_point(place, height, along):
    """The floor point whose ray to the light passes ``place`` (x, y) at ``height``, moved ``along`` its shadow."""
    light = still_life.LIGHT.numpy()
    shift = light[:2] / light[2] * height
    return np.array([place[0] - shift[0] - along * light[0], place[1] - shift[1] - along * light[1], 0.0])


def test_shadows_fall_away_from_the_light():
    (x, y, z), radius, _ = still_life.BALLS[2]
    index = len(still_life.BOXES) + 2
    shaded, free = floor_point((x, y), z, 0), floor_point((x, y), z, -8 * radius)
    points = torch.as_tensor(np.stack([shaded, free]), dtype=torch.float32)
    share = still_life.lit(points, torch.full((2,), -1))
    assert float(share[0]) == pytest.approx(0, abs=1e-4)
    assert float(share[1]) == pytest.approx(1)
    assert float(still_life.lit(points[:1], torch.tensor([index]))) == 1, "nothing stands in its own shadow here"


def test_a_boxs_shadow():
    (x, y), half, _, _ = still_life.BOXES[4]
    points = torch.as_tensor(np.stack([floor_point((x, y), half[2], 0)]), dtype=torch.float32)
    assert float(still_life.lit(points, torch.tensor([-1]))) < 0.05
    above = torch.tensor([[x, y, 2 * half[2] + 0.5]])
    assert float(still_life.lit(above, torch.tensor([-1]))) == 1, "what is above a box is not shaded by it"


def test_penumbras_are_soft():
    (x, y, z), radius, _ = still_life.BALLS[2]
    sideways = np.array([still_life.LIGHT[1], -still_life.LIGHT[0], 0]) / float(still_life.LIGHT[:2].norm())
    line = floor_point((x, y), z, 0) + np.linspace(0, -2 * radius, 2000)[:, None] * sideways
    share = still_life.lit(torch.as_tensor(line, dtype=torch.float32), torch.full((2000,), -1)).numpy()
    assert share[0] == pytest.approx(0, abs=1e-4) and share[-1] == 1
    assert (np.diff(share) > -1e-6).all() and np.diff(share).max() < 0.05
    assert ((share > 0.05) & (share < 0.95)).sum() > 50


# ---- what is written -------------------------------------------------------------------------------------


def test_the_scene_goes_through_the_reader_of_real_data(scene):
    spec = WindowSpec()
    assert [v.camera.name for v in scene.train] == ["000", "001"]
    assert scene.frames_per_view == STORED >= spec.context
    assert (scene.train[0].camera.width, scene.train[0].camera.height) == (WIDTH, HEIGHT)
    assert len(scene.novel) == 1 and scene.points.shape == (80, 3)
    assert all(sorted(v.sequence_paths) == list(range(spec.subframes)) for v in scene.train)
    assert {name: tuple(p.shape) for name, p in scene.truth.items()} == dict.fromkeys(
        ("000", "001"), (spec.subframes, 4, 4)
    )
    for view in scene.train:
        assert torch.allclose(view.camera.w2c, scene.truth[view.camera.name][spec.middle], atol=1e-5)


def test_truth_and_pictures_agree(scene):
    """A sub-frame's picture is what its true pose sees."""
    view = scene.train[1]
    for m in (0, 12):
        drawn, _ = still_life.picture(scene.truth["001"][m].double().numpy(), K, WIDTH, HEIGHT)
        stored = load_image(view.sequence_paths[m])[0]
        assert float((drawn - stored).abs().mean()) < 0.004
    assert float((load_image(view.sequence_paths[0]) - load_image(view.sequence_paths[12])).abs().mean()) > 0.01


def test_subframes_lie_at_the_centers_of_the_central_context(scene):
    """Where SpikeStream.central looks for them: as much before as after."""
    spec = WindowSpec()
    first = (STORED - spec.context) / 2
    frames = STORED + demo.GAP + first + np.array(spec.centers)
    expected = demo.poses_at(frames, 2 * (STORED + demo.GAP), RECIPE.seed)
    assert np.allclose(scene.truth["001"].numpy(), expected, atol=1e-5)


def test_novel_views_lie_in_the_gaps_of_the_recording(scene):
    drawn, _ = still_life.picture(scene.novel[0].camera.w2c.double().numpy(), K, WIDTH, HEIGHT)
    assert float((drawn - load_image(scene.novel[0].image_path)[0]).abs().mean()) < 0.004
    frame = STORED + demo.GAP / 2
    expected = demo.poses_at(np.array([frame]), 2 * (STORED + demo.GAP), RECIPE.seed)[0]
    assert np.allclose(scene.novel[0].camera.w2c.numpy(), expected, atol=1e-5)


def test_the_firing_rate_is_gain_times_intensity(scene):
    view = scene.train[0]
    stream = scene.open_stream(view)
    total = demo.poses_at(np.arange(STORED), 2 * (STORED + demo.GAP), RECIPE.seed)
    light = torch.stack([still_life.picture(p, K, WIDTH, HEIGHT)[0] for p in total[::4]]).mean(0).numpy()
    rate = stream.count() / len(stream)
    assert scene.sensor.gain == pytest.approx(0.4964)
    # spurious spikes add one in 140 frames
    assert rate.mean() == pytest.approx(scene.sensor.gain * light.mean() + 1 / 140, abs=0.003)
    assert np.corrcoef(rate.ravel(), light.ravel())[0, 1] > 0.98


def test_the_sensor_of_a_scene_is_chosen_by_name(tmp_path):
    demo.make(tmp_path, demo.Recipe(2, 24, 16, seed=3, sensor="dim"), processes=0)
    made = read_scene(tmp_path)
    stream = made.open_stream(made.train[0])
    assert made.sensor.gain == 0.06 and 0.01 < stream.count().mean() / len(stream) < 0.06
    assert json.loads((tmp_path / demo.SIMULATION).read_text())["gain_sigma"] == 0.02
    assert demo.Recipe(2, 24, 16, seed=3).state(tmp_path) == "to make"


def test_points_lie_near_the_surfaces(scene):
    points = scene.points.numpy()
    assert (points[:, 2] > -0.03).all() and (np.abs(points[:, :2]) < still_life.ROOM + 0.03).all()
    w2c = scene.train[0].camera.w2c.double().numpy()
    pixels, distance, _ = project(points[:40], w2c)
    _, seen = still_life.picture(w2c, K, WIDTH, HEIGHT)
    u, v = (pixels - FIRST_RAY).round().astype(int).T
    inside = (u >= 0) & (u < WIDTH) & (v >= 0) & (v < HEIGHT)
    off = np.abs(seen.numpy()[v[inside], u[inside]] - distance[inside])
    assert np.median(off) < 0.02


# ---- perturbed poses -------------------------------------------------------------------------------------


def test_perturbed_poses_are_off_by_what_the_recipe_says():
    rng, true = np.random.default_rng(0), pose()
    degrees, lengths = [], []
    for _ in range(2000):
        noisy = demo.perturbed(true, rng)
        degrees.append(np.degrees(Rotation.from_matrix(noisy[:3, :3] @ true[:3, :3].T).magnitude()))
        lengths.append(np.linalg.norm(noisy[:3, :3].T @ noisy[:3, 3] - true[:3, :3].T @ true[:3, 3]))
    assert np.sqrt(np.mean(np.square(degrees))) == pytest.approx(demo.NOISE_DEGREES, rel=0.05)
    assert np.sqrt(np.mean(np.square(lengths))) == pytest.approx(demo.NOISE_LENGTH, rel=0.05)


def test_the_noisy_scene_is_read_and_differs(scene, folder):
    noisy = read_scene(folder, transforms="transforms_noisy.json")
    for ours, theirs in zip(noisy.train, scene.train, strict=True):
        turn = Rotation.from_matrix((ours.camera.w2c[:3, :3] @ theirs.camera.w2c[:3, :3].T).numpy()).magnitude()
        assert 0.05 < np.degrees(turn) < 4
        assert ours.spike_path == theirs.spike_path


# ---- made again, or not ----------------------------------------------------------------------------------


def test_the_same_recipe_is_done_and_another_is_not(folder):
    assert RECIPE.state(folder) == "done"
    for other in (
        demo.Recipe(3, WIDTH, HEIGHT, 3),
        demo.Recipe(2, WIDTH + 8, HEIGHT, 3),
        demo.Recipe(2, WIDTH, HEIGHT, 4),
        demo.Recipe(2, WIDTH, HEIGHT, 3, version=demo.VERSION + 1),
        demo.Recipe(2, WIDTH, HEIGHT, 3, spacing=2),
    ):
        assert other.state(folder) == "to make"
    stored = json.loads((folder / "recipe.json").read_text())
    assert stored == {
        "views": 2, "width": WIDTH, "height": HEIGHT, "seed": 3, "version": demo.VERSION, "sensor": "default",
        "spacing": 1, "place": "room",
    }  # fmt: skip


def test_an_unfinished_scene_is_made_again_without_what_was_there(tmp_path):
    for name in ("spike_data/007.dat", "sequence/007_00.png", "transforms.json", "recipe.json", "sparse_pc.ply"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    assert RECIPE.state(tmp_path) == "to make"
    demo.clear(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["recipe.json"]
    (tmp_path / "recipe.json").write_text(RECIPE.text())
    assert RECIPE.state(tmp_path) == "to make", "without its points a scene is not whole"


def test_somebodys_own_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine.dat").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty and has no recipe\.json"):
        RECIPE.state(tmp_path)
    assert RECIPE.state(tmp_path / "new") == "to make"


@pytest.mark.parametrize("size, message", [("200", "--size 200: expected"), ("20x13", "multiple of 8")])
def test_sizes_are_checked(monkeypatch, tmp_path, size, message):
    monkeypatch.setattr(sys, "argv", ["make_demo.py", "--out", str(tmp_path / "x"), "--size", size])
    with pytest.raises(ValueError, match=message):
        main()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("seed", ["-1", str(2**63), "x"])
def test_seeds_are_checked(monkeypatch, tmp_path, seed, capsys):
    monkeypatch.setattr(sys, "argv", ["make_demo.py", "--out", str(tmp_path / "x"), "--size", "16x16", "--seed", seed])
    with pytest.raises(SystemExit):
        main()
    assert "error: argument --seed: " in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_view_is_the_same_whenever_it_is_made(folder, tmp_path):
    demo.make_view(1, tmp_path, 2, WIDTH, HEIGHT, K, Simulator(spurious_gap=(140, 50), seed=3), 3)
    assert (tmp_path / "spike_data/001.dat").read_bytes() == (folder / "spike_data/001.dat").read_bytes()


def test_other_sensors_can_see_frames_that_were_drawn_before(tmp_path):
    drawn = []

    def draw(pose, k, width, height):
        drawn.append(pose)
        return torch.full((height, width), 0.6)

    demo.make_view(0, tmp_path, 2, WIDTH, HEIGHT, K, Simulator(0.5), 3, draw)
    assert len(drawn) == STORED
    assert (load_image(tmp_path / "sharp_data" / "000.png") - 0.6).abs().max() < 0.01


def test_light_between_rendered_images_is_interpolated(tmp_path, monkeypatch):
    """Exact where there is truth, and each frame sees the images around it."""
    seen, drawn = [], []

    class Camera(Simulator):
        def __call__(self, light, view):
            seen.extend(torch.as_tensor(image).clone() for image in light)
            return super().__call__(iter(image.numpy() for image in seen), view)

    def draw(pose, k, width, height):
        drawn.append(pose)
        return torch.full((height, width), len(drawn) / 64)

    poses = demo.make_view(0, tmp_path, 2, WIDTH, HEIGHT, K, Camera(0.5), 3, draw, spacing=4)
    assert len(drawn) == (STORED + 3) // 4 and len(seen) == STORED
    assert [float(image[0, 0]) for image in seen] == pytest.approx([(1 + i / 4) / 64 for i in range(STORED)])
    spec = WindowSpec()
    for m, center in enumerate(spec.centers):
        frame = (STORED - spec.context) // 2 + center
        assert np.array_equal(poses[m], drawn[frame // 4]) and frame % 4 == 0
        stored = load_image(tmp_path / "sequence" / f"000_{m:02d}.png")
        assert float(stored[0, 0, 0]) == pytest.approx((1 + frame / 4) / 64, abs=0.01)


@pytest.mark.parametrize("spacing", demo.SPACINGS)
def test_every_spacing_renders_the_last_frame_and_the_truth(spacing):
    assert (STORED - 1) % spacing == 0
    assert all((demo.SPARE + center) % spacing == 0 for center in demo.PAPER.centers)


def test_other_spacings_are_refused():
    with pytest.raises(ValueError, match="images 3 frames apart, expected one of 1, 2, 4, 8"):
        demo.Recipe(2, WIDTH, HEIGHT, 3, spacing=3)


# ---- the corridor ----------------------------------------------------------------------------------------


def test_a_corridor_is_walked_from_one_end_to_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["make_demo.py", "--out", str(tmp_path / "new"), "--views", "2", "--size", "16x16",
                                     "--place", "corridor", "--quiet"])  # fmt: skip
    monkeypatch.setattr("commands.make_demo.make", lambda out, recipe: demo.make(out, recipe, processes=0))
    assert main() == 0
    stored = json.loads((tmp_path / "new" / "recipe.json").read_text())
    assert stored["place"] == "corridor"
    scene = read_scene(tmp_path / "new")
    centers = -torch.stack([v.camera.w2c[:3, :3].T @ v.camera.w2c[:3, 3] for v in scene.train])
    assert float(centers[1, 0] - centers[0, 0]) == pytest.approx(corridor.STEP, rel=0.15)
    assert len(scene.points) == 80 and float(scene.points[:, 1].abs().max()) < corridor.HALF_WIDTH + 0.03
    k = scene.train[1].camera.K.double().numpy()
    image, _ = corridor.picture(scene.truth["001"][6].double().numpy(), k, 16, 16, 2)
    assert float((image - load_image(scene.train[1].image_path)[0]).abs().mean()) < 1e-3


def test_the_corridor_is_the_same_from_two_places():
    """Points that one camera sees are on the surfaces that the other one sees, with the same texture."""
    k = np.array([[60.0, 0, 36], [0, 60, 24], [0, 0, 1]])
    first, second = corridor.poses_at(np.array([900.0, 960.0]), 48 * 185, 0, 48)
    rng = np.random.default_rng(0)
    points, shade = still_life.sampled(corridor.picture(first, k, 72, 48, 48), corridor.FIRST_RAY, first, k, 400, rng)
    camera = points @ second[:3, :3].T + second[:3, 3]
    pixels = (camera @ k.T)[:, :2] / camera[:, 2:]
    inside = (camera[:, 2] > 0) & (pixels > 1).all(1) & (pixels < [71, 47]).all(1)
    image, distance = corridor.picture(second, k, 72, 48, 48)
    u, v = pixels[inside].astype(int).T
    there, away = distance.numpy()[v, u], np.linalg.norm(camera[inside], axis=1)
    same = np.abs(there - away) < 0.05 * away
    assert inside.sum() > 200 and same.mean() > 0.85
    assert np.corrcoef(image.numpy()[v, u][same], shade[inside][same])[0, 1] > 0.9
