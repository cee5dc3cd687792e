"""Differentiable 3D Gaussian rasterization on CPUs, under gsplat's call."""

from diff_gaussian_rasterization_cpu._native import (
    instruction_set,
    instruction_sets,
    set_instruction_set,
    set_thread_count,
    thread_count,
)
from diff_gaussian_rasterization_cpu.rendering import rasterization

__all__ = [
    "instruction_set",
    "instruction_sets",
    "rasterization",
    "set_instruction_set",
    "set_thread_count",
    "thread_count",
]
