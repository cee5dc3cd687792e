"""Kinds of images of a view: their names in files, folders, display labels and order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of image.

    Args:
        name: key in ``manifest.json``, ``results.json`` and ``per_view.json``; never changes.
        folder: folder below ``<model>/<split>/ours_<iteration>``.
        label: text to display.
    """

    name: str
    folder: str
    label: str


LONG = Kind("long_exposure", "long", "long exposure")
TFP = Kind("tfp", "tfp", "TFP")
TIMING = Kind("timing", "timing", "spike timing")
RECON_NET = Kind("recon_net", "recon", "Recon-Net")
GAUSSIANS = Kind("gaussians", "renders", "Gaussians")
FUSED = Kind("fused", "fused", "Fused")
TRUTH = Kind("truth", "gt", "truth")
# An image from the spikes of one view alone, for methods of full_eval.py that make nothing else.
IMAGE = Kind("image", "image", "image")

# What render.py writes, ordered from raw sensor output to truth: the order of selectors and columns.
KINDS = (LONG, TFP, TIMING, RECON_NET, GAUSSIANS, FUSED, TRUTH)
# Results of training, and baselines from the spikes alone: the order of rows in tables.
METHODS = (GAUSSIANS, FUSED, RECON_NET)
BASELINES = (TIMING, TFP, LONG)
MEASURED = (*METHODS, *BASELINES)
BY_NAME = {kind.name: kind for kind in (*KINDS, IMAGE)}


def label_of(kind: Kind, learned: str = GAUSSIANS.label) -> str:
    """The text to display for a kind of image, where the renders are of what was ``learned``: not always Gaussians."""
    return learned if kind is GAUSSIANS else kind.label
