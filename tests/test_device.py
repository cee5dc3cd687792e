import os

import pytest
import torch

from utils.device import pick_device, use_threads


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
