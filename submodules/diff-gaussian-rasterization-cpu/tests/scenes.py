"""Small scenes for the tests, float64."""

from __future__ import annotations

import torch


def make(
    seed: int, n: int = 24, m: int = 2, channels: int = 1, degree: int | None = 3, kind: str = "mixed"
) -> dict:
    """Gaussians in front of (mostly) ``m`` cameras; ``kind`` picks a difficulty."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    means = (rand(n, 3) - 0.5) * torch.tensor([3.0, 3.0, 2.0]) + torch.tensor([0.0, 0.0, 3.0])
    scales = (rand(n, 3) * 0.3 + 0.03) * (0.5 + rand(n, 1))
    opacities = rand(n) * 0.9 + 0.05
    if kind == "occluded":
        opacities = opacities * 0 + 0.985
        scales = scales * 4
    if kind == "needles":
        scales[:, 0] *= 20
        scales[:, 1:] *= 0.02
    if kind == "extreme":
        opacities[: n // 3] = 1.0
        opacities[n // 3 : n // 2] = 1e-3
    if kind == "behind":
        means[: n // 2, 2] -= 4.5
    if kind == "offscreen":
        means[: n // 2, 0] += 6.0
    quats = randn(n, 4)
    shape = (n, channels) if degree is None else (n, 16, channels)
    colors = rand(*shape) if degree is None else randn(*shape) * 0.3
    viewmats = torch.eye(4, dtype=torch.float64).repeat(m, 1, 1)
    for i in range(m):
        axis = randn(3) * 0.12
        w = torch.zeros(3, 3, dtype=torch.float64)
        w[0, 1], w[0, 2], w[1, 2] = -axis[2], axis[1], -axis[0]
        viewmats[i, :3, :3] = torch.linalg.matrix_exp(w - w.T)
        viewmats[i, :3, 3] = randn(3) * 0.2
    ks = torch.tensor([[24.0, 0, 10.3], [0, 25.0, 8.1], [0, 0, 1]], dtype=torch.float64).repeat(m, 1, 1)
    return {
        "means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors,
        "viewmats": viewmats, "Ks": ks, "width": 21, "height": 17, "sh_degree": degree,
        "backgrounds": rand(m, channels),
    }  # fmt: skip


def as_float32(scene: dict) -> dict:
    return {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
