"""Random examples for property tests: how many, and what the program's values look like.

The files' own calls are gathered here too, so that a change of their signatures is one change.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import torch
from hypothesis import configuration, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gaussian_renderer.paths import SavedView, read_views
from gaussians.ply import GaussianParams, LowPass
from scene.cameras import Camera, View
from scene.model_folder import camera_entry, write_cameras
from spike import Layout, SpikeStream, write_dat
from utils import se3

# Hypothesis keeps its notes elsewhere: nothing of it is left in the repository.
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "usp-gaussian-hypothesis")


def examples(count: int = 40) -> settings:
    """``count`` examples, the same ones every time, however long they take on a busy machine."""
    return settings(max_examples=count, derandomize=True, deadline=None, database=None)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# ---- numbers -------------------------------------------------------------------------------------------------


def floats32(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers that float32 holds exactly."""
    low, high = (float(np.float32(x)) for x in (low, high))
    return st.floats(low, high, width=32, allow_subnormal=False)


def tensors(shape: tuple[int, ...], low: float, high: float) -> st.SearchStrategy[torch.Tensor]:
    """Tensors of float32."""
    return arrays.arrays(np.float32, shape, elements=floats32(low, high)).map(torch.from_numpy)


def twists(angle: float = 3.0, far: float = 10.0) -> st.SearchStrategy[torch.Tensor]:
    """Twists [6] in float64 whose rotations are shorter than ``angle``."""
    part = angle / 3**0.5
    return st.tuples(*[st.floats(-far, far)] * 3, *[st.floats(-part, part)] * 3).map(
        lambda values: torch.tensor(values, dtype=torch.float64)
    )


def poses(count: int, angle: float = 3.0) -> st.SearchStrategy[torch.Tensor]:
    """Rigid world-to-camera poses [count, 4, 4] in float64."""
    return st.lists(twists(angle), min_size=count, max_size=count).map(lambda found: se3.exp(torch.stack(found)))


# ---- recordings ----------------------------------------------------------------------------------------------


@st.composite
def recordings(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Spikes [T, H, W]."""
    shape = tuple(draw(st.integers(1, most)) for most in (6, 9, 21))
    return draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 1)))


@st.composite
def dat_layouts(draw: st.DrawFn, height: int, width: int) -> dict[str, object]:
    """A way in which a ``.dat`` may store frames of this size: whole bytes each, padded columns or none."""
    wide = width + draw(st.integers(0, 20))
    while height * wide % 8:
        wide += 1
    stored = None if wide == width and draw(st.booleans()) else wide
    return {"bit_order": draw(st.sampled_from(["little", "big"])), "flip": draw(st.booleans()), "stored_width": stored}


def through_dat(path: Path, spikes: NDArray[np.uint8], layout: dict[str, object]) -> SpikeStream:
    """Write spikes as a ``.dat`` and open it again."""
    write_dat(path, spikes, Layout(**layout))
    return SpikeStream.open(path, *spikes.shape[1:], Layout(**layout))


# ---- Gaussians and cameras -----------------------------------------------------------------------------------


@st.composite
def gaussians(draw: st.DrawFn, far: float = 1000.0, channels: tuple[int, ...] = (1, 3)) -> GaussianParams:
    """Some Gaussians of any degree, with a low-pass of their own."""
    n, degree, c = draw(st.integers(1, 5)), draw(st.integers(0, 3)), draw(st.sampled_from(channels))
    quats = draw(tensors((n, 4), -2, 2))
    quats[quats.norm(dim=-1) < 0.1] = torch.tensor([1.0, 0, 0, 0])
    return GaussianParams(
        draw(tensors((n, 3), -far, far)),
        quats,
        draw(tensors((n, 3), -9, 5)),
        draw(tensors((n,), -6, 6)),
        draw(tensors((n, 1, c), -3, 3)),
        draw(tensors((n, (degree + 1) ** 2 - 1, c), -1, 1)),
        LowPass(draw(st.integers(0, 999)) / 1000, draw(st.booleans())),
    )


def through_cameras(model: Path, cameras: list[tuple[Camera, torch.Tensor]], times: torch.Tensor) -> list[SavedView]:
    """Write cameras and their poses [M, 4, 4] as ``cameras.json`` and read them again."""
    entries = [camera_entry(i, View(camera), "train", w2c, times, 7) for i, (camera, w2c) in enumerate(cameras)]
    write_cameras(model, entries)
    return read_views(model)
