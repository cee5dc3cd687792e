"""``.splat`` and ``.spz`` byte by byte, as they are described: a round trip would hide what both ways share."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gaussians.formats import read_splat, read_spz, write_splat, write_spz
from gaussians.ply import GaussianParams, LowPass
from gaussians.sh import eval_sh

C0 = 0.5 / math.sqrt(math.pi)


def gaussians(n: int = 5, degree: int = 3, **others) -> GaussianParams:
    """Gaussians with nothing special about them."""
    g = torch.Generator().manual_seed(0)
    values = {
        "means": 3 * torch.randn(n, 3, generator=g),
        "quats": torch.randn(n, 4, generator=g),
        "log_scales": -3 + torch.randn(n, 3, generator=g),
        "opacity_logits": torch.randn(n, generator=g),
        "sh0": 0.5 * torch.randn(n, 1, 3, generator=g),
        "shN": 0.3 * torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=g),
    }
    return GaussianParams(**values | others)


# ---- .splat --------------------------------------------------------------------------------------------------


def test_splat_lines_begin_with_the_most_visible(tmp_path):
    """In the order of volume times opacity; opacities 0.5, scales e^-3, e^-1, e^-2."""
    scales = torch.tensor([-3.0, -1.0, -2.0])[:, None].expand(3, 3)
    write_splat(tmp_path / "g.splat", gaussians(3, log_scales=scales, opacity_logits=torch.zeros(3)))
    lines = np.frombuffer((tmp_path / "g.splat").read_bytes(), "<f4").reshape(3, 8)
    np.testing.assert_allclose(lines[:, 3], np.exp([-1.0, -2.0, -3.0]), rtol=1e-6)


def test_splat_bytes_of_one(tmp_path):
    one = gaussians(
        1, quats=torch.tensor([[1.2, 1.6, 0, 0]]), opacity_logits=torch.tensor([0.25]).logit(),
        sh0=(torch.tensor([[[0.0, 0.2, 1.4]]]) - 0.5) / C0,
    )  # fmt: skip
    write_splat(tmp_path / "g.splat", one)
    stored = (tmp_path / "g.splat").read_bytes()
    expected = [*one.means[0].tolist(), *one.log_scales[0].exp().tolist()]
    assert struct.unpack("<6f", stored[:24]) == pytest.approx(expected)
    # A quarter of 255 is 63.75; brighter than white is white; 128 + 128 (0.6, 0.8).
    assert list(stored[24:]) == [0, 51, 255, 64, 205, 230, 128, 128]
    back = read_splat(tmp_path / "g.splat")
    torch.testing.assert_close(back.log_scales, one.log_scales)
    torch.testing.assert_close(back.quats, torch.tensor([[0.6, 0.8, 0, 0]]), atol=0.01, rtol=0)
    assert float(back.opacity_logits.sigmoid()) == pytest.approx(64 / 255)
    torch.testing.assert_close(back.sh0[0, 0] * C0 + 0.5, torch.tensor([0.0, 0.2, 1.0]), atol=1e-6, rtol=0)


# ---- .spz ----------------------------------------------------------------------------------------------------


def blocks(path, widths: list[int], count: int) -> tuple[tuple, list[np.ndarray]]:
    """Header and attributes [count, width] of bytes."""
    raw = gzip.decompress(path.read_bytes())
    header, at, found = struct.unpack_from("<4sIIBBBB", raw), 16, []
    for width in widths:
        found.append(np.frombuffer(raw, np.uint8, count * width, at).reshape(count, width))
        at += count * width
    assert at == len(raw)
    return header, found


def signed(low: int, middle: int, high: int) -> int:
    """A number of 24 bits, in two's complement."""
    value = low + 256 * middle + 65536 * high
    return value - 2**24 if value >= 2**23 else value


