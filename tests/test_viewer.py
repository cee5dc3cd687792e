"""The viewer: what it draws, what training hears from it, and what a real browser shows."""

import ast
import dataclasses
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_model import HEIGHT, ITERATION, WIDTH, make_model, tiny_drawing, tiny_gaussians, tiny_views

import commands.viewer as viewer_command
from arguments import TimingSettings, Video
from commands.guard import guarded
from gaussian_renderer import uncertainty
from gaussian_renderer.drawing import Drawing
from gaussian_renderer.paths import SavedView, file_path, read_views
from gaussian_renderer.uncertainty import intensity_deviation, seen_weights
from gaussian_renderer.video import record
from gaussian_renderer.viewer import Canvas, RecordedPictures, SavedPictures, Viewer
from gaussian_renderer.viewer.canvas import BESIDE, DRAWN, ERRORS, GAUSSIANS, WIPE, Choice
from gaussian_renderer.viewer.sources import SHOWN
from gaussians.model import GaussianModel
from gaussians.ply import write_gaussian_ply
from gaussians.sh import SH_C0
from pictures.colors import (
    UNKNOWN,
    depth_colors,
    error_colors,
    opacity_colors,
    rgb,
)
from pictures.kinds import FUSED, LONG, RECON_NET, TFP, TIMING, TRUTH
from pictures.sheets import letterboxed, resized
from recon_net import make_network
from scene.dataset import SceneData, read_scene
from scene.manifest import DEBLURRING, ImageWriter
from scene.model_folder import camera_entry
from scene.trajectory import Trajectory
from spike import tfp
from training.trained_model import TrainedModel
from utils.io import load_image, save_image

ROOT = Path(__file__).resolve().parents[1]
ASPECT = WIDTH / HEIGHT


# ---- what is drawn -----------------------------------------------------------------------------------------


def picture_of(view, u):
    return rgb(tiny_drawing()(view.at(torch.tensor([u])), view.K, WIDTH, HEIGHT).images[0])


def save_pictures(folder: Path, view: str) -> None:
    """Images of one view in different grays: truth at u = 0, 0.5 and 1, Recon-Net and TFP in the middle."""
    grays = [(TRUTH, 0, 0.1), (TRUTH, None, 0.5), (TRUTH, 4, 0.9), (RECON_NET, None, 0.3), (TFP, None, 0.7)]
    with ImageWriter(folder, "train", ITERATION) as images:
        for kind, m, gray in grays:
            image = np.full((HEIGHT, WIDTH), gray, np.float32)
            images.save(kind, DEBLURRING, view, m, 0.5 if m is None else m / 4, image)


def test_a_view_shows_its_render_at_every_time(tmp_path):
    view = tiny_views(tmp_path)[1]
    canvas = Canvas(tiny_drawing(), [view])
    for u in (0.0, 0.3, 1.0):
        shown = canvas.of_view(view, u, Choice(), ASPECT)
        # The caption is in the lowest lines.
        np.testing.assert_allclose(shown[:20], picture_of(view, u)[:20], atol=1 / 255)
    assert np.abs(canvas.of_view(view, 0.0, Choice(), ASPECT) - canvas.of_view(view, 1.0, Choice(), ASPECT)).max() > 0.1


def test_a_free_camera_at_a_view_s_place_shows_the_same(tmp_path):
    view = tiny_views(tmp_path)[0]
    canvas = Canvas(tiny_drawing(), [view])
    fov = 2 * float(torch.atan(HEIGHT / 2 / view.K[1, 1]))
    shown = canvas.free(view.at(torch.tensor([0.4]))[0], fov, WIDTH, HEIGHT, GAUSSIANS)
    np.testing.assert_allclose(shown, picture_of(view, 0.4), atol=1e-4)
    out = tiny_drawing()(view.at(torch.tensor([0.4])), view.K, WIDTH, HEIGHT, depth=True)
    drawn = canvas.free(view.at(torch.tensor([0.4]))[0], fov, WIDTH, HEIGHT, "opacity")
    np.testing.assert_allclose(drawn, opacity_colors(out.alphas[0]), atol=0.02)
    near = canvas.free(view.at(torch.tensor([0.4]))[0], fov, WIDTH, HEIGHT, "depth")
    limits = canvas._limits
    np.testing.assert_allclose(near, depth_colors(out.depths[0], out.alphas[0], *limits), atol=0.02)
    # The colors' range stays while the camera moves, and is taken anew where it rests.
    for settled in (False, True):
        canvas.free(view.at(torch.tensor([0.9]))[0], fov, WIDTH, HEIGHT, "depth", settled=settled)
        assert (canvas._limits == limits) != settled


