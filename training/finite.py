"""Notices numbers that are not finite before they are saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All floating-point tensors in nested dicts and lists, with their paths as names."""
    if isinstance(content, Tensor):
        if content.is_floating_point():
            yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name} {key}".strip())
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for i, value in enumerate(content):
            yield from _tensors(value, f"{name} {i}".strip())


@torch.no_grad()
def not_finite(content: Any) -> str | None:
    """The first value in nested dicts and lists of tensors that is not finite, in words; None if all are finite."""
    for name, tensor in _tensors(content):
        # A sum is several times cheaper than a mask; it overflows only if the values are absurd.
        if not bool(tensor.sum().isfinite()) and not bool((good := tensor.isfinite()).all()):
            place = (~good).nonzero()[0].tolist()
            value = float(tensor[tuple(place)])
            return f"{name}{place if place else ''} is {value}"
    return None
