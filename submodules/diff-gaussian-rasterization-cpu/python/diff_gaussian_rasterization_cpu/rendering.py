"""The native rasterizer as a differentiable torch function."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diff_gaussian_rasterization_cpu import _native
from diff_gaussian_rasterization_cpu.reference import arrange

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")
MOST_GAUSSIANS = 2**31 - 1025  # the native code's indices
# gsplat's other parameters, and the only value of each that is supported here.
NEUTRAL: dict[str, Any] = {
    "radius_clip": 0.0,
    "packed": False,
    "sparse_grad": False,
    "distributed": False,
    "camera_model": "pinhole",
    "segmented": False,
    "covars": None,
    "with_ut": False,
    "with_eval3d": False,
    "radial_coeffs": None,
    "tangential_coeffs": None,
    "thin_prism_coeffs": None,
    "ftheta_coeffs": None,
    "rolling_shutter": "GLOBAL",
    "viewmats_rs": None,
}
# Parameters that do not affect the image in gsplat: any value is accepted.
IGNORED = ("tile_size", "channel_chunk")


class Info(dict[str, Any]):
    """Statistics of a call under gsplat's keys; expensive ones are computed on first access.

    ``radii`` [M, N, 2] int32 (0: culled), ``means2d`` [M, N, 2] pixels, ``depths`` [M, N], ``conics``
    [M, N, 3], ``opacities`` [M, N] (antialias compensation included), ``width``, ``height``, ``n_cameras``,
    ``n_invalid`` (Gaussians left out for NaN or infinite parameters), ``n_visible`` (list of M counts),
    ``n_pairs`` (tile entries).  The backward pass fills ``means2d.grad``, and ``means2d.absgrad`` if requested.
    ``batch_ids``, ``camera_ids`` and ``gaussian_ids`` are None, as in gsplat's unpacked layout.
    """

    LAZY = ("radii", "means2d", "depths", "conics", "opacities")

    def __init__(self, state: Any, views: int, count: int, **known: Any):
        super().__init__(known)
        self.update(dict.fromkeys(("batch_ids", "camera_ids", "gaussian_ids")))
        self.update(dict.fromkeys(self.LAZY, ...))  # placeholders until first access
        self._state, self._shape = state, (views, count)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if value is ...:
            self._work_out()
            value = super().__getitem__(key)
        return value

    def __iter__(self) -> Iterator[str]:  # overridden, so that dict(info) and {**info} compute the values too
        return super().__iter__()

    # The methods of dict would return the placeholders.
    get, items, values = MutableMapping.get, MutableMapping.items, MutableMapping.values  # type: ignore[assignment]
    pop, setdefault = MutableMapping.pop, MutableMapping.setdefault  # type: ignore[assignment]

    def _work_out(self) -> None:
        views, count = self._shape
        arrays = {
            "means2d": torch.empty(views, count, 2),
            "depths": torch.empty(views, count),
            "conics": torch.empty(views, count, 3),
            "opacities": torch.empty(views, count),
            "radii": torch.empty(views, count, 2, dtype=torch.int32),
        }
        self._state.statistics(**{name: array.numpy() for name, array in arrays.items()})
        for name, array in arrays.items():
            if super().__getitem__(name) is ...:
                self[name] = array


@dataclass(frozen=True)
class Call:
    """Arguments of one call; shapes and units as in ``rasterization``.

    ``depth`` ("depth" or "inverse") adds a channel, None does not.  ``means2d`` [M, N, 2] is filled with the
    projected centers and receives their gradient; ``absgrad`` adds its attribute of this name.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    near_plane: float
    far_plane: float
    eps2d: float
    sh_degree: int | None
    backgrounds: Tensor | None
    antialiased: bool
    depth: str | None
    crop: tuple[int, int, int, int] | None
    absgrad: bool = False
    means2d: Tensor | None = None

    LEARNED: ClassVar = ("means", "quats", "scales", "opacities", "colors", "viewmats")

    def check(self) -> None:
        """Reject invalid arguments before any work; the error names the argument.

        Raises:
            ValueError: a wrong shape, type, device or value.
        """
        _check("means", self.means, (None, 3))
        _check("viewmats", self.viewmats, (None, 4, 4))
        n, m = len(self.means), len(self.viewmats)
        if n > MOST_GAUSSIANS:
            raise ValueError(f"means: expected at most {MOST_GAUSSIANS} Gaussians, got {n}")
        _check("quats", self.quats, (n, 4))
        _check("scales", self.scales, (n, 3))
        _check("opacities", self.opacities, (n,))
        _check("Ks", self.Ks, (m, 3, 3))
        self._check_colors(n, m)
        for name in ("width", "height"):
            size = getattr(self, name)
            if not isinstance(size, int) or not 1 <= size <= 65535:
                raise ValueError(f"{name}: expected a whole number of pixels from 1 to 65535, got {size!r}")
        if not 0 < self.near_plane < self.far_plane:
            raise ValueError(
                f"near_plane, far_plane: expected 0 < near < far, got {self.near_plane} and {self.far_plane}"
            )
        if not 0 <= self.eps2d < float("inf"):
            raise ValueError(f"eps2d: expected a variance in square pixels, zero or more, got {self.eps2d}")
        if m < 1:
            raise ValueError("viewmats: expected at least one camera, got none")
        for name in ("viewmats", "Ks"):
            if not _finite(getattr(self, name)):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        if not (self.Ks.detach().numpy()[:, (0, 1), (0, 1)] > 0).all():
            raise ValueError("Ks: expected positive focal lengths")
        if self.crop is not None:
            left, top, w, h = self.crop
            if left < 0 or top < 0 or w < 1 or h < 1 or left + w > self.width or top + h > self.height:
                raise ValueError(
                    f"crop: {self.crop} does not lie in an image of {self.width}x{self.height} pixels"
                )

    def _check_colors(self, n: int, m: int) -> None:
        colors, degree = self.colors, self.sh_degree
        if degree is None:
            _check("colors", colors, (n, None))
        else:
            _check("colors", colors, (n, None, None))
            if not isinstance(degree, int) or not 0 <= degree <= 3:
                raise ValueError(f"sh_degree: expected 0, 1, 2 or 3, got {degree!r}")
            least = (degree + 1) ** 2
            if not least <= colors.shape[1] <= 16:
                raise ValueError(
                    f"sh_degree: {degree} needs {least} to 16 coefficients, got {colors.shape[1]}"
                )
        channels = colors.shape[-1]
        if channels not in (1, 3):
            raise ValueError(f"colors: expected 1 or 3 channels, got {channels}")
        if self.backgrounds is not None:
            _check("backgrounds", self.backgrounds, (m, channels))
            if not _finite(self.backgrounds):
                raise ValueError("backgrounds: expected finite numbers, got NaN or infinity")

    @property
    def learns(self) -> bool:
        """Whether a backward pass to a Gaussian or a pose may follow."""
        tensors = (*(getattr(self, name) for name in self.LEARNED), self.means2d)
        return torch.is_grad_enabled() and any(x.requires_grad for x in tensors if x is not None)

    def render(self) -> tuple[Tensor, Tensor, Info]:
        """Image [M, C (+ 1), H, W], transmittance [M, H, W] and statistics, of arguments that were checked.

        Raises:
            MemoryError: more memory than is available; the message has the numbers.
        """
        holder: dict[str, Any] = {}
        learned = (getattr(self, name) for name in self.LEARNED)
        image, transmittance = _Rasterize.apply(*learned, self.backgrounds, self.means2d, self, self.learns, holder)
        return image, transmittance, holder["info"]

    def forward(self, gaussians: list[Tensor], save: bool) -> Any:
        """The native forward pass on contiguous Gaussians."""
        return _native.forward(
            *(x.numpy() for x in gaussians),
            coefficients=0 if self.sh_degree is None else self.colors.shape[1],
            degree=self.sh_degree or 0,
            viewmats=_plain(self.viewmats).numpy(),
            ks=_plain(self.Ks).numpy(),
            width=self.width,
            height=self.height,
            crop=self.crop,
            near_plane=self.near_plane,
            far_plane=self.far_plane,
            eps2d=self.eps2d,
            antialiased=self.antialiased,
            with_depth=self.depth is not None,
            inverse_depth=self.depth == "inverse",
            save=save,
            backgrounds=None if self.backgrounds is None else _plain(self.backgrounds).numpy(),
        )


