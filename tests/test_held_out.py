"""Where held-out views are looked for: the similarity from the given to the recovered world."""

from types import SimpleNamespace

import pytest
import torch

from evaluation.rendering import Renderer
from gaussian_renderer.pose_fitting import similarity_of
from utils import se3


def row(count: int, wiggle: float) -> torch.Tensor:
    """Poses [V, 4, 4] of cameras on a line that all look across it."""
    random = torch.Generator().manual_seed(3)
    increments = wiggle * torch.randn(count, 6, generator=random)
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = -torch.linspace(-1, 1, count)
    return se3.exp(increments) @ poses


@pytest.mark.parametrize("wiggle", [0.0, 1e-3, 0.2])
def test_cameras_on_a_rail_keep_their_roll(wiggle):
    """Their centers alone do not determine it, and what noise says of it is wrong."""
    known = row(9, wiggle)
    turn = se3.exp(torch.tensor([0.3, -0.2, 0.1, 0.2, -0.4, 0.3]))
    random = torch.Generator().manual_seed(4)
    noise = se3.exp(1e-3 * torch.randn(9, 6, generator=random))
    recovered = list(noise @ known @ turn)
    motion = Renderer._recovered_frame(SimpleNamespace(_middle_poses=lambda: recovered), list(known))
    found = torch.stack(similarity_of(list(known), **motion))
    error = se3.log(found @ se3.inverse(known @ turn))
    assert float(error[:, 3:].norm(dim=-1).max()) < 2e-3 and float(error[:, :3].norm(dim=-1).max()) < 5e-3
    assert motion["scale"] == pytest.approx(1, abs=2e-3)
