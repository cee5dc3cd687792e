"""The README's example is run as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_example_fits_its_picture():
    first = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert first is not None
    names: dict = {}
    torch.manual_seed(0)
    exec(first.group(1), names)
    assert names["step"] == 99
    assert names["loss"].item() < 0.03
