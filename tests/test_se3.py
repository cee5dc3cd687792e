import pytest
import torch

from utils import se3


def twists(seed: int, angle: float, n: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rho = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    phi = torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64, generator=generator), dim=-1)
    return torch.cat([rho, angle * phi], dim=-1)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.09, 0.11, 0.49, 0.51, 1.5, 3.0])
def test_exp_is_the_matrix_exponential_and_log_its_inverse(angle):
    xi = twists(0, angle)
    generator = torch.zeros(len(xi), 4, 4, dtype=torch.float64)
    generator[:, :3, :3] = se3.hat(xi[:, 3:])
    generator[:, :3, 3] = xi[:, :3]
    assert torch.allclose(se3.exp(xi), torch.linalg.matrix_exp(generator), atol=1e-9)
    assert torch.allclose(se3.log(se3.exp(xi)), xi, atol=1e-8)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.6, 2.0])
def test_gradients(angle):
    xi = twists(1, angle, 3).requires_grad_()
    assert torch.autograd.gradcheck(se3.exp, (xi,))
    assert torch.autograd.gradcheck(lambda x: se3.log(se3.exp(x)), (xi,))


def test_float32_keeps_its_digits_at_small_angles():
    xi = twists(2, 0.02).float()
    assert torch.allclose(se3.log(se3.exp(xi)), xi, atol=3e-6)


def test_inverse():
    pose = se3.exp(twists(3, 1.0))
    assert torch.allclose(se3.inverse(pose) @ pose, torch.eye(4, dtype=torch.float64).expand_as(pose), atol=1e-12)


def test_camera_centers_are_the_translations_of_the_inverse():
    pose = se3.exp(twists(4, 1.0)).reshape(4, 4, 4, 4)
    assert torch.allclose(se3.camera_centers(pose), torch.linalg.inv(pose)[..., :3, 3], atol=1e-12)
