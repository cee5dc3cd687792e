"""Recon-Net as an ONNX file, for programs without torch."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from recon_net import SpikeToImage
from utils.io import atomic_write

_AXES = {
    "short": {0: "views", 1: "instants", 3: "height", 4: "width"},
    "long": {0: "views", 2: "height", 3: "width"},
    "u": {0: "views", 1: "instants"},
    "frames": {0: "views", 1: "instants", 3: "height", 4: "width"},
}


class _FullPrecision(nn.Module):
    """The network in float32: autocast depends on the machine, so it is not exported."""

    def __init__(self, network: SpikeToImage):
        super().__init__()
        self.network = network

    def forward(self, short: Tensor, long: Tensor, u: Tensor) -> Tensor:
        return self.network.frames(short, long, u)


def export_onnx(path: str | os.PathLike[str], network: SpikeToImage) -> None:
    """Write ``network`` with the inputs ``short``, ``long`` and ``u`` and the output ``frames`` of its ``forward``.

    The numbers of views and instants and the image size are dynamic; the weights are in the same file.

    Raises:
        ValueError: the package onnx is missing, or the file cannot be written.
    """
    short_channels, long_channels = network.channels
    # Two of each, so that no dimension is treated as a constant.
    example = (torch.zeros(2, 2, short_channels, 16, 24), torch.zeros(2, long_channels, 16, 24), torch.zeros(2, 2))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        file = Path(folder) / "network.onnx"
        # Tracing is deprecated, but the newer exporter does not keep the number of instants dynamic.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _FullPrecision(network).cpu().eval(),
                example,
                file,
                input_names=["short", "long", "u"],
                output_names=["frames"],
                dynamic_axes=_AXES,
                dynamo=False,
            )
        except (ImportError, torch.onnx.errors.OnnxExporterError) as error:
            raise ValueError(f"{path}: an .onnx file needs the package onnx: pip install onnx ({error})") from None
        stored = file.read_bytes()
    with atomic_write(path, "wb") as target:
        target.write(stored)
