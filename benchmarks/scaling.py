"""Time and memory of training steps against the number of views, of Gaussians and of pixels, and where targets are.

    python benchmarks/scaling.py --views 16 160 1000 10000 --size 48x32 --gaussians 3000
    python benchmarks/scaling.py --views 1000 --size 600x400 --gaussians 30000 --files /tmp
    python benchmarks/scaling.py --views 16 --size 1000x1000 --gaussians 30000 300000 3000000

Every measurement runs in a process of its own, and adds a line to ``benchmarks/scaling.jsonl``.  All views show the
same spikes, which are read once: what counts is that each view has its own targets.  The start therefore does not
contain the time to read V streams, which is V times ``seconds_per_view``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch

from arguments import TimingSettings
from scene.dataset import SceneData
from scene.exposure import Exposure
from scene.views import TargetSpec
from spike import SensorModel, SpikeStream, WindowSpec
from training.building import initial_gaussians, start_trajectory
from training.objectives import SubframeLoss
from training.recipes import optimizers
from training.sampling import Instants
from training.state import Recording, State
from training.training import Training

LOG = Path(__file__).with_name("scaling.jsonl")
SPEC = TargetSpec(WindowSpec(), wide=True)
CPU = torch.device("cpu")


def texture(width: int, height: int) -> SpikeStream:
    """Spikes of a smooth random image that does not move."""
    random = np.random.default_rng(0)
    waves = random.normal(size=(6, 3))
    y, x = np.mgrid[:height, :width] / width
    light = 0.4 + 0.1 * sum(np.sin(30 * (a * x + b * y) + 6 * c) for a, b, c in waves) / 2
    phase = random.random((height, width))
    total = phase + 0.5 * light.clip(0.05, 1) * np.arange(178)[:, None, None]
    return SpikeStream.from_array((np.diff(np.floor(total), axis=0) > 0).astype(np.uint8))


def scene_of(views: int, width: int, height: int) -> SceneData:
    """Cameras side by side before a cloud of points."""
    w2c = torch.eye(4).repeat(views, 1, 1)
    w2c[:, 0, 3] = -torch.linspace(-1, 1, views)
    k = torch.tensor([[float(width), 0, width / 2], [0, float(width), height / 2], [0, 0, 1]])
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2 + torch.tensor([0.0, 0, 5])
    frames = list(range(100, 100 + 200 * views, 200))
    return SceneData.from_streams(
        [texture(width, height)] * views, k, w2c, sensor=SensorModel(0.5), points=points, rgb=points * 0 + 0.5,
        middle_frames=frames,
    )  # fmt: skip


def memory(key: str) -> float:
    """A figure of this process's memory (``RssAnon``, ``VmHWM``), GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith(key))


def measure(views: int, width: int, height: int, gaussians: int, steps: int, folder: Path | None) -> dict[str, Any]:
    """Build a training and run some steps."""
    scene = scene_of(views, width, height)
    c = TimingSettings.of(init_num_pts=gaussians, cap_max=gaussians, strategy="none", lambda_joint=0.0, iterations=1000)
    c = c.for_scene(views, height, width)
    began = time.perf_counter()
    one = Exposure.from_spikes(
        scene.train[0].camera, scene.open_stream(scene.train[0]), SPEC.window, scene.sensor, SPEC.mode, SPEC.width
    )
    seconds_per_view = time.perf_counter() - began

    def read(chosen: Any, sensor: SensorModel) -> list[Exposure]:
        return [one.of_camera(view.camera, folder) for view in chosen]

    began = time.perf_counter()
    recording = Recording(scene, SPEC.window, CPU, read, from_spikes=True, folder=folder)
    quadrature = SPEC.quadrature(3)
    state = State(recording, initial_gaussians(c, recording), start_trajectory(c, scene, quadrature))
    sample = Instants(views, 13, 6, quadrature)
    training = Training(c, state, sample, [SubframeLoss(1.0)], optimizers(c, state))
    start = time.perf_counter() - began
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        training.step()
        times.append(time.perf_counter() - began)
    return {
        "seconds_per_view": seconds_per_view, "start": start, "first_step": times[0],
        "step": float(np.median(times[len(times) // 3 :])), "anonymous": memory("RssAnon"), "peak": memory("VmHWM"),
    }  # fmt: skip


def _work(answer: Any, *given: Any) -> None:
    answer.put(measure(*given))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[16])
    parser.add_argument("--gaussians", type=int, nargs="+", default=[30_000])
    parser.add_argument("--size", nargs="+", default=["200x124"], help="WIDTHxHEIGHT, pixels")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--files", type=Path, help="keep the targets in files in this folder")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for size in args.size:
        width, height = map(int, size.split("x"))
        for views in args.views:
            for gaussians in args.gaussians:
                answer = context.Queue()
                given = (answer, views, width, height, gaussians, args.steps, args.files)
                process = context.Process(target=_work, args=given)
                process.start()
                row = {"views": views, "size": size, "gaussians": gaussians, "files": args.files is not None}
                row |= {key: round(value, 4) for key, value in answer.get().items()}
                process.join()
                print(json.dumps(row), flush=True)
                with LOG.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
