"""Kills runs with SIGKILL at random instants, goes on, and checks what every kill leaves.

    python tests/killing.py                      1,000 kills
    python tests/killing.py --kills 20 --seed 3

Training (with checkpoints every second step, so that much of the time is spent saving) is killed and resumed until it
completes, rendering and converting are killed and repeated until they do.  After every kill, everything in the folder
must be readable, and at most one interval between checkpoints may be lost.  What comes out in the end must be equal
to a run that was never killed, bit by bit, and nothing half-written may be left.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from forked_runs import EVERY, TRAIN, Child, check_model, leftovers, pictures, quick_folder, result
from small_scene import write_scene

from conversion.placing import OUTPUTS, staged
from scene.dataset import read_scene
from utils.checkpoint import latest_checkpoint
from utils.io import load_image, write_json


class Killing:
    """A series of kills in ``folder``.

    Attributes:
        kills: by command, those that met a running process.
        completed: by command, the runs that came to their end and were compared.
        unreadable: descriptions of folders that could not be read.
        lost: the most steps that a kill has cost.
        different: results that were not equal to those of a run without kills.
        left: files that nothing removed.
    """

    def __init__(self, folder: Path, seed: int = 0):
        self.random, self._folder, self._log = random.Random(seed), folder, folder / "log.txt"
        self.kills: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.unreadable: list[str] = []
        self.different: list[str] = []
        self.left: list[Path] = []
        self.lost = 0
        self.scene = folder / "scene"
        write_scene(self.scene)
        self._reference = folder / "reference"
        self._seconds = {
            "train.py": self._run("train.py", "-s", self.scene, "-m", self._reference, *TRAIN),
            "render.py": self._run(*self._render(self._reference)),
        }
        self._converted = folder / "converted"
        self._seconds["convert.py"] = self._run(*self._convert(1))
        self._result, self._pictures = result(self._reference), pictures(self._reference)

    def _run(self, *words: object) -> float:
        """Run a command to its end; returns the seconds it took."""
        started, status = time.monotonic(), Child(words, self._log).wait()
        if status:
            raise RuntimeError(f"{words}: exit status {status}\n{self._log.read_text()}")
        return time.monotonic() - started

    @staticmethod
    def _render(model: Path) -> list[object]:
        return ["render.py", "-m", model, "--quiet", "--fit_steps", "1"]

    def _convert(self, scale: int) -> list[object]:
        flags = ["--previews_only", "--force", "--quiet", "--preview_scale", scale, "--width", 48, "--height", 32]
        return ["convert.py", "-s", self._converted, "--clips", self.scene / "spike_data", *flags]

    @contextmanager
    def _readable(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.unreadable.append(f"{folder}: {type(error).__name__}: {error}")

    def _until_it_completes(self, words: Callable[[], list[object]], check: Callable[[Child], None], most: int) -> bool:
        """Kill a command and start it again until it completes; False after ``most`` kills."""
        name = str(words()[0])
        while True:
            child = Child(words(), self._log)
            if not child.killed_after(self.random.uniform(0, 1.4 * self._seconds[name])):
                text = self._log.read_text()
                if "error: " in text or "Traceback" in text:
                    self.unreadable.append(f"{name}: {text}")
                    return False
                self.completed[name] += 1
                return True
            self.kills[name] += 1
            check(child)
            if self.kills.total() >= most:
                return False

    def train(self, most: int) -> None:
        """Train a model to its end with kills, then render it with kills."""
        model = self._folder / f"model{self.kills.total()}"

        def check(child: Child) -> None:
            with self._readable(model):
                kept = check_model(model)
                if child.progress:
                    self.lost = max(self.lost, child.progress - kept)

        def words() -> list[object]:
            resume = ["--resume"] if latest_checkpoint(model) is not None else []
            return ["train.py", "-s", self.scene, "-m", model, *TRAIN, *resume]

        if self._until_it_completes(words, check, most):
            self._compare("the model", result(model), self._result)
            self.left += leftovers(model)
            if self._until_it_completes(lambda: self._render(model), check, most):
                self._compare("the images", pictures(model), self._pictures)
                self.left += leftovers(model)
        for folder in self._folder.glob(f"{model.name}*"):
            shutil.rmtree(folder)

    def _compare(self, what: str, found: str, expected: str) -> None:
        if found != expected:
            self.different.append(f"{what} after {self.kills.total()} kills")

    def convert(self, most: int) -> None:
        """Replace previews by previews of another size."""
        old, new = (load_image(self._converted / "previews/000.png").shape[1] // 32, 0)
        new = 3 - old

        def check(_: Child) -> None:
            with self._readable(self._converted):
                sizes = {load_image(file).shape[1] // 32 for file in (self._converted / "previews").glob("*.png")}
                assert sizes in ({old}, {new}) and len(list((self._converted / "previews").iterdir())) == 5

        if self._until_it_completes(lambda: self._convert(new), check, most):
            self.left += leftovers(self._converted)

    def place(self, most: int) -> None:
        """Replace a whole scene by another one, as convert.py does at its end; killed and read."""
        root, version, name = self._folder / "placed", 0, "placing a scene"

        def put(order: int) -> int:
            with staged(root, OUTPUTS) as new:
                shutil.copytree(self.scene, new, dirs_exist_ok=True)
                meta = json.loads((new / "transforms.json").read_text())
                write_json(new / "transforms.json", meta | {"spike_gain": order / 10})
                (new / "report.md").write_text(str(order))
                for unlisted in ("novel", "novel.json", "transforms_noisy.json"):
                    path = new / unlisted
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return 0

        put(1)
        for version in range(2, 7):
            child = _Putting(lambda order=version: put(order), self._log)
            if child.killed_after(self.random.uniform(0, 0.08)):
                self.kills[name] += 1
            else:
                self.completed[name] += 1
            with self._readable(root):
                scene = read_scene(root)
                assert len(scene.train) == 5 and all(len(scene.open_stream(view)) == 177 for view in scene.train)
                assert f"{10 * scene.sensor.gain:.0f}" == (root / "report.md").read_text()
            if self.kills.total() >= most:
                break
        put(9)
        self.left += leftovers(root)
        shutil.rmtree(root)

    def until(self, kills: int) -> None:
        """Kill until there were so many kills."""
        while self.kills.total() < kills and not self.unreadable:
            self.train(kills)
            if self.kills.total() < kills:
                self.convert(kills)
            if self.kills.total() < kills:
                self.place(kills)

    def report(self) -> str:
        """The figures."""
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.completed.items()))
        lines = [
            f"kills: {self.kills.total()} ({kills})", f"runs that came to their end: {ends}",
            f"unreadable folders: {len(self.unreadable)}", f"most steps lost: {self.lost} (interval: {EVERY})",
            f"results that differ: {len(self.different)}", f"files left behind: {len(self.left)}",
        ]  # fmt: skip
        return "\n".join([*lines, *self.unreadable, *self.different, *map(str, self.left)])

    @property
    def holds(self) -> bool:
        """Whether what is promised held."""
        return not self.unreadable and not self.different and not self.left and self.lost <= EVERY


class _Putting(Child):
    """A function in a forked child."""

    def __init__(self, work: Callable[[], int], log: Path):
        self._do = work
        super().__init__([], log)

    def _work(self, words: list[str], before: Callable[[], None]) -> int:
        return self._do()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="number of kills (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the instants (default: 0)")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        killing = Killing(Path(folder), args.seed)
        killing.until(args.kills)
    print(killing.report())
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if killing.holds else 1


if __name__ == "__main__":
    sys.exit(main())
