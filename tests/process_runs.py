"""What processes of one torchrun do in ``test_processes.py``; the first prints what it found as JSON.

    torchrun --standalone --nproc-per-node=2 tests/process_runs.py WORK ARGUMENTS...
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import torch
from training_runs import PAPER, TIMING, small_training, stepped

import metrics
import render
import train
from commands.guard import guarded
from training.training import Training
from utils.device import share_processors
from utils.processes import FailedElsewhere, Processes

# Runs of four shards; the recipe timing renders six cameras and reconstructs two instants a step.
RUNS = {
    "timing": [*TIMING, "--shards", "4"],
    "default": [*TIMING, *"--shards 4 --strategy default --densify_grad_threshold 1e-6".split()],
    "paper": [*PAPER, "--shards", "4"],
}


ALEX = ["--lpips", "alex"]


def odd_leaves(shards: range) -> list[list[torch.Tensor]]:
    """For each shard, tensors of odd lengths; one is in another memory format."""
    leaves = []
    for shard in shards:
        random = torch.Generator().manual_seed(shard)
        image = torch.randn(2, 3, 5, 7, generator=random).to(memory_format=torch.channels_last)
        leaves.append([torch.randn(1001, generator=random) * 10.0**shard, image, torch.randn((), generator=random)])
    return leaves


def sums(processes: Processes) -> list[list[float]]:
    return [value.flatten().tolist() for value in processes.sum(odd_leaves(processes.own(4)))]


def digests(processes: Processes, scene: str, model: str) -> dict[str, str]:
    """What each run has learned, on all processes alike."""
    found = {}
    for name, flags in RUNS.items():
        training = small_training(Path(scene), Path(model), *flags, "--threads", "1")
        training.processes = processes
        found[name] = stepped(training).state.digest()
        processes.same(name, found[name])
    return found


def gathered(processes: Processes) -> list[float]:
    """Processes with two, no and one row."""
    lengths = [2, 0, 1, 1][: processes.size]
    mine = lengths[processes.rank]
    own = torch.full((mine, 2), float(processes.rank)) if mine else None
    return processes.gather(own, lengths).flatten().tolist()


def failing(processes: Processes) -> str:
    """Only one process fails, and the first says why."""

    def work() -> None:
        if processes.rank == 1:
            raise ValueError("scene: no such folder")

    try:
        processes.together(work)
    except ValueError as error:
        return str(error)
    except FailedElsewhere:
        return "ended"
    return "nothing"


def threads() -> list[str]:
    """Names of this process's threads that wait for other processes, where the system tells them."""
    names = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def threads_after_an_error() -> int:
    """Each process leaves the others because of an error; the number of threads that stay."""
    with suppress(FailedElsewhere), Processes.of_environment() as processes:
        if failing(processes) != "nothing":
            raise FailedElsewhere
    return len(threads())


def evaluated(model: str) -> int:
    """render.py and metrics.py, and metrics.py again after an image of the last process has lost its end."""
    statuses = []
    torch.set_grad_enabled(True)
    for command, flags in ((render, ["--fit_steps", "1"]), (metrics, ALEX), (metrics, ALEX)):
        if len(statuses) == 2 and os.environ["RANK"] == "1":
            [*_, last] = sorted(Path(model).glob("test/*/gt/*.png"))
            last.write_bytes(last.read_bytes()[:-100])
        sys.argv = [command.__name__, "-m", model, *flags]
        statuses.append(guarded(command.main))
        torch.set_grad_enabled(command is render)
    return 0 if statuses == [0, 0, 1] else 1


def main() -> int:
    work, arguments = sys.argv[1], sys.argv[2:]
    if work == "leave":
        return threads_after_an_error()
    if work == "evaluate":
        return evaluated(*arguments)
    if work == "train":  # train.py, one of whose processes is killed once
        step = Training.step

        def fatal(training: Training) -> dict[str, float]:
            first_try = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
            if first_try and training.iteration == 4 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            return step(training)

        Training.step = fatal  # type: ignore[method-assign]
        sys.argv = ["train.py", *arguments]
        return train.main()
    with Processes.of_environment() as processes:
        share_processors(1, processes.local_size)
        result = {"sums": sums(processes), "gathered": gathered(processes), "failing": failing(processes)}
        result |= {"digests": digests(processes, *arguments), "any": processes.any(processes.rank == 1)}
        result |= {"texts": processes.exchange("é" * processes.rank)}
    if processes.first:
        print(json.dumps(result | {"threads": threads()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
