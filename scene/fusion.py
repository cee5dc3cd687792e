"""The best estimate of an instant's image: a render, corrected by the spikes recorded around that instant."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Side of the overlapping patches that are transformed, and the step from one to the next, pixels.
PATCH, _STEP = 8, 2
# Energies are averaged over this many patches along each axis: single ones of pure noise vary too much.
_PATCHES = 7
# Gain 1 - margin v / e.  Wiener's filter has the margin 1.  The noise v is known to a few tenths, and what is mistaken
# for an error of the render makes a good one worse.
_MARGIN = 1.2
# The margin grows with this power of how far noise is from white, as the scene's error is.
_COLORED = 4
# A pixel is not believed if its residual differs from its neighborhood's by more than this share of the render, of
# white, and times the median difference (four standard deviations).
_OWN_SHARE = 0.5
_OWN_LEAST = 0.15
_OWN_MEDIANS = 6


def fuse(render: Tensor, residual: Tensor, noise: Tensor) -> Tensor:
    """Move renders [B, C, H, W] toward the spikes where the residual has more energy than the spikes' own noise.

    The noise of pixels is independent, and the error of a scene is not: an edge in a wrong place, a blurred texture.
    Patch by patch and frequency by frequency (of a cosine transform, as in Yaroslavsky 1996), the residual's energy e
    around the patch is compared with the noise v there, and what noise does not explain is added: the gain is
    max(1 - m v / e, 0).  If noise is not white, but smear along the scene's own edges, its shape does not distinguish
    it from an error of the render, and m is larger.  A render stays as it is where a single pixel contradicts it by
    half of its intensity while the neighbors do not: such a pixel is dead, hot, or had a spurious spike.
    The residual belongs to the spikes' window; adding it to the render at the window's middle keeps that render sharp.

    Args:
        render: renders at the instants, [B, C, H, W].
        residual: the spikes' intensity minus the mean of the renders over the same window, [B, C, H, W].
        noise: energies of the error of the spikes' intensity about the truth, by frequency, [PATCH, PATCH]
            (``patch_energies``, measured by ``simulation.twin.target_noise``).
    """
    own = (residual - F.avg_pool2d(residual, 3, 1, 1, count_include_pad=False)).abs()
    usual = own.flatten(1).median(1).values[:, None, None, None]
    limit = torch.maximum((_OWN_SHARE * render).clamp_min(_OWN_LEAST), _OWN_MEDIANS * usual)
    believed = residual.where(own <= limit, 0)
    # One image at a time: a transform is as large as 16 images.
    errors = [_beyond(image[:, None], noise)[:, 0] for image in believed]
    return render + torch.stack(errors)


def patch_energies(images: Tensor) -> Tensor:
    """Mean energies [PATCH, PATCH] of the frequencies in the patches of images [M, H, W]; their mean is the images'."""
    total = torch.zeros(PATCH**2, dtype=torch.float64, device=images.device)
    for image in images:
        total += _transform(image[None, None])[0].double().square().mean((1, 2))
    return (total / len(images)).view(PATCH, PATCH)


def white(variance: Tensor) -> Tensor:
    """The energies [PATCH, PATCH] of independent pixels with this variance (a tensor with one element)."""
    return variance.reshape(1, 1).repeat(PATCH, PATCH)


def _beyond(residual: Tensor, noise: Tensor) -> Tensor:
    """The part of residuals [C, 1, H, W] that noise does not explain."""
    height, width = residual.shape[-2:]
    coefficients = _transform(residual)
    energy = coefficients.square().contiguous(memory_format=torch.channels_last)  # ten times as fast to average
    for side in ((_PATCHES, 1), (1, _PATCHES)):
        energy = F.avg_pool2d(energy, side, 1, (side[0] // 2, side[1] // 2), count_include_pad=False)
    v = noise.to(residual).clamp_min(1e-24)
    flatness = v.log().mean().exp() / v.mean()
    explained = _MARGIN / flatness**_COLORED * v.reshape(-1, 1, 1) / energy.clamp_min(1e-24)
    kept = (1 - explained).clamp_min(0) * coefficients
    patches = torch.einsum("fp,cfn->cpn", _basis(residual.device).view(PATCH**2, -1), kept.flatten(2))
    beyond = PATCH - 1
    # What the patches cover is one pixel less if the image's size is odd.  (A transposed convolution would be slower,
    # and its sums would depend on the number of threads.)
    rows, columns = ((n - 1) * _STEP + PATCH for n in kept.shape[-2:])
    total, count = (F.fold(x, (rows, columns), PATCH, stride=_STEP) for x in (patches, torch.ones_like(patches[:1])))
    return (total / count)[..., beyond : beyond + height, beyond : beyond + width]


def _transform(images: Tensor) -> Tensor:
    """Cosine transforms [B, PATCH * PATCH, R, S] of the overlapping patches of images [B, 1, H, W]."""
    height, width = images.shape[-2:]
    beyond = PATCH - 1
    # Mirrored pixels are as noisy as others; a smaller image has too few of them.
    mode = "reflect" if min(height, width) > beyond else "replicate"
    padded = F.pad(images, [beyond] * 4, mode=mode)
    return F.conv2d(padded, _basis(images.device), stride=_STEP)


@cache
def _basis(device: torch.device) -> Tensor:
    """The orthonormal cosine basis [PATCH * PATCH, 1, PATCH, PATCH] (DCT-II) of a patch."""
    k, x = torch.arange(PATCH, dtype=torch.float64)[:, None], torch.arange(PATCH, dtype=torch.float64)
    rows = torch.cos(math.pi / PATCH * (x + 0.5) * k) * math.sqrt(2 / PATCH)
    rows[0] /= math.sqrt(2)
    return torch.einsum("ki,lj->klij", rows, rows).reshape(-1, 1, PATCH, PATCH).float().to(device)
