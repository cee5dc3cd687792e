"""Locks held by the operating system: they vanish with the process that holds them, however it ends.

Windows and some network file systems have no such locks.  There nothing is refused and nothing is cleaned up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
# What a file system without locks answers.
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


def lock_handle(handle: int) -> bool:
    """Lock an open file or folder until it is closed everywhere; returns False if there are no locks here.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


class FolderLock:
    """Reserves a folder for one program: ``with FolderLock("output/demo", "train.py"): ...``.

    The lock is a file in the folder, which tells others who holds it.  Children that inherit ``handle`` hold the lock
    too, and keep it if this process is killed.

    Args:
        folder: created if it is missing.
        program: its name in the error message.
        name: name of the lock's file; programs that may share a folder use different ones.
        patience: seconds to wait for another holder.

    Raises:
        ValueError: another process holds the lock (names its host and process number), no file can be written, or
            ``folder`` is a file.
    """

    def __init__(self, folder: str | os.PathLike[str], program: str, name: str = LOCK, patience: float = 0.0):
        self.folder, self.program = Path(folder), program
        self._path, self._patience = self.folder / name, patience
        self.handle = -1
        self._made = not self.folder.exists()

    def acquire(self) -> FolderLock:
        """Take the lock."""
        give_up = time.monotonic() + self._patience
        try:
            while self.handle < 0:
                try:
                    self.handle = self._opened()
                except BlockingIOError:
                    if time.monotonic() >= give_up:
                        raise
                    time.sleep(0.2)
        except BlockingIOError:
            raise ValueError(
                f"{self.folder}: is in use by {self._holder()}; wait until it ends, stop it, or give another folder"
            ) from None
        except FileExistsError:
            raise ValueError(f"{self.folder}: is a file, expected a folder") from None
        except OSError as error:
            raise ValueError(f"{self._path}: could not be written ({error.strerror or error})") from None
        return self

    def _opened(self) -> int:
        """The locked file, or -1 if its last holder has just removed it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # the folder, too
            return -1
        try:
            lock_handle(handle)
            if not os.fstat(handle).st_nlink:
                os.close(handle)
                return -1
            os.ftruncate(handle, 0)
            os.write(handle, f"{self.program}, process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _holder(self) -> str:
        try:
            first = self._path.read_text(encoding="utf-8", errors="replace")[:200].partition("\n")[0]
        except OSError:
            first = ""
        return first if first.isprintable() and first else "another process"

    def release(self) -> None:
        """Give the lock back; a folder that was made for it and is still empty is removed."""
        if self.handle < 0:
            return
        with contextlib.suppress(FileNotFoundError):  # the folder may have been moved
            if os.path.samestat(os.fstat(self.handle), os.stat(self._path)):
                self._path.unlink()
        os.close(self.handle)
        self.handle = -1
        if self._made:
            with contextlib.suppress(OSError):  # not empty
                self.folder.rmdir()

    def __enter__(self) -> FolderLock:
        return self if self.handle >= 0 else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
