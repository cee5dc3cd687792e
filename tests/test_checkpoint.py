"""Checkpoints come back as they were, whole, and run nothing."""

import os
import pickle

import pytest
import torch

from utils.checkpoint import VERSION, latest_checkpoint, load_checkpoint, save_checkpoint


def test_everything_comes_back(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    state = {"x": torch.arange(4.0), "nested": {"n": 3, "name": "a", "list": [1.5, None]}, "o": optimizer.state_dict()}
    save_checkpoint(tmp_path / "new" / "chkpnt1.pth", state)
    loaded = load_checkpoint(tmp_path / "new" / "chkpnt1.pth")
    assert torch.equal(loaded["x"], state["x"])
    assert loaded["nested"] == state["nested"]
    again = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], lr=0.5)
    again.load_state_dict(loaded["o"])
    assert again.param_groups[0]["lr"] == 0.1
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert os.listdir(tmp_path / "new") == ["chkpnt1.pth"]


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_a_pickle_that_runs_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"version": VERSION, "x": Evil()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"version": VERSION, "x": Evil()}))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(ValueError, match=f"{name}: not a readable checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def damaged(path, kind):
    save_checkpoint(path, {"x": torch.rand(5000)})
    whole = path.read_bytes()
    return {
        "half": whole[: len(whole) // 2],
        "a byte short": whole[:-1],
        "empty": b"",
        "text": b"not a checkpoint\n" * 50,
        "holes": whole[:2000] + bytes(len(whole) - 2000),
    }[kind]


@pytest.mark.parametrize("kind", ["half", "a byte short", "empty", "text", "holes"])
def test_a_damaged_file_is_one_sentence(tmp_path, kind):
    path = tmp_path / "chkpnt7.pth"
    path.write_bytes(damaged(path, kind))
    with pytest.raises(ValueError, match=r"chkpnt7\.pth: not a readable checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pth: no such checkpoint"):
        load_checkpoint(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="is a folder, expected a checkpoint"):
        load_checkpoint(tmp_path)


def test_another_version_is_refused_with_both_numbers(tmp_path):
    torch.save({"version": VERSION + 1}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"checkpoint version {VERSION + 1}, expected {VERSION}"):
        load_checkpoint(tmp_path / "a.pth")
    torch.save(torch.ones(2), tmp_path / "b.pth")
    with pytest.raises(ValueError, match="checkpoint version Tensor"):
        load_checkpoint(tmp_path / "b.pth")


def test_the_version_is_the_programs_own(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"version": 99})
    assert load_checkpoint(tmp_path / "a.pth")["version"] == VERSION


def test_the_newest_is_the_highest_iteration(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("chkpnt900.pth", "chkpnt1000.pth", "chkpnt.pth", "chkpntx.pth", "chkpnt².pth"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "chkpnt1000.pth"
