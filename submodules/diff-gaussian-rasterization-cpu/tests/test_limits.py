"""Numbers that do not fit, wrong arrays, many threads, forks: an error with the numbers or the right result."""

import os
import subprocess
import sys
import textwrap
import time

import diff_gaussian_rasterization_cpu as dgr
import numpy as np
import pytest
import torch
from diff_gaussian_rasterization_cpu import _native
from scenes import as_float32, make


def covering(n: int, width: int) -> dict:
    """Gaussians that each touch every tile of a square image."""
    view = torch.eye(4)[None].clone()
    view[0, 2, 3] = 3
    return {
        "means": torch.zeros(n, 3), "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        "scales": torch.full((n, 3), 50.0), "opacities": torch.full((n,), 0.9), "colors": torch.rand(n, 1),
        "viewmats": view, "Ks": torch.tensor([[[width / 2, 0, width / 2], [0, width / 2, width / 2], [0, 0, 1.0]]]),
        "width": width, "height": width,
    }  # fmt: skip


def test_more_than_32_bits_of_pairs_are_counted_and_refused_if_they_must_be_kept():
    scene = covering(65_600, 2048)
    scene["means"].requires_grad_()
    with pytest.raises(MemoryError, match="4299161600 pairs of a Gaussian and a tile of 8x8 pixels in 256 rows"):
        dgr.rasterization(**scene)


def test_images_larger_than_memory_are_refused_with_the_numbers():
    scene = covering(1, 65_535)
    scene |= {name: scene[name].repeat(1000, 1, 1) for name in ("viewmats", "Ks")}
    with pytest.raises(MemoryError, match=r"^out of memory: images need 51538.0 GB, [\d.]+ GB are available$"):
        dgr.rasterization(**scene)


def in_a_process(code: str, **environment: str) -> str:
    """What ``code`` prints in a process with one thread, unless the environment says otherwise."""
    start = "import os, sys, torch; torch.set_num_threads(1); import diff_gaussian_rasterization_cpu as dgr\n"
    start += f"sys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom scenes import as_float32, make\n"
    result = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_limit_of_the_process_is_an_error_and_the_next_call_works():
    code = """
        import resource
        size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000,) * 2)
        scene = as_float32(make(0))
        try:
            dgr.rasterization(**(scene | {"width": 20_000, "height": 8_000}))
        except MemoryError as error:
            print(error)
        print(dgr.rasterization(**scene)[0].shape[0])
    """
    assert in_a_process(code) == "out of memory: images need 1.3 GB\n2\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_number_of_threads_is_bounded():
    code = """
        dgr.rasterization(**as_float32(make(0, n=3000, m=1)))
        print(dgr.thread_count(), len(os.listdir("/proc/self/task")))
        for asked in ("99999999999999999999", "7,2", "-3", "many"):
            os.environ["OMP_NUM_THREADS"] = asked
            print(dgr.thread_count())
        dgr.set_thread_count(10**9)
        print(dgr.thread_count())
    """
    processors = len(os.sched_getaffinity(0))
    bound = max(64, processors)
    threads, running, *others = map(int, in_a_process(code, OMP_NUM_THREADS="40000").split())
    assert threads == bound and running < bound + 20
    assert others == [bound, 7, processors, processors, bound]


def test_a_negative_number_of_threads_is_refused():
    with pytest.raises(ValueError, match="expected a number of threads, or 0 for one per processor"):
        dgr.set_thread_count(-1)


