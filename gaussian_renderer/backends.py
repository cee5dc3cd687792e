"""The rasterizers, with a common signature (gsplat 1.5's ``rasterization``).

``cpu``     our own rasterizer, on any machine
``gsplat``  CUDA, the same call
``inria``   CUDA, the 3DGS submodule: one camera per call; camera gradients through transformed Gaussians
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gaussians.sh import eval_sh, view_directions

Rasterizer = Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]
NAMES = ("cpu", "gsplat", "inria", "auto")
INRIA_LOW_PASS = 0.3  # square pixels, compiled into its kernels


def get_rasterizer(name: str, device: torch.device) -> Rasterizer:
    """The rasterizer ``name`` (cpu, gsplat, inria, or auto) for tensors on ``device``.

    Raises:
        ValueError: unknown, not installed, or not for that device.
    """
    if name not in NAMES:
        raise ValueError(f"--rasterizer {name}: expected one of {', '.join(NAMES)}")
    if name == "auto":
        if device.type == "cpu":
            name = "cpu"
        else:
            name = next((n for n in ("gsplat", "inria") if _installed(n)), "gsplat")
    if (name == "cpu") != (device.type == "cpu"):
        raise ValueError(f"--rasterizer {name} does not work with tensors on {device.type}")
    if not _installed(name):
        package, command = _PACKAGES[name], _COMMANDS[name]
        raise ValueError(f"--rasterizer {name}: the package {package} is not installed; install it with: {command}")
    if name == "cpu":
        # Imported here: the CUDA backends do not need the native module.
        from diff_gaussian_rasterization_cpu import rasterization as cpu_rasterization

        return cpu_rasterization
    return _gsplat if name == "gsplat" else inria_rasterizer(*_inria_classes())


_PACKAGES = {
    "cpu": "diff_gaussian_rasterization_cpu", "gsplat": "gsplat", "inria": "diff_gaussian_rasterization"
}  # fmt: skip
_COMMANDS = {
    "cpu": "pip install ./submodules/diff-gaussian-rasterization-cpu",
    "gsplat": 'pip install "gsplat>=1.5,<1.6"',
    "inria": "pip install --no-build-isolation ./submodules/diff-gaussian-rasterization",
}


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(_PACKAGES[name]) is not None
    except ValueError:  # a name that sys.modules blocks
        return False


def _gsplat(
    *, colors: Tensor, screen_gradients: bool = True, **arguments: Any
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Call gsplat; it evaluates spherical harmonics for three channels only, so mono is replicated."""
    import gsplat

    mono = colors.shape[-1] == 1
    if arguments.get("backgrounds") is not None and mono:
        arguments["backgrounds"] = arguments["backgrounds"].expand(-1, 3)
    renders, alphas, info = gsplat.rasterization(
        colors=colors.expand(*colors.shape[:-1], 3) if mono else colors, packed=False, **arguments
    )
    if screen_gradients and info["means2d"].requires_grad:
        info["means2d"].retain_grad()
    if mono:
        renders = torch.cat([renders[..., :1], renders[..., 3:]], dim=-1)
    return renders, alphas, info


def _inria_classes() -> tuple[type, type]:
    from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer

    return GaussianRasterizationSettings, GaussianRasterizer


