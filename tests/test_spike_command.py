"""python -m spike: guesses, pictures, calibration, simulation and conversion, and what they refuse."""

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from commands.guard import guarded
from commands.recording_flags import frames_of
from commands.spike import main
from pictures.colors import stretched
from pictures.sheets import contact_sheet
from simulation import Simulator, simulate
from spike import Layout, Packing, SensorModel, SpikeStream, load_sensor, tfi, tfp, write_array, write_dat
from spike.formats import open_recording, read_config, write_recording
from spike.guess import guess_layout, sureness
from spike.inspection import inspect
from spike.preview import gray, picture
from utils.io import load_image, save_image

WIDTH, HEIGHT = 60, 44


def scene(t, width=WIDTH, height=HEIGHT):
    """A smooth picture that drifts by 0.02 pixels a frame."""
    y, x = np.mgrid[:height, :width].astype(float)
    x = x + 0.02 * t
    return 0.5 + 0.25 * np.sin(x / 5) * np.cos(y / 4) + 0.2 * np.sin((x + 2 * y) / 13)


@pytest.fixture(scope="module")
def spikes():
    return simulate([scene(t) for t in range(200)], gain=0.4)


@pytest.fixture(scope="module")
def recording(spikes, tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "rec.dat"
    write_dat(path, spikes)
    return path


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["spike", *map(str, words)])
    status = guarded(main)
    out, err = capsys.readouterr()
    return status, out, err


# ---- guessing the layout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bit_order", ["little", "big"])
@pytest.mark.parametrize("stored_width", [None, 72])
def test_layout_is_guessed(tmp_path, spikes, bit_order, stored_width):
    layout = Layout(bit_order, stored_width=stored_width)
    write_dat(tmp_path / "a.dat", spikes, layout)
    guess = guess_layout(tmp_path / "a.dat")
    assert (guess.height, guess.width, guess.layout) == (HEIGHT, WIDTH, layout)
    assert guess.size_sure > 0.3 and guess.order_sure > 0.3
    assert f"--height {HEIGHT} --width {WIDTH}" in guess.flags() and "--no-flip" not in guess.flags()
    assert any("upright" in line for line in guess.why)
    again, none = open_recording(tmp_path / "a.dat", guess.packing)  # what one clip tells of the next
    assert none is None and (again.unpack(0, 200) == spikes).all()


def test_what_is_given_is_not_guessed(recording):
    guess = guess_layout(recording, Packing(height=22, bit_order="big", flip=False))
    assert (guess.height, guess.layout, guess.order_sure) == (22, Layout("big", flip=False), 1.0)
    assert "--bit_order big --no-flip" in guess.flags()
    assert [sureness(v) for v in (1.0, 0.5, 0.1)] == ["sure", "likely", "a guess"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the stream is empty"),
        (bytes(5000), "the stream is all zeros, so its layout"),
        (b"\xff" * 5000, "the stream is all ones"),
        (np.random.default_rng(0).bytes(9973), "no frame size explains its 9973 bytes; give --height and --width"),
    ],
)
def test_streams_without_a_layout(tmp_path, content, expected):
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(ValueError, match=expected) as error:
        guess_layout(tmp_path / "a.dat")
    assert str(tmp_path / "a.dat") in str(error.value)


# ---- forms of a recording --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.dat", "a.npy", "a.npz", "folder"])
def test_every_form_reads_back(tmp_path, spikes, name):
    write_recording(tmp_path / name, SpikeStream.from_array(spikes))
    stream, guess = open_recording(tmp_path / name)
    np.testing.assert_array_equal(stream.unpack(0, 200), spikes)
    assert (guess is None) == (name != "a.dat")
    if name == "folder":
        config = read_config(tmp_path / name / "config.yaml")
        assert (config["spike_w"], config["spike_h"], config["filename"]) == (str(WIDTH), str(HEIGHT), "spikes")


def test_packing_flags_reach_the_file(tmp_path, spikes):
    stream = SpikeStream.from_array(spikes)
    write_recording(tmp_path / "a.dat", stream, Layout("big", False, 64))
    known = Packing(HEIGHT, WIDTH, bit_order="big", flip=False, stored_width=64)
    found, _ = open_recording(tmp_path / "a.dat", known)
    np.testing.assert_array_equal(found.unpack(3, 5), spikes[3:5])


