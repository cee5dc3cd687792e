"""Spherical harmonics: the constant, the signs of the first band, directions."""

import pytest
import torch
from diff_gaussian_rasterization_cpu import reference
from scipy.spatial.transform import Rotation

from gaussians.sh import SH_C0, eval_sh, sh_basis, view_directions


def unit(n, seed=0):
    return torch.nn.functional.normalize(
        torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_constant_term_is_the_color(channels):
    color = torch.rand(5, channels, dtype=torch.float64)
    coefficients = ((color - 0.5) / SH_C0)[:, None]
    assert torch.allclose(eval_sh(0, coefficients, unit(5)), color)
    padded = torch.cat([coefficients, torch.zeros(5, 15, channels, dtype=torch.float64)], 1)
    assert torch.allclose(eval_sh(3, padded, unit(5)), color)


def test_the_first_band_has_3dgs_order_and_signs():
    directions = unit(9)
    for k, (axis, sign) in enumerate([(1, -1), (2, 1), (0, -1)], start=1):
        coefficients = torch.zeros(9, 4, 1, dtype=torch.float64)
        coefficients[:, k] = 0.5
        expected = 0.5 + 0.5 * sign * 0.4886025119029199 * directions[:, axis]
        assert torch.allclose(eval_sh(1, coefficients, directions)[:, 0], expected)


@pytest.mark.parametrize("degree", range(4))
def test_the_basis_is_the_rasterizer_s(degree):
    directions = unit(50)
    assert torch.allclose(sh_basis(degree, directions), reference.sh_basis(degree, directions), atol=1e-14)


def test_the_basis_is_orthonormal_over_the_sphere():
    directions = unit(200_000)
    values = []
    for k in range(16):
        coefficients = torch.zeros(1, 16, 1, dtype=torch.float64)
        coefficients[:, k] = 0.1  # small: nothing is cut at 0
        values.append((eval_sh(3, coefficients.expand(len(directions), -1, -1), directions)[:, 0] - 0.5) / 0.1)
    basis = torch.stack(values, -1)
    gram = 4 * torch.pi * basis.T @ basis / len(directions)
    assert torch.allclose(gram, torch.eye(16, dtype=torch.float64), atol=0.05)


def test_lower_degrees_ignore_higher_coefficients_and_colors_stay_positive():
    coefficients = torch.randn(6, 16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions = unit(6)
    assert torch.allclose(eval_sh(1, coefficients, directions), eval_sh(1, coefficients[:, :4], directions))
    assert float(eval_sh(3, coefficients * 10, directions).min()) == 0


def test_directions_point_from_the_camera_to_the_points():
    w2c = torch.eye(4, dtype=torch.float64)
    rotation = torch.as_tensor(Rotation.from_rotvec([0.3, -1, 0.2]).as_matrix())
    eye = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    w2c[:3, :3], w2c[:3, 3] = rotation, -rotation @ eye
    away = unit(4)
    assert torch.allclose(view_directions(eye + 2.5 * away, w2c), away)