def test_spz_is_written_as_described(tmp_path):
    g = gaussians(low_pass=LowPass(compensated=True))
    write_spz(tmp_path / "g.spz", g)
    header, (places, alphas, colors, scales, quats, rest) = blocks(tmp_path / "g.spz", [9, 1, 3, 3, 4, 45], 5)
    assert header[:4] == (b"NGSP", 3, 5, 3) and header[5] == 1
    bits = header[4]
    flip = torch.tensor([1.0, -1, -1])
    for i in range(5):
        fixed = [signed(*places[i, 3 * k : 3 * k + 3].tolist()) / 2**bits for k in range(3)]
        torch.testing.assert_close(torch.tensor(fixed), g.means[i] * flip, atol=0.5 / 2**bits + 1e-6, rtol=0)
        assert alphas[i, 0] / 255 == pytest.approx(float(g.opacity_logits[i].sigmoid()), abs=0.51 / 255)
        np.testing.assert_allclose((colors[i] / 255 - 0.5) / 0.15, g.sh0[i, 0], atol=0.51 / 255 / 0.15)
        np.testing.assert_allclose(scales[i] / 16 - 10, g.log_scales[i], atol=0.51 / 16)
        # Two bits name the largest component of xyzw; a sign and nine bits for each of the others, in their order.
        word = int.from_bytes(quats[i].tobytes(), "little")
        small = [(-1) ** (v >> 9 & 1) * (v & 511) / 511 / math.sqrt(2) for v in (word >> s & 1023 for s in (20, 10, 0))]
        small.insert(word >> 30, math.sqrt(1 - sum(v * v for v in small)))
        w, x, y, z = (g.quats[i] / g.quats[i].norm()).tolist()
        # About the new axes, a rotation keeps its x and changes the signs of y and z.
        expected = Rotation.from_quat([x, -y, -z, w]).as_matrix()
        np.testing.assert_allclose(Rotation.from_quat(small).as_matrix(), expected, atol=0.005)
        # Coefficient by coefficient, its three channels together; the same color in the turned direction.
        harmonics = torch.from_numpy(rest[i].reshape(15, 3) / 128.0 - 1).float()
        directions = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
        directions = torch.nn.functional.normalize(directions, dim=-1)
        zero = torch.zeros(20, 1, 3)
        ours = eval_sh(3, torch.cat([zero, g.shN[i].expand(20, 15, 3)], 1), directions)
        theirs = eval_sh(3, torch.cat([zero, harmonics.expand(20, 15, 3)], 1), directions * flip)
        torch.testing.assert_close(theirs, ours, atol=0.15, rtol=0)


def test_every_harmonic_s_sign_under_the_half_turn(tmp_path):
    """One coefficient a Gaussian; what is stored shows the same color in the turned direction."""
    rest = 0.5 * torch.eye(15)[..., None].expand(15, 15, 3)
    write_spz(tmp_path / "g.spz", gaussians(15, shN=rest))
    stored = blocks(tmp_path / "g.spz", [9, 1, 3, 3, 4, 45], 15)[1][5].reshape(15, 15, 3) / 128.0 - 1
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]), dim=-1)
    padded = [torch.cat([torch.zeros(15, 1, 3), x.float()], 1) for x in (rest, torch.from_numpy(stored))]
    ours = eval_sh(3, padded[0], direction.expand(15, 3))
    theirs = eval_sh(3, padded[1], (direction * torch.tensor([1.0, -1, -1])).expand(15, 3))
    torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=0)


def test_the_first_band_has_five_bits_and_the_others_four(tmp_path):
    levels = torch.arange(32.0) / 16 - 1
    rest = levels[:, None, None].expand(32, 15, 3).clone()
    write_spz(tmp_path / "g.spz", gaussians(32, shN=rest))
    back = read_spz(tmp_path / "g.spz").shN
    inside = slice(1, 32)  # -1 turned round is beyond the largest byte
    torch.testing.assert_close(back[inside, :3], rest[inside, :3])
    torch.testing.assert_close(back[inside, 3:], rest[inside, 3:], atol=1 / 16 + 1e-6, rtol=0)
    assert len(back[:, 4, 0].unique()) <= 17


@pytest.mark.parametrize("reach", [0.01, 1.0, 3.99, 5000.0, 2.0**21])
def test_positions_fit_their_24_bits_however_far(tmp_path, reach):
    means = torch.tensor([[reach, -reach, 0.3 * reach], [0.5 * reach, 0, -0.7 * reach]])
    write_spz(tmp_path / "g.spz", gaussians(2, means=means))
    precision = max(2.0**-21, reach * 2.0**-21)
    torch.testing.assert_close(read_spz(tmp_path / "g.spz").means, means, atol=precision, rtol=1e-6)


def test_rotations_of_the_older_version_are_three_bytes(tmp_path):
    """x, y, z over 127.5 less one; w is what is left of a unit."""
    one = struct.pack("<4sIIBBBB", b"NGSP", 2, 2, 0, 12, 0, 0) + bytes(18) + bytes(2) + bytes(6) + bytes(6)
    (tmp_path / "g.spz").write_bytes(gzip.compress(one + bytes([255, 127, 128]) + bytes([128, 191, 128])))
    back = read_spz(tmp_path / "g.spz").quats
    unit = 1 / 255
    first = [math.sqrt(max(0, 1 - 1 - 2 * unit**2)), 1, unit, -unit]
    y = 191 / 127.5 - 1
    second = [math.sqrt(1 - y**2 - 2 * unit**2), unit, -y, -unit]
    np.testing.assert_allclose(back, [first, second], atol=1e-4)


def test_brighter_colors_than_bytes_hold_are_cut(tmp_path):
    write_spz(tmp_path / "g.spz", gaussians(2, degree=0, sh0=torch.tensor([9.0, -9.0]).view(2, 1, 1).expand(2, 1, 3)))
    back = read_spz(tmp_path / "g.spz").sh0[:, 0, 0]
    torch.testing.assert_close(back, torch.tensor([0.5 / 0.15, -0.5 / 0.15]))
