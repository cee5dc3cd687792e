"""Time and memory of training steps against the number of views, of Gaussians, of pixels and of processes.

    python benchmarks/scaling.py --views 16 160 1000 10000 --size 48x32 --gaussians 3000
    python benchmarks/scaling.py --views 1000 --size 600x400 --gaussians 30000 --files /tmp
    torchrun --standalone --nproc-per-node=2 benchmarks/scaling.py --shards 2
    python benchmarks/scaling.py --alternate --views 64 --size 400x250 --files /tmp    targets in memory and in files
    python benchmarks/scaling.py --curves                                              all curves of docs/scaling.md
    python benchmarks/scaling.py --chart                                               their plot and the fitted model

Every measurement runs in its own process and adds a line to ``benchmarks/scaling.jsonl``.  All views show the
same spikes, which are read once: what counts is that each view has its own targets.  The start therefore does not
contain the time to read V streams, which is V times ``seconds_per_view``.  Times of a step are given twice: seconds
that passed, and processor time, which compares rows on a machine that has other work as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import numpy as np
import torch
from scipy.optimize import nnls

from arguments import TimingSettings
from evaluation.charts import log_charts
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
from utils.device import share_processors
from utils.processes import ALONE, Processes

LOG = Path(__file__).with_name("scaling.jsonl")
CHART = Path(__file__).resolve().parents[1] / "docs" / "images" / "scaling.svg"
SPEC = TargetSpec(WindowSpec(), wide=True)
CPU = torch.device("cpu")
# A step of `timing`: rendered cameras, and how many of them cover the window around one instant.
CAMERAS, POINTS = 6, 3


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


@dataclass(frozen=True)
class Case:
    """What is measured."""

    views: int = 16
    size: str = "200x124"
    gaussians: int = 30_000
    files: bool = False
    shards: int = 1
    processes: int = 1
    steps: int = 24

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height."""
        width, height = map(int, self.size.split("x"))
        return width, height


def build(case: Case, folder: Path | None, processes: Processes = ALONE) -> tuple[Training, dict[str, float]]:
    """A training, and how long it took to start it."""
    views, gaussians, (width, height) = case.views, case.gaussians, case.pixels
    began = time.perf_counter()
    scene = scene_of(views, width, height)
    read = time.perf_counter() - began
    c = TimingSettings.of(
        init_num_pts=gaussians, cap_max=gaussians, strategy="none", lambda_joint=0.0, iterations=1000,
        shards=case.shards,
    )  # fmt: skip
    c = c.for_scene(views, height, width)
    began = time.perf_counter()
    one = Exposure.from_spikes(
        scene.train[0].camera, scene.open_stream(scene.train[0]), SPEC.window, scene.sensor, SPEC.mode, SPEC.width
    )
    seconds_per_view = time.perf_counter() - began

    def copies(chosen: Any, sensor: SensorModel) -> list[Exposure]:
        return [one.of_camera(view.camera, folder) for view in chosen]

    began, used = time.perf_counter(), time.process_time()
    recording = Recording(scene, SPEC.window, CPU, copies, from_spikes=True, folder=folder)
    quadrature = SPEC.quadrature(POINTS)
    state = State(recording, initial_gaussians(c, recording), start_trajectory(c, scene, quadrature))
    sample = Instants(views, SPEC.window.subframes, CAMERAS, quadrature)
    training = Training(c, state, sample, [SubframeLoss(1.0)], optimizers(c, state))
    training.processes = processes
    return training, {
        "read": read, "seconds_per_view": seconds_per_view, "start": time.perf_counter() - began,
        "start_cpu": time.process_time() - used,
    }  # fmt: skip


def stepped(training: Training) -> tuple[float, float]:
    """Seconds and processor seconds of a step."""
    began, used = time.perf_counter(), time.process_time()
    training.step()
    return time.perf_counter() - began, time.process_time() - used