def test_folders_and_their_faults(tmp_path, spikes):
    for name in ("one", "two"):
        write_dat(tmp_path / f"{name}.dat", spikes)
    with pytest.raises(ValueError, match=r"expected one recording in the folder, found one\.dat, two\.dat"):
        open_recording(tmp_path)
    size = f"spike_w: {WIDTH}\nspike_h: {HEIGHT}\n"
    (tmp_path / "config.yaml").write_text(f"filename: 'two'  # named\n{size}rest:\n  - 1\n")
    assert open_recording(tmp_path)[0].name.endswith("two.dat")
    (tmp_path / "config.yaml").write_text("filename: two\nspike_w: wide\n")
    with pytest.raises(ValueError, match=r'config\.yaml: spike_h is "", expected a number of pixels'):
        open_recording(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found none"):
        open_recording(tmp_path / "empty")
    with pytest.raises(ValueError, match="no such recording"):
        open_recording(tmp_path / "missing.dat")
    with pytest.raises(ValueError, match=r"\.dat, \.npy or \.npz file, or a folder"):
        write_recording(tmp_path / "a.mat", SpikeStream.from_array(spikes))


# ---- inspecting ------------------------------------------------------------------------------------------


def test_stuck_pixels_are_found(spikes):
    faulty = spikes.copy()
    faulty[:, 10, 20], faulty[:, 30, 5], faulty[:, 0, 59] = 1, 0, 1
    faulty[7] = 0
    found = inspect(SpikeStream.from_array(faulty))
    assert np.argwhere(found.dead).tolist() == [[30, 5]]
    assert np.argwhere(found.saturated).tolist() == [[0, 59], [10, 20]]
    assert found.blank == 1 and found.frames == 200
    assert found.rate.mean() == pytest.approx(spikes.mean(), rel=0.02)
    clean = inspect(SpikeStream.from_array(spikes))
    assert not clean.dead.any() and not clean.hot.any() and clean.blank == 0


def test_hot_pixels_in_the_dark():
    spikes = simulate([np.full((20, 30), 0.1)] * 400, gain=0.4)
    spikes[::3, 4, 6] = 1
    assert np.argwhere(inspect(SpikeStream.from_array(spikes)).hot).tolist() == [[4, 6]]


def test_motion_shows_as_change():
    still, moving = (
        inspect(SpikeStream.from_array(simulate([scene(v * t) for t in range(400)], gain=0.4))) for v in (0, 25)
    )
    assert moving.change > 2 * still.change
    assert len(still.levels) == len(still.starts) >= 3


@pytest.mark.parametrize(("value", "expected"), [(0, "all zeros"), (1, "all ones")])
def test_dead_recordings(value, expected):
    with pytest.raises(ValueError, match=f"the stream is {expected}"):
        inspect(SpikeStream.from_array(np.full((30, 4, 4), value)))


def test_inspect_command(recording, tmp_path, monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "inspect", recording, "--out", tmp_path / "found")
    assert status == 0
    assert f"read with --height {HEIGHT} --width {WIDTH} --bit_order little" in out and "200 frames of 60x44" in out
    record = json.loads((tmp_path / "found" / "inspection.json").read_text())
    assert (record["frames"], record["hot"], record["dead"]) == (200, [], [])
    assert load_image(tmp_path / "found" / "sheet.png").shape[2] > 1000
    assert (tmp_path / "found" / "rate.png").exists()


# ---- pictures --------------------------------------------------------------------------------------------


def test_pictures_by_every_method(spikes):
    stream = SpikeStream.from_array(spikes)
    truth = torch.from_numpy(scene(100)).float()
    sensor = SensorModel(0.4)
    spurious = SensorModel(0.4, spurious_rate=0.01)  # intervals, most of which no spurious spike cuts, stay
    torch.testing.assert_close(picture(stream, 100, "tfi", sensor=spurious), tfi(spikes, 100) / 0.4)
    torch.testing.assert_close(picture(stream, 100, "tfp", 41, sensor), tfp(spikes, 80, 121) / 0.4)
    torch.testing.assert_close(picture(stream, 100, "tfi", sensor=sensor), tfi(spikes, 100) / 0.4)
    error = {m: float((picture(stream, 100, m, 9, sensor) - truth).abs().mean()) for m in ("timing", "tfp", "tfi")}
    assert error["timing"] < 0.5 * error["tfi"] < 0.5 * error["tfp"]
    for frame in (0, 199):  # the ends
        assert float((picture(stream, frame, sensor=sensor) - torch.from_numpy(scene(frame))).abs().mean()) < 0.05


def test_pictures_apply_the_calibration(spikes):
    stream = SpikeStream.from_array(spikes)
    gain = torch.ones(HEIGHT, WIDTH)
    gain[:10] = 2
    plain, mapped = (picture(stream, 100, sensor=SensorModel(0.4, gain_map=g)) for g in (None, gain))
    torch.testing.assert_close(mapped[:10], plain[:10] / 2)
    torch.testing.assert_close(mapped[10:], plain[10:])


def test_pictures_leave_out_spurious_spikes():
    light = [scene(t) for t in range(200)]
    noisy = SpikeStream.from_array(simulate(light, gain=0.4, spurious_gap=(140, 50)))
    sensor = SensorModel(0.4)
    kept, left = (picture(noisy, 100, sensor=sensor, spurious_rate=r).numpy() - light[100] for r in (0.0, 1 / 140))
    assert np.abs(left).mean() < 0.8 * np.abs(kept).mean()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"method": "magic"}, "not 'magic'"), ({"frame": 200}, "frame 200 requested"), ({"width": 4}, "must be odd")],
)
def test_impossible_pictures(spikes, settings, expected):
    with pytest.raises(ValueError, match=expected):
        picture(SpikeStream.from_array(spikes), **({"frame": 5} | settings))


