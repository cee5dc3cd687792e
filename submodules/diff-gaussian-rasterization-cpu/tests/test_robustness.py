"""Memory, threads, and work left undone when nobody asked for it."""

import ctypes
import ctypes.util
import gc
import platform
import threading
import time

import diff_gaussian_rasterization_cpu as dgr
import pytest
import torch
from memory import growth
from scenes import as_float32, make

FE_UPWARD = 0x800 if platform.machine() in ("x86_64", "AMD64") else 0x400000  # <fenv.h>
LEARNED = ("means", "quats", "scales", "opacities", "colors", "viewmats")


def step(scene: dict, learned=LEARNED, **options):
    scene = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    for name in learned:
        scene[name].requires_grad_()
    renders, _, info = dgr.rasterization(**scene, **options)
    renders.square().sum().backward()
    return renders.detach(), {name: scene[name].grad for name in learned}, info


@pytest.mark.parametrize(
    "learned", [(n,) for n in LEARNED] + [("quats", "colors"), ("opacities", "viewmats")]
)
@pytest.mark.parametrize("screen_gradients", [True, False])
def test_gradients_alone_are_those_of_all_together(learned, screen_gradients):
    scene = as_float32(make(3, channels=3))
    everything = step(scene)[1]
    some = step(scene, learned, screen_gradients=screen_gradients)[1]
    for name in learned:
        assert torch.equal(some[name], everything[name]), name


def test_backgrounds_alone_may_learn():
    scene = as_float32(make(3))
    alone = step(scene, ("backgrounds",))[1]["backgrounds"]
    assert torch.equal(alone, step(scene, (*LEARNED, "backgrounds"))[1]["backgrounds"])


@pytest.mark.parametrize("views", [1, 16])
def test_without_gradients_nothing_is_kept_and_all_is_the_same(views):
    scene = as_float32(make(6, n=4000, m=views))
    kept, _, kept_info = step(scene)
    with torch.no_grad():
        renders, _, info = dgr.rasterization(**scene)
    assert torch.equal(renders, kept)
    for key in ("radii", "means2d", "depths", "conics", "opacities"):
        assert torch.equal(info[key], kept_info[key].detach()), key
    gc.collect()
    # The views' records would be 4000 * 32 bytes each; what is lent out now is pictures and prepared blocks, three
    # pieces of memory, each at most twice as large as asked for, and 64 kB.
    before = dgr._native.cached_bytes()
    del info, renders
    gc.collect()
    released = dgr._native.cached_bytes() - before
    prepared = 4000 * (14 + 16) * 4
    assert released < 2 * prepared + 2 * views * 21 * 17 * 4 * 2 + 3 * 65536 + views * 4096
    if views > 4:  # the bound tells the two apart
        assert 2 * prepared + 3 * 65536 + views * 4096 < prepared + views * 4000 * 32


def test_info_counts_what_is_seen():
    scene = as_float32(make(1, m=3, kind="behind"))
    info = dgr.rasterization(**scene)[2]
    assert info["n_visible"] == (info["radii"][..., 0] > 0).sum(1).tolist()
    assert info["n_cameras"] == 3 and info["width"] == 21 and info["height"] == 17
    assert 0 < min(info["n_visible"]) < 24


LAZY = {"radii", "means2d", "depths", "conics", "opacities"}


@pytest.mark.parametrize(
    "read",
    [
        lambda info, key: info.get(key),
        lambda info, key: dict(info)[key],
        lambda info, key: {**info}[key],
        lambda info, key: info.copy()[key],
        lambda info, key: dict(info.items())[key],
        lambda info, key: dict(zip(info, info.values(), strict=True))[key],
        lambda info, key: info.setdefault(key, 0),
        lambda info, key: info.pop(key),
    ],
)
def test_info_is_a_dictionary_of_all_its_keys(read):
    scene = as_float32(make(1))
    for key in LAZY:
        info = dgr.rasterization(**scene)[2]
        assert LAZY < set(info) and LAZY < info.keys() and len(list(info)) == len(info)
        assert key in info and "colors" not in info and info.get("colors") is None
        assert torch.equal(read(info, key), dgr.rasterization(**scene)[2][key])
    with pytest.raises(KeyError):
        info["colors"]


