"""The C++ code without Python, built with address and undefined-behavior sanitizers and warnings as errors.

The build lies in ``build/sanitize`` and is kept: only what changed is compiled again.  ``make sanitize`` runs more
scenes and the Python tests too.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]
BUILD = PACKAGE / "build" / "sanitize"
SEARCHED = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
OPTIONS = {"DGR_MODULE": "OFF", "DGR_TESTS": "ON", "DGR_SANITIZE": "ON", "DGR_WARNINGS_AS_ERRORS": "ON"}


def tool(name: str) -> str | None:
    return shutil.which(name, path=SEARCHED)


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or tool("cmake") is None, reason="needs Linux and cmake, for example from pip"
)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the programs."""
    ninja = tool("ninja")
    generator = [] if ninja is None else ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    cmake = str(tool("cmake"))
    definitions = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    processors = str(len(os.sched_getaffinity(0)))
    for command in (
        [cmake, "-S", str(PACKAGE), "-B", str(BUILD), *generator, *definitions],
        [cmake, "--build", str(BUILD), "-j", processors],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    return BUILD


def passes(process: subprocess.Popen) -> str:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def start(*command: object) -> subprocess.Popen:
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_vector_functions_keep_their_bounds(programs):
    tests = sorted(path for path in programs.glob("simd_test_*") if path.is_file())
    assert tests
    for test in tests:
        printed = passes(start(test))
        assert "exp2_small" in printed or "lacks the instruction set" in printed


def test_random_scenes_end_well(programs):
    """No read or write outside of an array, no undefined behavior, no bits that depend on threads."""
    halves = [start(programs / "fuzz", first, 25) for first in (0, 25)]
    for half in halves:
        assert "25 scenes on" in passes(half)