def test_stretching_and_sheets():
    image = np.linspace(0.2, 0.3, 100).reshape(10, 10)
    shown = stretched(image)
    assert shown.min() == 0 and shown.max() == 1
    np.testing.assert_allclose(stretched(image, (0.0, 1.0), gamma=1.0), image, rtol=1e-5)
    page = contact_sheet({"a": image, "b": np.ones((10, 10, 3)), "c": image}, columns=2, width=50)
    assert page.shape == (2 * 74, 100, 3)
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet({})


def test_preview_command(recording, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, capsys, "preview", recording, "--out", tmp_path / "p.png", "--method", "tfi")[0] == 0
    assert load_image(tmp_path / "p.png").shape == (1, HEIGHT, WIDTH)
    assert run(monkeypatch, capsys, "preview", recording, "--out", tmp_path / "all", "--frames", "0:200:50")[0] == 0
    assert sorted(os.listdir(tmp_path / "all")) == ["000000.png", "000050.png", "000100.png", "000150.png"]
    (tmp_path / "sensor.json").write_text('{"gain": 0.4}')
    flags = ("--sensor", tmp_path / "sensor.json", "--no-stretch", "--frames", "100")
    assert run(monkeypatch, capsys, "preview", recording, "--out", tmp_path / "raw.png", *flags)[0] == 0
    assert float((load_image(tmp_path / "raw.png")[0] - torch.from_numpy(scene(100))).abs().mean()) < 0.02