def test_saved_pictures_by_kind_and_time(tmp_path):
    views = tiny_views(tmp_path)
    save_pictures(tmp_path, "v1")
    saved = SavedPictures(tmp_path, ITERATION)
    assert saved.kinds(views[1]) == [TRUTH, RECON_NET, TFP] and saved.kinds(views[0]) == []
    for u, (gray, at) in {0.0: (0.1, 0.0), 0.2: (0.1, 0.0), 0.4: (0.5, 0.5), 0.8: (0.9, 1.0)}.items():
        image, time_of = saved.nearest(TRUTH, views[1], u)
        assert time_of == at and image.mean() == pytest.approx(gray, abs=1e-3)
    assert saved.nearest(TRUTH, views[0], 0.5) is None
    # Files beside the manifest are not a view's; while it is being written again there are none.
    save_image(tmp_path / f"train/ours_{ITERATION}/gt/v0.png", np.zeros((HEIGHT, WIDTH), np.float32))
    assert saved.kinds(views[0]) == []
    with ImageWriter(tmp_path, "train", ITERATION) as images:
        assert SavedPictures(tmp_path, ITERATION).kinds(views[1]) == []
        images.save(TFP, DEBLURRING, "v0", None, 0.5, np.zeros((HEIGHT, WIDTH), np.float32))
    assert saved.kinds(views[0]) == [TFP] and saved.kinds(views[1]) == []
    save_pictures(tmp_path, "v1")
    canvas = Canvas(tiny_drawing(), views, saved)
    assert canvas.modes(views[1]) == [*DRAWN, "truth", "Recon-Net", "TFP", *ERRORS]
    assert canvas.modes(None) == canvas.modes(views[0]) == list(DRAWN)
    # Where nothing was observed (a file of others) nothing is known of the uncertainty.
    assert "uncertainty" not in Canvas(tiny_drawing(), [dataclasses.replace(views[0], split="")]).modes(None)


def test_the_error_is_taken_at_the_truth_s_own_time(tmp_path):
    view = tiny_views(tmp_path)[1]
    save_pictures(tmp_path, "v1")
    canvas = Canvas(tiny_drawing(), [view], SavedPictures(tmp_path, ITERATION))
    truth = np.full((HEIGHT, WIDTH, 3), 0.9, np.float32)
    compared = {"error of Gaussians": picture_of(view, 1.0), "error of Recon-Net": np.full_like(truth, 0.3)}
    for mode, image in compared.items():
        shown = canvas.of_view(view, 0.9, Choice(mode), ASPECT)
        np.testing.assert_allclose(shown[:16], error_colors(image, truth)[:16], atol=0.02)


def test_two_pictures_together(tmp_path):
    view = tiny_views(tmp_path)[1]
    save_pictures(tmp_path, "v1")
    canvas = Canvas(tiny_drawing(), [view], SavedPictures(tmp_path, ITERATION))
    beside = canvas.of_view(view, 0.5, Choice("Recon-Net", "TFP", BESIDE), 2 * ASPECT)
    assert beside[5, 5, 0] == pytest.approx(0.3, abs=0.01) and beside[5, -5, 0] == pytest.approx(0.7, abs=0.01)
    wiped = canvas.of_view(view, 0.5, Choice("Recon-Net", "TFP", WIPE, border=0.25), ASPECT)
    row = wiped[5, :, 0]
    assert (np.abs(row[:12] - 0.3) < 0.01).all() and (np.abs(row[13:] - 0.7) < 0.01).all()
    assert canvas.of_view(view, 0.5, Choice(), ASPECT, least=3 * HEIGHT).shape[0] == 3 * HEIGHT


