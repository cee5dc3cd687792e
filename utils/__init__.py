"""Math and file utilities: nothing here depends on spikes, cameras or Gaussians.

If imported before torch, as in the commands, it makes waiting OpenMP threads sleep.  By default they spin, which
made a training step up to five times slower on a busy machine.  It also limits the numbers of threads that libraries
take from the environment: some start as many as they are told, which ends a machine at ``OMP_NUM_THREADS=40000``.
Freed memory is kept for the next arrays (``utils.memory``).  Ctrl-C in the seconds in which libraries are imported ends
a command without a traceback; later ``commands.guard`` sees to that.
"""

import os
import sys
from types import TracebackType

from utils.memory import keep_freed

# What a command says that Ctrl-C has ended.
INTERRUPTED = "\ninterrupted\n"
_MOST_THREADS = 4 * (os.cpu_count() or 1)


def _limit_threads() -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        given = os.environ.get(name, "")
        if given.isdecimal() and (len(given) > 9 or int(given) > _MOST_THREADS):
            os.environ[name] = str(_MOST_THREADS)


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(INTERRUPTED)
    else:
        sys.__excepthook__(kind, error, trace)


os.environ.setdefault("OMP_WAIT_POLICY", "passive")
_limit_threads()
keep_freed()
if sys.excepthook is sys.__excepthook__:  # another one, as of a notebook, has its own way
    sys.excepthook = _told