def test_preview_video(recording, tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    words = ("preview", recording, "--out", tmp_path / "v.mp4", "--frames", "::40", "--quiet", "--window", "41")
    assert run(monkeypatch, capsys, *words)[0] == 0
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 5


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--out", "p.gif"], "p.gif: a preview must be a .png, an .mp4 or a folder"),
        (["--out", "p.png", "--frames", "::9"], "one image cannot show 23 frames"),
        (["--out", "p.png", "--frames", "a:b"], "--frames a:b: expected a frame, or first:last:step"),
        (["--out", "p.png", "--frames", "::0"], "expected a frame"),
        (["--out", "p.png", "--frames", "300:400"], "selects none of the recording's 200 frames"),
        (["--out", "p.png", "--frames", "300"], "frame 300 requested"),
        (["--out", "p.mp4", "--fps", "0"], "--fps must be positive, not 0"),
        (["--out", "p.png", "--height", "46"], "not a whole number of"),
        (["--out", "p.png", "--sensor", "none.json"], "none.json: no such sensor file"),
    ],
)
def test_wrong_previews_end_in_one_sentence(recording, tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    more = ["--width", WIDTH] if "--height" in flags else []
    status, _, err = run(monkeypatch, capsys, "preview", recording, *flags, *more)
    assert status == 1 and expected in err and err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_frames_are_slices():
    stream = SpikeStream.from_array(np.ones((10, 2, 4), np.uint8))
    assert frames_of(None, stream) == [5]
    assert frames_of("7", stream) == [7]
    assert frames_of("-3:", stream) == [7, 8, 9]


def test_files_that_end_within_a_frame(recording, tmp_path):
    """A size in the field is recognized all the same; of others the guess at least does not seem sure."""
    y, x = np.mgrid[:260, :346] / 9
    spikes = simulate([0.5 + 0.4 * np.sin(x + 3 * np.sin(y))] * 40, gain=0.4)
    write_dat(tmp_path / "whole.dat", spikes, Layout(stored_width=352))
    (tmp_path / "cut.dat").write_bytes((tmp_path / "whole.dat").read_bytes()[:-240])
    with pytest.raises(ValueError, match=r"cut\.dat: 457360 bytes .* 346x260 pixels .* cut off the last 11200 bytes"):
        guess_layout(tmp_path / "cut.dat")
    (tmp_path / "odd.dat").write_bytes(recording.read_bytes()[:-90])
    try:
        assert guess_layout(tmp_path / "odd.dat").size_sure < 0.4
    except ValueError as error:
        assert "no frame size explains" in str(error)


def test_a_named_sensor_and_a_flag_that_changes_it(tmp_path, monkeypatch, capsys):
    for i in range(2):
        save_image(tmp_path / "frames" / f"{i}.png", scene(10 * i))
    words = ("simulate", tmp_path / "frames", "--between", "40", "--sensor", "jitter", "--gain", "0.2", "--seed", "4")
    assert run(monkeypatch, capsys, *words, "--out", tmp_path / "rec.npy")[0] == 0
    stored = json.loads((tmp_path / "rec_truth" / "simulation.json").read_text())
    assert (stored["gain"], stored["threshold_sigma"], stored["reset"], stored["seed"]) == (0.2, 0.08, "hard", 4)
    assert stored["dead_pixels"] == [] and stored["source"] == str(tmp_path / "frames")


# ---- color sensors --------------------------------------------------------------------------------------


def colors_at(t):
    """A picture [H, W, 3] that drifts: a warm one, so that the sensor's pixels see different amounts."""
    return np.stack([scene(t) * 0.9 + 0.1, scene(t + 40) * 0.6 + 0.1, scene(t + 90) * 0.3 + 0.1], -1)


@pytest.fixture(scope="module")
def color_recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("color")
    for i in range(3):
        save_image(folder / "frames" / f"{i}.png", colors_at(10 * i), bits=16)
    words = ["spike", "simulate", folder / "frames", "--between", "100", "--gain", "0.4", "--bayer", "GBRG", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*map(str, words), "--out", str(folder / "rec.dat")])
        assert guarded(main) == 0
    return folder / "rec.dat"


def test_pictures_of_a_color_sensor_have_colors(color_recording, tmp_path, monkeypatch, capsys):
    stream = SpikeStream.open(color_recording, HEIGHT, WIDTH).with_filters("GBRG")
    sensor = SensorModel(0.4)
    for method, most in (("timing", 0.03), ("tfp", 0.06), ("tfi", 0.12)):
        seen = picture(stream, 100, method, 41, sensor)
        assert seen.shape == (HEIGHT, WIDTH, 3)
        assert float((seen - torch.from_numpy(colors_at(10)).float()).abs().mean()) < most
    luma = torch.from_numpy(colors_at(10) @ np.array([0.299, 0.587, 0.114])).float()
    assert float((gray(picture(stream, 100, sensor=sensor)) - luma).abs().mean()) < 0.03
    flags = ("--no-stretch", "--sensor", tmp_path / "s.json", "--bayer", "GBRG")
    (tmp_path / "s.json").write_text('{"gain": 0.4}')
    for out, frames in (("a.png", "100"), ("folder", "90:110:10"), ("v.mp4", "90:110:10")):
        words = ("preview", color_recording, "--out", tmp_path / out, "--frames", frames)
        assert run(monkeypatch, capsys, *words, *flags)[0] == 0
    shown = load_image(tmp_path / "a.png", None)
    assert float((shown.permute(1, 2, 0) - torch.from_numpy(colors_at(10))).abs().mean()) < 0.03
    assert load_image(tmp_path / "folder" / "000090.png", None).shape == (3, HEIGHT, WIDTH)
    assert load_image(color_recording.with_name("rec_truth") / "000100.png", None).shape == (3, HEIGHT, WIDTH)


def test_inspection_knows_colors(color_recording, tmp_path, monkeypatch, capsys):
    words = ("inspect", color_recording, "--height", HEIGHT, "--width", WIDTH, "--out", tmp_path / "found")
    status, out, _ = run(monkeypatch, capsys, *words)
    assert status == 0 and "a color sensor? If so, give --bayer GRBG or GBRG" in out
    assert load_image(tmp_path / "found" / "rate.png", None).shape[0] == 1
    status, out, _ = run(monkeypatch, capsys, *words, "--bayer", "GBRG")
    assert status == 0 and "a color sensor?" not in out
    assert load_image(tmp_path / "found" / "rate.png", None).shape[0] == 3


