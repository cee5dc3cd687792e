"""Performs the jobs of full_eval.py side by side, on this machine or a cluster, with Ray (an optional package).

    pip install -r requirements-ray.txt
    python full_eval.py -s scenes/* --seeds 0 1 2 --ray                      # this machine
    python full_eval.py -s /shared/scenes/* --ray auto --cpus 4 --retries 3  # a cluster that runs already

The scenes and the output folder are files that every machine sees under the same path.  A job whose worker or machine
dies is tried again; it goes on from its latest checkpoint, so its row is the same.  A job that fails because
something is wrong is not tried again.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from arguments.parts import ImageOptions
from evaluation.jobs import ROOT, Interrupted, Job, do

# Seconds that the commands of a job whose worker died have to end before it is tried again.
_PATIENCE = 60.0


def perform(
    jobs: Sequence[Job],
    out: Path,
    options: ImageOptions,
    address: str = "",
    cpus: int = 1,
    gpus: float = 0.0,
    retries: int = 3,
    work: Callable[[Job, Path, ImageOptions, float], None] = do,
) -> Iterator[tuple[Job, str]]:
    """Perform jobs in parallel; yields each when it ends, with the reason why it failed (empty if it did not).

    Args:
        address: of a running cluster ("auto": the one of this machine); empty starts Ray on this machine.
        cpus, gpus: what one job is given; its number of threads is ``cpus``.
        retries: how often a job whose worker died is tried again.
        work: performs one job.

    Raises:
        ValueError: Ray is not installed or not reachable, or no machine has that many processors or GPUs.
    """
    ray = _connected(address)
    try:
        _check_resources(ray, cpus, gpus)
        task = ray.remote(work).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=[Interrupted]
        )  # fmt: skip
        running = {task.remote(job, out, options, _PATIENCE): job for job in jobs}
        while running:
            ended, _ = ray.wait(list(running), num_returns=1)
            for result in ended:
                yield running.pop(result), _failure(ray, result)
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs the package ray: pip install -r requirements-ray.txt") from None
    _check_address(address)
    # Workers find this program as other commands do.
    places = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        ray.init(
            address=address or "local", include_dashboard=None if address else False, log_to_driver=False,
            logging_level=logging.ERROR, runtime_env={"env_vars": {"PYTHONPATH": places}},
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray {address}: no cluster to connect to ({str(error).splitlines()[0]})") from None
    return ray


def _check_address(address: str) -> None:
    """Ray itself waits minutes for a machine that is not there."""
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"--ray {address}: no cluster to connect to ({error})") from None


def _check_resources(ray: Any, cpus: int, gpus: float) -> None:
    """A job that fits no machine would wait forever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        most = max((machine.get("CPU", 0), machine.get("GPU", 0)) for machine in machines)
        raise ValueError(
            f"--cpus {cpus} --gpus {gpus:g}: no machine has that many; the largest has {most[0]:g} processors and "
            f"{most[1]:g} GPUs"
        )


def _failure(ray: Any, result: Any) -> str:
    try:
        ray.get(result)
    except ray.exceptions.RayTaskError as error:  # do() raised it
        return str(error.cause)
    except ray.exceptions.RayError as error:
        return f"its worker died again and again ({str(error).splitlines()[0]})"
    return ""