def _finite(x: Tensor) -> bool:
    return bool(np.isfinite(x.detach().numpy()).all())  # a tenth of torch's time on a few numbers


def _plain(x: Tensor) -> Tensor:
    return x.detach().contiguous()


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """``Call.LEARNED``, backgrounds, means2d, the call, whether to keep what backward needs, and a dictionary that
        gets ``info``."""
        *tensors, means2d, call, save, holder = arguments
        inputs = [_plain(x) for x in tensors[:5]]
        state = call.forward(inputs, save)
        image, transmittance = (torch.from_numpy(x) for x in state.images())
        m, n = len(image), len(inputs[0])
        info = Info(
            state,
            m,
            n,
            width=call.width,
            height=call.height,
            n_cameras=m,
            n_invalid=state.invalid,
            n_visible=state.visible,
            n_pairs=state.pairs,
        )
        holder["info"] = info
        if means2d is not None:
            means2d.data.copy_(info["means2d"])
        ctx.state, ctx.means2d, ctx.absgrad = state, means2d, call.absgrad
        ctx.set_materialize_grads(False)
        # The image is saved so that torch detects in-place changes: the state shares its memory.
        ctx.save_for_backward(*inputs, image, transmittance)
        return image, transmittance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_image: Tensor | None, grad_transmittance: Tensor | None) -> Any:  # type: ignore[override]
        *inputs, image, transmittance = ctx.saved_tensors
        if grad_image is None and grad_transmittance is None:
            return (None,) * 11
        if grad_image is None:
            grad_image = torch.zeros_like(image)
        grad_image = grad_image.contiguous()
        views = len(image)
        needs = ctx.needs_input_grad

        def fresh(*shape: int) -> Tensor:
            return torch.from_numpy(_native.empty(shape))

        outputs = [fresh(*x.shape) if need else None for x, need in zip(inputs, needs[:5], strict=True)]
        grad_viewmats = fresh(views, 4, 4) if needs[5] else None
        screen = fresh(views, len(inputs[0]), 2) if needs[7] else None
        absolute = fresh(views, len(inputs[0]), 2) if needs[7] and ctx.absgrad else None

        def array(x: Tensor | None) -> Any:
            return None if x is None else x.numpy()

        if any(needs[:6]) or needs[7]:  # else only the backgrounds need gradients
            _native.backward(
                ctx.state,
                *(x.numpy() for x in inputs),
                grad_image.numpy(),
                None if grad_transmittance is None else grad_transmittance.contiguous().numpy(),
                *(array(x) for x in outputs),
                array(grad_viewmats),
                array(screen),
                array(absolute),
            )
        if absolute is not None:
            ctx.means2d.absgrad = absolute
        grad_backgrounds = None
        if needs[6]:
            color = grad_image[:, : inputs[4].shape[-1]]
            grad_backgrounds = torch.einsum("mchw,mhw->mc", color, transmittance)
        return (*outputs, grad_viewmats, grad_backgrounds, screen, None, None, None)