def test_stuck_pixels_are_told_from_other_colors():
    """A pixel as bright as its neighbors of another color is hot among those of its own."""
    light = np.full((40, 40), 0.02)
    light[0::2, 0::2] = light[1::2, 1::2] = 0.9
    spikes = simulate([light] * 400, gain=0.4)
    spikes[:, 11, 20] = spikes[:, 10, 20]
    stream = SpikeStream.from_array(spikes)
    assert np.argwhere(inspect(stream.with_filters("GRBG")).hot).tolist() == [[11, 20]]
    assert inspect(stream).hot.sum() != 1


# ---- calibrate, simulate, convert ------------------------------------------------------------------------


def test_calibrate_command(tmp_path, monkeypatch, capsys):
    for name, level in (("dark", 0.0), ("flat", 0.8)):
        spikes = simulate([np.full((20, 20), level)] * 400, gain=0.4, dark_rate=0.01)
        spikes[:, 3, 5:7] = 0
        write_array(tmp_path / f"{name}.npy", spikes)
    files = ("--dark", tmp_path / "dark.npy", "--flat", tmp_path / "flat.npy", "--level", "0.8")
    status, out, _ = run(monkeypatch, capsys, "calibrate", *files, "--out", tmp_path / "sensor.json")
    assert status == 0 and "gain 0.4" in out and "dead or hot pixels: 2" in out
    sensor = load_sensor(tmp_path / "sensor.json")
    assert sensor.gain == pytest.approx(0.4, rel=0.02) and sensor.dark_rate == pytest.approx(0.01, abs=1e-3)
    # Neither an even field nor the dark show their size.
    for name in ("dark", "flat"):
        write_dat(tmp_path / f"{name}.dat", SpikeStream.open(tmp_path / f"{name}.npy"))
    files = ("--dark", tmp_path / "dark.dat", "--flat", tmp_path / "flat.dat", "--level", "0.8")
    status, _, err = run(monkeypatch, capsys, "calibrate", *files, "--out", tmp_path / "none.json")
    assert status == 1 and "give --height" in err and not (tmp_path / "none.json").exists()
    # A field that is not quite even does, and the dark is stored like it.
    y, x = np.mgrid[:40, :48]
    hill = 0.2 + 0.7 * np.exp(-((x - 20) ** 2 + (y - 15) ** 2) / 150)
    for name, light in (("dark", 0 * hill), ("flat", hill)):
        spikes = simulate([light] * 600, gain=0.4, dark_rate=0.01)
        write_dat(tmp_path / "uneven" / f"{name}.dat", SpikeStream.from_array(spikes))
    uneven = ("--dark", tmp_path / "uneven" / "dark.dat", "--flat", tmp_path / "uneven" / "flat.dat")
    assert run(monkeypatch, capsys, "calibrate", *uneven, "--out", tmp_path / "uneven.json")[0] == 0
    assert load_sensor(tmp_path / "uneven.json").dark_map.shape == (40, 48)
    size = ("--height", "20", "--width", "20")
    assert run(monkeypatch, capsys, "calibrate", *files, *size, "--out", tmp_path / "same.json")[0] == 0
    assert load_sensor(tmp_path / "same.json").gain == pytest.approx(sensor.gain)
    status, _, err = run(monkeypatch, capsys, "calibrate", "--out", tmp_path / "other.json")
    assert status == 1 and "a dark recording, a flat field, or both" in err and not (tmp_path / "other.json").exists()


@pytest.fixture
def frames(tmp_path):
    for i in range(3):
        save_image(tmp_path / "frames" / f"{i}.png", scene(100 * i), bits=16)
    return tmp_path / "frames"


def test_simulate_command(frames, tmp_path, monkeypatch, capsys):
    out = tmp_path / "sim.dat"
    assert run(monkeypatch, capsys, "simulate", frames, "--out", out, "--between", 50, "--gain", 0.4, "--quiet")[0] == 0
    stream = SpikeStream.open(out, HEIGHT, WIDTH)
    assert len(stream) == 101
    shown = [scene(0) + (scene(100) - scene(0)) * t / 50 for t in range(50)]
    shown += [scene(100) + (scene(200) - scene(100)) * t / 50 for t in range(51)]
    expected = simulate(shown, gain=0.4)
    assert (stream.unpack(0, 101) != expected).mean() < 2e-3  # 16-bit pictures round the light
    truth = tmp_path / "sim_truth"
    assert sorted(os.listdir(truth)) == ["000000.png", "000050.png", "000100.png", "sensor.json", "simulation.json"]
    assert json.loads((truth / "simulation.json").read_text())["gain"] == 0.4
    status, _, err = run(monkeypatch, capsys, "simulate", frames, "--out", out, "--force")
    assert status == 1 and "sim_truth: already holds files" in err