def inria_rasterizer(settings_class: type, rasterizer_class: type) -> Rasterizer:
    """Wrap Inria's classes (branch dr_aa) in the common signature.

    Inria's rasterizer has no gradient with respect to the camera.  The Gaussians are therefore transformed into the
    camera frame in torch, and rendered from an identity view with precomputed colors: autograd reaches the pose
    through the transformed Gaussians.
    """

    def rasterize(
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
        eps2d: float = INRIA_LOW_PASS,
        sh_degree: int | None = None,
        backgrounds: Tensor | None = None,
        render_mode: str = "RGB",
        rasterize_mode: str = "classic",
        absgrad: bool = False,
        screen_gradients: bool = True,
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        if absgrad:
            raise ValueError("--rasterizer inria has no absolute screen gradients")
        if eps2d != INRIA_LOW_PASS:
            raise ValueError(
                f"--rasterizer inria has a low-pass of {INRIA_LOW_PASS} square pixels, these Gaussians need {eps2d:g}"
            )
        renders, alphas, points, radii_all = [], [], [], []
        for m in range(len(viewmats)):
            shown = colors
            if sh_degree is not None:
                shown = eval_sh(sh_degree, colors, view_directions(means, viewmats[m]))
            camera = means @ viewmats[m, :3, :3].T + viewmats[m, :3, 3]
            turned = _rotate_quats(viewmats[m, :3, :3], quats)
            # Depth and alpha are rendered as colors: three channels per call.
            extra = torch.cat([camera[:, 2:], torch.ones_like(camera[:, :1])], dim=-1)
            channels = torch.cat([shown, extra], dim=-1)
            screen = torch.zeros_like(means, requires_grad=True)
            settings = _inria_settings(
                settings_class, Ks[m], width, height, near_plane, far_plane, rasterize_mode, means
            )
            pictures, radii = [], torch.zeros(0)
            for first in range(0, channels.shape[-1], 3):
                chunk = channels[:, first : first + 3]
                padded = torch.nn.functional.pad(chunk, (0, 3 - chunk.shape[-1]))
                rasterizer = rasterizer_class(settings)
                picture, radii, _ = rasterizer(
                    means3D=camera,
                    means2D=screen,
                    opacities=opacities[:, None],
                    colors_precomp=padded,
                    scales=scales,
                    rotations=turned,
                )
                pictures.append(picture[: chunk.shape[-1]])
            picture = torch.cat(pictures).permute(1, 2, 0)
            count = shown.shape[-1]
            alpha = picture[..., count + 1 :]
            color, depth = picture[..., :count], picture[..., count : count + 1]
            if backgrounds is not None:
                color = color + (1 - alpha) * backgrounds[m]
            if "ED" in render_mode:
                depth = depth / alpha.clamp_min(1e-10)
            parts = [p for p, wanted in ((color, "RGB"), (depth, "D")) if wanted in render_mode]
            renders.append(torch.cat(parts, dim=-1))
            alphas.append(alpha)
            points.append(screen)
            radii_all.append(radii)
        info = {
            "means2d": _ScreenPoints(points, width, height) if screen_gradients else None,
            "radii": torch.stack(radii_all)[..., None].expand(-1, -1, 2),
            "width": width,
            "height": height,
            "n_cameras": len(viewmats),
        }
        return torch.stack(renders), torch.stack(alphas), info

    return rasterize


class _ScreenPoints:
    """Gradients of the projected centers of M calls as one ``.grad`` [M, N, 2] in pixels."""

    def __init__(self, points: list[Tensor], width: int, height: int):
        self._points, self._scale = points, (2 / width, 2 / height)

    @property
    def grad(self) -> Tensor:
        # Inria's gradient is with respect to normalized coordinates: pixels times half the image size.
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._points]
        stacked = torch.stack(grads)[..., :2]
        return stacked * stacked.new_tensor(self._scale)


def _rotate_quats(rotation: Tensor, quats: Tensor) -> Tensor:
    """Quaternions [N, 4] (wxyz) of R times the orientations ``quats``; gradients reach R."""
    r = rotation
    # Shepperd's method: divide by the largest component, so that the divisor stays far from zero.
    trace = r[0, 0] + r[1, 1] + r[2, 2]
    candidates = torch.stack([trace, 2 * r[0, 0] - trace, 2 * r[1, 1] - trace, 2 * r[2, 2] - trace])
    k = int(candidates.argmax())
    if k == 0:
        q = torch.stack([1 + trace, r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    else:
        i, j, l = k - 1, k % 3, (k + 1) % 3  # noqa: E741
        parts: list[Tensor] = [r[0, 0]] * 4
        parts[0] = r[l, j] - r[j, l]
        parts[1 + i] = 1 + 2 * r[i, i] - trace
        parts[1 + j] = r[j, i] + r[i, j]
        parts[1 + l] = r[l, i] + r[i, l]
        q = torch.stack(parts)
    w, x, y, z = torch.nn.functional.normalize(q, dim=0)
    a, b, c, d = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    return torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        dim=-1,
    )


def _inria_settings(
    cls: type, k: Tensor, width: int, height: int, near: float, far: float, mode: str, like: Tensor
) -> Any:
    """Identity view; the projection matrix carries the principal point."""
    fx, fy, cx, cy = (float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
    far = min(far, 1000.0 * max(near, 0.01))
    projection = torch.zeros(4, 4)
    projection[0, 0], projection[1, 1] = 2 * fx / width, 2 * fy / height
    projection[0, 2], projection[1, 2] = 2 * cx / width - 1, 2 * cy / height - 1
    projection[2, 2], projection[2, 3] = far / (far - near), -far * near / (far - near)
    projection[3, 2] = 1
    identity = torch.eye(4).to(like)
    return cls(
        image_height=height,
        image_width=width,
        tanfovx=0.5 * width / fx,
        tanfovy=0.5 * height / fy,
        bg=torch.zeros(3).to(like),
        scale_modifier=1.0,
        viewmatrix=identity,
        projmatrix=projection.T.contiguous().to(like),
        sh_degree=0,
        campos=torch.zeros(3).to(like),
        prefiltered=False,
        debug=False,
        antialiasing=mode == "antialiased",
    )
