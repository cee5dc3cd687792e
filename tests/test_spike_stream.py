"""Spike files: every layout reads back what was written, sizes are checked, memory stays constant."""

import re
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from spike import Layout, Packing, SpikeStream, WindowSpec, write_array, write_dat
from spike.formats import open_recording, write_recording
from spike.window import PAPER, SPARE, STORED

RNG = np.random.default_rng(0)


def spikes(frames=7, height=6, width=10):
    return RNG.integers(0, 2, (frames, height, width)).astype(np.uint8)


@pytest.mark.parametrize("bit_order", ["little", "big"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("stored_width", [None, 12, 16])
def test_every_layout_reads_back(tmp_path, bit_order, flip, stored_width):
    array = spikes(height=8)
    layout = Layout(bit_order, flip, stored_width)
    write_dat(tmp_path / "a.dat", array, layout)
    stream = SpikeStream.open(tmp_path / "a.dat", 8, 10, layout)
    assert (len(stream), stream.height, stream.width) == (7, 8, 10)
    np.testing.assert_array_equal(stream.unpack(0, 7), array)
    np.testing.assert_array_equal(stream.unpack(2, 5), array[2:5])
    assert (tmp_path / "a.dat").stat().st_size == 7 * 8 * (stored_width or 10) // 8


def test_bytes_are_the_cameras(tmp_path):
    """The authors' layout, spelt out: rows bottom to top, a byte's lowest bit is its first pixel."""
    array = np.zeros((1, 2, 8), np.uint8)
    array[0, 0, 1] = 1  # top row, second pixel
    array[0, 1, 7] = 1  # bottom row, last pixel
    write_dat(tmp_path / "a.dat", array)
    assert (tmp_path / "a.dat").read_bytes() == bytes([0b10000000, 0b00000010])
    write_dat(tmp_path / "b.dat", array, Layout("big", flip=False))
    assert (tmp_path / "b.dat").read_bytes() == bytes([0b01000000, 0b00000001])


def test_padding_is_zero_and_ignored(tmp_path):
    array = np.ones((1, 4, 6), np.uint8)
    write_dat(tmp_path / "a.dat", array, Layout(flip=False, stored_width=8))
    assert (tmp_path / "a.dat").read_bytes() == bytes([0b00111111] * 4)
    (tmp_path / "a.dat").write_bytes(bytes([0b11111111] * 4))
    padded = SpikeStream.open(tmp_path / "a.dat", 4, 6, Layout(flip=False, stored_width=8))
    assert padded.unpack(0, 1).shape == (1, 4, 6)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_read_back(tmp_path, suffix):
    array = spikes(frames=130)
    write_array(tmp_path / f"a{suffix}", array)
    np.testing.assert_array_equal(SpikeStream.open(tmp_path / f"a{suffix}").unpack(0, 130), array)
    loaded = np.load(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(loaded if suffix == ".npy" else loaded["spikes"], array)
    np.save(tmp_path / "bool.npy", array.astype(bool))
    np.testing.assert_array_equal(SpikeStream.open(tmp_path / "bool.npy", 6, 10).unpack(0, 130), array)
    (tmp_path / "bool.npy").rename(tmp_path / "LOUD.NPY")
    np.testing.assert_array_equal(SpikeStream.open(tmp_path / "LOUD.NPY", 6, 10).unpack(0, 130), array)


def test_a_stream_converts_without_an_array(tmp_path):
    array = spikes(height=8)
    write_dat(tmp_path / "a.dat", array, Layout(stored_width=16))
    padded = SpikeStream.open(tmp_path / "a.dat", 8, 10, Layout(stored_width=16))
    write_dat(tmp_path / "b.dat", padded, Layout("big", flip=False))
    again = SpikeStream.open(tmp_path / "b.dat", 8, 10, Layout("big", flip=False))
    np.testing.assert_array_equal(again.unpack(0, 7), array)


@pytest.mark.parametrize(
    ("size", "height", "width", "expected"),
    [
        (100, 250, 400, r"100 bytes are not a whole number of 400x250 frames \(12500 bytes each\)$"),
        (13000 * 3, 250, 400, r"would fit 400x250 stored 416 wide \(3 frames\)"),
        (128000, 1000, 1000, r"would fit 1000x1000 stored 1024 wide \(1 frames\)"),
        (40 * 50 // 8 * 3, 50, 36, r"36x50 stored 40 wide \(3 frames\)"),
        (0, 250, 400, "the file is empty, expected 400x250 frames of 12500 bytes"),
        (12500, 250, 401, "are not a multiple of 8; give the padded width"),
        (12500, -250, -400, "at least one pixel"),
        (12500, None, None, "does not contain its frame size; give height and width"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, size, height, width, expected):
    (tmp_path / "a.dat").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=expected) as error:
        SpikeStream.open(tmp_path / "a.dat", height, width)
    assert str(tmp_path / "a.dat") in str(error.value)


def test_truncated_file_is_refused(tmp_path):
    write_dat(tmp_path / "a.dat", spikes(height=8))
    whole = (tmp_path / "a.dat").read_bytes()
    (tmp_path / "a.dat").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="69 bytes are not a whole number of 10x8 frames"):
        SpikeStream.open(tmp_path / "a.dat", 8, 10)


def broken_files(folder):
    np.save(folder / "floats.npy", np.zeros((2, 2, 2)))
    np.save(folder / "twos.npy", np.full((2, 2, 2), 2))
    np.save(folder / "minus.npy", np.full((2, 2, 2), -1))
    np.save(folder / "flat.npy", np.zeros((2, 2), np.uint8))
    np.save(folder / "empty.npy", np.zeros((0, 2, 2), np.uint8))
    np.savez(folder / "two.npz", a=np.zeros(1), b=np.zeros(1))
    (folder / "text.npy").write_text("spikes")
    np.savez_compressed(folder / "cut.npz", a=np.zeros((9, 99, 99), np.uint8))
    (folder / "cut.npz").write_bytes((folder / "cut.npz").read_bytes()[:60])
    np.save(folder / "pickled.npy", np.array([{}]), allow_pickle=True)
    return {
        "floats.npy": "expected zeros and ones, got float64",
        "twos.npy": "expected zeros and ones, got 2 to 2",
        "minus.npy": "expected zeros and ones, got -1 to -1",
        "flat.npy": "got 2 dimensions",
        "empty.npy": "empty array",
        "two.npz": r"2 arrays \(a, b\) where one \[T, H, W\] was expected",
        "text.npy": "not a readable array",
        "cut.npz": "not a readable array",
        "pickled.npy": "not a readable array",
        "missing.dat": "no such spike stream",
    }


def test_broken_files_are_named(tmp_path):
    for name, expected in broken_files(tmp_path).items():
        with pytest.raises(ValueError, match=expected) as error:
            SpikeStream.open(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_what_cannot_be_asked_for(tmp_path):
    array = spikes()
    stream = SpikeStream.from_array(array)
    with pytest.raises(ValueError, match="frames 5 to 9 requested, but the stream has 7"):
        stream.unpack(5, 9)
    with pytest.raises(ValueError, match="7 frames, but a view needs at least 137"):
        stream.central(WindowSpec())
    with pytest.raises(ValueError, match="little or big"):
        Layout("middle")  # type: ignore[arg-type]
    write_array(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="10x6 pixels, expected 10x7"):
        SpikeStream.open(tmp_path / "a.npy", height=7)
    with pytest.raises(ValueError, match=r"b\.dat.*cannot hold"):
        write_dat(tmp_path / "b.dat", array, Layout(stored_width=8))
    with pytest.raises(ValueError, match=r"\.npy or \.npz"):
        write_array(tmp_path / "b.dat", array)
    assert not (tmp_path / "b.dat").exists()


def test_central_window_and_counts():
    array = spikes(frames=9)
    stream = SpikeStream.from_array(array)
    spec = WindowSpec(exposure=3, short=3, subframes=3, long_group=2)
    assert spec.context == 5
    np.testing.assert_array_equal(stream.central(spec), array[2:7])
    np.testing.assert_array_equal(stream.central(spec, margin=1), array[1:8])
    np.testing.assert_array_equal(stream.count(), array.sum(0))
    np.testing.assert_array_equal(stream.count(2, 5), array[2:5].sum(0))


def test_large_files_take_constant_memory(tmp_path):
    """40 GB of 1000x1000 frames on a sparse file: opening, a window far inside and a count cost megabytes."""
    frame, frames = 1024 * 1000 // 8, 312_500
    path = tmp_path / "long.dat"
    try:
        with open(path, "wb") as file:
            file.truncate(frame * frames)
            file.seek(frame * 300_000)
            file.write(bytes([0b1]))
    except OSError:
        pytest.skip("the file system has no sparse files of 40 GB")
    tracemalloc.start()
    stream = SpikeStream.open(path, 1000, 1000, Layout(stored_width=1024))
    window = stream.unpack(300_000, 300_020)
    total = stream.count(299_990, 300_020)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(stream) == frames
    assert window.sum() == window[0, -1, 0] == total[-1, 0] == 1
    assert peak < 100e6


def test_compressed_arrays_are_written_a_block_at_a_time(tmp_path):
    write_dat(tmp_path / "a.dat", np.zeros((2000, 200, 200), np.uint8))
    stream = SpikeStream.open(tmp_path / "a.dat", 200, 200)
    tracemalloc.start()
    write_array(tmp_path / "a.npz", stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6 < 2000 * 200 * 200
    assert zipfile.ZipFile(tmp_path / "a.npz").namelist() == ["spikes.npy"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"exposure": 100}, "cannot hold 13 evenly spaced sub-frames; 97 or 109 would work"),
        ({"exposure": 5}, "13 or 25 would work"),
        ({"exposure": 96, "subframes": 1, "long_group": 2}, "95 or 97 would work"),
        ({"short": 40}, "must be odd .*not 40; 37 or 41 would work"),
        ({"subframes": 12}, "must be odd .*not 12; 9 or 13 would work"),
        ({"subframes": 0}, "must be odd .*not 0; 1 or 3 would work"),
        ({"short": 43}, "groups of 4; 41 or 45 would work"),
        ({"short": -1}, "must be odd .*not -1; 1 or 5 would work"),
        ({"long_group": 0}, "at least 1 frame into one, not 0; 1 or 2 would work"),
    ],
)
def test_windows_that_do_not_divide_name_those_that_would(spec, expected):
    with pytest.raises(ValueError, match=expected) as error:
        WindowSpec(**spec)
    named = re.findall(r"(\d+) or (\d+)", str(error.value))
    key = next(iter(spec))
    for value in named[0] if named else ():
        assert WindowSpec(**(spec | {key: int(value)}))


def test_the_papers_numbers_are_derived():
    spec = WindowSpec()
    assert (spec.context, spec.exposure, spec.short, spec.subframes) == (137, 97, 41, 13)
    assert (spec.half, spec.stride, spec.long_channels) == (20, 8, 34)
    assert spec.centers == [20 + 8 * m for m in range(13)]
    assert spec.times == [m / 12 for m in range(13)]
    assert [spec.interval(6 - k, 6 + k)[1] - spec.interval(6 - k, 6 + k)[0] for k in (3, 4, 5, 6)] == [49, 65, 81, 97]
    assert spec.interval(0, 12) == (20, 117)
    assert spec.window(0, 41) == (0, 41) and spec.window(12, 41) == (96, 137)
    with pytest.raises(ValueError, match="must be odd, not 8"):
        spec.window(0, 8)


def test_another_window():
    spec = WindowSpec(exposure=33, short=9, subframes=5, long_group=8)
    assert (spec.context, spec.half, spec.stride, spec.long_channels) == (41, 4, 8, 5)
    assert spec.centers == [4, 12, 20, 28, 36] and spec.interval(1, 3) == (12, 29)
    alone = WindowSpec(exposure=33, short=9, subframes=1, long_group=8)
    assert (alone.centers, alone.times, alone.interval(0, 0)) == ([20], [0.5], (4, 37))


@pytest.mark.parametrize("subframes", [1, 3, 13])
def test_the_middle_is_at_half_time(subframes):
    spec = WindowSpec(subframes=subframes)
    assert spec.times[spec.middle] == 0.5 and spec.centers[spec.middle] == spec.context // 2


def test_stored_views_have_their_context_in_the_middle():
    assert (STORED - PAPER.context) // 2 == SPARE and STORED == 177


def test_what_is_not_known_of_a_layout_is_the_default():
    assert Packing().layout == Layout() == Layout("little", True, None)
    assert Packing(4, 6, 8, "big", False).layout == Layout("big", False, 8)
    assert Packing(flip=False).layout == Layout(flip=False)


@pytest.mark.parametrize("name", ["a.dat", "a.npy"])
def test_filters_are_kept(tmp_path, name):
    write_recording(tmp_path / name, SpikeStream.from_array(spikes(height=8)))
    assert SpikeStream.open(tmp_path / name, 8, 10, bayer="GRBG").bayer == "GRBG"
    assert open_recording(tmp_path / name, Packing(8, 10, bayer="RGGB"))[0].bayer == "RGGB"


def test_one_row_of_pixels_is_an_image(tmp_path):
    """Flipped, a single row has a negative stride, which torch would refuse."""
    spikes = np.random.default_rng(0).integers(0, 2, (9, 1, 16), dtype=np.uint8)
    write_dat(tmp_path / "a.dat", spikes)
    read = SpikeStream.open(tmp_path / "a.dat", 1, 16).unpack(0, 9)
    assert torch.equal(torch.as_tensor(read), torch.from_numpy(spikes))
