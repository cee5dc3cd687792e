"""How every command ends: one sentence for errors that a user can fix, and an exit status that tells what happened."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from utils import INTERRUPTED
from utils.processes import FailedElsewhere
from utils.reading import reason
from utils.signals import Stopped, ending

# What a closed pipe or terminal answers.
_NO_READER = {errno.EPIPE, errno.EIO, errno.ENXIO}


def guarded(main: Callable[[], int | None]) -> int:
    """Run ``main``; report an error of its input, its files or its memory as one sentence on stderr.

    Readers name the file in their errors (``utils.reading``).

    Returns:
        The exit status: that of ``main`` (0 for None), 1 after an error, 128 plus the number of a signal that
        stopped it (130 after Ctrl-C).
    """
    with ending(), _lasting_streams() as streams:
        status = _outcome(main)
        failed = [stream.failure for stream in streams if stream.failure is not None]
        if failed:
            sys.stderr.write(f"error: standard output could not be written ({failed[0].strerror})\n")
        return status or (1 if failed else 0)


def _outcome(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        return 130
    except Stopped as stopped:
        sys.stderr.write(f"\nstopped by {stopped}\n")
        return 128 + stopped.number
    except FailedElsewhere:
        pass  # the process that failed says why
    except UnicodeError as error:
        sys.stderr.write(f"error: {reason(error)}\n")
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
    except MemoryError as error:
        sys.stderr.write(f"error: {str(error) or 'out of memory'}\n")  # native code says of what
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {name}{error.strerror or error}\n")
    except (OverflowError, RecursionError) as error:
        sys.stderr.write(f"error: a value is too large for this program ({reason(error)})\n")
    return 1


class _Lasting:
    """A text stream that outlives its reader: what nobody can read is dropped, and the program goes on.

    Attributes:
        failure: an error other than a missing reader, such as a full disk.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, if anything can still be written."""
        return self._attempt(self._stream.write, text)

    def flush(self) -> None:
        """Flush, if anything can still be written."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return act(*args)
        except OSError as error:
            if error.errno not in _NO_READER:
                self.failure = error
            # From now on, and at the interpreter's exit, writes go nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _lasting_streams() -> Iterator[list[_Lasting]]:
    """Replace the standard streams by ones that neither a lost reader nor a character of a file name can break."""
    before, lasting = (sys.stdout, sys.stderr), []
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for stream in before:
            # On an ASCII terminal, other characters are written as escapes.
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
            lasting.append(_Lasting(stream or nowhere))  # None: it was closed before the program started
        sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in lasting)
        try:
            yield lasting
            for stream in lasting:
                stream.flush()
        finally:
            sys.stdout, sys.stderr = before