def recorded(scene_folder: Path, network=None, saved=None) -> tuple[RecordedPictures, SavedView, SceneData]:
    """The pictures of the small scene's recording, and its middle view."""
    settings, scene = TimingSettings.of(source_path=str(scene_folder)), read_scene(scene_folder)
    view = scene.train[2]
    times = torch.linspace(0, 1, 13)
    entry = camera_entry(2, view, "train", scene.truth[view.camera.name], times, 7)
    model = TrainedModel(scene_folder, 7, torch.device("cpu"), settings)
    pictures = RecordedPictures(
        scene,
        model.window_spec,
        model.exposures,
        spikes=True,
        subframe_width=model.subframe_width,
        network=network,
        saved=saved,
    )
    return pictures, SavedView.of(entry), scene


def test_pictures_of_a_recording_at_any_instant(scene_folder, tmp_path):
    network = make_network("slim", 41, 34)
    pictures, view, scene = recorded(scene_folder, network)
    assert pictures.kinds(view) == [kind for kind in SHOWN if kind != FUSED]
    fused = np.full((HEIGHT, WIDTH), 0.4, np.float32)
    with ImageWriter(tmp_path, "train", ITERATION) as images:
        images.save(FUSED, DEBLURRING, view.name, None, 0.5, fused)
    more, _, _ = recorded(scene_folder, network, SavedPictures(tmp_path, ITERATION))
    assert more.kinds(view) == list(SHOWN) and more.nearest(FUSED, view, 0.4)[1] == 0.5
    assert pictures.nearest(FUSED, view, 0.4) is None
    assert pictures.kinds(dataclasses.replace(view, name="novel_000")) == [TRUTH]
    assert pictures.kinds(dataclasses.replace(view, name="none")) == [] and pictures.nearest(TFP, view, 0.3)
    # Truth in the first sub-frame, the middle and the last; the spikes are near it, timing nearer than counting.
    error = {}
    for kind in (TFP, TIMING, RECON_NET):
        for u in (0.0, 0.5, 1.0):
            truth, at = pictures.nearest(TRUTH, view, u)
            image, at_image = pictures.nearest(kind, view, u)
            assert at == at_image == u
            error[kind, u] = float(np.abs(image - truth).mean())
    assert all(error[TIMING, u] < 0.8 * error[TFP, u] < 0.1 for u in (0.0, 0.5, 1.0))
    # An untrained slim network gives the timing image that it starts from.
    np.testing.assert_allclose(error[RECON_NET, 0.5], error[TIMING, 0.5], rtol=0.05)
    # Between the sub-frames the spikes have a picture of their own, Recon-Net the nearest.
    (first, u), (second, v) = (pictures.nearest(TFP, view, x) for x in (0.51, 0.53))
    assert (u, v) == (49 / 96, 51 / 96) and np.abs(first - second).max() > 0
    assert pictures.nearest(RECON_NET, view, 0.53)[1] == 0.5
    stream = scene.open_stream(scene.train[2])
    start = (len(stream) - 97) // 2 + 51 - 20  # 41 frames about frame 51 of the exposure
    counted = scene.sensor.intensity(tfp(stream.unpack(0, len(stream)), start, start + 41))
    np.testing.assert_allclose(second[..., 0], counted.clamp(0, 1), atol=1e-3)
    # In training the network is another one after a while.
    with torch.no_grad():
        network.layers[-1].bias += 0.1
    pictures.learn(network, None)
    brighter = float((pictures.nearest(RECON_NET, view, 0.5)[0] - pictures.nearest(TRUTH, view, 0.5)[0]).mean())
    assert 0.08 < brighter < 0.12
    # A sensor that training found half as sensitive makes its pictures brighter, not those of the spikes alone.
    before = pictures.nearest(TFP, view, 0.5)[0]
    pictures.learn(network, dataclasses.replace(scene.sensor, gain=scene.sensor.gain / 2))
    assert pictures.nearest(LONG, view, 0.5)[0].mean() > 1.5 * before.mean()
    np.testing.assert_array_equal(pictures.nearest(TFP, view, 0.5)[0], before)


