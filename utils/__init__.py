"""Math and file utilities: nothing here depends on spikes, cameras or Gaussians.

If imported before torch, as in the commands, it makes waiting OpenMP threads sleep.  By default they spin, which
made a training step up to five times slower on a busy machine.  It also limits the numbers of threads that libraries
take from the environment: some start as many as they are told, which ends a machine at ``OMP_NUM_THREADS=40000``.
Freed memory is kept for the next arrays: glibc returns large ones to the system at once, and a step on photographs
spent two fifths of its time on getting them back as cleared pages.
"""

import ctypes
import os
import sys

_MOST_THREADS = 4 * (os.cpu_count() or 1)
# Parameters of glibc's mallopt (its malloc.h).  Larger arrays are still mapped alone, and returned when freed.  Before
# glibc 2.35 the limit is at most 32 MB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _MAPPED_ALONE = 1 << 30, (1 << 28, 1 << 25)


def _limit_threads() -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        given = os.environ.get(name, "")
        if given.isdecimal() and (len(given) > 9 or int(given) > _MOST_THREADS):
            os.environ[name] = str(_MOST_THREADS)


def _keep_freed_memory() -> None:
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    # The limit comes first: by setting the other one alone, it would stay at its initial 128 kB.
    if mallopt is not None and any(mallopt(_MMAP_THRESHOLD, size) for size in _MAPPED_ALONE):
        mallopt(_TRIM_THRESHOLD, _KEPT)


os.environ.setdefault("OMP_WAIT_POLICY", "passive")
_limit_threads()
_keep_freed_memory()
