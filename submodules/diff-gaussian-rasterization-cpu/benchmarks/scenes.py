"""Random scenes for the benchmark, with a fixed seed and about as many blended pairs per pixel as a trained model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Workload:
    """Size of a scene; ``spread`` and ``tail`` (median and log-deviation of the Gaussians' sizes) are chosen so
    that a pixel evaluates about 130 Gaussians and blends about 55."""

    gaussians: int
    width: int
    height: int
    spread: float
    tail: float

    @property
    def name(self) -> str:
        return f"{self.gaussians // 1000} k, {self.width}x{self.height}"


WORKLOADS = (
    Workload(50_000, 400, 250, 0.74, 0.9),
    Workload(100_000, 600, 400, 0.74, 0.9),
    Workload(300_000, 600, 400, 0.305, 1.3),
)
LARGE = tuple(
    Workload(count, width, height, 0.305, 1.3)
    for count in (50_000, 300_000, 1_000_000, 3_000_000)
    for width, height in ((400, 250), (1000, 1000), (1920, 1080))
)


def scene(load: Workload, views: int, channels: int = 3, seed: int = 0) -> dict[str, Tensor | int | str]:
    """Arguments of ``rasterization``: a box of Gaussians in front of ``views`` poses of a hand-held motion."""
    g = torch.Generator().manual_seed(seed)
    n = load.gaussians
    focal = 0.9 * load.width
    depth = 2 + 6 * torch.rand(n, generator=g)
    # Slightly wider than the image at every depth: some Gaussians are out of view, as in a capture.
    across = 1.15 * depth * load.width / focal
    means = torch.stack(
        [
            (torch.rand(n, generator=g) - 0.5) * across,
            (torch.rand(n, generator=g) - 0.5) * across * load.height / load.width,
            depth,
        ],
        dim=1,
    )
    pixels = load.width * load.height
    size = load.spread * (pixels / n) ** 0.5 * (depth / focal)[:, None]
    # Sizes spread over orders of magnitude, as after training: a few large Gaussians cause most of the pairs.
    size = size * torch.exp(load.tail * torch.randn(n, 1, generator=g))
    scales = size * torch.exp(0.5 * torch.randn(n, 3, generator=g))
    viewmats = torch.eye(4).repeat(views, 1, 1)
    for m in range(views):
        u = m / max(views - 1, 1) - 0.5
        viewmats[m, :3, 3] = torch.tensor([0.08 * u, 0.03 * u, 0.02 * u * u])
        angle = torch.tensor(0.02 * u)
        viewmats[m, 0, 0], viewmats[m, 0, 2] = angle.cos(), angle.sin()
        viewmats[m, 2, 0], viewmats[m, 2, 2] = -angle.sin(), angle.cos()
    k = torch.tensor([[focal, 0, load.width / 2], [0, focal, load.height / 2], [0, 0, 1]])
    return {
        "means": means,
        "quats": torch.randn(n, 4, generator=g),
        "scales": scales,
        "opacities": torch.sigmoid(1.2 * torch.randn(n, generator=g) - 2.5),
        "colors": 0.2 * torch.randn(n, 16, channels, generator=g),
        "viewmats": viewmats,
        "Ks": k.repeat(views, 1, 1),
        "width": load.width,
        "height": load.height,
        "sh_degree": 3,
        "rasterize_mode": "antialiased",
    }
