"""Where the time of a training step goes: processor time of all threads, by part.

    python benchmarks/step.py -s data/demo -- --init_num_pts 60000

Everything after ``--`` is a flag of train.py.  The mean over the measured steps is printed in milliseconds, every part
without the parts that it calls.  Processor time, unlike wall-clock time, does not count what other programs take; on a
busy machine it still varies by a few percent.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import torch
from diff_gaussian_rasterization_cpu import _native

import gaussian_renderer.field
from arguments.parser import current_names, parse_training
from scene.dataset import read_scene
from scene.trajectory import Trajectory
from training.recipes import build
from training.reconstruction import InstantFrames
from training.shards import ShardedStep
from training.training import Training


class Parts:
    """Processor time of functions, each without the others that it calls."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner: list[float] = []  # what was called so far, for every function that is running

    def of(self, name: str, owner: Any, attribute: str) -> None:
        """Count a function of a class or module under ``name``."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                spent = time.process_time() - began
                self.seconds[name] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        setattr(owner, attribute, timed)


def parts_of(training: Training) -> Parts:
    """The parts of a step of ``training``."""
    parts = Parts()
    parts.of("rasterizer, forward", _native, "forward")
    parts.of("rasterizer, backward", _native, "backward")
    parts.of("autograd", ShardedStep, "backward")
    parts.of("Adam", torch.optim.Adam, "step")
    if training.strategy is not None:
        parts.of("densification and noise", type(training.strategy), "step")
    parts.of("losses", Training, "_terms")
    parts.of("activations and calls", gaussian_renderer.field, "render_trajectory")
    parts.of("trajectory", Trajectory, "forward")
    parts.of("Recon-Net, forward", InstantFrames, "__call__")
    for action in training.after:
        parts.of(action.name, type(action), "__call__")
    parts.of("rest", Training, "step")
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-s", "--scene", required=True, help="scene to train on")
    parser.add_argument("--skip", type=int, default=100, help="steps before the measurement (default: 100)")
    parser.add_argument("--steps", type=int, default=50, help="measured steps (default: 50)")
    parser.add_argument("flags", nargs="*", help="flags of train.py, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as model:
        flags = current_names(["-s", args.scene, "-m", model, *args.flags])
        training = build(parse_training(flags), read_scene(args.scene))
        for _ in range(args.skip):
            training.step()
        parts = parts_of(training)
        for _ in range(args.steps):
            training.step()
    total = sum(parts.seconds.values())
    print(f"{args.steps} steps from {args.skip + 1} on, milliseconds of processor time a step")
    for name, seconds in parts.seconds.most_common():
        print(f"{name:24} {1e3 * seconds / args.steps:8.2f} {seconds / total:6.1%}")
    print(f"{'step':24} {1e3 * total / args.steps:8.2f}")


if __name__ == "__main__":
    main()
