"""Random numbers: the same for the same purpose, seed and iteration, others for any other."""

import torch

from utils.randomness import generator


def drawn(*key) -> tuple[float, ...]:
    return tuple(torch.rand(4, generator=generator(*key)).tolist())


def test_numbers_are_a_function_of_purpose_seed_and_iteration():
    numbers = (0, 1, 1_000_003, 1 << 33)
    keys = [(p, s, n) for p in ("step", "epoch", "densification") for s in (0, 1, 1 << 40) for n in numbers]
    assert all(drawn(*key) == drawn(*key) for key in keys)
    assert len({drawn(*key) for key in keys}) == len(keys)
