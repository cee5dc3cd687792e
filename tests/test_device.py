import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.device import each_on_one_thread, pick_device, use_threads


@pytest.mark.parametrize(
    ("mine", "given", "expected"), [(4, "", 4), (4, "2", 2), (1, "8", 1), (3, "all", 3), (3, "0", 1)]
)
def test_threads_are_those_of_this_process_and_no_more_than_asked_for(mine, given, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(mine)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    before = torch.get_num_threads()
    try:
        use_threads(heavy=True)
        assert torch.get_num_threads() == expected
        use_threads(heavy=False)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="--device cuda: this machine has no CUDA device"):
        pick_device("cuda")


def test_each_call_has_one_torch_thread_and_the_caller_keeps_its_own(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = each_on_one_thread(lambda i: (i, torch.get_num_threads()), range(20), "Testing")
        assert seen == [(i, 1) for i in range(20)]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_error_of_the_first_item_is_raised():
    def refuse(i):
        raise ValueError(f"item {i}")

    with pytest.raises(ValueError, match="item 0"):
        each_on_one_thread(refuse, range(8), "Testing")


# Milliseconds of processor time over 60 short parallel operations with 5 ms of sleep after each.
WAITING = """
import utils
import time
import torch
torch.set_num_threads(2)
x = torch.ones(1 << 17)
x.add_(1)
began = time.process_time()
for _ in range(60):
    x.add_(1)
    time.sleep(0.005)
print(1e3 * (time.process_time() - began))
"""


def test_waiting_threads_sleep_unless_the_user_wants_them_to_spin():
    def spent(**more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | more
        root = Path(__file__).parents[1]
        command = [sys.executable, "-c", WAITING]
        return float(subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True).stdout)

    asleep, spinning = spent(), spent(OMP_WAIT_POLICY="active")
    assert asleep < 60
    assert spinning > 2 * asleep or len(os.sched_getaffinity(0)) < 2  # the measurement would show it
