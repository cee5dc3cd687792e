"""What several test files share."""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import signal
from pathlib import Path

import pytest
from small_scene import write_scene

from utils import telling

# Under nohup, which the program respects, tests of SIGHUP would wait for what never comes.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that a test runs with --quiet leaves this process quiet."""
    monkeypatch.setattr(telling, "_quiet", False)


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene of ``small_scene``.  Not to be written to."""
    root = tmp_path_factory.mktemp("scene") / "small"
    write_scene(root)
    return root
