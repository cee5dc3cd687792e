"""Differentiable 3D Gaussian rasterization on CPUs, with the interfaces of gsplat and Inria."""

from diff_gaussian_rasterization_cpu._native import (
    instruction_set,
    instruction_sets,
    set_instruction_set,
    set_thread_count,
    thread_count,
)
from diff_gaussian_rasterization_cpu.inria import GaussianRasterizationSettings, GaussianRasterizer
from diff_gaussian_rasterization_cpu.rendering import rasterization

__all__ = [
    "GaussianRasterizationSettings",
    "GaussianRasterizer",
    "instruction_set",
    "instruction_sets",
    "rasterization",
    "set_instruction_set",
    "set_thread_count",
    "thread_count",
]
