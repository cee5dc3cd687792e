"""Make a scene that train.py reads from spikes alone: choose windows, find poses, write the folder.

    python convert.py -s data/myscene --recording rec.dat
    python convert.py -s data/myscene --clips clips/

One long recording is cut into views where the camera moved enough but not too much; a folder of clips is one
view per clip.  Poses and points come from previews of the views by structure from motion (pycolmap), tried with
several settings until two of them agree; how well they agree is the confidence in the poses.
"""

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import sys

from commands.convert import main
from commands.guard import guarded

if __name__ == "__main__":
    sys.exit(guarded(main))
