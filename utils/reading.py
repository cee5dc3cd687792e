"""Reading files that anyone may have written: only regular files, and every error as one sentence that names the file.

The parsers of libraries raise dozens of kinds of exceptions for damaged files, many without the file's name.  Each
reader of this program therefore runs in ``reading``, and compares the counts in a file with its size before it
allocates memory or loops.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_REASON = 200
# Linux, macOS and Windows allow 255 bytes.
_LONGEST_NAME = 200
_KINDS = (
    (stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"),
    (stat.S_ISSOCK, "socket"),
)  # fmt: skip


@contextmanager
def reading(path: str | os.PathLike[str], expected: str) -> Iterator[None]:
    """Report any error of the body as one sentence: ``PATH: not EXPECTED (reason)``.

    A ``ValueError`` that begins with the file's name, or with that of a file in the folder ``path``, is passed on
    unchanged.

    Raises:
        ValueError: the body raised an exception.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not {expected} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """What went wrong, as part of one line of text."""
    if isinstance(error, MemoryError):
        return "its contents do not fit into memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding} text"
    if isinstance(error, KeyError):
        return f"no {error}"
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def require_file(path: str | os.PathLike[str], kind: str = "file") -> int:
    """The size of a regular file, bytes.  Opening a pipe or a device could wait forever.

    Args:
        kind: what the file holds, for the message.

    Raises:
        ValueError: no such file, or not a regular file.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such {kind}") from None
    except (OSError, ValueError) as error:  # a ValueError if the name contains a zero byte
        raise ValueError(f"{path}: not a readable {kind} ({reason(error)})") from None
    if not stat.S_ISREG(status.st_mode):
        found = next((word for test, word in _KINDS if test(status.st_mode)), "special file")
        raise ValueError(f"{path}: is a {found}, expected a {kind}")
    return status.st_size


def read_bytes(path: str | os.PathLike[str], kind: str = "file", limit: int | None = None) -> bytes:
    """The contents of a regular file of at most ``limit`` bytes.

    Raises:
        ValueError: missing, not a regular file, not readable, or larger.
    """
    size = require_file(path, kind)
    if limit is not None and size > limit:
        raise ValueError(f"{path}: {size} bytes, expected a {kind} of at most {limit}")
    with reading(path, f"a readable {kind}"):
        return Path(path).read_bytes()


def read_text(
    path: str | os.PathLike[str], kind: str = "file", limit: int | None = None, errors: str = "strict"
) -> str:
    """The text of a regular UTF-8 file of at most ``limit`` bytes; a byte-order mark is skipped.

    Args:
        errors: what to do with bytes that are not UTF-8, as in ``bytes.decode``.

    Raises:
        ValueError: see ``read_bytes``; or not UTF-8.
    """
    with reading(path, f"a readable {kind}"):
        return read_bytes(path, kind, limit).decode("utf-8-sig", errors)


def require_short(name: str) -> None:
    """Raise an error if a part of the path ``name``, with an ending added, is longer than file systems allow.

    Raises:
        ValueError: a part of more than 200 bytes.
    """
    longest = max((len(part.encode(errors="replace")) for part in name.split("/")), default=0)
    if longest > _LONGEST_NAME:
        raise ValueError(f"the name {name[:40]!r}... has a part of {longest} bytes, expected at most {_LONGEST_NAME}")


def inside(path: str | os.PathLike[str], root: Path, name: str, key: str) -> Path:
    """The file ``name`` that the metadata in ``path`` mention, which must lie in the folder ``root``.

    Links in the folder may lead anywhere: whoever made them could also have moved the files.

    Raises:
        ValueError: an absolute name or one with ``..`` that leaves the folder, or a name that no file can have.
    """
    with reading(path, f"a list of files by {key}"):
        require_short(name)
    folder = os.path.abspath(root)
    if os.path.commonpath([folder, os.path.abspath(os.path.join(folder, name))]) != folder:
        raise ValueError(f"{path}: {key} is {name!r}, expected a path inside {root}")
    return root / name
