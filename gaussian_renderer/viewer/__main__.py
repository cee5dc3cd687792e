"""The browser viewer: ``python -m gaussian_renderer.viewer --help``."""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.guard import guarded
from commands.viewer import main

if __name__ == "__main__":
    sys.exit(guarded(main))
