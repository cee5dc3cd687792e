"""Lets the disk be full at every single write of a run, and checks what is left and what is said.

    python tests/full_disk.py                every request of training, rendering and converting
    python tests/full_disk.py --every 10     every tenth

A small library between Python and the system (``full_disk.c``) makes all requests for space below one folder fail from
the n-th on: writes, new files and folders, renames.  For every n the command must end with exit status 1 and one
sentence, everything in the folder must be readable, the last good state must be there, and when there is space again
the command must come to the same result as without a full disk.
"""

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

LIBRARY = "FULL_DISK_LIBRARY"
COMMANDS = ("train.py", "render.py", "convert.py")


def built(folder: Path) -> Path | None:
    """Compile the library; None without a compiler."""
    source, library = Path(__file__).with_suffix(".c"), folder / "full_disk.so"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class FullDisk:
    """Commands with a disk that becomes full, in a process that has preloaded the library.

    Attributes:
        tried: by command, the numbers of requests at which the disk was full.
        wrong: what was not as it should be.
        sizes: by command, the sentences that say how much space a file needs.
    """

    def __init__(self, folder: Path):
        from forked_runs import TRAIN
        from small_scene import write_scene

        self._library = ctypes.CDLL(os.environ[LIBRARY])
        self._folder, self._log = folder, folder.parent / f"{folder.name}.log"
        self.tried: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.wrong: list[str] = []
        scene = folder / "scene"
        write_scene(scene)
        model, converted = folder / "model", folder / "converted"
        clips = ["--clips", scene / "spike_data", "--width", 48, "--height", 32, "--quiet"]
        self.commands = {
            "train.py": (model, ["train.py", "-s", scene, "-m", model, *TRAIN]),
            "render.py": (model, ["render.py", "-m", model, "--quiet", "--fit_steps", "0"]),
            "convert.py": (
                converted, ["convert.py", "-s", converted, *clips, "--previews_only", "--force", "--preview_scale", 1],
            ),
        }  # fmt: skip

    def _run(self, words: list[object], n: int) -> tuple[int, int]:
        """Run a command with a disk that is full from the n-th request on; returns status and requests."""
        from forked_runs import Child

        count, started = self._log.with_suffix(".count"), f"{self._folder}/".encode()

        def before() -> None:
            self._library.full_disk_start(started, ctypes.c_long(n))

        child = Child(words, self._log, before, after=lambda: count.write_text(str(self._library.full_disk_count())))
        return child.wait(), int(count.read_text())

    def try_all(self, every: int, most: int, wanted: Sequence[str]) -> None:
        """Fill the disk at every ``every``-th request of the wanted commands, at most ``most`` times each."""
        for name, (folder, words) in self.commands.items():
            saved = folder.with_name(f"{folder.name}.before")
            if folder.exists():
                shutil.copytree(folder, saved)
            status, count = self._run(words, 0)
            if status:
                raise RuntimeError(f"{name}: exit status {status}\n{self._log.read_text()}")
            expected = self._state(name, folder)
            for n in list(range(1, count + 1, every))[: most if name in wanted else 0]:
                self._reset(folder, saved)
                self.tried[name] += 1
                self._try(name, folder, words, n, expected)
            if name == "train.py":
                self._reset(folder, saved)
                self._run(words, 0)

    @staticmethod
    def _reset(folder: Path, saved: Path) -> None:
        for old in folder.parent.glob(f"{folder.name}*"):
            if old != saved:
                shutil.rmtree(old)
        if saved.exists():
            shutil.copytree(saved, folder)

    @staticmethod
    def _state(name: str, folder: Path) -> str:
        from forked_runs import digest, pictures, result

        if name == "convert.py":
            return digest(*sorted((folder / "previews").iterdir()))
        return result(folder) if name == "train.py" else pictures(folder)

    def _try(self, name: str, folder: Path, words: list[object], n: int, expected: str) -> None:
        from forked_runs import check_model, leftovers

        status, _ = self._run(words, n)
        said = self._log.read_text()
        sentences = [line for line in said.splitlines() if line.startswith("error: ")]
        if status != 1 or len(sentences) != 1 or "Traceback" in said or "No space left on device" not in said:
            self.wrong.append(f"{name}, request {n}: exit status {status}, {said!r}")
        self.sizes[name] += bool(re.search(r"the file needs \d", said))
        try:
            kept = check_model(folder) if name != "convert.py" and folder.exists() else 0
            again = [*words, "--resume"] if name == "train.py" and kept else words
            status, _ = self._run(again, 0)
            if status or self._state(name, folder) != expected:
                self.wrong.append(f"{name}, request {n}: with space again, {self._log.read_text()!r} or another result")
            if leftovers(folder):
                self.wrong.append(f"{name}, request {n}: left {leftovers(folder)}")
        except Exception as error:
            self.wrong.append(f"{name}, request {n}: {type(error).__name__}: {error}")

    def report(self) -> str:
        """The figures."""
        tried = ", ".join(f"{name} {count}" for name, count in self.tried.items())
        sizes = ", ".join(f"{name} {count}" for name, count in self.sizes.items())
        lines = [f"full at: {tried}", f"told the size of the file that did not fit: {sizes}"]
        return "\n".join([*lines, f"wrong: {len(self.wrong)}", *self.wrong[:20]])


def preloaded(*flags: str, library: Path) -> subprocess.CompletedProcess[str]:
    """Run this script in a process that has the library."""
    more = {"LD_PRELOAD": str(library), LIBRARY: str(library), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, *flags]
    return subprocess.run(command, env=os.environ | more | {"PYTHONPATH": path}, text=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="requests between two full disks (default: 1)")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=COMMANDS, help="commands to try")
    parser.add_argument("--most", type=int, default=10**9, help="most full disks for each command (default: all)")
    args = parser.parse_args()
    if LIBRARY not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            library = built(Path(folder))
            if library is None:
                sys.exit("error: needs a C compiler (cc)")
            return preloaded(*sys.argv[1:], library=library).returncode
    from forked_runs import quick_folder

    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        disk = FullDisk(Path(folder) / "disk")
        disk.try_all(args.every, args.most, args.commands)
    print(disk.report())
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if disk.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
