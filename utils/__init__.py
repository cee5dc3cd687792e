"""Leaf maths and files: nothing here knows of spikes, cameras or Gaussians.

Imported before torch, as the commands do, it asks OpenMP's threads to sleep while they wait.  By default they
spin, and on a machine with anything else to do that made a training step up to five times slower.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