# ---- uncertainty -------------------------------------------------------------------------------------------


def blending_weights(drawing: Drawing, view: SavedView) -> torch.Tensor:
    """Weights [N, pixels] of every Gaussian in every pixel: each alone in white."""
    weights = []
    for i in range(len(drawing.gaussians)):
        raw = {name: value.detach() for name, value in drawing.gaussians.raw.items()}
        sh0 = torch.full((len(raw["means"]), 1, 1), -0.5 / SH_C0)
        sh0[i] = 0.5 / SH_C0
        model = GaussianModel(raw | {"sh0": sh0, "shN": torch.zeros(len(sh0), 0, 1)}, 0, drawing.gaussians.low_pass)
        one = dataclasses.replace(drawing, gaussians=model)
        weights.append(one(view.at(torch.tensor([0.5])), view.K, view.width, view.height).images.flatten())
    return torch.stack(weights)


def test_uncertainty_is_the_fisher_information_of_the_colors(tmp_path, monkeypatch):
    views, drawing = tiny_views(tmp_path), tiny_drawing()
    exact = sum(blending_weights(drawing, view).square().sum(1) for view in views)
    estimated = seen_weights(drawing, views)
    assert (estimated[exact == 0] == 0).all()
    assert float(estimated.sum() / exact.sum()) == pytest.approx(1, abs=0.1)
    monkeypatch.setattr(uncertainty, "_PASSES", 600)
    torch.testing.assert_close(seen_weights(drawing, views), exact, rtol=0.2, atol=0.02)
    assert uncertainty.uncertain(drawing, views).gaussians.low_pass == drawing.gaussians.low_pass


def test_what_no_view_has_seen_is_unknown(tmp_path):
    views, drawing = tiny_views(tmp_path), tiny_drawing()
    raw = {name: value.detach().clone() for name, value in drawing.gaussians.raw.items()}
    raw["means"][:5] += torch.tensor([0.0, 0.0, -30.0])  # behind every camera
    drawing = dataclasses.replace(drawing, gaussians=GaussianModel(raw, 1, drawing.gaussians.low_pass))
    deviation = intensity_deviation(drawing, views)
    assert (deviation[:5] == UNKNOWN).all() and deviation[5:].median() < 0.1 * UNKNOWN
    assert intensity_deviation(drawing, views[:1])[5:].median() > 1.3 * deviation[5:].median()
    # As a picture: dark in the middle of the scene, brightest where nothing is.
    canvas = Canvas(drawing, views)
    shown = canvas.of_view(views[1], 0.5, Choice("uncertainty"), ASPECT)
    alpha = drawing(views[1].at(torch.tensor([0.5])), views[1].K, WIDTH, HEIGHT).alphas[0, 0]
    empty, full = ((alpha < 0.001).numpy()[:20], (alpha > 0.95).numpy()[:20])
    assert shown[:20][empty].mean() > 0.7 > 0.5 > shown[:20][full].mean()
    known = canvas._uncertainty()
    assert canvas._uncertainty() is known
    canvas.drawing = dataclasses.replace(drawing)
    assert canvas._uncertainty() is not known


# ---- without viser -----------------------------------------------------------------------------------------


def test_viser_is_only_needed_to_serve(tmp_path, monkeypatch):
    for file in (ROOT / "gaussian_renderer").rglob("*.py"):
        always = [
            ast.unparse(node)
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not [line for line in always if "viser" in line or "import av" in line], file
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ValueError, match="pip install viser"):
        Viewer(Canvas(tiny_drawing(), tiny_views(tmp_path)))


# ---- the server --------------------------------------------------------------------------------------------


