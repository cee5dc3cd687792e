"""Train and apply Recon-Net on a single recording: ``python -m recon_net --help``."""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.guard import guarded
from commands.recon_net import main

if __name__ == "__main__":
    sys.exit(guarded(main))
