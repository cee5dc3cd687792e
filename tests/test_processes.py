"""One scene on several processes: the same bits for any number of them, and after a failure."""

import json
import os
import shutil
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
import torch
from process_runs import ALEX, RUNS, odd_leaves, sums
from training_runs import TIMING, small_training, stepped

import metrics
import render
from commands.guard import guarded
from training.checkpoint import save_model
from utils import processes as module
from utils.checkpoint import latest_checkpoint
from utils.processes import ALONE, Processes, share

ROOT = Path(__file__).resolve().parents[1]
GLOO = torch.distributed.is_available()
pytestmark = pytest.mark.skipif(not GLOO, reason="this PyTorch has no torch.distributed")


def torchrun(count: int, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Run processes to their end, at most 4 minutes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += [f"--max-restarts={restarts}", "--monitor-interval=0.2", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def alone(scene_folder, tmp_path_factory) -> dict[str, str]:
    """What one process learns in each run."""
    found, before = {}, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name, flags in RUNS.items():
            model = tmp_path_factory.mktemp("alone")
            found[name] = stepped(small_training(scene_folder, model, *flags)).state.digest()
    torch.set_num_threads(before)
    return found


@pytest.mark.parametrize("count", [4])
def test_processes_learn_the_same_bits_as_one(count, alone, scene_folder, tmp_path):
    ended = torchrun(count, "tests/process_runs.py", "digests", scene_folder, tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    assert found["digests"] == alone
    assert found["sums"] == sums(ALONE)
    rows = [0.0, 0.0, 0.0, 0.0] if count == 2 else [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0, 3.0]
    assert found["gathered"] == rows
    assert found["failing"] == f"process 1 of {count}: scene: no such folder"
    assert found["threads"] == []  # one that outlives the group may abort its process when Python ends
    assert found["any"] is True and found["texts"] == ["é" * rank for rank in range(count)]


def test_no_thread_outlives_an_error():
    ended = torchrun(2, "tests/process_runs.py", "leave")
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_a_sum_of_shards_is_close_to_the_exact_one():
    leaves = odd_leaves(range(4))
    for found, parts in zip(ALONE.sum(leaves), zip(*leaves, strict=True), strict=True):
        exact = reduce(torch.add, [part.double() for part in parts])
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
        assert found.stride() == parts[0].stride()


def test_shards_do_not_change_what_is_learned_beyond_rounding(scene_folder, tmp_path):
    one = small_training(scene_folder, tmp_path / "1", *TIMING)
    four = small_training(scene_folder, tmp_path / "4", *TIMING, "--shards", "4")
    for _ in range(2):
        expected, found = one.step(), four.step()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize(("count", "shards"), [(6, 1), (6, 2), (6, 4), (13, 4), (2, 4), (13, 8)])
def test_shares_are_neighbors_and_complete(count, shards):
    parts = [range(count)[share(count, shard, shards)] for shard in range(shards)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("size", "shards"), [(2, 1), (2, 3), (3, 4), (4, 6), (3, 3)])
def test_processes_that_cannot_share_the_shards_say_so(size, shards):
    with pytest.raises(ValueError, match=f"--shards {shards} and {size} processes: expected a number of shards"):
        Processes(0, size).own(shards)


def test_every_process_owns_a_branch_of_the_tree():
    assert [list(Processes(rank, 4).own(8)) for rank in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_killed_process_is_started_again_and_the_result_is_the_same(scene_folder, tmp_path):
    flags = [*TIMING, "--shards", "2", "--threads", "1", "--checkpoint_every", "3", "-s", scene_folder]
    ended = torchrun(2, "tests/process_runs.py", "train", *flags, "-m", tmp_path / "killed", restarts=1)
    assert ended.returncode == 0, ended.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in log] == [6]
    flags = [*map(str, flags), "-m", str(tmp_path / "alone")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *flags])
        patch.setenv("OMP_NUM_THREADS", "1")
        import train

        assert guarded(train.main) == 0
    for name in ("point_cloud.ply", "recon_net.pth", "trajectory.pth"):
        found = [next((tmp_path / run).glob(f"**/iteration_6/{name}")) for run in ("killed", "alone")]
        assert found[0].read_bytes() == found[1].read_bytes(), name
    assert latest_checkpoint(tmp_path / "killed") is not None


@pytest.mark.parametrize("strategy", ["mcmc", "default"])
def test_a_process_without_a_camera_of_a_step_takes_part(strategy, scene_folder, tmp_path):
    """A step of one instant, on two processes."""
    short = "--iterations 4 --window_from 100 --densify_from_iter 1 --densification_interval 2 --densify_until_iter 4"
    flags = [*TIMING, "--shards", "2", "--threads", "1", "--instants", "1", "--strategy", strategy, *short.split()]
    flags = [*map(str, flags), "--densify_grad_threshold", "1e-6", "--lambda_joint", "0", "-s", str(scene_folder)]
    ended = torchrun(2, "train.py", *flags, "-m", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *flags, "-m", str(tmp_path / "one")])
        patch.setenv("OMP_NUM_THREADS", "1")
        import train

        assert guarded(train.main) == 0
    found = [next((tmp_path / run).glob("**/iteration_4/point_cloud.ply")).read_bytes() for run in ("one", "two")]
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def trained(scene_folder, tmp_path_factory) -> Path:
    """A model with Recon-Net, re-timed intervals and held-out views of both kinds."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    save_model(stepped(small_training(scene_folder, folder, *TIMING, "--eval", "--llffhold", "2")))
    return folder


def test_processes_render_and_measure_the_same_files_as_one(trained, tmp_path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / name)
    for command, flags in ((render, ["--fit_steps", "1"]), (metrics, ALEX)):
        monkeypatch.setattr("sys.argv", [command.__name__, "-m", str(tmp_path / "one"), "--quiet", *flags])
        assert guarded(command.main) == 0
    ended = torchrun(2, "tests/process_runs.py", "evaluate", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr[-3000:]
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and errors[0].startswith("error: process 1 of 2: ") and ".png: " in errors[0]
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert len([file for file in files if file.suffix == ".png"]) > 60
    damaged = sorted((tmp_path / "one").glob("test/*/gt/*.png"))[-1].relative_to(tmp_path / "one")
    for file in files - {damaged}:
        stored = [(tmp_path / name / file).read_bytes() for name in ("one", "two")]
        # The pages name their folder.
        assert stored[0] == stored[1].replace(str(tmp_path / "two").encode(), str(tmp_path / "one").encode()), file


def test_a_video_is_recorded_by_one_process(trained, monkeypatch):
    monkeypatch.setattr(Processes, "of_environment", classmethod(lambda cls: cls(0, 2)))
    monkeypatch.setattr(Processes, "exchange", lambda self, text: [text] * 2)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr("sys.argv", ["render.py", "-m", str(trained), "--video", "orbit"])
    with pytest.raises(ValueError, match=r"--video is recorded by one process, not by 2; start it without torchrun"):
        render.main()


class Store(dict):
    """A store of torch.distributed in memory, whose ``get`` does not wait."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


def test_a_name_of_an_earlier_start_is_not_taken(monkeypatch):
    """The second process finds the complete agreement of the start before, and waits for the new one."""
    store = Store({"name": b"old", "old/1": b"dead", "old/all": b"dead"})
    waits = []

    def first_arrives(_):
        waits.append(1)
        if len(waits) == 3:
            store.set("name", "new")
        elif len(waits) > 3 and "new/1" in store:
            store.set("new/all", store.get("new/1").decode())
        assert len(waits) < 50

    monkeypatch.setattr(module.time, "sleep", first_arrives)
    assert module._agreed_name(store, 1, 2) == "new"


def test_one_process_never_connects(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Processes.of_environment() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match=r"torchrun.s environment variables are not numbers: .*two"):
        Processes.of_environment()
    assert os.environ["WORLD_SIZE"] == "two"