def test_threads_sleep_between_calls():
    before = dgr.thread_count()
    dgr.set_thread_count(3)
    try:
        dgr.rasterization(**as_float32(make(0, n=3000, m=3)))
        began = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - began < 0.05
    finally:
        dgr.set_thread_count(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_draw_whatever_the_parent_was_doing():
    """Forks while another thread draws and takes memory: the child's result is the parent's."""
    code = """
        import threading, warnings
        warnings.simplefilter("ignore")
        dgr.set_thread_count(3)
        scene = as_float32(make(0, n=3000, m=3))
        wanted = dgr.rasterization(**scene)[0]
        stop = threading.Event()

        def work():
            while not stop.is_set():
                dgr.rasterization(**scene)

        thread = threading.Thread(target=work)
        thread.start()
        failed = 0
        for _ in range(15):
            child = os.fork()
            if child == 0:
                same = all(torch.equal(dgr.rasterization(**scene)[0], wanted) for _ in range(2))
                os._exit(0 if same else 1)
            failed += os.waitpid(child, 0)[1] != 0
        stop.set()
        thread.join()
        print(failed, torch.equal(dgr.rasterization(**scene)[0], wanted))
    """
    assert in_a_process(code) == "0 True\n"


def native_arguments(**changes: object) -> dict:
    """Arguments of the native forward pass: two views of 24 Gaussians."""
    scene = as_float32(make(0))
    arrays = {name: value.numpy() for name, value in scene.items() if isinstance(value, torch.Tensor)}
    arrays["ks"] = arrays.pop("Ks")
    options = {
        "coefficients": 16, "degree": 3, "width": 21, "height": 17, "crop": None, "near_plane": 0.01,
        "far_plane": 1e10, "eps2d": 0.3, "antialiased": False, "with_depth": False, "inverse_depth": False,
        "save": True,
    }  # fmt: skip
    return arrays | options | changes


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "changes",
    [
        {"means": zeros(24, 4)}, {"means": zeros(23, 3)}, {"means": zeros(24, 3, dtype=np.float64)},
        {"means": zeros(3, 24).T}, {"quats": zeros(24, 3)}, {"quats": zeros(25, 4)}, {"scales": zeros(1, 3)},
        {"opacities": zeros(24, 1)}, {"opacities": zeros(25)}, {"colors": zeros(24, 15, 1)}, {"colors": zeros(24, 16)},
        {"colors": zeros(24, 16, 5)}, {"colors": zeros(24, 16, 0)}, {"colors": np.float32(1)},
        {"colors": zeros(24, 16, 4), "with_depth": True, "backgrounds": None},
        {"colors": zeros(24, 17, 1), "coefficients": 17}, {"degree": 4}, {"degree": -1}, {"coefficients": -1},
        {"coefficients": 0, "degree": 3, "colors": zeros(24, 1)}, {"coefficients": 2**40}, {"viewmats": zeros(2, 3, 4)},
        {"viewmats": zeros(3, 4, 4)}, {"viewmats": zeros(0, 4, 4), "ks": zeros(0, 3, 3)}, {"ks": zeros(1, 3, 3)},
        {"width": 0}, {"width": 65_536}, {"height": -1}, {"height": 2**33}, {"backgrounds": zeros(2, 3)},
        {"backgrounds": zeros(1, 1)}, {"crop": (0, 0, 22, 1)}, {"crop": (1, 0, 21, 1)}, {"crop": (-1, 0, 2, 2)},
        {"crop": (2**31 - 1, 0, 2, 2)}, {"crop": (0, 0, 0, 1)}, {"crop": (0, 0)}, {"means": None},
    ],
)  # fmt: skip
def test_the_native_forward_pass_trusts_no_shape(changes):
    with pytest.raises((TypeError, ValueError)):
        _native.forward(**native_arguments(**changes))