@pytest.fixture
def viewer(tmp_path):
    pytest.importorskip("viser")
    views = tiny_views(tmp_path)
    save_pictures(tmp_path, "v1")
    made = Viewer(
        Canvas(tiny_drawing(), views, SavedPictures(tmp_path, ITERATION)),
        initial=torch.stack([view.w2c[0] for view in views]),
        port=free_port(),
        path_file=tmp_path / "camera_path.json",
        training=True,
    )
    yield made
    made.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_it_serves_this_machine_alone(viewer, capsys):
    assert viewer.host == "127.0.0.1" and viewer.server.get_host() == "127.0.0.1"
    with urllib.request.urlopen(viewer.url, timeout=10) as page:
        assert page.status == 200 and b"<html" in page.read(2000).lower()
    assert capsys.readouterr().out == ""


def test_training_is_told_to_go_on_and_nothing_is_copied_unwatched(viewer):
    before = viewer.canvas.drawing
    assert viewer.update(tiny_gaussians(seed=1), 1, {"loss": 0.5}) == "running"
    assert viewer.canvas.drawing.gaussians.low_pass == tiny_gaussians().low_pass
    assert viewer.canvas.drawing is before
    # From the start it draws a copy, because training changes the Gaussians in place.
    live = tiny_gaussians()
    canvas = Canvas(dataclasses.replace(before, gaussians=live), viewer.views)
    other = Viewer(canvas, port=free_port(), training=True)
    other.close()
    assert other.canvas.drawing.gaussians is not live and torch.equal(other.canvas.drawing.gaussians.means, live.means)


def test_curves_stay_short(viewer):
    gaussians = tiny_gaussians()
    for i in range(1, 3001):
        viewer.update(gaussians, i, {"loss": 1 / i})
    steps = [step for step, _ in viewer._curves]
    assert 400 < len(steps) <= 1001 and steps == sorted(steps) and steps[-1] > 2990


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give either a model folder"),
        (["-m", "nowhere"], "cfg_args.json: not found"),
        (["--ply", "none.ply"], "no such PLY"),
        (["--ply", "none.ply", "--port", "0"], "1 to 65535"),
    ],
)
def test_bad_commands(argv, message, tmp_path, monkeypatch, capsys):
    from commands.guard import guarded
    from commands.viewer import main

    monkeypatch.setattr(sys, "argv", ["viewer", *argv])
    assert guarded(main) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("most", [10, 100_000])
def test_a_view_of_a_file_fits_its_size(most, monkeypatch):
    """However many Gaussians it has."""
    monkeypatch.setattr("commands.viewer._LOOKED_AT", most)
    gaussians = tiny_gaussians()
    with torch.no_grad():
        gaussians.raw["means"].mul_(100)
    view = viewer_command.surrounding_view(gaussians)
    points = gaussians.means.detach() @ view.w2c[0, :3, :3].T + view.w2c[0, :3, 3]
    assert float((points[:, 2] > 0).float().mean()) > 0.7


def test_a_file_without_gaussians_is_refused(tmp_path, monkeypatch, capsys):
    gaussians = tiny_gaussians(channels=3)
    none = GaussianModel({n: v.detach()[:0] for n, v in gaussians.raw.items()}, gaussians.sh_degree, gaussians.low_pass)
    write_gaussian_ply(tmp_path / "none.ply", none.params)
    monkeypatch.setattr(sys, "argv", ["viewer", "--ply", str(tmp_path / "none.ply"), "--quiet"])
    assert guarded(viewer_command.main) == 1
    assert capsys.readouterr().err.endswith("none.ply: has no Gaussians\n")


def test_the_command_shows_a_ply_of_others(tmp_path):
    pytest.importorskip("viser")
    write_gaussian_ply(tmp_path / "x.ply", tiny_gaussians(channels=3).params)
    port = free_port()
    command = [sys.executable, "-m", "gaussian_renderer.viewer", "--ply", str(tmp_path / "x.ply"), "--port", str(port)]
    # Where the tests run in a shell's background they, and what they start, would ignore Ctrl-C.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=heeding) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("60 Gaussians; open http://localhost:")
            assert urllib.request.urlopen(line.split()[3], timeout=10).status == 200
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0


