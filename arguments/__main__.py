"""Every flag of train.py as Markdown: ``python -m arguments > docs/flags.md``."""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.flags import main
from commands.guard import guarded

if __name__ == "__main__":
    sys.exit(guarded(main))
