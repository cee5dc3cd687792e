"""Short versions of ``killing.py`` and ``full_disk.py``; the long ones and their figures: docs/reliability.md."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def script(name: str, *flags: str) -> str:
    """The output of one of the scripts, which must succeed."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    more = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, str(TESTS / name), *flags], env=os.environ | more, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills():
    said = script("killing.py", "--kills", "10")
    assert "kills: 10 (" in said and "train.py" in said
    assert "unreadable folders: 0\n" in said and re.search(r"most steps lost: [012] \(", said)
    assert "results that differ: 0\n" in said and "files left behind: 0\n" in said


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs Linux and a C compiler")
def test_full_disks():
    said = script("full_disk.py", "--every", "29", "--most", "3", "--commands", "train.py", "convert.py")
    assert "full at: train.py 3, convert.py" in said and "wrong: 0" in said
