"""Files are written whole or not at all, and pictures keep their values."""

import io
import json
import os
import resource
import stat
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch

from gaussians.ply import write_point_ply
from utils.checkpoint import save_checkpoint
from utils.io import LUMA, atomic_write, load_image, save_image, write_json


@contextmanager
def disk_of(size):
    """No file may grow past ``size`` bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- whole or not at all ---------------------------------------------------------------------------------


def test_written_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert os.listdir(path.parent) == ["file.bin"]


def test_an_error_of_the_body_leaves_the_old_file_and_passes_unchanged(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError, match="mine"), atomic_write(path, "w") as file:
        file.write("new")
        raise KeyError("mine")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_json_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None]} and "\n" in path.read_text()
    with pytest.raises(TypeError):
        write_json(path, {"first": 1, "b": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_error_with_another_file_blames_that_file(tmp_path):
    other = tmp_path / "absent"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "file.bin"):
        other.read_bytes()
    assert caught.value.filename == str(other)
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "file.bin") as file:
        file.write(b"1")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_text_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    with atomic_write(tmp_path / "a.txt", "w") as file:
        assert file.encoding == "utf-8"
        file.write("λ = ½ \udcfc\n")  # the last is a byte of a file's name that is not text
    assert (tmp_path / "a.txt").read_bytes() == "λ = ½ \\udcfc\n".encode()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~mask


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"file/a\.bin: could not be written"), \
            atomic_write(tmp_path / "file" / "a.bin"):  # fmt: skip
        pass


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(ValueError, match=r"a\.bin: could not be written \(Is a directory\)"), \
            atomic_write(tmp_path / "a.bin") as file:  # fmt: skip
        file.write(b"1")
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_name_of_the_greatest_length(tmp_path):
    path = tmp_path / ("n" * 255)
    with atomic_write(path) as file:
        file.write(b"1")
    assert path.read_bytes() == b"1"


NOISE = np.random.default_rng(0).random((200, 200)).astype(np.float32)


@pytest.mark.parametrize(
    "name, write",
    [
        ("a.png", lambda path: save_image(path, NOISE)),
        ("a.pth", lambda path: save_checkpoint(path, {"x": torch.zeros(30000)})),
        ("a.ply", lambda path: write_point_ply(path, torch.zeros(3000, 3), torch.zeros(3000, 3))),
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, name, write):
    (tmp_path / name).write_text("old")
    words = rf"{name}: could not be written \(File too large; the file needs \d+\.\d [kM]B\)"
    with disk_of(8192), pytest.raises(ValueError, match=words):
        write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


def test_nothing_writes_past_the_record(tmp_path):
    with atomic_write(tmp_path / "a.npy") as file:
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        np.save(file, NOISE)
    assert np.array_equal(np.load(tmp_path / "a.npy"), NOISE)


# ---- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits, step", [(8, 1 / 255), (16, 1 / 65535)])
@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (5, 7, 1), (3, 5, 7), (5, 7, 3)])
def test_png_keeps_values_to_half_a_step(tmp_path, bits, step, shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    save_image(tmp_path / "a.png", image, bits=bits)
    read = load_image(tmp_path / "a.png", channels=None)
    expected = image[None] if image.ndim == 2 else image if image.shape[0] in (1, 3) else image.permute(2, 0, 1)
    assert read.shape == expected.shape
    assert float((read - expected).abs().max()) <= 0.5 * step + 1e-7


def test_values_are_clipped(tmp_path):
    save_image(tmp_path / "a.png", np.array([[-1.0, 0.5, 2.0]]))
    assert load_image(tmp_path / "a.png")[0, 0].tolist() == pytest.approx([0, 128 / 255, 1])


def test_channels_keep_their_order(tmp_path):
    image = torch.zeros(3, 4, 4)
    image[0] = 1
    save_image(tmp_path / "a.png", image)
    assert torch.equal(load_image(tmp_path / "a.png", channels=3), image)
    assert float(load_image(tmp_path / "a.png", channels=1).mean()) == pytest.approx(LUMA[0])


def test_gray_to_three_channels_and_alpha_dropped(tmp_path):
    save_image(tmp_path / "gray.png", np.full((2, 2), 0.2))
    assert load_image(tmp_path / "gray.png", channels=3).shape == (3, 2, 2)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((2, 2, 4), 51, np.uint8))
    assert load_image(tmp_path / "alpha.png", channels=None).shape == (3, 2, 2)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.exr"])
def test_an_unknown_suffix_is_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: an image file's name must end in \.png"):
        save_image(tmp_path / name, NOISE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "image, bits, message",
    [
        (np.zeros((2, 4, 4)), 8, "1 or 3 channels"),
        (np.zeros((0, 4)), 8, "1 or 3 channels"),
        (np.zeros((4, 4)), 12, "8 bits, or 16 as PNG, not 12"),
        (np.full((4, 4), np.nan), 8, "NaN or infinite"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, image, bits, message):
    with pytest.raises(ValueError, match=rf"a\.png: .*{message}"):
        save_image(tmp_path / "a.png", image, bits=bits)


def test_jpeg_has_eight_bits(tmp_path):
    save_image(tmp_path / "a.jpg", np.full((8, 8), 0.5))
    assert float(load_image(tmp_path / "a.jpg").mean()) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match=r"a\.jpg: an image has 8 bits, or 16 as PNG, not 16"):
        save_image(tmp_path / "a.jpg", NOISE, bits=16)


@pytest.mark.parametrize("content", [None, b"", b"no picture", "cut"])
def test_what_cannot_be_read_is_named(tmp_path, content, capfd):
    path = tmp_path / "a.png"
    if content == "cut":
        save_image(path, NOISE)
        content = path.read_bytes()[:60]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: (not a readable|no such) image"):
        load_image(path)