# ---- a real browser ----------------------------------------------------------------------------------------

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
# No updates, no reports: a test talks to nobody. WebGL without a graphics card is SwiftShader's.
QUIETLY = ("quic", "background-networking", "component-update", "sync", "gpu")
CHROMIUM_FLAGS = [f"--disable-{what}" for what in QUIETLY] + ["--no-first-run", "--enable-unsafe-swiftshader"]
SIZE = (900, 600)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        path = CHROMIUM or p.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium on this machine")
        made = p.chromium.launch(executable_path=path, args=["--no-sandbox", *CHROMIUM_FLAGS])
        yield made
        made.close()


class Page:
    """The viewer in a browser, by the words on its controls."""

    def __init__(self, browser, url):
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("text=exposure u", timeout=60_000)
        notice = self.page.locator(".mantine-Notification-root button").first
        notice.wait_for()
        notice.click()  # of software rendering; it lies over the picture

    def _row(self, label):
        path = f"xpath=//label[normalize-space()='{label}']/ancestor::div[contains(@class,'Flex-root')][1]"
        return self.page.locator(path).locator("input:not([type=hidden])").first

    def choose(self, label, option):
        self._row(label).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def slide(self, label, value):
        self._row(label).fill(str(value))
        self._row(label).press("Enter")

    def value(self, label):
        return self._row(label).input_value()

    def press(self, text):
        self.page.get_by_role("button", name=text, exact=True).click()

    def shot(self) -> np.ndarray:
        """The part of the window beside the controls, [H, W, 3] in 0..1."""
        box = self.page.locator("canvas").first.bounding_box()
        png = self.page.screenshot(clip=box)
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] / 255.0

    def colors(self, place) -> set[str]:
        """Which of the first two curves' colors are seen in a part of the page."""
        found = self.page.locator(place)
        # The curves are drawn anew every few seconds: an element may be gone before its picture is taken.
        box = found.first.bounding_box() if found.count() else None
        if box is None:
            return set()
        shot = cv2.imdecode(np.frombuffer(self.page.screenshot(clip=box), np.uint8), cv2.IMREAD_COLOR).astype(int)
        blue, green, red = (shot[..., i] for i in range(3))
        seen = {"orange": (red > green + 40) & (green > blue + 20), "blue": (blue > green + 40) & (green > red + 20)}
        return {name for name, pixels in seen.items() if pixels.sum() > 10}

    def close(self):
        self.page.close()


def eventually(check, seconds=30.0):
    """Wait until ``check`` holds: the picture arrives some time after the click."""
    end = time.monotonic() + seconds
    while not (held := check()) and time.monotonic() < end:
        time.sleep(0.1)
    return held