def _check(name: str, x: Tensor, shape: tuple[int | None, ...]) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(x).__name__}")
    wanted = "[" + ", ".join("any" if s is None else str(s) for s in shape) + "]"
    if x.ndim != len(shape) or any(s is not None and s != t for s, t in zip(shape, x.shape, strict=True)):
        raise ValueError(f"{name}: expected shape {wanted}, got {list(x.shape)}")
    if x.dtype != torch.float32:
        raise ValueError(f"{name}: expected float32, got {str(x.dtype).removeprefix('torch.')}")
    if x.device.type != "cpu":
        raise ValueError(f"{name}: expected a tensor on the CPU, got one on {x.device}")


def _refuse_unknown(options: dict[str, Any]) -> None:
    """Accept gsplat's other parameters only with the values that match this implementation.

    Raises:
        TypeError: unknown parameter.
        ValueError: unsupported value.
    """
    for name, value in options.items():
        if name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise TypeError(f"rasterization() got an unexpected keyword argument {name!r}")
        wanted = NEUTRAL[name]
        given = getattr(value, "name", value) if name == "rolling_shutter" else value  # an enum in gsplat
        if isinstance(given, Tensor) or given != wanted:
            shown = "a tensor" if isinstance(given, Tensor) else repr(given)
            raise ValueError(f"{name}: expected {wanted!r}, the only value possible here, got {shown}")


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
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    *,
    screen_gradients: bool = True,
    crop: tuple[int, int, int, int] | None = None,
    **gsplat: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render N Gaussians from M cameras (keywords as in gsplat 1.5; all tensors float32 on the CPU).

    Args:
        means: centers [N, 3], world units.
        quats: orientations [N, 4], wxyz, of any length.
        scales: standard deviations along the axes [N, 3], world units.
        opacities: [N], in [0, 1].
        colors: [N, C], or spherical-harmonic coefficients [N, K, C] with ``sh_degree``; C = 1 or 3.
        viewmats: world-to-camera [M, 4, 4], OpenCV axes, rigid.
        Ks: camera matrices [M, 3, 3], pixels; no gradient.
        width, height: pixels.
        near_plane, far_plane: Gaussians whose center is nearer or farther are culled, world units.
        eps2d: variance added in screen space, square pixels (0.3: the low-pass filter of 3DGS).
        sh_degree: active degree; K must hold its coefficients.
        backgrounds: [M, C], or None for black.
        render_mode: RGB, D (accumulated depth), ED (expected depth), RGB+D, RGB+ED.
        absgrad: also accumulate absolute screen gradients, in ``info["means2d"].absgrad`` after backward.
        rasterize_mode: classic, or antialiased (opacity compensated for ``eps2d``).
        screen_gradients: keep gradients of the projected centers, in ``info["means2d"].grad`` after
            backward; without them a step is slightly faster.
        crop: (left, top, width, height) in pixels: render only that rectangle.
        gsplat: other parameters of gsplat, only with their neutral values (``NEUTRAL``); ``packed`` must be False.
            ``tile_size`` and ``channel_chunk`` are ignored.

    Returns:
        renders [M, H, W, C (+ 1)], alphas [M, H, W, 1] and ``info`` (see ``Info``).

    Raises:
        ValueError: a wrong shape, type, device or value; checked before any work.
        MemoryError: more memory than is available; the message has the numbers.
    """
    _refuse_unknown(gsplat)
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode: expected one of {', '.join(RENDER_MODES)}, got {render_mode!r}")
    if rasterize_mode not in RASTERIZE_MODES:
        raise ValueError(
            f"rasterize_mode: expected one of {', '.join(RASTERIZE_MODES)}, got {rasterize_mode!r}"
        )
    call = Call(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, eps2d, sh_degree,
        backgrounds, rasterize_mode == "antialiased", "depth" if "D" in render_mode else None, crop, absgrad,
    )  # fmt: skip
    call.check()
    if call.learns and screen_gradients:
        call = replace(call, means2d=torch.zeros(len(viewmats), len(means), 2, requires_grad=True))
    image, transmittance, info = call.render()
    if call.means2d is not None:
        info["means2d"] = call.means2d
    alphas = (1 - transmittance)[..., None]
    renders = arrange(image.permute(0, 2, 3, 1), alphas, render_mode)
    return renders, alphas, info
