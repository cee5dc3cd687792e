"""First points: given ones stay, pushed-out ones lie on their pixels' rays, none given means random ones."""

import numpy as np
import pytest
import torch

from gaussians.initialization import RANDOM_POINTS, Picture, depth_range, fill_points, median_depth, thinned

K = torch.tensor([[40.0, 0, 16], [0, 40.0, 12], [0, 0, 1]])


def pictures(count: int = 3, channels: int = 1) -> list[Picture]:
    found = []
    for i in range(count):
        w2c = torch.eye(4)
        w2c[0, 3] = 0.5 * i
        image = torch.rand(channels, 24, 32, generator=torch.Generator().manual_seed(i))
        found.append(Picture(image, K, w2c))
    return found


def poses() -> torch.Tensor:
    return torch.stack([p.w2c for p in pictures()])


def plane(depth: float = 4.0, count: int = 200) -> torch.Tensor:
    xy = torch.as_tensor(np.random.default_rng(0).uniform(-2, 2, (count, 2)), dtype=torch.float32)
    return torch.cat([xy, torch.full((count, 1), depth)], 1)


def test_given_points_stay_and_come_first():
    points, rgb = plane(), torch.rand(200, 1)
    xyz, colors = fill_points(points, rgb, pictures(), 0)
    assert torch.equal(xyz, points) and torch.equal(colors, rgb)
    xyz, colors = fill_points(points, rgb, pictures(), 500)
    assert len(xyz) == len(colors) == 500
    assert torch.equal(xyz[:200], points) and torch.equal(colors[:200], rgb)


def test_the_median_depth_is_what_the_views_have_before_them():
    behind = torch.tensor([[0.0, 0, -50]]).repeat(1000, 1)
    assert median_depth(torch.cat([plane(4.0, 60), plane(7.0, 40), behind]), poses()) == pytest.approx(4.0)
    turned = poses() @ torch.diag(torch.tensor([1.0, 1, 2, 1]))
    assert median_depth(plane(4.0), turned) == pytest.approx(8.0)
    assert median_depth(behind, poses()) == 1


def test_filled_points_take_the_depth_around_them_but_for_the_explorers():
    xyz, _ = fill_points(plane(), torch.rand(200, 1), pictures(), 2200)
    near = (xyz[200:, 2] - 4.0).abs() < 1e-3
    assert 0.70 < near.float().mean() < 0.80
    low, high = depth_range(plane(), poses())
    assert low < 1 and high == pytest.approx(6.0)
    assert (xyz[200:, 2] >= low - 1e-3).all() and (xyz[200:, 2] <= high + 1e-3).all()


def test_filled_points_project_onto_the_pixel_of_their_color():
    [picture] = pictures(1)
    xyz, colors = fill_points(None, None, [picture], 300, seed=3)
    uv = xyz @ K.T
    uv = (uv[:, :2] / uv[:, 2:]).floor().long().clamp_min(0)
    inside = (uv[:, 0] < 32) & (uv[:, 1] < 24)
    assert (picture.image[0, uv[inside, 1], uv[inside, 0]] == colors[inside, 0]).float().mean() > 0.98


def test_a_scene_without_points_starts_from_random_ones():
    xyz, colors = fill_points(None, None, pictures(2, channels=3), 0)
    assert len(xyz) == RANDOM_POINTS and colors.shape == (RANDOM_POINTS, 3)
    assert (xyz[:, 2] > 0).all()


def test_points_without_colors_are_gray():
    _, colors = fill_points(plane(), None, pictures(1, channels=3), 0)
    assert torch.equal(colors, torch.full((200, 3), 0.5))


def test_depths_of_many_points_are_thinned_and_of_few_are_not(monkeypatch):
    points = torch.rand(1_200_001, 3) + torch.tensor([0, 0, 4.0])
    quantile, taken = torch.Tensor.quantile, []

    def counted(depths, q):
        taken.append(len(depths))
        return quantile(depths, q)

    monkeypatch.setattr(torch.Tensor, "quantile", counted)
    low, high = depth_range(points, poses())
    assert taken == [900_001, 900_001]
    assert low == pytest.approx(0.2 * 4.05, abs=1e-3) and high == pytest.approx(1.5 * 4.95, abs=1e-2)
    depth_range(plane(count=201), poses())
    assert taken[2:] == [603, 603]


def test_more_points_than_wanted_are_thinned_by_the_seed():
    points = torch.arange(100.0)[:, None].expand(-1, 3)
    xyz, colors = thinned(points, points[:, :1], 30, seed=1)
    assert len(xyz) == 30 and torch.equal(xyz[:, :1], colors) and (xyz[1:] > xyz[:-1]).all()
    assert torch.equal(thinned(points, points, 30, seed=1)[0], xyz) and xyz.max() > 60
    assert not torch.equal(thinned(points, points, 30, seed=2)[0], xyz)
    assert thinned(points, points, 100)[0] is points


def test_the_seed_decides():
    a, b, c = (fill_points(None, None, pictures(), 50, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
