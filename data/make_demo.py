"""Make the demo scene: a small still life seen by a hand-held spike camera, with exact ground truth.

    python data/make_demo.py --out data/demo

The folder has the layout of real data; see simulation/demo.py for how it is made.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.guard import guarded
from commands.make_demo import main

if __name__ == "__main__":
    sys.exit(guarded(main))
