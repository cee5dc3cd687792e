"""Signals that ask a program to stop: Ctrl-C, SIGTERM (schedulers, containers) and SIGHUP (a closed terminal)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(BaseException):
    """The program was asked to stop.  Not an ``Exception``, so that no handler of errors catches it.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Whether training should stop.

    Attributes:
        event: set once it should.
        number: the signal that asked for it, or None.
    """

    def __init__(self) -> None:
        self.event = Event()
        self.number: int | None = None

    @property
    def status(self) -> int:
        """The exit status of a run that was stopped: 128 plus the signal; 130 without one, as after Ctrl-C."""
        return 128 + int(self.number or signal.SIGINT)

    @property
    def reason(self) -> str:
        """Who asked, for messages."""
        return "" if self.number is None else f" by {signal.Signals(self.number).name}"

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: the first one stops training after its step; nothing interrupts the saving that follows."""
        del frame
        if self.number is None:
            self.number = number
            self.event.set()
            return
        try:
            os.write(2, b"\nstopping: the state is being saved, please wait\n")
        except OSError:  # the terminal is gone
            pass


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], numbers: tuple[int, ...] = STOPPING) -> Iterator[None]:
    """Handle signals with ``handler`` in the ``with`` block; a SIGHUP that ``nohup`` blocks stays blocked."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
                continue
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def ending() -> Iterator[None]:
    """Make the first SIGTERM or SIGHUP raise ``Stopped``, so that the program can clean up; later ones are ignored."""
    request = StopRequest()

    def stop(number: int, frame: FrameType | None) -> None:
        if request.number is None:
            request.receive(number, frame)
            raise Stopped(number)

    with handled(stop, tuple(number for number in STOPPING if number != signal.SIGINT)):
        yield


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore further signals to stop in the ``with`` block, which finishes what the first one asked for."""
    with handled(lambda *_: None):
        yield


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore, after the ``with`` block, the handlers that a library replaces behind Python's back when imported."""
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                handler = signal.getsignal(number)  # as Python still believes
                if handler is not None:
                    signal.signal(number, handler)
