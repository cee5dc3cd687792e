"""Random numbers as a function of a seed, a purpose and an iteration: a resumed run draws the same ones."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

Purpose = Literal["step", "epoch", "densification", "perturbation", "batch", "rays", "phase"]
_PURPOSES = get_args(Purpose)


def generator(purpose: Purpose, seed: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the iteration (or epoch, or view) ``number`` and one purpose, independent of all other purposes.

    NumPy mixes the three into one number: torch's generators use only the lower 32 bits of a seed.
    """
    mixed = np.random.SeedSequence([_PURPOSES.index(purpose), seed, number]).generate_state(1)
    return torch.Generator(device).manual_seed(int(mixed[0]))
