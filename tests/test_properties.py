"""What holds for every value: files come back as they were, windows fit, motions stay rigid."""

import math
import re
from itertools import pairwise

import numpy as np
import torch
from examples import (
    dat_layouts,
    examples,
    floats32,
    folder,
    gaussians,
    poses,
    recordings,
    tensors,
    through_cameras,
    through_dat,
    twists,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from posed_views import saved_view

from gaussian_renderer.paths import file_path, save_camera_file
from gaussians.formats import read_splat, read_spz, write_splat, write_spz
from gaussians.ply import read_gaussian_ply, read_point_ply, write_gaussian_ply, write_point_ply
from scene.cameras import Camera
from scene.trajectory import CURVES, Timing, Trajectory, first_guess
from scene.tum import read_tum, write_tum
from spike import Mosaic, SensorModel, SpikeStream, WindowSpec, load_sensor, save_sensor, write_array
from spike.targets import SMOOTHING, window_quadrature, window_weights
from utils import se3
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.io import load_image, save_image
from utils.run_log import CURVES as LOG
from utils.run_log import RunLog, read_curves

SIZES = st.integers(4, 12)
TIME = torch.linspace(0, 1, 5)


# ---- recordings ----------------------------------------------------------------------------------------------


@examples()
@given(st.data(), recordings())
def test_a_dat_of_any_layout_comes_back(data, spikes):
    frames, height, width = spikes.shape
    layout = data.draw(dat_layouts(height, width))
    with folder() as place:
        stream = through_dat(place / "s.dat", spikes, layout)
        assert (place / "s.dat").stat().st_size * 8 == frames * height * (layout["stored_width"] or width)
        first = data.draw(st.integers(0, frames))
        last = data.draw(st.integers(first, frames))
        np.testing.assert_array_equal(stream.unpack(first, last), spikes[first:last])
        np.testing.assert_array_equal(stream.count(first, last), spikes[first:last].sum(0))


@examples(30)
@given(recordings(), st.sampled_from([".npy", ".npz"]), st.sampled_from([np.uint8, np.bool_, np.int64]))
def test_an_array_of_spikes_comes_back(spikes, suffix, kind):
    with folder() as place:
        write_array(place / f"s{suffix}", spikes.astype(kind))
        stream = SpikeStream.open(place / f"s{suffix}")
        np.testing.assert_array_equal(stream.unpack(0, len(stream)), spikes)


RATES = st.floats(0, 0.99)


@examples(30)
@given(st.data(), st.floats(1e-3, 10), RATES, RATES, st.booleans(), st.booleans())
def test_a_sensor_comes_back_with_its_maps(data, gain, dark, spurious, mapped, dark_mapped):
    size = data.draw(st.tuples(SIZES, SIZES))
    gain_map = data.draw(tensors(size, 0.1, 5)) if mapped else None
    dark_map = data.draw(tensors(size, 0, 0.9)) if dark_mapped else None
    sensor = SensorModel(gain, dark, spurious, gain_map, dark_map)
    with folder() as place:
        save_sensor(place / "sensor.json", sensor)
        back = load_sensor(place / "sensor.json")
    assert back.to_dict() == sensor.to_dict()
    for ours, theirs in ((sensor.gain_map, back.gain_map), (sensor.dark_map, back.dark_map)):
        assert (ours is None) == (theirs is None) and (ours is None or torch.equal(ours, theirs))
    # Rates to intensities and back.
    light = torch.rand(size)
    fired = light * gain * (1 if gain_map is None else gain_map) + (dark if dark_map is None else dark_map)
    rate = fired + spurious * (1 - fired)
    torch.testing.assert_close(back.intensity(rate), light, atol=1e-3 / gain, rtol=1e-3)


@examples(20)
@given(st.data(), st.sampled_from(["RGGB", "BGGR", "GRBG", "GBRG"]), st.integers(3, 9), st.integers(3, 9))
def test_a_mosaic_s_colors_hold_its_pixels(data, pattern, height, width):
    raw = data.draw(tensors((2, 1, height, width), 0, 1))
    mosaic = Mosaic(pattern)
    torch.testing.assert_close(mosaic.of(mosaic.colors(raw)), raw)


# ---- Gaussians -----------------------------------------------------------------------------------------------


@examples()
@given(gaussians())
def test_a_gaussian_ply_comes_back_to_the_bit(params):
    channels = params.sh0.shape[-1]
    with folder() as place:
        write_gaussian_ply(place / "g.ply", params)
        back = read_gaussian_ply(place / "g.ply")
        same = read_gaussian_ply(place / "g.ply", channels)
    for name in ("means", "quats", "log_scales", "opacity_logits"):
        assert torch.equal(getattr(back, name), getattr(params, name)), name
    for name in ("sh0", "shN"):
        assert torch.equal(getattr(back, name), getattr(params, name).expand(-1, -1, 3)), name
        torch.testing.assert_close(getattr(same, name), getattr(params, name))
    assert back.low_pass == params.low_pass


@examples(20)
@given(gaussians(channels=(3,)))
def test_one_channel_of_a_colored_ply_is_the_mean_of_three(params):
    with folder() as place:
        write_gaussian_ply(place / "g.ply", params)
        back = read_gaussian_ply(place / "g.ply", 1)
    torch.testing.assert_close(back.sh0[..., 0], params.sh0.sum(-1) / 3, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(back.shN[..., 0], params.shN.sum(-1) / 3, atol=1e-6, rtol=1e-5)


@examples(30)
@given(st.data(), st.integers(1, 8))
def test_points_come_back_to_half_a_step_of_color(data, count):
    xyz, rgb = data.draw(tensors((count, 3), -1e6, 1e6)), data.draw(tensors((count, 3), -0.5, 1.5))
    with folder() as place:
        write_point_ply(place / "p.ply", xyz, rgb)
        back, colors = read_point_ply(place / "p.ply")
    assert torch.equal(back, xyz)
    torch.testing.assert_close(colors, rgb.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)


def assert_rotations_close(ours: torch.Tensor, theirs: torch.Tensor, near: float) -> None:
    """Quaternions of any length and sign, up to an angle of ``near``."""
    ours, theirs = (torch.nn.functional.normalize(q.double(), dim=-1) for q in (ours, theirs))
    distance = torch.minimum((ours - theirs).norm(dim=-1), (ours + theirs).norm(dim=-1))
    assert float(distance.max()) < near / 2


@examples(30)
@given(gaussians())
def test_a_splat_comes_back_to_its_bytes(params):
    params.means[:, 0] = torch.arange(float(len(params.means)))  # tells them apart: the file has its own order
    with folder() as place:
        write_splat(place / "g.splat", params)
        back = read_splat(place / "g.splat")
    order = back.means[:, 0].argsort()
    assert torch.equal(back.means[order], params.means)
    torch.testing.assert_close(back.log_scales[order], params.log_scales, atol=1e-5, rtol=1e-5)
    step = 0.5 / 255 + 1e-6
    torch.testing.assert_close(back.opacity_logits[order].sigmoid(), params.opacity_logits.sigmoid(), atol=step, rtol=0)
    color = (0.5 + params.sh0[:, 0] / 2 / math.sqrt(math.pi)).clamp(0, 1).expand(-1, 3)
    torch.testing.assert_close(0.5 + back.sh0[order][:, 0] / 2 / math.sqrt(math.pi), color, atol=step, rtol=0)
    assert_rotations_close(back.quats[order], params.quats, 0.05)


@examples()
@given(gaussians(far=60_000.0))
def test_an_spz_comes_back_to_its_bytes(params):
    with folder() as place:
        write_spz(place / "g.spz", params)
        back = read_spz(place / "g.spz")
    reach = max(float(params.means.abs().max()), 1.0)
    torch.testing.assert_close(back.means, params.means, atol=reach * 2.0**-21, rtol=1e-6)
    torch.testing.assert_close(back.log_scales, params.log_scales, atol=1 / 32 + 1e-6, rtol=0)
    step = 0.5 / 255 + 1e-6
    torch.testing.assert_close(back.opacity_logits.sigmoid(), params.opacity_logits.sigmoid(), atol=step, rtol=0)
    sh0 = params.sh0.clamp(-0.5 / 0.15, 0.5 / 0.15).expand(-1, -1, 3)
    torch.testing.assert_close(back.sh0, sh0, atol=step / 0.15, rtol=0)
    # The largest byte is 240 (of a step of 16) or 248 (of 8): one step less than 1.
    torch.testing.assert_close(back.shN, params.shN.expand(-1, -1, 3), atol=1 / 8 + 1e-6, rtol=0)
    torch.testing.assert_close(back.shN[:, :3], params.shN[:, :3].expand(-1, -1, 3), atol=1 / 16 + 1e-6, rtol=0)
    assert_rotations_close(back.quats, params.quats, 0.01)
    assert back.low_pass.compensated == params.low_pass.compensated


# ---- cameras -------------------------------------------------------------------------------------------------


@examples(30)
@given(st.data(), st.integers(1, 6))
def test_a_tum_trajectory_comes_back(data, count):
    w2c = data.draw(poses(count))
    start, gap = data.draw(st.sampled_from([0.0, -3.5, 1305031102.175304])), data.draw(st.floats(1e-3, 100))
    times = start + gap * np.arange(count)
    with folder() as place:
        write_tum(place / "t.tum", times, w2c)
        back, found = read_tum(place / "t.tum")
    np.testing.assert_array_equal(back, times)
    torch.testing.assert_close(found.double(), w2c, atol=2e-5, rtol=0)


@examples(30)
@given(st.data(), st.integers(1, 3), st.sampled_from([1, 3]))
def test_cameras_come_back(data, views, instants):
    cameras = []
    for i in range(views):
        fx, fy, cx, cy = (data.draw(floats32(1, 2000)) for _ in range(4))
        w2c = data.draw(poses(instants)).float()
        k = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        width, height = data.draw(st.integers(1, 2000)), data.draw(st.integers(1, 2000))
        cameras.append((Camera(f"v{i}", width, height, k, w2c[0]), w2c))
    times = torch.linspace(0, 1, instants)
    with folder() as place:
        found = through_cameras(place, cameras, times)
    for view, (camera, w2c) in zip(found, cameras, strict=True):
        assert (view.name, view.width, view.height) == (camera.name, camera.width, camera.height)
        assert torch.equal(view.K, camera.K) and torch.equal(view.w2c, w2c) and torch.equal(view.times, times)


@examples(30)
@given(poses(3, angle=1.0))
def test_a_camera_file_goes_through_its_keys(keys):
    view = saved_view(torch.eye(4)[None])
    with folder() as place:
        save_camera_file(place / "keys.json", keys.float())
        path = file_path(place / "keys.json", [view], 5)
    torch.testing.assert_close(path.w2c[::2].double(), keys, atol=1e-4, rtol=0)
    assert path.K.equal(view.K) and (path.width, path.height) == (view.width, view.height)


# ---- runs and pictures ---------------------------------------------------------------------------------------


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.text(max_size=5),
    tensors((2, 3), -9, 9),
)  # fmt: skip
NESTED = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
STATES = st.dictionaries(st.text(max_size=5).filter(lambda key: key != "version"), NESTED, max_size=4)


def assert_same(ours: object, theirs: object) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert ours == theirs


@examples()
@given(STATES)
def test_a_checkpoint_comes_back(state):
    with folder() as place:
        save_checkpoint(place / "c.pth", state)
        back = load_checkpoint(place / "c.pth")
    del back["version"]
    assert_same(state, back)


@examples()
@given(st.data(), st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.integers(0, 8))
def test_a_run_s_log_comes_back_and_goes_on(data, losses, again):
    """A run that starts anew at an iteration keeps the rows up to it, with their time; half a line is no row."""
    with folder() as place:
        first = RunLog(place, 0)
        rows = [first.add(i, 10.0 * i, loss=loss) for i, loss in enumerate(losses, 1)]
        assert read_curves(place) == (rows, 0)
        whole = (place / LOG).read_text()
        line = whole.splitlines()[-1]
        cut = data.draw(st.integers(1, len(line)))
        (place / LOG).write_text(whole[: -1 - cut])
        assert read_curves(place) == (rows[:-1], 1)
        (place / LOG).write_text(whole)
        second = RunLog(place, again)
        kept = [row for row in rows if row["iteration"] <= again]
        assert read_curves(place)[0] == kept and second.before == (10 * len(kept) if kept else 0)
        added = second.add(again + 1, 5.0, loss=1.0)
        assert read_curves(place)[0] == [*kept, added] and added["seconds"] == second.before + 5


@examples()
@given(st.data(), st.sampled_from([8, 16]), st.sampled_from([1, 3]), SIZES, SIZES)
def test_a_picture_of_whole_steps_comes_back(data, bits, channels, height, width):
    top = 2**bits - 1
    steps = data.draw(st.lists(st.integers(0, top), min_size=8, max_size=8))
    image = torch.tensor(steps, dtype=torch.float64).repeat(channels * height * width)[: channels * height * width]
    image = (image / top).float().view(channels, height, width)
    with folder() as place:
        save_image(place / "i.png", image, bits)
        back = load_image(place / "i.png", channels)
        torch.testing.assert_close(back, image, atol=1e-6, rtol=0)
        # Written again, it is the same.
        save_image(place / "again.png", back, bits)
        assert (place / "again.png").read_bytes() == (place / "i.png").read_bytes()


# ---- windows -------------------------------------------------------------------------------------------------


# Words of an error, and the number that it blames.
FIELDS = {
    "number of sub-frames": "subframes",
    "short window": "short",
    "long input": "long_group",
    "an exposure of": "exposure",
}


@examples(200)
@given(st.integers(-2, 60), st.integers(-2, 30), st.integers(-2, 14), st.integers(-2, 8))
def test_windows_fit_or_are_told_what_would(exposure, short, subframes, long_group):
    numbers = {"exposure": exposure, "short": short, "subframes": subframes, "long_group": long_group}
    try:
        spec = WindowSpec(**numbers)
    except ValueError as error:
        culprit = next(field for words, field in FIELDS.items() if words in str(error))
        told = re.search(r"; (\d+)(?: or (\d+))? would work", str(error))
        for value in filter(None, told.groups() if told else ()):
            assert getattr(WindowSpec(**numbers | {culprit: int(value)}), culprit) == int(value)
        return
    centers = spec.centers
    assert len(centers) == len(spec.times) == subframes
    assert spec.context == exposure + short - 1 and spec.long_channels * long_group == spec.context - 1
    assert centers[subframes // 2] == spec.context // 2 and spec.times[subframes // 2] == 0.5
    assert {b - a for a, b in pairwise(centers)} <= {spec.stride}
    assert spec.interval(0, subframes - 1) == (spec.half, spec.half + exposure)
    if subframes > 1:
        assert (centers[0], centers[-1]) == (spec.half, spec.half + exposure - 1)
        assert (spec.times[0], spec.times[-1]) == (0, 1)
        np.testing.assert_allclose(np.diff(spec.times), 1 / (subframes - 1))
    for m, center in enumerate(centers):
        start, stop = spec.window(m, short)
        assert 0 <= start and stop <= spec.context and stop - start == short and start + stop - 1 == 2 * center


@examples(100)
@given(st.integers(1, 60), st.integers(0, 30), st.data())
def test_window_weights_are_a_mean(frames, smoothing, data):
    start = data.draw(st.integers(0, frames - 1))
    stop = data.draw(st.integers(start + 1, frames))
    weights = window_weights(frames, start, stop, smoothing).astype(np.float64)
    assert weights.shape == (frames,) and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6
    if smoothing <= start and stop + smoothing <= frames:  # nothing reaches beyond: exact for what changes evenly
        assert abs((weights * np.arange(frames)).sum() - (start + stop - 1) / 2) < 1e-4
    # The stream read backwards.
    backwards = window_weights(frames, frames - stop, frames - start, smoothing)
    np.testing.assert_allclose(backwards, weights[::-1], atol=1e-7)


@examples(80)
@given(st.integers(0, 20), st.sampled_from(["counting", "timing"]), st.data())
def test_window_quadrature_is_exact_for_polynomials(half, mode, data):
    width = 2 * half + 1
    points = data.draw(st.integers(1, min(width, 5)))
    coefficients = data.draw(st.lists(st.floats(-1, 1), min_size=2 * points, max_size=2 * points))
    nodes, weights = window_quadrature(width, mode, points)
    assert abs(weights.sum() - 1) < 1e-9 and (weights > 0).all() and (np.diff(nodes) > 0).all()
    np.testing.assert_allclose(nodes, -nodes[::-1], atol=1e-6)
    reach = half + (SMOOTHING if mode == "timing" else 0)
    frames = np.arange(-reach, reach + 1)
    density = window_weights(len(frames), reach - half, reach + half + 1, reach - half).astype(np.float64)
    unit = max(reach, 1)
    expected = (density * np.polyval(coefficients, frames / unit)).sum()
    assert abs((weights * np.polyval(coefficients, nodes / unit)).sum() - expected) < 1e-5


# ---- motions -------------------------------------------------------------------------------------------------


def assert_rigid(found: torch.Tensor, near: float) -> None:
    rotation = found[..., :3, :3].double()
    torch.testing.assert_close(
        rotation @ rotation.transpose(-1, -2), torch.eye(3).double().expand_as(rotation), atol=near, rtol=0
    )
    assert bool((torch.linalg.det(rotation) > 0).all())
    assert bool((found[..., 3, :] == torch.tensor([0.0, 0, 0, 1]).to(found)).all())


@examples(100)
@given(twists())
def test_the_logarithm_undoes_the_exponential(twist):
    pose = se3.exp(twist)
    assert_rigid(pose, 1e-12)
    torch.testing.assert_close(se3.log(pose), twist, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(se3.exp(-twist) @ pose, torch.eye(4).double(), atol=1e-10, rtol=0)
    torch.testing.assert_close(se3.exp(0.5 * twist) @ se3.exp(0.5 * twist), pose, atol=1e-9, rtol=0)
    torch.testing.assert_close(se3.inverse(pose) @ pose, torch.eye(4).double(), atol=1e-10, rtol=0)


GAPS = st.lists(st.floats(0.5, 4), min_size=2, max_size=5)


@st.composite
def motions(draw):
    """Poses of a recording that moves gently, and when they were taken."""
    middle = np.cumsum(draw(GAPS))
    steps = draw(st.lists(twists(0.5, 1.0), min_size=len(middle), max_size=len(middle)))
    w2c = [draw(poses(1))[0]]
    for step in steps[1:]:
        w2c.append(se3.exp(step) @ w2c[-1])
    return torch.stack(w2c), Timing(middle, np.zeros(len(middle)))


@examples()
@given(motions(), st.sampled_from(CURVES))
def test_curves_stay_rigid_and_move_with_their_world(motion, curve):
    w2c, timing = motion
    views = torch.arange(len(w2c)).repeat_interleave(len(TIME))
    u = TIME.repeat(len(w2c))
    found = Trajectory(w2c, curve, timing)(views, u).detach()
    assert_rigid(found, 1e-4)
    world = se3.exp(torch.tensor([0.5, -1, 2, 0.3, 0.2, -0.4], dtype=torch.float64))
    moved = Trajectory(w2c @ world, curve, timing)(views, u).detach()
    torch.testing.assert_close(moved.double(), found.double() @ world, atol=2e-3, rtol=0)


@examples()
@given(motions(), st.sampled_from(["linear", "cubic", "bezier"]), st.data())
def test_reversed_twice_a_view_is_as_before(motion, curve, data):
    w2c, timing = motion
    trajectory = Trajectory(w2c, curve, timing)
    view = data.draw(st.integers(0, len(w2c) - 1))
    before = trajectory.increments.detach().clone()
    middle = trajectory.view(view, torch.tensor([0.5])).detach()
    trajectory.reverse(view)
    others = torch.ones(len(before), dtype=torch.bool)
    others[trajectory.reverse(view)] = False
    assert torch.equal(trajectory.increments.detach(), before)
    rows = trajectory.reverse(view)
    assert torch.equal(trajectory.increments[rows].detach(), before[rows].flip(0))
    assert torch.equal(trajectory.increments[others].detach(), before[others])
    if curve == "linear":
        torch.testing.assert_close(trajectory.view(view, torch.tensor([0.5])).detach(), middle, atol=1e-4, rtol=0)


@examples()
@given(motions())
def test_the_first_guess_goes_through_every_middle(motion):
    w2c, timing = motion
    guess = first_guess(w2c.numpy(), timing, np.array([0.0, 0.5, 1.0]))
    assert guess.shape == (len(w2c), 3, 4, 4)
    np.testing.assert_allclose(guess[:, 1], w2c, atol=1e-8)
    assert_rigid(torch.as_tensor(guess), 1e-8)


@examples(20)
@given(motions(), st.sampled_from(CURVES))
def test_curves_come_back_from_a_checkpoint(motion, curve):
    w2c, timing = motion
    trajectory = Trajectory(w2c, curve, timing, knot_spacing=0.4)
    with folder() as place:
        save_checkpoint(place / "t.pth", trajectory.checkpoint())
        back = Trajectory.from_checkpoint(load_checkpoint(place / "t.pth"), "t.pth")
    assume(len(w2c) > 1)
    assert torch.equal(back.view(1, TIME), trajectory.view(1, TIME))
