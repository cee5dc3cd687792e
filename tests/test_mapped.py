"""Targets in files: the same bits, little memory, and a sentence where there is no room."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from training_runs import PAPER, TIMING, small_training, stepped

from scene.dataset import SceneData
from scene.views import TargetSpec, spike_exposures
from spike import SensorModel, SpikeStream, WindowSpec
from utils.mapped import MappedTensors

CPU = torch.device("cpu")


@pytest.mark.parametrize("flags", [TIMING, PAPER], ids=["timing", "paper"])
def test_the_same_is_learned_from_files(flags, scene_folder, tmp_path):
    in_memory = stepped(small_training(scene_folder, tmp_path / "a", *flags))
    in_files = stepped(small_training(scene_folder, tmp_path / "b", *flags, "--targets_memory", "1e-6"))
    assert in_memory.state.recording.folder is None and in_files.state.recording.folder == tmp_path / "b"
    assert in_files.state.digest() == in_memory.state.digest()
    assert list((tmp_path / "b").iterdir()) == []  # the files have no names


def test_a_limit_that_suffices_keeps_targets_in_memory(scene_folder, tmp_path):
    t = small_training(scene_folder, tmp_path, *TIMING, "--targets_memory", "1")
    assert t.state.recording.folder is None


def test_targets_in_files_are_all_there_and_as_many_bytes_as_announced(tmp_path):
    spikes = torch.rand(137, 24, 40, generator=torch.Generator().manual_seed(0)) < 0.4
    stream = SpikeStream.from_array(spikes.numpy())
    spec = TargetSpec(WindowSpec(), intervals=((3, 9),), wide=True)
    scene = SceneData.from_streams([stream] * 2, torch.eye(3), torch.eye(4).repeat(2, 1, 1), sensor=SensorModel(0.5))
    in_files = spike_exposures(scene.train, scene, spec, CPU, folder=tmp_path)
    in_memory = spike_exposures(scene.train, scene, spec, CPU)
    for filed, kept in zip(in_files, in_memory, strict=True):
        assert 4 * sum(values.numel() for values in kept._targets) == spec.bytes_per_pixel() * 24 * 40
        assert all(torch.equal(a, b) for a, b in zip(filed._targets, kept._targets, strict=True))
        begin = torch.frombuffer(filed._mapped._map, dtype=torch.uint8).data_ptr()
        end = begin + len(filed._mapped._map)
        assert all(begin <= values.data_ptr() < end for values in filed._targets)


def test_rows_that_will_be_used_are_asked_for(tmp_path):
    values = [torch.arange(3000.0).view(3, 1000), torch.randn(5, 2000)]
    mapped = MappedTensors(tmp_path, values)
    asked = []
    mapped._map = SimpleNamespace(madvise=lambda advice, start, length: asked.append((start, start + length)))
    mapped.expect(1, 4)
    start = 4 * (3000 + 4 * 2000)
    assert asked[0][0] <= start and asked[0][1] == start + 4 * 2000 and asked[0][0] % os.sysconf("SC_PAGE_SIZE") == 0
    assert all(torch.equal(a, b) for a, b in zip(mapped.tensors, values, strict=True))


def test_what_is_changed_stays_in_memory(tmp_path):
    mapped = MappedTensors(tmp_path, [torch.zeros(4)])
    mapped.tensors[0] += 1
    assert mapped.tensors[0].tolist() == [1.0] * 4


def test_a_disk_without_room_is_named_before_anything_is_written(scene_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"model: the targets of 5 views need 0\.0 GB, and 0\.0 GB are free there"):
        small_training(scene_folder, tmp_path / "model", *TIMING, "--targets_memory", "1e-6")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing: could not be written"):
        MappedTensors(tmp_path / "missing", [torch.zeros(1)])
