"""Nothing is lost: signals, locks, numbers that are not finite, scenes that were exchanged, terminals that are gone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import TIMING, small_training, stepped

import metrics
import render
import train
import utils
from commands.guard import guarded
from evaluation.rendering import Renderer
from scene.dataset import read_scene
from scene.identity import difference, identity
from scene.model_folder import claim
from training import checkpoint, hooks
from training.training import Training
from utils.io import atomic_write, partial_folder, remove_leftovers
from utils.locks import LOCK, FolderLock
from utils.signals import Stopped, StopRequest, ending

ROOT = Path(__file__).resolve().parents[1]


def command(monkeypatch, *flags: object) -> int:
    """The exit status of train.py."""
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, flags)])
    return guarded(train.main)


class Forked:
    """A child that runs ``work`` up to its first ``yield`` and waits there until it is killed."""

    def __init__(self, work: Callable[[], Iterator[None]]):
        ready, told = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                for _ in work():
                    os.write(told, b"x")
                    signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


# ---- signals ---------------------------------------------------------------------------------------------------


def test_a_second_signal_does_not_end_the_saving(scene_folder, tmp_path, monkeypatch, capfd):
    t = small_training(scene_folder, tmp_path, *TIMING)
    t.settings.save(tmp_path)
    save, numbers = checkpoint.save_checkpoint, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def impatient(path, state):
        for number in numbers:
            os.kill(os.getpid(), number)
        save(path, state)

    monkeypatch.setattr(checkpoint, "save_checkpoint", impatient)
    step = t.step
    monkeypatch.setattr(t, "step", lambda: (os.kill(os.getpid(), signal.SIGINT), step())[1])
    assert train.run(t) == 130 and (tmp_path / "chkpnt1.pth").exists()
    assert capfd.readouterr().err.count("the state is being saved") == len(numbers)


def test_a_closed_terminal_is_no_loss(scene_folder, tmp_path, monkeypatch):
    """SIGHUP comes with a terminal that nobody reads any more: what is printed then must not end the saving."""
    step, (read, write) = Training.step, os.pipe()

    def hung_up(t: Training) -> dict[str, float]:
        if t.iteration == 2:
            os.close(read)
            os.kill(os.getpid(), signal.SIGHUP)
        return step(t)

    monkeypatch.setattr(Training, "step", hung_up)
    flags = [flag for flag in TIMING if flag != "--quiet"]
    with open(write, "w", buffering=1) as nobody:
        monkeypatch.setattr("sys.stdout", nobody)
        monkeypatch.setattr("sys.stderr", nobody)
        where = ("-s", scene_folder, "-m", tmp_path / "model")
        assert command(monkeypatch, *where, *flags, "--json_log", "--log_every", "1") == 129
    assert (tmp_path / "model/chkpnt3.pth").exists()


def test_other_commands_clean_up_when_they_are_stopped(capsys):
    cleaned = []

    def main() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # does not interrupt cleaning up
            cleaned.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert guarded(main) == 143 and cleaned and signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "\nstopped by SIGTERM\n"


def test_what_nohup_blocks_stays_blocked():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    with pytest.raises(Stopped), ending():
        os.kill(os.getpid(), signal.SIGTERM)
    assert StopRequest().status == 130


def test_signals_are_left_alone_in_other_threads():
    ended = []
    thread = threading.Thread(target=lambda: ended.append(guarded(lambda: 3)))
    thread.start()
    thread.join()
    assert ended == [3]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_the_terminal_cannot_show(encoding):
    code = "import sys\nfrom commands.guard import guarded\nsys.exit(guarded(lambda: print('Schräge/モデル')))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0 and ended.stdout.decode(encoding) and not ended.stderr
    assert ("モデル" in ended.stdout.decode()) == (encoding == "utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_under_standard_output_is_told():
    code = "import sys\nfrom commands.guard import guarded\nsys.exit(guarded(lambda: print('x' * 100000)))"
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == "error: standard output could not be written (No space left on device)\n"


def test_streams_that_were_closed_before_the_start(monkeypatch):
    """As with ``>&-`` in a shell."""
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)

    def main() -> int:
        print("to nobody")
        raise ValueError("nor is this read")

    assert guarded(lambda: print("to nobody")) == 0 and guarded(main) == 1
    assert sys.stdout is None and sys.stderr is None


@pytest.mark.parametrize(
    ("raised", "told"), [("KeyboardInterrupt", "\ninterrupted\n"), ("KeyError(1)", "KeyError: 1\n")]
)
def test_an_interrupt_while_libraries_are_imported(raised, told):
    code = f"import utils\nraise {raised}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode != 0
    assert ended.stderr == told if "Interrupt" in raised else ended.stderr.endswith(told)


def test_a_library_does_not_take_over_the_signals():
    """pycolmap's logging library answers SIGTERM with a stack trace, and nothing would be cleaned up."""
    code = (
        "import os, signal, sys\n"
        "from commands.guard import guarded\n"
        "from scene.colmap import load_pycolmap\n"
        "def main():\n"
        "    try:\n"
        "        load_pycolmap()\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "sys.exit(guarded(main))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "cleaned up\n", "\nstopped by SIGTERM\n")


