"""OpenSplat's CPU rasterizer for comparison, compiled at run time from a checkout of WebODM/OpenSplat.

No part of the checkout (AGPL) is included here, and the build goes to a temporary folder.  The harness below is
ours; it calls the three steps in OpenSplat's public headers: projection, spherical harmonics, blending.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCES = (
    "rasterizer/gsplat-cpu/gsplat_cpu.cpp", "project_gaussians.cpp", "rasterize_gaussians.cpp",
    "spherical_harmonics.cpp",
)  # fmt: skip

HARNESS = """
#include "project_gaussians.hpp"
#include "rasterize_gaussians.hpp"
#include "spherical_harmonics.hpp"

torch::Tensor render(torch::Tensor means, torch::Tensor quats, torch::Tensor scales, torch::Tensor opacities,
                     torch::Tensor colors, torch::Tensor directions, torch::Tensor view, torch::Tensor projection,
                     float fx, float fy, float cx, float cy, int width, int height, int degree) {
  auto seen = ProjectGaussiansCPU::apply(means, scales, 1.0f, quats, view, torch::matmul(projection, view), fx, fy, cx,
                                         cy, height, width);
  auto shown = torch::clamp_min(SphericalHarmonicsCPU::apply(degree, directions, colors) + 0.5f, 0.0f);
  auto none = torch::empty({0});
  return RasterizeGaussiansCPU::apply(seen[0], seen[1], seen[2], shown, opacities, seen[3], seen[4], height, width,
                                      torch::zeros({3}), none, none, none, none)[0];
}
"""


def load(checkout: str) -> Any:
    """Build a function with the parameters of ``rasterization`` (three channels, classic); it returns [M, H, W, 3].

    Raises:
        FileNotFoundError: not a checkout of OpenSplat.
    """
    from torch.utils.cpp_extension import load as build

    root = Path(checkout).resolve()
    for source in SOURCES:
        if not (root / source).is_file():
            raise FileNotFoundError(f"--opensplat {checkout}: no {source} there, expected a checkout of OpenSplat")
    folder = Path(tempfile.gettempdir()) / "opensplat-harness"  # kept: compiling takes minutes
    folder.mkdir(exist_ok=True)
    harness = folder / "harness.cpp"
    binding = 'PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("render", &render); }\n'
    text = "#include <torch/extension.h>\n" + HARNESS + binding
    if not harness.is_file() or harness.read_text(encoding="utf-8") != text:
        harness.write_text(text, encoding="utf-8")
    module = build(
        "opensplat_harness",
        [str(harness), *(str(root / source) for source in SOURCES)],
        extra_cflags=["-O3", "-w"],  # as in OpenSplat's release build
        extra_include_paths=[str(root), str(root / "rasterizer")],
        build_directory=str(folder),
    )

    def rasterization(
        means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
        width: int, height: int, sh_degree: int, **_: Any,
    ) -> tuple[Tensor]:  # fmt: skip
        pictures = []
        for view, k in zip(viewmats.detach(), Ks, strict=True):
            fx, fy, cx, cy = (float(k[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
            near, far = 0.01, 100.0
            projection = torch.zeros(4, 4)
            projection[0, 0], projection[1, 1] = 2 * fx / width, 2 * fy / height
            projection[0, 2], projection[1, 2] = 2 * cx / width - 1, 2 * cy / height - 1
            projection[2, 2], projection[2, 3] = far / (far - near), -far * near / (far - near)
            projection[3, 2] = 1
            center = -view[:3, :3].T @ view[:3, 3]
            directions = torch.nn.functional.normalize(means.detach() - center, dim=-1)
            quaternions = torch.nn.functional.normalize(quats, dim=-1)
            pictures.append(
                module.render(means, quaternions, scales, opacities[:, None], colors, directions, view, projection,
                              fx, fy, cx, cy, width, height, sh_degree)
            )  # fmt: skip
        return (torch.stack(pictures),)

    return rasterization
