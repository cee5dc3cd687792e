"""The toolbox for spike recordings: ``python -m spike --help``."""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.guard import guarded
from commands.spike import main

if __name__ == "__main__":
    sys.exit(guarded(main))
