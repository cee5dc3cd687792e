"""What convert.py writes over, and what it never does; a swap of files that is interrupted anywhere."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_gaussians

from commands import convert as convert_command
from commands import recon_net as recon_command
from commands import scene as scene_command
from commands import spike as spike_command
from commands.guard import guarded
from conversion.placing import RECORD, check_outputs, staged
from gaussians.ply import write_gaussian_ply
from scene.dataset import read_scene
from spike import write_dat
from utils import swap as swapping
from utils.io import save_image
from utils.swap import SWAP, settle

NAMES = ("spike_data", "report.md", "sequence", "transforms.json")


class Kill(BaseException):
    """In the place of a kill: nothing catches it."""


def place(root: Path, content: str, names: tuple[str, ...] = ("spike_data/000.dat", "report.md", "transforms.json")):
    with staged(root, NAMES) as new:
        for name in names:
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(content)


def contents(root: Path) -> dict[str, str]:
    """The files of a scene, without the record."""
    files = {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}
    return {name: text for name, text in files.items() if name != RECORD}


OLD = {"spike_data/000.dat": "old", "report.md": "old", "sequence/a.png": "old", "mine.txt": "mine"}
NEW = {"spike_data/000.dat": "new", "report.md": "new", "transforms.json": "new", "mine.txt": "mine"}


def old_scene(root: Path) -> Path:
    place(root, "old", ("spike_data/000.dat", "report.md", "sequence/a.png"))
    (root / "mine.txt").write_text("mine")
    assert contents(root) == OLD
    return root


def test_a_scene_is_put_in_place_whole(tmp_path):
    root = old_scene(tmp_path / "scene")
    with pytest.raises(KeyError), staged(root, NAMES) as new:
        (new / "report.md").write_text("new")
        raise KeyError
    assert contents(root) == OLD
    place(root, "new")
    assert contents(root) == NEW and [p.name for p in tmp_path.iterdir()] == ["scene"]
    assert sorted(json.loads((root / RECORD).read_text())["files"]) == sorted(NEW.keys() - {"mine.txt"})


@pytest.mark.parametrize("calls", range(14))
def test_a_kill_leaves_the_old_or_the_new(calls, tmp_path, monkeypatch):
    """Killed before any of the renames, and again while the next program goes on."""
    root = old_scene(tmp_path / "scene")
    left, rename = [calls], os.rename

    def dying(source, target):
        if not left[0]:
            raise Kill
        left[0] -= 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(swapping.os, "rename", dying)
        patch.setattr("utils.io.shutil.rmtree", lambda *args, **more: None)  # a killed process removes nothing
        try:
            place(root, "new")
        except Kill:
            pass
        left[0] = calls // 2
        try:
            settle(root, "a test")
        except Kill:
            pass
    settle(root, "a test")
    shown = {name: text for name, text in contents(root).items() if not name.startswith(".")}
    assert shown == (OLD if calls == 0 else NEW)
    place(root, "newer")
    assert contents(root) == {name: "mine" if text == "mine" else "newer" for name, text in NEW.items()}


def test_readers_finish_what_was_interrupted(scene_folder, tmp_path, monkeypatch):
    root = tmp_path / "scene"
    names = tuple(p.name for p in scene_folder.iterdir())

    def put() -> None:
        with staged(root, names) as new:
            shutil.copytree(scene_folder, new, dirs_exist_ok=True)

    put()
    with monkeypatch.context() as patch:
        patch.setattr(swapping, "finish", lambda folder: (_ for _ in ()).throw(Kill()))
        with pytest.raises(Kill), staged(root, names) as new:
            shutil.copytree(scene_folder, new, dirs_exist_ok=True)
            (new / "spike_data/003.dat").write_bytes((new / "spike_data/001.dat").read_bytes())
    assert (root / SWAP).exists()
    scene = read_scene(root)
    first, third = (scene.open_stream(scene.train[i]).unpack(0, 177) for i in (1, 3))
    assert np.array_equal(first, third) and not (root / SWAP).exists()


def test_what_it_did_not_write_is_never_replaced(tmp_path):
    root = old_scene(tmp_path / "scene")
    check_outputs(root, NAMES, True, {})
    with pytest.raises(ValueError, match=r"spike_data: already exists; give --force to replace"):
        check_outputs(root, NAMES, False, {})
    for name, text in (("spike_data/rec.dat", "recording"), ("report.md", "edited"), ("sequence/a.png", "other")):
        before = (root / name).read_text() if (root / name).exists() else None
        (root / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: was not written by convert.py, or was changed since"):
            check_outputs(root, NAMES, True, {})
        kept = contents(root)
        with pytest.raises(ValueError, match="never replaced"):  # also if it came while the scene was written
            place(root, "new")
        assert contents(root) == kept
        (root / name).unlink() if before is None else (root / name).write_text(before)
    (root / RECORD).write_text("[" * 10000)
    with pytest.raises(ValueError, match=r"was not written by convert\.py"):
        check_outputs(root, NAMES, True, {})


def test_links_stay_and_what_they_lead_to(tmp_path):
    """The scene's folder is a link to another place, and one of its outputs was moved to a third."""
    (tmp_path / "disk/scene").mkdir(parents=True)
    (tmp_path / "scene").symlink_to(tmp_path / "disk/scene")
    root = old_scene(tmp_path / "scene")
    (root / "spike_data").rename(tmp_path / "third")
    (root / "spike_data").symlink_to(tmp_path / "third")
    place(root, "new")
    assert root.is_symlink() and contents(tmp_path / "disk/scene") == NEW
    assert (tmp_path / "third/000.dat").read_text() == "old" and not (root / "spike_data").is_symlink()


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs another file system")
def test_a_folder_on_another_file_system(tmp_path):
    root = Path("/dev/shm") / f"usp-gaussian-{os.getpid()}"
    (tmp_path / "scene").symlink_to(root)
    try:
        root.mkdir()
        place(tmp_path / "scene", "old")
        place(tmp_path / "scene", "new")
        assert contents(root)["report.md"] == "new"
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("flag", ["recording", "clips", "from_colmap", "truth", "sensor"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_inputs_are_never_written(flag, force, tmp_path, monkeypatch, capsys):
    """Recordings kept where the layout of a scene has them: the natural thing to do."""
    root = tmp_path / "scene"
    spikes = (np.random.default_rng(0).random((177, 8, 8)) < 0.3).astype(np.uint8)
    write_dat(root / "spike_data/000.dat", spikes)
    write_dat(tmp_path / "rec.dat", spikes)
    inside = {
        "recording": "spike_data/000.dat", "clips": "spike_data", "from_colmap": "sparse/0", "truth": "sequence",
        "sensor": "sensor.json",
    }[flag]  # fmt: skip
    source = [] if flag in ("recording", "clips") else ["--recording", tmp_path / "rec.dat"]
    words = ["-s", root, *source, f"--{flag}", root / inside, "--height", 8, "--width", 8, *force]
    monkeypatch.setattr("sys.argv", ["convert.py", *map(str, words)])
    before = (root / "spike_data/000.dat").read_bytes()
    assert guarded(convert_command.main) == 1
    error = capsys.readouterr().err
    assert f"--{flag} {root / inside} lies in {root / inside.split('/')[0]}, where the scene is written" in error
    assert (root / "spike_data/000.dat").read_bytes() == before and [p.name for p in root.iterdir()] == ["spike_data"]


def test_other_commands_replace_nothing_without_force(tmp_path, monkeypatch, capsys):
    """The manual calls a real recording and a simulated one by the same name."""
    spikes = (np.random.default_rng(0).random((177, 8, 8)) < 0.3).astype(np.uint8)
    write_dat(tmp_path / "flat.dat", spikes)
    for i in range(3):
        save_image(tmp_path / f"frames/{i}.png", np.full((8, 8), 0.5))
    write_gaussian_ply(tmp_path / "a.ply", tiny_gaussians().params)
    size = ["--height", "8", "--width", "8"]
    for main, words, out in (
        (spike_command.main, ["simulate", tmp_path / "frames", "--out"], "rec.dat"),
        (spike_command.main, ["calibrate", "--flat", tmp_path / "flat.dat", *size, "--out"], "sensor.json"),
        (spike_command.main, ["convert", tmp_path / "flat.dat", *size], "again.npy"),
        (spike_command.main, ["preview", tmp_path / "flat.dat", *size, "--out"], "mine.png"),
        (scene_command.main, ["convert", tmp_path / "a.ply"], "b.splat"),
    ):
        (tmp_path / out).write_text("mine")
        for force in ([], ["--force"]):
            monkeypatch.setattr("sys.argv", ["command", *map(str, [*words, tmp_path / out, *force])])
            assert guarded(main) == (0 if force else 1)
            error = capsys.readouterr().err
            assert force or error == f"error: {tmp_path / out}: already exists; give --force to replace it\n"
            assert ((tmp_path / out).read_bytes() == b"mine") != bool(force)
    for name, main, words in (
        ("000088.png", spike_command.main, ["preview", tmp_path / "flat.dat", *size]),
        ("results.json", recon_command.main, [tmp_path / "flat.dat", *size]),
    ):
        (tmp_path / name).touch()
        monkeypatch.setattr("sys.argv", ["command", *map(str, words), "--out", str(tmp_path)])
        assert guarded(main) == 1 and f"{name}: already exists; give --force" in capsys.readouterr().err
    (tmp_path / "other_gain_map.npy").touch()
    words = ["calibrate", "--flat", tmp_path / "flat.dat", *size, "--out", tmp_path / "other.json"]
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
    assert guarded(spike_command.main) == 1 and "other_gain_map.npy: already exists" in capsys.readouterr().err
