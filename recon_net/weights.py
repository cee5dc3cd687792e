"""Recon-Net's weights on disk: one format for trained models and for ``python -m recon_net``."""

from __future__ import annotations

import os
from typing import get_args

from recon_net import SpikeToImage, make_network
from spike.targets import Grouping
from utils.checkpoint import check_version, read_state, save_checkpoint

WEIGHTS = "recon_net.pth"


def save_network(path: str | os.PathLike[str], network: SpikeToImage) -> None:
    """Write the network's kind, input and weights: a checkpoint with ``variant``, ``grouping`` and ``weights``.

    Raises:
        ValueError: the file cannot be written.
    """
    save_checkpoint(path, {"variant": network.variant, "grouping": network.grouping, "weights": network.state_dict()})


def load_network(
    path: str | os.PathLike[str], short_channels: int = 41, long_channels: int = 34, grouping: Grouping = "adjacent"
) -> SpikeToImage:
    """Load a network that ``save_network`` wrote, on the CPU; no code in the file is executed.

    ``recon_net.pt`` of earlier versions of ``python -m recon_net`` (``variant`` and ``state``) can also be read.

    Args:
        short_channels, long_channels: inputs of the paper's network (``WindowSpec.short`` and ``long_channels``).
        grouping: how its long input groups frames, for files of earlier versions, which do not say.

    Raises:
        ValueError: missing, damaged, of another version, or weights of another network.
    """
    stored = read_state(path)
    if isinstance(stored, dict) and "state" in stored:
        weights = stored["state"]
    else:
        stored = check_version(path, stored)
        weights = stored.get("weights")
    try:
        grouping = stored.get("grouping", grouping)
        if grouping not in get_args(Grouping):
            raise ValueError(f"a long input with the grouping {grouping!r}")
        network = make_network(stored.get("variant"), short_channels, long_channels, grouping)
        network.load_state_dict(weights)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected weights of a Recon-Net with {short_channels} short and {long_channels} long inputs "
            f"({reason})"
        ) from None
    return network
