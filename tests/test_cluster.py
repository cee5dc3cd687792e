"""Evaluations on Ray: what died is tried again, what is wrong is not."""

import os
import signal
from pathlib import Path

import pytest

from arguments.parts import ImageOptions
from evaluation.cluster import perform
from evaluation.jobs import Interrupted, Job

pytest.importorskip("ray")


def work(job: Job, out: Path, options: ImageOptions, patience: float) -> None:
    """Each job notes that it was tried; its method says what happens then."""
    tries = out / job.method
    with tries.open("a") as file:
        file.write("x")
    first = len(tries.read_text()) == 1
    if job.method == "killed" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.method == "interrupted" and first:
        raise Interrupted("train.py was ended by a signal")
    if job.method == "always interrupted":
        raise Interrupted("train.py was ended by a signal")
    if job.method == "wrong":
        raise ValueError("scene: no such folder")


def test_what_died_is_tried_again_and_what_is_wrong_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for ``work``
    methods = ("fine", "killed", "interrupted", "always interrupted", "wrong")
    jobs = [Job(Path("scene"), method, "accurate", 0) for method in methods]
    ended = {
        job.method: failure for job, failure in perform(jobs, tmp_path, ImageOptions(), cpus=1, retries=2, work=work)
    }
    interrupted = "train.py was ended by a signal"
    assert ended == dict.fromkeys(methods, "") | {"always interrupted": interrupted, "wrong": "scene: no such folder"}
    tries = {method: len((tmp_path / method).read_text()) for method in methods}
    assert tries == {"fine": 1, "killed": 2, "interrupted": 2, "always interrupted": 3, "wrong": 1}


def test_a_job_that_fits_no_machine_is_refused(tmp_path):
    jobs = [Job(Path("scene"), "fine", "accurate", 0)]
    with pytest.raises(ValueError, match="--cpus 100000 --gpus 0: no machine has that many; the largest has"):
        list(perform(jobs, tmp_path, ImageOptions(), cpus=100_000, work=work))


def test_a_cluster_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--ray 127\.0\.0\.1:1: no cluster to connect to"):
        list(perform([], tmp_path, ImageOptions(), address="127.0.0.1:1", work=work))