def measure(case: Case, folder: Path | None, processes: Processes = ALONE) -> dict[str, Any]:
    """Build a training and run some steps."""
    training, starts = build(case, folder, processes)
    first, *later = [stepped(training) for _ in range(case.steps)]
    step, cpu = np.median(later[len(later) // 3 :], axis=0)
    with torch.no_grad():
        state = training.state
        radii = state.render(training.sample(0, state.random())).info["radii"]
    in_view = float((radii > 0).all(-1).float().sum(-1).mean())
    return starts | {
        "digest": state.digest(),  # the same for any number of processes
        "first_step": first[0], "step": float(step), "step_cpu": float(cpu), "in_view": in_view,
        "anonymous": memory("RssAnon"), "peak": memory("VmHWM"),
    }  # fmt: skip


def alternate(case: Case, folder: Path) -> dict[str, Any]:
    """The same training with its targets in memory and in files in ``folder``: one step of each, again and again."""
    trainings = [build(case, place)[0] for place in (None, folder)]
    for _, training in itertools.product(range(case.steps // 3), trainings):  # until the files are in the page cache
        training.step()
    times = np.array([[stepped(training) for training in trainings] for _ in range(case.steps)])
    in_memory, in_files = np.median(times, axis=0)
    return {
        "step": in_memory[0], "step_files": in_files[0], "slower": in_files[0] / in_memory[0] - 1,
        "cpu": in_memory[1], "cpu_files": in_files[1], "cpu_slower": in_files[1] / in_memory[1] - 1,
    }  # fmt: skip


def _work(answer: Any, function: Any, *given: Any) -> None:
    answer.put(function(*given))


def in_own_process(function: Any, *given: Any) -> Any:
    """The result of a function in a process that has done nothing before."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_work, args=(answer, function, *given))
    process.start()
    result = answer.get()
    process.join()
    return result


def keep(kind: str, case: Case, row: dict[str, Any]) -> None:
    """Print a row and add it to the log."""
    rounded = {key: value if isinstance(value, str) else round(float(value), 5) for key, value in row.items()}
    row = {"kind": kind} | asdict(case) | rounded
    print(json.dumps(row), flush=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")


# ---- the curves of docs/scaling.md ---------------------------------------------------------------------------

CURVES = {
    "views": [Case(views=v, size="48x32", gaussians=3000, steps=12) for v in (16, 64, 256, 1000, 10_000)],
    "Gaussians": [Case(gaussians=n, steps=5) for n in (30_000, 100_000, 300_000, 1_000_000, 3_000_000)],
    "pixels": [Case(size=size, steps=6) for size in ("100x62", "200x124", "400x250", "600x400", "1000x1000")],
}
PROCESSES = [Case(gaussians=n, steps=8, shards=4, processes=p) for n in (30_000, 300_000) for p in (1, 2, 4)]


def run_curves(chosen: Sequence[str]) -> None:
    """Measure some curves."""
    for kind in chosen:
        for case in CURVES.get(kind, []):
            keep(kind, case, in_own_process(measure, case, None))
    for case in PROCESSES if "processes" in chosen else []:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={case.processes}"]
        command += [__file__, "--shards", str(case.shards), "--gaussians", str(case.gaussians)]
        command += ["--steps", str(case.steps)]
        subprocess.run(command, check=True, env=os.environ | {"KIND": "processes"})


def rows_of(kind: str) -> list[dict[str, Any]]:
    """The newest row of every case of a curve."""
    found = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]
    rows = {tuple(row[name] for name in asdict(Case())): row for row in found if row.get("kind") == kind}
    return sorted(rows.values(), key=lambda row: (row["views"], row["gaussians"], area(row)))


def area(row: dict[str, Any]) -> int:
    """Number of pixels."""
    width, height = map(int, row["size"].split("x"))
    return width * height


def fit() -> dict[str, float]:
    """Least squares of the step's processor time: ``CAMERAS`` with P pixels, n of N Gaussians in view.

    Rows count by their relative errors, so that small scenes are fitted, too.
    """
    rows = [*rows_of("Gaussians"), *rows_of("pixels")]
    time_of = np.array([row["step_cpu"] for row in rows])
    parts = np.array([[CAMERAS * area(row), CAMERAS * row["in_view"], row["gaussians"], 1] for row in rows])
    values, _ = nnls(parts / time_of[:, None], np.ones(len(rows)))
    errors = parts @ values / time_of - 1
    names = ("per pixel and camera, us", "per Gaussian in view and camera, us", "per Gaussian, us", "per step, ms")
    scaled = values * np.array([1e6, 1e6, 1e6, 1e3])
    return dict(zip(names, scaled.tolist(), strict=True)) | {"largest relative error": float(np.abs(errors).max())}


def draw() -> None:
    """Write the plot of docs/scaling.md, and print the fitted cost of a step."""

    def points(kind: str, along: Any, value: str) -> list[tuple[float, float]]:
        return [(along(row), row[value] * (1000 if value == "step_cpu" else 1)) for row in rows_of(kind)]

    def count(name: str) -> Any:
        return lambda row: row[name]

    along = {"views": count("views"), "Gaussians": count("gaussians"), "pixels": area}
    times = {f"A step against {kind}, ms": {"processor time": points(kind, x, "step_cpu")} for kind, x in along.items()}
    memories = {
        f"Memory against {kind}, GB": {"peak": points(kind, x, "peak")} for kind, x in along.items() if kind != "pixels"
    }
    started = points("views", along["views"], "start_cpu")
    starts = {"Start against views, processor s": {"all but converting spikes": started}}
    CHART.write_text(log_charts(times | starts | memories), encoding="utf-8")
    for name, value in fit().items():
        print(f"{value:10.4f} {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[16])
    parser.add_argument("--gaussians", type=int, nargs="+", default=[30_000])
    parser.add_argument("--size", nargs="+", default=["200x124"], help="WIDTHxHEIGHT, pixels")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--files", type=Path, help="keep the targets in files in this folder")
    parser.add_argument("--alternate", action="store_true", help="compare targets in memory with targets in files")
    names = [*CURVES, "processes"]
    parser.add_argument("--curves", nargs="*", choices=names, help="measure these curves (default: all), and draw them")
    parser.add_argument("--chart", action="store_true", help="draw what was measured before")
    args = parser.parse_args()
    if args.curves is not None:
        run_curves(args.curves or names)
    if args.curves is not None or args.chart:
        draw()
        return 0
    if args.alternate and args.files is None:
        parser.error("--alternate needs --files: the folder of the files")
    with Processes.of_environment() as processes:
        share_processors(0, processes.local_size)
        for size, views, gaussians in itertools.product(args.size, args.views, args.gaussians):
            case = Case(views, size, gaussians, args.files is not None, args.shards, processes.size, args.steps)
            if args.alternate:
                keep("alternate", case, in_own_process(alternate, case, args.files))
            elif "RANK" in os.environ:  # started by torchrun
                row = measure(case, args.files, processes)
                if processes.first:
                    keep(os.environ.get("KIND", ""), case, row)
            else:
                keep("", case, in_own_process(measure, case, args.files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
