"""Reference rasterizer in plain torch, written to be read and checked: any dtype, any device, quadratic memory.

All results of the native code are tested against this file, forward and backward.  Formulas: projection of
Gaussians, Zwicker et al. 2001 (EWA); blending, Kerbl et al. 2023 (3D Gaussian Splatting), eq. 3; antialias
compensation, Yu et al. 2024 (Mip-Splatting), eq. 16; conventions as gsplat 1.5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.99
TRANSMITTANCE_MIN = 1e-4

_C0 = 0.28209479177387814
_C1 = 0.4886025119029199
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics [..., (degree + 1)^2] of unit directions [..., 3], in 3DGS's order and signs."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, _C0)]
    if degree > 0:
        basis += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree > 1:
        a, b, c = _C2
        basis += [a * x * y, -a * y * z, b * (2 * z * z - x * x - y * y), -a * x * z, c * (x * x - y * y)]
    if degree > 2:
        a, b, c, d, e = _C3
        basis += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -c * y * (4 * z * z - x * x - y * y),
            d * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -c * x * (4 * z * z - x * x - y * y),
            e * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, dim=-1)


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (wxyz, normalized here)."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).reshape(-1, 3, 3)


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    k: Tensor,
    width: int,
    height: int,
    eps2d: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project to one camera: centers [N, 2] in pixels, depths [N], covariances [N, 2, 2] with eps2d, compensations."""
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    camera = means @ rotation.T + translation
    x, y, z = camera.unbind(-1)
    # Avoid division by zero for culled Gaussians, whose values are never used.
    z = torch.where(z > 0, z, torch.ones_like(z))
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    tx = (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    ty = (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * tx / z, zero, fy / z, -fy * ty / z], dim=-1).reshape(-1, 2, 3)
    axes = rotation_matrices(quats) * scales[:, None, :]
    b = jacobian @ rotation @ axes
    covariance = b @ b.transpose(1, 2)
    bare = torch.linalg.cross(b[:, 0], b[:, 1]).square().sum(-1)
    eye = torch.eye(2, dtype=means.dtype, device=means.device)
    blurred = covariance + eps2d * eye
    det = bare + eps2d * (covariance[:, 0, 0] + covariance[:, 1, 1]) + eps2d**2
    safe = torch.where(bare > 0, bare / det, torch.ones_like(det))
    compensation = torch.where(bare > 0, safe.sqrt(), torch.zeros_like(det))
    centers = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    return centers, camera[:, 2], blurred, compensation


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    crop: tuple[int, int, int, int] | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The package's ``rasterization`` in plain torch; ``info`` has only centers and depths."""
    x0, y0, w, h = crop or (0, 0, width, height)
    columns = torch.arange(x0, x0 + w, dtype=means.dtype, device=means.device) + 0.5
    rows = torch.arange(y0, y0 + h, dtype=means.dtype, device=means.device) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(-1, 2)
    renders, alphas, centers_all, depths_all = [], [], [], []
    for m in range(len(viewmats)):
        viewmat = viewmats[m]
        centers, depths, covariance, compensation = project(
            means, quats, scales, viewmat, Ks[m], width, height, eps2d
        )
        centers_all.append(centers)
        depths_all.append(depths)
        opacity = opacities * compensation if rasterize_mode == "antialiased" else opacities
        if sh_degree is None:
            shown = colors
        else:
            eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
            directions = torch.nn.functional.normalize(means - eye, dim=-1)
            basis = sh_basis(sh_degree, directions)
            shown = (basis[..., None] * colors[:, : basis.shape[-1]]).sum(1) + 0.5
            shown = shown.clamp_min(0)
        if "D" in render_mode:
            shown = torch.cat([shown, depths[:, None]], dim=-1)
        keep = torch.nonzero((depths > near_plane) & (depths < far_plane) & (opacity >= ALPHA_MIN))[:, 0]
        order = keep[torch.argsort(depths[keep], stable=True)]

        offset = pixels[None] - centers[order, None]
        conic = torch.linalg.inv(covariance[order])
        sigma = 0.5 * torch.einsum("npi,nij,npj->np", offset, conic, offset)
        raw = opacity[order, None] * torch.exp(-sigma)
        alpha = torch.where(raw >= ALPHA_MIN, raw.clamp(max=ALPHA_MAX), torch.zeros_like(raw))
        after = torch.cumprod(1 - alpha, dim=0)
        # A Gaussian that would reduce the transmittance too far is not blended, nor is anything behind it.
        alpha = torch.where(after > TRANSMITTANCE_MIN, alpha, torch.zeros_like(alpha))
        after = torch.cumprod(1 - alpha, dim=0)
        before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
        left = after[-1] if len(order) else torch.ones_like(pixels[:, 0])
        picture = torch.einsum("np,nc->pc", before * alpha, shown[order])
        if backgrounds is not None:
            behind = left[:, None] * backgrounds[m]
            picture = picture + torch.nn.functional.pad(behind, (0, picture.shape[1] - behind.shape[1]))
        renders.append(picture.reshape(h, w, -1))
        alphas.append((1 - left).reshape(h, w, 1))
    render, alpha = torch.stack(renders), torch.stack(alphas)
    render = arrange(render, alpha, render_mode)
    return render, alpha, {"means2d": torch.stack(centers_all), "depths": torch.stack(depths_all)}


def arrange(render: Tensor, alpha: Tensor, render_mode: str) -> Tensor:
    """Convert color and accumulated depth [..., C (+ 1)] to the channels that a render mode returns."""
    if render_mode == "RGB":
        return render
    depth = render[..., -1:]
    if "ED" in render_mode:
        depth = depth / alpha.clamp_min(1e-10)
    return torch.cat([render[..., :-1], depth], dim=-1) if "RGB" in render_mode else depth
