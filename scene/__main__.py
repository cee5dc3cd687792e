"""Export a trained model's files for other programs: ``python -m scene --help``."""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.guard import guarded
from commands.scene import main

if __name__ == "__main__":
    sys.exit(guarded(main))
