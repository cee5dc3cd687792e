"""A training loop in the manner of programs written for gsplat: its imports, its parameters, its order of calls.

Raw parameters in a ``ParameterDict`` with one optimizer each, spherical harmonics in two parts and of growing degree,
``DefaultStrategy`` before and after the backward pass, poses with small corrections.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gsplat.rendering import rasterization
from gsplat.strategy import DefaultStrategy
from torch import Tensor

RATES = {"means": 5e-3, "scales": 2e-2, "quats": 5e-3, "opacities": 5e-2, "sh0": 2e-2, "shN": 1e-3}


class Runner:
    """Fits Gaussians to images [V, H, W, 3] of cameras ``camtoworlds`` [V, 4, 4] and ``Ks`` [V, 3, 3]."""

    def __init__(self, images: Tensor, camtoworlds: Tensor, Ks: Tensor, points: Tensor):
        self.images, self.camtoworlds, self.Ks = images, camtoworlds, Ks
        n = len(points)
        self.splats = torch.nn.ParameterDict(
            {
                "means": points,
                "scales": torch.full((n, 3), 0.12).log(),
                "quats": torch.rand(n, 4),
                "opacities": torch.full((n,), 0.3).logit(),
                "sh0": torch.zeros(n, 1, 3),
                "shN": torch.zeros(n, 15, 3),
            }
        )
        self.optimizers = {
            name: torch.optim.Adam([{"params": self.splats[name], "lr": rate, "name": name}], eps=1e-15)
            for name, rate in RATES.items()
        }
        self.pose_adjust = torch.zeros(len(images), 3, requires_grad=True)
        self.pose_optimizer = torch.optim.Adam([self.pose_adjust], lr=1e-3)
        self.strategy = DefaultStrategy(
            refine_start_iter=20, refine_every=20, reset_every=200, grow_grad2d=1e-4, absgrad=True, verbose=False
        )
        self.strategy.check_sanity(self.splats, self.optimizers)
        self.strategy_state = self.strategy.initialize_state(scene_scale=1.0)

    def rasterize_splats(self, camtoworlds: Tensor, Ks: Tensor, width: int, height: int, **kwargs):
        colors = torch.cat([self.splats["sh0"], self.splats["shN"]], 1)
        return rasterization(
            means=self.splats["means"],
            quats=self.splats["quats"],
            scales=torch.exp(self.splats["scales"]),
            opacities=torch.sigmoid(self.splats["opacities"]),
            colors=colors,
            viewmats=torch.linalg.inv(camtoworlds),
            Ks=Ks,
            width=width,
            height=height,
            packed=False,
            absgrad=self.strategy.absgrad,
            sparse_grad=False,
            rasterize_mode="antialiased",
            distributed=False,
            camera_model="pinhole",
            with_ut=False,
            with_eval3d=False,
            **kwargs,
        )

    def train(self, steps: int) -> list[float]:
        """The loss of every step."""
        losses = []
        height, width = self.images.shape[1:3]
        for step in range(steps):
            view = torch.tensor([step % len(self.images)])
            camtoworlds = self.camtoworlds[view].clone()
            camtoworlds[:, :3, 3] = camtoworlds[:, :3, 3] + self.pose_adjust[view]
            renders, _, info = self.rasterize_splats(
                camtoworlds, self.Ks[view], width, height,
                sh_degree=min(step // 20, 3), near_plane=0.01, far_plane=1e10, render_mode="RGB+ED",
            )  # fmt: skip
            colors, depths = renders[..., 0:3], renders[..., 3:4]
            self.strategy.step_pre_backward(self.splats, self.optimizers, self.strategy_state, step, info)
            loss = F.l1_loss(colors, self.images[view]) + 1e-4 * depths.mean()
            loss.backward()
            for optimizer in (*self.optimizers.values(), self.pose_optimizer):
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.strategy.step_post_backward(
                self.splats, self.optimizers, self.strategy_state, step, info, packed=False
            )
            losses.append(float(loss.detach()))
        return losses
