"""The README's example is run as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_example_fits_its_picture():
    first = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert first is not None
    names: dict = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch's own threads spin, which costs seconds on a busy machine
    torch.manual_seed(0)
    try:
        exec(first.group(1), names)
    finally:
        torch.set_num_threads(threads)
    assert names["step"] == 99
    assert names["loss"].item() < 0.03
