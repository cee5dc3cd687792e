"""Fixtures of all tests of the package."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Torch's own threads wait by spinning, which on a busy machine costs more than these small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
