"""Make a scene for train.py from spikes alone: choose windows, find poses, write the folder.

    python convert.py -s data/myscene --recording rec.dat
    python convert.py -s data/myscene --clips clips/

One long recording is cut into views where the camera moves enough but not too much.  A folder of clips gives one
view per clip.  Poses and points come from structure from motion (pycolmap) on previews of the views, tried with
several settings until two results agree.  Their agreement is the confidence in the poses.
"""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.convert import main
from commands.guard import guarded

if __name__ == "__main__":
    sys.exit(guarded(main))
