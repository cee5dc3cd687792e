"""Scenes that can be read and are probably wrong: said in one sentence, and training goes on."""

import json

import numpy as np
import pytest
import torch

from scene.dataset import read_scene
from scene.exposure import Exposure
from spike import SensorModel, SpikeStream, WindowSpec
from tests.hostile_readers import BY_NAME


@pytest.fixture
def root(tmp_path):
    BY_NAME["transforms.json, novel.json, ..."].make(tmp_path)
    return tmp_path


def test_a_sound_scene_has_no_notes(root):
    assert read_scene(root).notes == ()


@pytest.mark.parametrize("far", [1e3, -1e6])
def test_a_camera_far_from_all_others(root, far):
    meta = json.loads((root / "transforms.json").read_text())
    meta["frames"][1]["transform_matrix"][1][3] = far
    (root / "transforms.json").write_text(json.dumps(meta))
    [note] = read_scene(root).notes
    assert note.startswith(f"view 001 is {abs(far) / 0.5:.0f} times as far")


def test_cameras_at_one_place(root):
    """Far from the origin, too, where their positions are rounded."""
    meta = json.loads((root / "transforms.json").read_text())
    for i, frame in enumerate(meta["frames"]):
        turn, side = np.cos(i), np.sin(i)
        frame["transform_matrix"] = [[turn, 0, side, 5e6], [0, 1, 0, 3.1], [-side, 0, turn, 4e5], [0, 0, 0, 1]]
    (root / "transforms.json").write_text(json.dumps(meta))
    note = f"all {len(meta['frames'])} cameras are at the same place; if that is so, no depth can be learned"
    assert note in read_scene(root).notes
    meta["frames"][0]["transform_matrix"][0][3] += 0.1
    (root / "transforms.json").write_text(json.dumps(meta))
    assert note not in read_scene(root).notes


def test_a_stream_that_is_cut_off(root):
    path = root / "spike_data/001.dat"
    path.write_bytes(path.read_bytes()[: 5 * 16])
    assert [note.split(";")[0] for note in read_scene(root).notes] == [f"{path}: 5 frames, most streams have 8"]


@pytest.mark.parametrize(("value", "words"), [(0, "all zeros: no pixel ever fires"), (1, "all ones")])
def test_a_stream_without_information(root, value, words):
    camera = read_scene(root).train[0].camera
    stream = SpikeStream.from_array(np.full((177, camera.height, camera.width), value, np.uint8), "a.dat")
    with pytest.raises(ValueError, match=rf"a\.dat: the stream is {words}"):
        Exposure.from_spikes(camera, stream, WindowSpec(), SensorModel(), "counting", 9)


def test_the_last_row_of_a_pose(root):
    meta = json.loads((root / "transforms.json").read_text())
    meta["frames"][2]["transform_matrix"][3] = [0, 0, 0, 2]
    (root / "transforms.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"transforms\.json: the pose of view 002 has the last row 0 0 0 2"):
        read_scene(root)
    meta["frames"][2]["transform_matrix"].pop()
    (root / "transforms.json").write_text(json.dumps(meta))
    assert torch.equal(read_scene(root).train[2].camera.w2c[3], torch.tensor([0.0, 0, 0, 1]))
