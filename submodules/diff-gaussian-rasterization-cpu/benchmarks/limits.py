"""What the benchmark compares times with; compiles ``limits.cpp`` with the C++ compiler of this machine."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diff_gaussian_rasterization_cpu as dgr

FLAGS = {
    "sse2": ["-msse2"],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
    "generic": [],
}


@functools.cache
def _library(instruction_set: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limits.so"
        source = Path(__file__).with_name("limits.cpp")
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, "-std=c++17", "-O3", "-ffp-contract=fast", "-shared", "-fPIC", *FLAGS[instruction_set]]
        subprocess.run([*command, str(source), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.multiply_add_rate.restype = ctypes.c_double
    loaded.multiply_add_rate.argtypes = [ctypes.c_double]
    return loaded


def multiply_add_rate(instruction_set: str, threads: int) -> float:
    """Multiply-adds per second (of one float each) on all threads at once."""
    rate = _library(instruction_set).multiply_add_rate  # without Python's lock
    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(rate, [0.02] * threads)) for _ in range(10))


def pair_counts(info: dict[str, Any], view: int) -> list[int]:
    """Pixel-Gaussian pairs in a view: evaluated by the forward pass, visited by the backward pass (in vectors of 16
    pixels), and blended."""
    arrays = [info[name][view].detach().contiguous() for name in ("means2d", "depths", "conics", "opacities")]
    counts = (ctypes.c_int64 * 3)()
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in arrays]
    _library(dgr.instruction_set()).pair_counts(len(arrays[1]), info["width"], info["height"], *pointers, counts)
    return list(counts)
