"""Reports errors that a user can fix: one sentence, a non-zero exit status, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


def guarded(main: Callable[[], int | None]) -> int:
    """Run ``main``; report a ``ValueError`` or a failed file operation as one sentence on stderr.

    Returns:
        The exit status: that of ``main`` (0 for None), 1 after an error, 130 after Ctrl-C.
    """
    try:
        return main() or 0
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {name}{error.strerror or error}\n")
    return 1
