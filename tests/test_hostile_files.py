"""Files that anyone may have written: read, or refused in one sentence with the name, at once and in little memory."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch

from commands.guard import guarded
from gaussians.formats import read_gaussians
from gaussians.ply import read_gaussian_ply, read_point_ply
from recon_net import SlimReconNet
from recon_net.weights import load_network, save_network
from scene.colmap import open_model
from simulation.sources import source_pictures
from spike.stream import SpikeStream
from tests.fuzzing import BAD, Tally, fuzz
from tests.hostile_readers import BY_NAME, READERS
from utils.checkpoint import fitting, load_checkpoint, save_checkpoint
from utils.io import MOST_PIXELS, image_size, load_image, save_image

# Each of the short run; the long one is described in docs/reliability.md.
EACH = 12


def said(read, *args) -> str:
    """The one sentence with which a command would refuse a file."""
    with pytest.raises(ValueError) as caught:
        read(*args)
    text = str(caught.value)
    assert "\n" not in text and str(args[0]) in text
    return text


@pytest.mark.parametrize("name", list(BY_NAME))
def test_damaged_files_are_read_or_refused(name):
    tally = Tally()
    fuzz(BY_NAME[name], tally, seed=1, until=EACH)
    assert tally.done == EACH and not any(tally.counts[kind] for kind in BAD), tally.bad


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_whole_files_are_read(reader, tmp_path):
    assert all(path.is_file() for path in reader.make(tmp_path))
    if reader.name == "files with code in them":
        with pytest.raises(ValueError):
            reader.read(tmp_path)
    else:
        reader.read(tmp_path)


# ---- counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["-1", "99999999999999999999", "1000000000000", "1e3", "2"])
@pytest.mark.parametrize("properties", ["", "property float x\nproperty float y\nproperty float z\n"])
def test_counts_of_a_ply(tmp_path, count, properties):
    path = tmp_path / "p.ply"
    path.write_text(f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{properties}end_header\n")
    for read in (read_point_ply, read_gaussian_ply):
        assert "p.ply: " in said(read, path)


def test_lists_and_other_elements_of_a_ply(tmp_path):
    path = tmp_path / "p.ply"
    xyz = "property float x\nproperty float y\nproperty float z\n"
    head = "ply\nformat binary_big_endian 1.0\n"
    path.write_bytes(f"{head}element a 2\nproperty uchar b\nelement vertex 1\n{xyz}end_header\n".encode()
                     + b"xx" + np.array([1, 2, 3], ">f4").tobytes())  # fmt: skip
    assert read_point_ply(path)[0].tolist() == [[1, 2, 3]]
    path.write_bytes(f"{head}element vertex 1\n{xyz}property list uchar int i\nend_header\n".encode() + bytes(99))
    assert "property i of vertex is a list" in said(read_point_ply, path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["packed_position"], "compressed PLY of SuperSplat"),
        (["scale_0", "scale_1"], "2DGS"),
        ([f"f_rest_{i}" for i in range(72)], "degree 4"),
    ],
)
def test_kin_of_3dgs_ply_are_named(tmp_path, names, words):
    path = tmp_path / "g.ply"
    rows = "".join(f"property float {name}\n" for name in names)
    path.write_text(f"ply\nformat binary_little_endian 1.0\nelement vertex 0\n{rows}end_header\n")
    assert words in said(read_gaussian_ply, path)
    assert "splat-transform" in said(read_gaussians, tmp_path / "g.ksplat")


@pytest.mark.parametrize("variance", ["nan", "inf", "-1", "1e9", "x"])
def test_impossible_filters_are_refused(tmp_path, variance):
    BY_NAME["Gaussians .ply"].make(tmp_path)
    path = tmp_path / "g.ply"
    path.write_bytes(path.read_bytes().replace(b"low-pass 0.1 ", f"low-pass {variance} ".encode()))
    assert "low-pass" in said(read_gaussian_ply, path)


def test_the_length_of_a_track(tmp_path):
    BY_NAME["COLMAP, binary"].make(tmp_path)
    folder = tmp_path / "sparse/0"
    assert len(open_model(folder).points3D) == 12
    whole = (folder / "points3D.bin").read_bytes()
    at = 8 + 43
    for length in (2**40, 2**63, 0, struct.unpack_from("<Q", whole, at)[0] + 1):
        (folder / "points3D.bin").write_bytes(whole[:at] + struct.pack("<Q", length) + whole[at + 8 :])
        assert "points3D" in said(open_model, folder)


def test_models_that_contradict_themselves(tmp_path):
    BY_NAME["COLMAP, binary"].make(tmp_path)
    folder = tmp_path / "sparse/0"
    whole = (folder / "points3D.bin").read_bytes()
    image, observation = struct.unpack_from("<II", whole, 8 + 51)
    for other in ((image + 77, observation), (image, observation + 9999), (image, observation + 1)):
        (folder / "points3D.bin").write_bytes(whole[:59] + struct.pack("<II", *other) + whole[67:])
        assert "points3D" in said(open_model, folder)
    (folder / "points3D.bin").write_bytes(whole)
    assert pycolmap.Reconstruction(str(folder)).num_points3D() == len(open_model(folder).points3D)


def test_a_bomb_in_gzip(tmp_path):
    path = tmp_path / "g.spz"
    header = struct.pack("<4sIIBBBB", b"NGSP", 3, 10**7, 0, 12, 0, 0)
    path.write_bytes(gzip.compress(header + bytes(10**6)))
    assert "10000000 Gaussians in" in said(read_gaussians, path)
    BY_NAME["Gaussians .spz"].make(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-6] + b"\0" + whole[-5:])
    assert "g.spz: not a readable .spz" in said(read_gaussians, path)


def test_a_large_image_is_not_decoded(tmp_path):
    path = tmp_path / "a.png"
    size = struct.pack(">II", 40000, 40000)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\0\0\0\0") + chunk(b"IDAT", b""))
    assert image_size(path) == (40000, 40000)
    assert f"a.png: 40000x40000 pixels, expected at most {MOST_PIXELS // 10**6} million" in said(load_image, path)
    save_image(tmp_path / "b.jpg", np.zeros((5, 9), np.float32))
    assert image_size(tmp_path / "b.jpg") == (9, 5)


def test_chunks_of_a_glb(tmp_path):
    reader = BY_NAME["mesh .glb"]
    [path] = reader.make(tmp_path)
    whole = path.read_bytes()
    at = 20 + int.from_bytes(whole[12:16], "little")
    path.write_bytes(whole[:at] + struct.pack("<I", 2**32 - 4) + whole[at + 4 :])
    with pytest.raises(ValueError, match=r"mesh\.glb: not a readable mesh \(a chunk of 4294967292 bytes"):
        reader.read(tmp_path)


def test_archives_that_promise_more(tmp_path):
    path = tmp_path / "a.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 999, 999)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("spikes.npy", head.getvalue() + bytes(1000))
    assert "holds at most" in said(SpikeStream.open, path)


# ---- damage that a format does not notice by itself ------------------------------------------------------


def test_flipped_bits_of_a_checkpoint_are_seen(tmp_path):
    path = tmp_path / "chkpnt1.pth"
    save_checkpoint(path, {"means": torch.ones(1000)})
    whole = bytearray(path.read_bytes())
    at = whole.index(np.ones(4, np.float32).tobytes()) + 402
    whole[at] ^= 1
    path.write_bytes(whole)
    assert "chkpnt1.pth: not a readable checkpoint (damaged: the checksum of " in said(load_checkpoint, path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    assert "compressed or overlap" in said(load_checkpoint, path)


def test_tensors_larger_than_their_file(tmp_path):
    path = tmp_path / "chkpnt1.pth"
    save_checkpoint(path, {"means": torch.ones(1).expand(10**9)})
    assert "means, of shape [1000000000], is not stored in full" in said(load_checkpoint, path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_of_a_checkpoint_are_finite(tmp_path, value):
    path = tmp_path / "chkpnt1.pth"
    save_checkpoint(path, {"means": [torch.tensor([0.0, value])]})
    assert "means.0, of shape [2], has NaN or infinite numbers" in said(load_checkpoint, path)


def test_tensors_of_another_shape_or_type():
    value = torch.zeros(3, 2)
    assert fitting("m", value, torch.ones(3, 2)) is value
    for other in (torch.zeros(2, 3), torch.zeros(3, 2).double(), torch.zeros(3), [1.0], None):
        with pytest.raises(ValueError, match=r"^m (has the shape|is a)"):
            fitting("m", other, value)


def test_weights_of_a_network_are_checked(tmp_path):
    path = tmp_path / "recon_net.pth"
    save_network(path, SlimReconNet(width=8))
    assert "recon_net.pth: expected weights" in said(load_network, path)


# ---- what is no file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz", ".png", ".npy", ".pth", ".mp4"])
def test_pipes_and_devices_are_not_read(tmp_path, suffix):
    reads = {
        ".png": load_image, ".npy": SpikeStream.open, ".pth": load_checkpoint,
        ".mp4": lambda path: list(source_pictures(path, 1)),
    }  # fmt: skip
    read = reads.get(suffix, read_gaussians)
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path)
    assert "is a pipe, expected a" in said(read, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device, expected a" in said(read, path)


def test_a_video_is_no_list_of_other_files(tmp_path):
    image = tmp_path / "secret.png"
    save_image(image, np.zeros((16, 16), np.float32))
    for name, text in {
        "list.m3u8": f"#EXTM3U\n#EXTINF:1,\nfile://{image}\n#EXT-X-ENDLIST\n",
        "list.txt": f"ffconcat version 1.0\nfile '{image}'\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert "not a readable video" in said(lambda path: list(source_pictures(path, 1)), tmp_path / name)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RecursionError("deep"), "nested too deeply"),
        (OverflowError("int too large"), "int too large"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "byte 0 is not utf-8 text"),
    ],
)
def test_a_command_ends_in_one_sentence(capsys, error, words):
    def main():
        raise error

    assert guarded(main) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ") and words in text and text.count("\n") == 1


def test_no_test_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = BY_NAME["files with code in them"]
    folder = tmp_path / "files"
    folder.mkdir()
    reader.make(folder)
    with pytest.raises(ValueError):
        reader.read(folder)
    assert not Path("ran").exists()
