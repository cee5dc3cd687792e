"""Math and file utilities: nothing here depends on spikes, cameras or Gaussians.

If imported before torch, as in the commands, it makes waiting OpenMP threads sleep.  By default they spin, which
made a training step up to five times slower on a busy machine.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