def test_thread_numbers_of_the_environment_are_limited(monkeypatch):
    most = str(4 * os.cpu_count())
    for given, expected in (("2", "2"), ("40000", most), ("9" * 5000, most), ("x", "x")):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        utils._limit_threads()
        assert os.environ["OMP_NUM_THREADS"] == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept_for_the_next_array():
    """Otherwise every training step pays for clearing the pages of its large arrays again."""
    code = (
        "import ctypes, resource, utils\n"
        "def faults(rounds):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(rounds):\n"
        "        libc.free(ctypes.memset(libc.malloc(100 << 20), 1, 100 << 20))\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]\n"
        "first, later = faults(1), faults(10)\n"
        "assert first > 10 and later < first, (first, later)\n"
        # What lies between arrays that stay goes back when it is returned.
        "from pathlib import Path\n"
        "from utils.memory import return_freed\n"
        "def resident():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() >> 20\n"
        "arrays = [ctypes.memset(libc.malloc(8 << 20), 1, 8 << 20) for _ in range(40)]\n"
        "for array in arrays[::2]: libc.free(array)\n"
        "kept = resident()\n"
        "return_freed()\n"
        "assert kept - resident() > 150, (kept, resident())\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=plain, check=False).returncode == 0


def test_what_is_rare_returns_memory_before_and_after(scene_folder, tmp_path, monkeypatch):
    """Otherwise 34 views of 600x400 end with 7 GB."""
    training = small_training(scene_folder, tmp_path, *TIMING)
    returned: list[str] = []
    for action in training.after:
        name, act = action.name, type(action).__call__
        monkeypatch.setattr(type(action), "__call__", lambda *a, name=name, act=act: (doing.append(name), act(*a)))
    doing: list[str] = []
    monkeypatch.setattr("utils.memory.return_freed", lambda: returned.append(f"{training.iteration} {doing[-1]}"))
    stepped(training)
    rare = {"fixed_pattern": (2, 4, 6), "retiming": (3, 5), "noise": range(1, 7)}
    assert sorted(returned) == sorted(2 * [f"{step} {name}" for name, steps in rare.items() for step in steps])


# ---- locks -----------------------------------------------------------------------------------------------------

def test_a_folder_in_use_is_refused(scene_folder, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    flags = ["-s", scene_folder, "-m", model, *TIMING, "--iterations", "1"]
    assert command(monkeypatch, *flags) == 0 and not (model / LOCK).exists()
    before = sorted(tmp_path.rglob("*"))

    def hold() -> Iterator[None]:
        with FolderLock(model, "train.py"):
            yield

    holder = Forked(hold)
    for more in ([], ["--resume"]):
        assert command(monkeypatch, *flags, *more) == 1
        assert f"model: is in use by train.py, process {holder.pid} on " in capsys.readouterr().err
    assert sorted(p for p in tmp_path.rglob("*") if p.name != LOCK) == before
    holder.kill()
    assert (model / LOCK).exists()  # what a killed process leaves does not lock
    assert command(monkeypatch, *flags) == 0
    assert (tmp_path / "model.1/chkpnt1.pth").exists() and not list(tmp_path.rglob(LOCK))


def test_setting_aside_keeps_the_folder_locked(scene_folder, tmp_path):
    small_training(scene_folder, tmp_path / "model", *TIMING).settings.save(tmp_path / "model")
    lock, aside = claim(tmp_path / "model")
    with lock, pytest.raises(ValueError, match=f"is in use by train.py, process {os.getpid()} on"):
        FolderLock(tmp_path / "model", "train.py").acquire()
    assert aside == tmp_path / "model.1" and not list(tmp_path.rglob(LOCK))


def test_a_file_is_no_folder_for_results(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(ValueError, match=r"/model: is a file, expected a folder$"):
        FolderLock(tmp_path / "model", "train.py").acquire()


def test_a_patient_lock_waits_for_its_holder(tmp_path):
    holder = FolderLock(tmp_path, "train.py").acquire()
    threading.Timer(0.5, holder.release).start()
    with FolderLock(tmp_path, "train.py", patience=20) as lock:
        assert lock.handle >= 0 and holder.handle < 0


def test_a_lock_goes_to_one_of_many(tmp_path):
    """Also while the file is removed and made again by those who had it."""
    inside, most = [], []

    def take() -> None:
        for _ in range(50):
            try:
                with FolderLock(tmp_path / "folder", "a thread"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except ValueError:
                pass

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_a_link_to_a_folder_elsewhere_stays_one(scene_folder, tmp_path, monkeypatch):
    (tmp_path / "disk/real").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "disk/real")
    for _ in range(2):
        assert command(monkeypatch, "-s", scene_folder, "-m", tmp_path / "model", *TIMING, "--iterations", "1") == 0
    assert (tmp_path / "model").is_symlink()
    assert (tmp_path / "disk/real.1/chkpnt1.pth").exists() and (tmp_path / "disk/real/chkpnt1.pth").exists()


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    def write() -> Iterator[None]:
        with atomic_write(tmp_path / "a.pth"), partial_folder(tmp_path / "b") as folder:
            (folder / "c").touch()
            yield

    process = Forked(write)
    (tmp_path / ".mine.partial").touch()
    with atomic_write(tmp_path / "d") as file, partial_folder(tmp_path / "e") as folder:
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 5  # all are being written, or are the user's own
        process.kill()
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3 and folder.exists()
        file.write(b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {".mine.partial", "d"}


# ---- numbers that are not finite ---------------------------------------------------------------------------------


def poison(training, part: str) -> None:
    if part == "means":
        training.state.gaussians.raw["means"].data[7, 1] = float("nan")
    elif part == "network":
        next(training.state.network.parameters()).data[0] = float("inf")
    elif part == "trajectory":
        training.state.trajectory.increments.data[2, 3] = float("nan")
    else:
        moments = next(v for v in training.optimizers.state_dict().values() if v)
        tensor = next(t for t in tensors(moments) if t.ndim > 1)
        tensor.view(-1)[3] = float("nan")


def tensors(content):
    if isinstance(content, torch.Tensor):
        return [content]
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return [t for value in values for t in tensors(value)]


@pytest.mark.parametrize("part", ["means", "network", "trajectory", "optimizers"])
def test_a_number_that_is_none_is_not_saved(part, scene_folder, tmp_path):
    t = stepped(small_training(scene_folder, tmp_path, *TIMING), 4)
    good = checkpoint.save(t)
    before = good.read_bytes()
    poison(t, part)
    t.state.iteration = 5
    words = rf"iteration 5: .*{part}.* is (nan|inf), expected finite numbers; nothing is saved, .*chkpnt4\.pth is the"
    for saving in (checkpoint.save, checkpoint.save_model):
        with pytest.raises(ValueError, match=words):
            saving(t)
    assert [p.name for p in tmp_path.iterdir()] == ["chkpnt4.pth"] and good.read_bytes() == before


def test_it_is_noticed_soon(scene_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, "_FINITE_EVERY", 2)
    t = small_training(scene_folder, tmp_path, *TIMING)
    keeper = hooks.Keeper()
    t.state.iteration = 3
    poison(t, "means")
    keeper(t, {})
    t.state.iteration = 4
    with pytest.raises(ValueError, match=r"iteration 4: field means\[7, 1\] is nan.*no checkpoint was written before"):
        keeper(t, {})


# ---- the same scene ----------------------------------------------------------------------------------------------


def changed(scene: Path, kind: str) -> None:
    meta = json.loads((scene / "transforms.json").read_text())
    frames = meta["frames"]
    if kind == "order":
        frames[1], frames[2] = frames[2], frames[1]
    elif kind == "fewer":
        frames.pop()
    elif kind == "names":
        for folder, suffix in (("spike_data", ".dat"), ("sharp_data", ".png")):
            (scene / folder / f"004{suffix}").rename(scene / folder / f"other{suffix}")
        frames[4] = {key: v.replace("004", "other") if isinstance(v, str) else v for key, v in frames[4].items()}
    elif kind == "spikes":
        file = scene / "spike_data/003.dat"
        file.write_bytes(bytes(b ^ 255 for b in file.read_bytes()))
    elif kind == "focal":
        meta["fl_x"] += 1
    elif kind == "sensor":
        meta["spike_gain"] *= 1.1
    (scene / "transforms.json").write_text(json.dumps(meta))


def test_a_run_with_a_hard_reset_is_recognized(scene_folder):
    scene = read_scene(scene_folder)
    hard = replace(scene, sensor=replace(scene.sensor, reset="hard"))
    assert difference(identity(hard, True), identity(hard, True)) is None
    assert "hard" in difference(identity(scene, True), identity(hard, True))
    # Gains and dark currents of single pixels, too.
    shape = scene.size[::-1]
    maps = [replace(scene.sensor, **{name: torch.full(shape, 0.5)}) for name in ("gain_map", "dark_map")]
    for sensor in maps:
        other = replace(scene, sensor=sensor)
        assert difference(identity(other, True), identity(other, True)) is None
        assert "its sensor is" in difference(identity(scene, True), identity(other, True))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("order", "its views are in another order: view 2 is 002, expected 001"),
        ("fewer", r"it has no training view 004 \(4 views, expected 5\)"),
        ("names", "it has no training view 004 and has the training view other, which the run did not have"),
        ("spikes", "view 003 has other spikes"),
        ("focal", "view 000 has other intrinsics"),
        ("sensor", "its sensor is"),
    ],
)
def test_another_scene_is_not_continued_with(kind, words, scene_folder, tmp_path):
    scene = tmp_path / "scene"
    shutil.copytree(scene_folder, scene)
    stored = identity(read_scene(scene), True)
    assert difference(stored, identity(read_scene(scene_folder), True)) is None
    changed(scene, kind)
    t = small_training(scene_folder, tmp_path / "model", *TIMING)
    path = checkpoint.save(t)
    other = small_training(scene, tmp_path / "model", *TIMING)
    with pytest.raises(ValueError, match=rf"chkpnt0\.pth: does not fit .*another scene than {scene}: {words}"):
        checkpoint.load(other, path)
    checkpoint.load(small_training(scene_folder, tmp_path / "model", *TIMING), path)


def test_images_are_compared_by_their_files(scene_folder, tmp_path):
    scene = tmp_path / "scene"
    shutil.copytree(scene_folder, scene)
    shutil.copy(scene / "sharp_data/001.png", scene / "sharp_data/002.png")
    stored, now = (identity(read_scene(root), False) for root in (scene_folder, scene))
    assert difference(stored, now) == "view 002 has other spikes or another image"


# ---- rendering that was interrupted, scenes that were moved --------------------------------------------------------


def test_half_a_rendering_is_not_measured(scene_folder, tmp_path, monkeypatch, capsys):
    """Interrupted between two splits, after a complete one of before."""
    model = tmp_path / "model"
    assert command(monkeypatch, "-s", scene_folder, "-m", model, *TIMING, "--iterations", "1") == 0

    def called(module, *flags) -> int:
        monkeypatch.setattr("sys.argv", ["command", "-m", str(model), "--quiet", *flags])
        return guarded(module.main)

    monkeypatch.setattr(metrics, "load_lpips", lambda net: (None, "no weights here"))
    assert called(render, "--fit_steps", "0") == 0 and called(metrics) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Renderer, "write_held_out_views", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
        assert called(render) == 143
    assert called(metrics) == 1
    assert "not a complete list of images" in capsys.readouterr().err
    assert called(render, "--skip_test") == 0 and called(metrics) == 1
    assert "test/ours_1/manifest.json: not a complete list" in capsys.readouterr().err


def test_a_scene_that_was_moved_is_named(scene_folder, tmp_path, monkeypatch, capsys):
    """Training read it from a relative path; the model is rendered from elsewhere, and later the scene is moved."""
    shutil.copytree(scene_folder, tmp_path / "scene")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "-s", "scene", "-m", "model", *TIMING, "--iterations", "1") == 0
    monkeypatch.chdir(tmp_path / "elsewhere")

    def rendered(*flags) -> int:
        monkeypatch.setattr("sys.argv", ["render.py", "-m", "../model", "--quiet", "--skip_test", *flags])
        return guarded(render.main)

    assert rendered() == 0
    (tmp_path / "scene").rename(tmp_path / "new")
    assert rendered() == 1
    sentence = f"the scene {tmp_path}/scene is not there; if it was moved, give its folder with -s"
    assert sentence in capsys.readouterr().err
    assert rendered("-s", "../new") == 0
    shutil.copytree(tmp_path / "new", tmp_path / "other")
    changed(tmp_path / "other", "order")
    capsys.readouterr()
    assert rendered("-s", "../other") == 1
    sentence = "not the scene that ../model was trained on: it has 5 training views, expected 5; view 2 is 002"
    assert sentence in capsys.readouterr().err
    monkeypatch.setattr(metrics, "load_lpips", lambda net: (None, "no weights here"))
    monkeypatch.setattr("sys.argv", ["metrics.py", "-m", "../model", "--quiet", "-s", "../new"])
    assert guarded(metrics.main) == 0