def difference(shot, image) -> float:
    """Mean distance of a screenshot and a picture, without the caption's lines."""
    wanted = cv2.resize(image, shot.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    rows = slice(0, int(0.8 * len(shot)))
    return float(np.abs(shot[rows] - wanted[rows]).mean())


def test_in_a_browser(browser, viewer, tmp_path):
    page = Page(browser, viewer.url)
    try:
        view, canvas = viewer.views[1], viewer.canvas
        free = page.shot()
        assert free.std() > 0.05  # not an empty canvas
        aspect = free.shape[1] / free.shape[0]
        # What render.py draws of this view: the first, the middle and the last instant of its video.
        video = Video("exposure", "v1", video_frames=3, video_out=str(tmp_path / "video"))
        record(video, viewer.views, tiny_drawing(), None)
        frames = [load_image(tmp_path / f"video/{i:05d}.png", channels=3) for i in range(3)]
        drawn = [letterboxed(resized(rgb(frame), 15 * WIDTH, 15 * HEIGHT), aspect) for frame in frames]
        for name in ("v0", "v1"):
            page.press("next")
            assert eventually(lambda name=name: page.value("view") == name)
        assert eventually(lambda: difference(page.shot(), drawn[1]) < 0.02)
        # The slider moves the camera inside the exposure.
        page.slide("exposure u", 0)
        assert eventually(lambda: difference(page.shot(), drawn[0]) < 0.02)
        assert difference(page.shot(), drawn[2]) > 0.04

        def shows(choice, u):
            return lambda: difference(page.shot(), canvas.of_view(view, u, choice, aspect, least=540)) < 0.02

        for mode in ("depth", "uncertainty", "truth"):
            page.choose("image", mode)
            assert eventually(shows(Choice(mode), 0.0))
        assert not page.page.get_by_text("compare", exact=True).is_visible()  # the scene first
        page.page.get_by_text("Compare", exact=True).click()
        page.choose("compare", "wipe")
        page.choose("with", "TFP")
        page.slide("wipe", 0.3)
        assert eventually(shows(Choice("truth", "TFP", WIPE, 0.3), 0.0))
        # A key pose is the camera one looks through, and the file is one that videos are made from.
        page.page.get_by_text("Camera path").click()
        page.press("Add this pose")
        page.press("Save path")
        assert eventually((tmp_path / "camera_path.json").exists)
        saved = file_path(tmp_path / "camera_path.json", viewer.views, 1).w2c[0]
        torch.testing.assert_close(saved, view.w2c[0], atol=2e-3, rtol=0)
        # Dragging takes the camera away from the view.
        time.sleep(0.5)
        page.page.mouse.move(200, 200)
        page.page.mouse.down()
        page.page.mouse.move(300, 240, steps=8)
        page.page.mouse.up()
        assert eventually(lambda: page.value("view") == "free camera")
        assert page.errors == []
    finally:
        page.close()


def test_training_in_a_browser(browser, tmp_path):
    pytest.importorskip("viser")
    views = read_views(make_model(tmp_path))
    trajectory = Trajectory(torch.stack([view.w2c[2] for view in views]), "linear")
    viewer = Viewer(Canvas(tiny_drawing(), views), port=free_port(), training=True, trajectory=trajectory)
    stop, heard = threading.Event(), []

    def train():
        for i in range(1, 100_000):
            gaussians = tiny_gaussians(seed=i // 20 % 2)
            sometimes = {"ratio": 0.5 + 1 / i} if i % 3 == 0 else {}
            heard.append(viewer.update(gaussians, i, {"loss": 1 / i, "psnr": 20.0} | sometimes))
            while viewer.update(gaussians, i, {"loss": 1 / i}) == "paused" and not stop.is_set():
                time.sleep(0.02)
            if heard[-1] == "stopped" or stop.is_set():
                return
            time.sleep(0.02)

    thread = threading.Thread(target=train)
    thread.start()
    page = None
    try:
        page = Page(browser, viewer.url)
        first = viewer.canvas.drawing.gaussians
        assert eventually(lambda: viewer.canvas.drawing.gaussians is not first)
        # The poses in training are shown: this trajectory stands still.
        assert eventually(lambda: torch.allclose(viewer.views[0].w2c[0], viewer.views[0].w2c[4], atol=1e-6))
        page.page.wait_for_selector("text=PSNR 20.00 dB")
        assert eventually(lambda: page.colors(".u-over") >= {"orange", "blue"})  # both curves
        page.press("Pause")
        assert eventually(lambda: viewer.state == "paused")
        time.sleep(0.2)
        steps, shown = len(heard), viewer.canvas.drawing
        time.sleep(0.3)
        # Asked again and again in the pause, it copies nothing more.
        assert len(heard) == steps and viewer.canvas.drawing is shown
        assert viewer._curves[-1][0] == steps
        page.press("Resume")
        assert eventually(lambda: len(heard) > steps)
        page.press("Stop and save")
        assert eventually(lambda: heard[-1] == "stopped")
        assert page.errors == []
    finally:
        stop.set()
        thread.join()
        if page is not None:
            page.close()
        viewer.close()
    assert not thread.is_alive()
