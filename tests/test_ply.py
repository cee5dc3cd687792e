"""PLY files: what is written comes back, in the layout 3DGS viewers read; broken files are named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from gaussians.ply import (
    GaussianParams,
    LowPass,
    read_gaussian_ply,
    read_point_ply,
    write_gaussian_ply,
    write_point_ply,
)

FIELDS = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")


def gaussians(n: int = 7, degree: int = 3, channels: int = 3) -> GaussianParams:
    g = torch.Generator().manual_seed(0)
    shapes = [(n, 3), (n, 4), (n, 3), (n,), (n, 1, channels), (n, (degree + 1) ** 2 - 1, channels)]
    return GaussianParams(*(torch.randn(shape, generator=g) for shape in shapes))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gaussians_round_trip(tmp_path, degree, channels):
    written = gaussians(degree=degree, channels=channels)
    write_gaussian_ply(tmp_path / "deep/er/g.ply", written)
    back = read_gaussian_ply(tmp_path / "deep/er/g.ply", channels=channels)
    for name in FIELDS:
        # The mean of three equal float32 may differ in the last bit.
        torch.testing.assert_close(getattr(back, name), getattr(written, name), rtol=3e-7, atol=0)


def test_the_file_is_laid_out_as_3dgs_expects(tmp_path):
    written = gaussians()
    write_gaussian_ply(tmp_path / "g.ply", written)
    ply = PlyData.read(str(tmp_path / "g.ply"))
    assert not ply.text and ply.byte_order == "<"
    names = [p.name for p in ply["vertex"].properties]
    assert names == [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(45)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    assert {p.val_dtype for p in ply["vertex"].properties} == {"f4"}
    # All coefficients of red come first, then green, then blue.
    for channel in range(3):
        for k in range(15):
            stored = ply["vertex"][f"f_rest_{15 * channel + k}"]
            np.testing.assert_array_equal(stored, written.shN[:, k, channel].numpy())


def test_mono_is_stored_as_gray(tmp_path):
    write_gaussian_ply(tmp_path / "g.ply", gaussians(channels=1))
    as_color = read_gaussian_ply(tmp_path / "g.ply")
    assert as_color.sh0.shape == (7, 1, 3) and as_color.shN.shape == (7, 15, 3)
    assert torch.equal(as_color.shN[..., 0], as_color.shN[..., 2])


@pytest.mark.parametrize("low_pass", [LowPass(), LowPass(0.1, compensated=True), LowPass(0.05)])
def test_the_low_pass_is_kept(tmp_path, low_pass):
    write_gaussian_ply(tmp_path / "g.ply", replace(gaussians(), low_pass=low_pass))
    assert read_gaussian_ply(tmp_path / "g.ply").low_pass == low_pass


def test_a_ply_that_says_nothing_has_the_low_pass_of_3dgs(tmp_path):
    write_gaussian_ply(tmp_path / "g.ply", replace(gaussians(), low_pass=LowPass(0.1)))
    ply = PlyData.read(str(tmp_path / "g.ply"))
    ply.comments = ["low-pass", "made by hand"]
    ply.write(str(tmp_path / "h.ply"))
    assert read_gaussian_ply(tmp_path / "h.ply").low_pass == LowPass(0.3, compensated=False)


def test_text_files_of_others_are_read(tmp_path):
    written = gaussians(degree=1)
    write_gaussian_ply(tmp_path / "g.ply", written)
    ply = PlyData.read(str(tmp_path / "g.ply"))
    ply.text = True
    ply.write(str(tmp_path / "text.ply"))
    torch.testing.assert_close(read_gaussian_ply(tmp_path / "text.ply").shN, written.shN)


def test_points_round_trip(tmp_path):
    xyz, rgb = torch.randn(6, 3), torch.rand(6, 3)
    write_point_ply(tmp_path / "p.ply", xyz, rgb)
    back_xyz, back_rgb = read_point_ply(tmp_path / "p.ply")
    assert torch.equal(back_xyz, xyz)
    torch.testing.assert_close(back_rgb, rgb, atol=0.5 / 255 + 1e-6, rtol=0)
    names = [p.name for p in PlyData.read(str(tmp_path / "p.ply"))["vertex"].properties]
    assert names == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]


def points(path, dtype: str | None, value: float = 0.0) -> None:
    fields = [(n, "f8") for n in "xyz"] + [(n, dtype) for n in ("red", "green", "blue") if dtype]
    table = np.zeros(3, dtype=fields)
    for name in table.dtype.names[3:]:
        table[name] = value
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"), [("u1", 255, 1), ("u2", 65535, 1), ("f4", 0.25, 0.25), (None, 0, 0.5)]
)
def test_colors_of_any_type(tmp_path, dtype, value, expected):
    points(tmp_path / "p.ply", dtype, value)
    assert read_point_ply(tmp_path / "p.ply")[1].tolist() == [[expected] * 3] * 3


def test_no_points_are_no_error(tmp_path):
    write_point_ply(tmp_path / "p.ply", torch.zeros(0, 3), torch.zeros(0, 3))
    assert read_point_ply(tmp_path / "p.ply")[0].shape == (0, 3)
    write_gaussian_ply(tmp_path / "g.ply", gaussians(0))
    assert read_gaussian_ply(tmp_path / "g.ply").shN.shape == (0, 15, 3)


HEADER_ONLY = b"ply\nformat binary_little_endian 1.0\n"


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x00\xff" * 50, HEADER_ONLY])
def test_garbage_is_named(tmp_path, content):
    (tmp_path / "g.ply").write_bytes(content)
    for read in (read_gaussian_ply, read_point_ply):
        with pytest.raises(ValueError, match=r"g\.ply: not a readable PLY") as error:
            read(tmp_path / "g.ply")
        assert "\n" not in str(error.value)


def test_missing_and_short_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.ply: no such PLY file"):
        read_gaussian_ply(tmp_path / "none.ply")
    write_gaussian_ply(tmp_path / "g.ply", gaussians())
    whole = (tmp_path / "g.ply").read_bytes()
    (tmp_path / "g.ply").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"g\.ply: not a readable PLY"):
        read_gaussian_ply(tmp_path / "g.ply")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_counted(tmp_path, value):
    bad = gaussians()
    bad.log_scales[[2, 4], 1] = value
    write_gaussian_ply(tmp_path / "g.ply", bad)
    with pytest.raises(ValueError, match=r"g\.ply: 2 of 7 vertices have NaN or infinite scale_0"):
        read_gaussian_ply(tmp_path / "g.ply")


def test_points_are_no_gaussians(tmp_path):
    write_point_ply(tmp_path / "p.ply", torch.rand(3, 3), torch.rand(3, 3))
    with pytest.raises(ValueError, match="has no property f_dc_0"):
        read_gaussian_ply(tmp_path / "p.ply")


def test_an_odd_number_of_coefficients_is_refused(tmp_path):
    odd = gaussians(degree=1)
    odd.shN = odd.shN[:, :2]
    write_gaussian_ply(tmp_path / "g.ply", odd)
    with pytest.raises(ValueError, match="6 f_rest properties fit no degree"):
        read_gaussian_ply(tmp_path / "g.ply")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_point_ply(tmp_path / "p.ply", torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="zip"):
        write_point_ply(tmp_path / "p.ply", torch.zeros(2, 2), torch.zeros(2, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["p.ply"]
    assert len(read_point_ply(tmp_path / "p.ply")[0]) == 2