FAULTS = ("--gain_sigma 0.1", "--dark_rate 0.05", "--spurious_gap 20 5", "--shot_photons 30", "--reset hard")


@pytest.mark.parametrize("flag", [*FAULTS, "--no-random_phase", "--seed 1", "--gain 0.3", "--between 7"])
def test_every_fault_is_a_flag(frames, tmp_path, monkeypatch, capsys, flag):
    made = []
    for name, words in (("plain", []), ("faulty", flag.split())):
        out = tmp_path / f"{name}.npy"
        assert run(monkeypatch, capsys, "simulate", frames, "--out", out, "--quiet", "--between", 20, *words)[0] == 0
        made.append(np.load(out))
    assert made[0].shape != made[1].shape or (made[0] != made[1]).any()


def test_simulate_from_a_video(tmp_path, monkeypatch, capsys):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 24, (WIDTH, HEIGHT))
    for i in range(4):
        gray = (scene(i) * 255).astype(np.uint8)
        writer.write(np.repeat(gray[..., None], 3, -1))
    writer.release()
    out = tmp_path / "video"
    assert run(monkeypatch, capsys, "simulate", tmp_path / "v.avi", "--out", out, "--between", 10, "--quiet")[0] == 0
    stream, _ = open_recording(out)
    assert len(stream) == 31 and stream.count().mean() / 31 == pytest.approx(0.4964 * scene(0).mean(), rel=0.05)


def test_what_simulate_refuses(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    for i, size in enumerate((8, 16)):
        save_image(tmp_path / "sizes" / f"{i}.png", np.zeros((8, size)))
    for source, more, expected in (
        ("empty", [], "empty: no images"),
        ("missing", [], "no such folder of images, video or mesh"),
        ("text.mp4", [], "not a readable video"),
        ("sizes", ["--between", "5"], "differ in size"),
        ("sizes", ["--between", "0"], "--between must be at least 1"),
        ("sizes", ["--gain", "0"], "gain must be positive"),
    ):
        status, _, err = run(monkeypatch, capsys, "simulate", tmp_path / source, "--out", tmp_path / "a.dat", *more)
        assert status == 1 and expected in err.splitlines()[-1], source
        assert not (tmp_path / "a.dat").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mat", "a.mat: a recording must be a .dat, .npy or .npz file"),
        ("a.dat", "a.dat: a .dat stores whole bytes per frame, but 17x15 pixels are not a multiple of 8; give a name"),
        ("a", "17x15 pixels are not a multiple of 8"),
    ],
)
def test_an_output_that_cannot_be_written_costs_no_simulation(tmp_path, monkeypatch, capsys, name, expected):
    for i in range(2):
        save_image(tmp_path / "frames" / f"{i}.png", scene(i, 17, 15))
    words = ("simulate", tmp_path / "frames", "--quiet", "--out")
    status, _, err = run(monkeypatch, capsys, *words, tmp_path / name)
    assert status == 1 and expected in err and os.listdir(tmp_path) == ["frames"]
    assert run(monkeypatch, capsys, *words, tmp_path / "a.npz")[0] == 0
    assert open_recording(tmp_path / "a.npz")[0].width == 17


@pytest.mark.parametrize("flags", [("--to_bit_order", "little"), ("--to_flip",), ("--to_stored_width", "64")])
def test_packing_is_refused_where_it_is_not_written(recording, tmp_path, monkeypatch, capsys, flags):
    for name in ("folder", "a.npz"):
        status, _, err = run(monkeypatch, capsys, "convert", recording, tmp_path / name, *flags)
        assert status == 1 and f"{name}: {flags[0]} applies to a .dat only" in err and not os.listdir(tmp_path)