def backward_arguments(**changes: object) -> dict:
    arguments = native_arguments()
    state = _native.forward(**(arguments | {"save": changes.pop("save", True)}))
    arrays = {name: arguments[name] for name in ("means", "quats", "scales", "opacities", "colors")}
    outputs = {f"grad_{name}": np.empty_like(value) for name, value in arrays.items()}
    return {
        "state": state, **arrays, "grad_image": zeros(2, 1, 17, 21), "grad_transmittance": zeros(2, 17, 21), **outputs,
        "grad_viewmats": zeros(2, 4, 4), "grad_means2d": zeros(2, 24, 2), "absolute_means2d": zeros(2, 24, 2),
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"save": False}, {"state": None}, {"means": zeros(23, 3)}, {"quats": zeros(24, 3)}, {"scales": zeros(25, 3)},
        {"opacities": zeros(23)}, {"colors": zeros(24, 9, 1)}, {"colors": zeros(24, 1)},
        {"grad_image": zeros(2, 1, 21, 17)}, {"grad_image": zeros(2, 2, 17, 21)}, {"grad_image": zeros(1, 1, 17, 21)},
        {"grad_transmittance": zeros(2, 17, 20)}, {"grad_means": zeros(24, 4)}, {"grad_means": zeros(23, 3)},
        {"grad_means": zeros(24, 3, dtype=np.float64)}, {"grad_quats": zeros(23, 4)}, {"grad_scales": zeros(0, 3)},
        {"grad_opacities": zeros(23)}, {"grad_colors": zeros(24, 1, 1)}, {"grad_viewmats": zeros(1, 4, 4)},
        {"grad_means2d": zeros(1, 24, 2)}, {"absolute_means2d": zeros(2, 23, 2)},
    ],
)  # fmt: skip
def test_the_native_backward_pass_trusts_no_shape(changes):
    _native.backward(**backward_arguments())
    with pytest.raises((TypeError, ValueError)):
        _native.backward(**backward_arguments(**changes))


def test_a_read_only_gradient_is_not_written():
    array = zeros(24, 3)
    array.flags.writeable = False
    with pytest.raises(TypeError):
        _native.backward(**backward_arguments(grad_means=array))


def test_native_statistics_and_empty_arrays_trust_no_shape():
    state = _native.forward(**native_arguments())
    good = {
        "means2d": zeros(2, 24, 2), "depths": zeros(2, 24), "conics": zeros(2, 24, 3), "opacities": zeros(2, 24),
        "radii": zeros(2, 24, 2, dtype=np.int32),
    }  # fmt: skip
    state.statistics(**good)
    for name in good:
        with pytest.raises(ValueError, match="other shapes"):
            state.statistics(**(good | {name: good[name][:1]}))
    with pytest.raises(TypeError):
        state.statistics(**(good | {"radii": zeros(2, 24, 2)}))
    with pytest.raises(MemoryError, match="gradients need more than 64 bits can count"):
        _native.empty([2**40, 2**40])


def test_more_gaussians_than_indices_are_refused():
    means = torch.zeros(1, 3).expand(2**31, 3)  # takes no memory
    with pytest.raises(ValueError, match="means: expected at most 2147482623 Gaussians, got 2147483648"):
        dgr.rasterization(**(as_float32(make(0)) | {"means": means}))


@pytest.mark.parametrize("antialiased", [False, True])
def test_ellipses_without_area_are_culled(antialiased):
    """Without a low-pass filter a Gaussian like a needle has an infinite conic; it is left out, as in gsplat."""
    scene = as_float32(make(1, n=64, m=1, kind="needles"))
    scene["scales"][:32, 1:] = 0
    scene["means"].requires_grad_()
    mode = "antialiased" if antialiased else "classic"
    renders, _, info = dgr.rasterization(**scene, eps2d=0.0, rasterize_mode=mode)
    renders.sum().backward()
    assert (info["radii"][0, :32] == 0).all() and (info["radii"][0, 32:, 0] > 0).any()
    assert torch.isfinite(renders).all() and torch.isfinite(scene["means"].grad).all()


@pytest.mark.parametrize("value", [1e-45, 1e-38, 1e19, 1e38, 3e38])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats", "Ks"])
@pytest.mark.parametrize("eps2d", [0.0, 0.3])
def test_extreme_but_finite_numbers_end_well(name, value, eps2d):
    scene = as_float32(make(2, n=40, m=2))
    scene[name] = scene[name].clone()
    scene[name].view(-1)[::3] = value
    scene["opacities"].requires_grad_()
    renders, _, info = dgr.rasterization(**scene, eps2d=eps2d)
    renders.sum().backward()
    assert (info["radii"] >= 0).all()
