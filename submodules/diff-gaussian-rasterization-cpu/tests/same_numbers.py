"""Compare two outputs of ``kernels.cpp``: ``same_numbers.py FIRST SECOND``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def read(path: str) -> dict[str, np.ndarray]:
    """The numbers of each quantity."""
    values: dict[str, list[float]] = {}
    for line in Path(path).read_text(encoding="ascii").splitlines():
        name, index, value = line.split()
        # counts come as the second word
        values.setdefault(name, []).append(float(index) if name in ("pairs", "visible") else float(value))
    return {name: np.array(numbers) for name, numbers in values.items()}


def main() -> None:
    first, second = read(sys.argv[1]), read(sys.argv[2])
    if first.keys() != second.keys():
        sys.exit(f"different quantities: {sorted(first)} and {sorted(second)}")
    for name in first:
        difference = np.linalg.norm(first[name] - second[name]) / max(np.linalg.norm(first[name]), 1e-30)
        print(f"{name}: {len(first[name])} numbers, relative difference {difference:.1e}")
        if not difference < 1e-4:
            sys.exit(f"{name} differs")


if __name__ == "__main__":
    main()