def test_what_was_set_in_info_stays():
    info = dgr.rasterization(**as_float32(make(1)))[2]
    info["means2d"] = "mine"
    assert info["radii"].shape == (2, 24, 2) and info["means2d"] == "mine"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("packed", True), ("sparse_grad", True), ("radius_clip", 1.0), ("distributed", True),
        ("camera_model", "fisheye"), ("covars", torch.zeros(24, 3, 3)), ("rolling_shutter", "ROLLING_TOP_TO_BOTTOM"),
    ],
)  # fmt: skip
def test_what_only_gsplat_does_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, the only value possible here, got "):
        dgr.rasterization(**as_float32(make(1)), **{name: value})


def test_a_parameter_that_nobody_has_is_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'antialised'"):
        dgr.rasterization(**as_float32(make(1)), antialised=True)


def test_several_python_threads():
    scenes = [as_float32(make(seed, n=500, m=1 + seed % 3)) for seed in range(4)]
    wanted = [step(s) for s in scenes]
    failures = []

    def work(index: int) -> None:
        for _ in range(15):
            renders, gradients, _ = step(scenes[index])
            if not torch.equal(renders, wanted[index][0]):
                failures.append(index)
            failures.extend(n for n in LEARNED if not torch.equal(gradients[n], wanted[index][1][n]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


LEAK = 20e6  # bytes that 300 calls with their backward pass may leave


def test_no_leak():
    scene = as_float32(make(0, n=2000, m=2))
    # A call's state is 0.5 MB: leaked, it would show as 150 MB.
    assert growth(lambda: step(scene), calls=300, before=50) < LEAK


def test_a_leak_would_be_noticed():
    """Also after the process has held more than it does now."""
    much = bytearray(b"x") * 300_000_000
    del much
    scene, kept = as_float32(make(0, n=2000, m=2)), []
    assert growth(lambda: kept.append(step(scene)), calls=300, before=50) > 2 * LEAK


def test_ten_thousand_calls_leave_nothing():
    scene = as_float32(make(0, n=8, m=1)) | {"width": 8, "height": 8}
    with torch.no_grad():
        # Four pages a call, leaked, would be 160 MB.
        assert growth(lambda: dgr.rasterization(**scene), calls=10_000, before=500) < 8e6


def test_other_python_threads_run_meanwhile():
    """The interpreter's lock is not held: another thread counts while one call is at work."""
    scene = as_float32(make(0, n=20_000, m=4)) | {"width": 400, "height": 300}
    ticks, most, stop, started = [0], 0, threading.Event(), threading.Event()

    def count() -> None:
        while not stop.is_set():
            ticks[0] += 1
            started.set()
            time.sleep(0.0005)

    counter = threading.Thread(target=count)
    counter.start()
    started.wait()
    with torch.no_grad():
        arguments = {k: v for k, v in scene.items() if k not in ("width", "height", "sh_degree", "backgrounds")}
        arrays = {name: value.numpy() for name, value in arguments.items()}
        options = {
            "coefficients": 16, "degree": 3, "width": 400, "height": 300, "crop": None, "near_plane": 0.01,
            "far_plane": 1e10, "eps2d": 0.3, "antialiased": False, "with_depth": False, "inverse_depth": False,
            "save": False, "backgrounds": None,
        }  # fmt: skip
        arrays["ks"] = arrays.pop("Ks")
        for _ in range(20):
            before = ticks[0]
            dgr._native.forward(**arrays, **options)
            most = max(most, ticks[0] - before)
    stop.set()
    counter.join()
    assert most >= 3  # one tick may slip in as the call returns


def test_no_floating_point_mode_is_changed():
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    libm.fesetround(FE_UPWARD)
    try:
        step(as_float32(make(0)))
        assert libm.fegetround() == FE_UPWARD
    finally:
        libm.fesetround(0)
    tiny = torch.tensor([1e-40])
    assert float(tiny * 0.5) > 0 and float(torch.tensor(1e-38) * 0.1) > 0


def test_writing_into_the_picture_is_noticed():
    scene = as_float32(make(0))
    scene["means"].requires_grad_()
    renders = dgr.rasterization(**scene)[0]
    with torch.no_grad():
        renders.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        renders.sum().backward()


def test_a_view_of_larger_tensors_is_read_right():
    scene = as_float32(make(2))
    wanted = dgr.rasterization(**scene)[0]
    strided = scene | {
        "means": torch.stack([scene["means"]] * 2, dim=-1)[..., 0],
        "quats": scene["quats"].T.contiguous().T,
    }
    assert not strided["means"].is_contiguous()
    assert torch.equal(dgr.rasterization(**strided)[0], wanted)