def test_convert_command(recording, spikes, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.dat"
    flags = ("--to_bit_order", "big", "--no-to_flip", "--to_stored_width", "64")
    assert run(monkeypatch, capsys, "convert", recording, out, *flags)[0] == 0
    np.testing.assert_array_equal(SpikeStream.open(out, HEIGHT, WIDTH, Layout("big", False, 64)).unpack(0, 200), spikes)
    status, _, err = run(monkeypatch, capsys, "convert", recording, out)
    assert status == 1 and "already exists; give --force" in err
    assert run(monkeypatch, capsys, "convert", recording, out, "--force")[0] == 0
    assert SpikeStream.open(out, HEIGHT, WIDTH).unpack(0, 200).sum() == spikes.sum()
    status, _, err = run(monkeypatch, capsys, "convert", recording, recording, "--force")
    assert status == 1 and "input and output are the same file" in err


# ---- recordings that no one here made --------------------------------------------------------------------

SPIKE_ZOO = Path(os.environ.get("SPIKE_ZOO", "spike-zoo-is-not-here"))


@pytest.mark.skipif(not SPIKE_ZOO.is_dir(), reason="give the path of a Spike-Zoo checkout as SPIKE_ZOO")
def test_real_recordings(tmp_path):
    stream, _ = open_recording(SPIKE_ZOO / "data" / "uhsr.npz")
    assert (len(stream), stream.height, stream.width) == (200, 250, 250)
    assert 0.02 < inspect(stream).rate.mean() < 0.05
    write_dat(tmp_path / "padded.dat", stream, Layout(stored_width=256))
    guess = guess_layout(tmp_path / "padded.dat")
    assert (guess.height, guess.width, guess.layout) == (250, 250, Layout(stored_width=256))
    clip, guess_ = open_recording(SPIKE_ZOO / "data" / "data.dat")
    assert guess_ is not None and (clip.height, clip.width, clip.layout.bit_order) == (250, 400, "little")
    assert guess_.size_sure > 0.8


def moving_light(width, height, frames, speed):
    """Light of a texture that moves by ``speed`` pixels a frame."""
    rng, side = np.random.default_rng(0), max(width, height) + int(speed * frames) + 1
    texture = np.sum(
        [
            weight * cv2.resize(rng.random((side // s + 3,) * 2), (side, side), interpolation=cv2.INTER_CUBIC)
            for s, weight in ((4, 0.3), (16, 0.5), (64, 0.7))
        ],
        axis=0,
    )
    texture = (0.1 + 0.8 * (texture - texture.min()) / np.ptp(texture)).astype(np.float32)
    return (texture[:height, x : x + width] for x in (speed * np.arange(frames)).astype(int))


def panned(width, height, frames, speed):
    return Simulator(gain=0.4)(moving_light(width, height, frames, speed), 0)


def test_fast_motion_does_not_hide_the_size(tmp_path):
    write_dat(tmp_path / "a.dat", panned(400, 250, 240, 1), Layout(stored_width=416))
    guess = guess_layout(tmp_path / "a.dat")
    assert (guess.width, guess.height, guess.layout.stored_width) == (400, 250, 416)
    assert "sure" == sureness(guess.size_sure) == sureness(guess.order_sure)


def above(light):
    """An even sky in the upper half: its pixels fire every tenth frame."""
    return np.where(np.arange(len(light))[:, None] < len(light) // 2, np.float32(0.25), light)


@pytest.mark.parametrize("scene", ["sky", "flicker"])
def test_what_repeats_after_some_frames_is_not_a_larger_frame(tmp_path, scene):
    """The rhythm of an even sky, or of the light: ten frames, or 200, look more alike than one and the next."""
    lights = moving_light(96, 64, 800, 0.1)
    if scene == "sky":
        lights = map(above, lights)
    else:
        lights = (light * np.float32(1 + 0.4 * np.sin(np.pi * t / 100)) for t, light in enumerate(lights))
    write_dat(tmp_path / "a.dat", Simulator(gain=0.4)(lights, 0))
    guess = guess_layout(tmp_path / "a.dat")
    assert (guess.width, guess.height, guess.layout) == (96, 64, Layout("little"))
    assert sureness(guess.size_sure) != "a guess"


def test_noise_has_no_size(tmp_path):
    noise = (np.random.default_rng(0).random((40, 64, 96)) < 0.2).astype(np.uint8)
    write_dat(tmp_path / "a.dat", noise)
    with pytest.raises(ValueError, match="no frame size explains its 30720 bytes; give --height and --width"):
        guess_layout(tmp_path / "a.dat")


def test_few_spikes_leave_the_size_a_guess(tmp_path):
    """What neighbors have in common is then hardly more than chance."""
    sure = []
    for level in (1.0, 0.25):
        light = (level * image for image in moving_light(96, 64, 64, 0.1))
        write_dat(tmp_path / "a.dat", Simulator(gain=0.4)(light, 0))
        sure.append(guess_layout(tmp_path / "a.dat", Packing(height=64)).size_sure)
    assert sureness(sure[0]) == "sure" and sureness(sure[1]) == "a guess"


def test_a_part_of_a_frame_is_not_a_frame(tmp_path):
    """Thirds of these frames, 128x32, look alike on average, too."""
    write_dat(tmp_path / "a.dat", panned(128, 96, 160, 0))
    guess = guess_layout(tmp_path / "a.dat")
    assert (guess.width, guess.height) == (128, 96)


def test_rows_of_a_large_image_are_not_taken_for_frames(tmp_path):
    """Adjacent rows look as much alike as adjacent frames."""
    write_dat(tmp_path / "a.dat", panned(960, 540, 40, 0.2))
    guess = guess_layout(tmp_path / "a.dat")
    assert (guess.width, guess.height, guess.layout) == (960, 540, Layout("little"))
    assert sureness(guess.size_sure) == "sure"


@pytest.mark.parametrize("words", ["frame", "row", "frame, big"])
def test_header_words_in_the_padding_are_no_image(tmp_path, words):
    spikes = panned(400, 250, 120, 0.2)
    stored = np.zeros((120, 250, 416), np.uint8)
    stored[:, :, :400] = spikes
    for i in range(250 if words == "row" else 120):
        bits = np.unpackbits(np.array([i], ">u2").view(np.uint8))
        if words == "row":
            stored[:, i, 400:] = bits
        else:
            stored[i, -1, 400:] = bits
    layout = Layout("big" if "big" in words else "little")
    write_dat(tmp_path / "a.dat", stored, layout)
    guess = guess_layout(tmp_path / "a.dat")
    assert (guess.width, guess.height, guess.layout.stored_width) == (400, 250, 416)
    assert guess.layout.bit_order == layout.bit_order
    assert any("hold numbers, not an image" in line for line in guess.why)


def test_a_dark_edge_is_not_padding(tmp_path):
    """Its pixels fire here and there, and so it is neither padding nor numbers."""
    spikes = panned(96, 64, 200, 0.1)
    spikes[:, :, 84:] = 0
    spikes[::50, np.arange(0, 60, 5), np.arange(84, 96)] = 1
    write_dat(tmp_path / "a.dat", spikes)
    guess = guess_layout(tmp_path / "a.dat", Packing(height=64))
    assert (guess.width, guess.layout.stored_width) == (96, None)


def test_rows_stored_in_parts_are_refused_by_name(tmp_path, monkeypatch, capsys):
    spikes = panned(200, 120, 100, 0.2)
    stored = np.zeros((100, 120, 224), np.uint8)
    stored[:, :, :100], stored[:, :, 112:212] = spikes[:, :, :100], spikes[:, :, 100:]
    write_dat(tmp_path / "a.dat", stored)
    status, out, err = run(monkeypatch, capsys, "inspect", tmp_path / "a.dat", "--out", tmp_path / "seen")
    assert (status, out) == (1, "") and "Traceback" not in err and not (tmp_path / "seen").exists()
    assert "each row of 224 pixels seems to be stored in 2 parts, each of 100 pixels and 12 of padding" in err
    rows = guess_layout(tmp_path / "a.dat", Packing(height=120, width=224))  # read as they are
    assert (rows.width, rows.height) == (224, 120)


def test_an_unclear_bit_order_leaves_the_size_a_guess(tmp_path, monkeypatch):
    """In a wrong size no order is better than the other."""
    write_dat(tmp_path / "a.dat", panned(96, 64, 100, 0.1))
    assert sureness(guess_layout(tmp_path / "a.dat").size_sure) != "a guess"
    monkeypatch.setattr("spike.guess._guess_order", lambda maps, given, step: ("little", 0.05, ""))
    assert sureness(guess_layout(tmp_path / "a.dat").size_sure) == "a guess"


def test_a_size_of_few_frames_is_never_sure(tmp_path):
    moving = simulate([scene(t) for t in range(64)], gain=0.4)
    confidence = []
    for frames in (24, 64):
        write_dat(tmp_path / "a.dat", moving[:frames])
        guess = guess_layout(tmp_path / "a.dat", Packing(height=moving.shape[1]))
        assert guess.width == moving.shape[2]
        confidence.append(guess.size_sure)
    assert confidence[0] <= 0.39 < confidence[1]
