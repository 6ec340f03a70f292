"""Ctrl-C and SIGTERM: a command that is told to end does so in order, with one line and the status 130."""

import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds that cleaning up gets before a further signal interrupts it as well.
_PATIENCE = 30.0


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first signal. The message, where there is one, is what the user is told."""


def end_at_once() -> None:
    """From here on a signal ends the process: for the time in which a command's modules are imported.

    An exception would be raised inside one of them, which may swallow it or turn it into another.
    """
    _replace(signal.default_int_handler, _end)
    _replace(signal.SIG_DFL, _end)


def raise_interrupted() -> None:
    """From here on a signal raises Interrupted, where it ended the process: there may be something to clean up."""
    _replace(_end, _raise)


def ignore() -> None:
    """From here on signals do nothing: the command is over, and its status known."""
    if _raise in map(signal.getsignal, _SIGNALS):
        # torch's handler would raise an error at a loader's processes, which Python ends with this one.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _replace(_raise, signal.SIG_IGN)


@contextmanager
def children_spared() -> Iterator[None]:
    """Processes that are started in the block are not interrupted by Ctrl-C, which a terminal sends to them as well.

    They have to end with this process.
    """
    # Python starts this one with the first process of `multiprocessing`, and then lets the signal through again.
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def postponed() -> Iterator[None]:
    """A signal that arrives during the block takes effect after it: for cleaning up, which must not be left half done.

    One that arrives `_PATIENCE` seconds after an earlier one takes effect at once.
    """
    _state.postponed += 1
    try:
        yield
    finally:
        _state.postponed -= 1
        if _state.pending and not _state.postponed:
            _state.interrupt()


class _State:
    """The state of the signals received so far."""

    def __init__(self) -> None:
        self.postponed = 0
        self.pending = False
        self._since = 0.0
        self._raised: Callable[[], Interrupted | None] = lambda: None

    def signalled(self) -> None:
        """Raise Interrupted, unless it is on its way already or is to be postponed."""
        on_its_way = self.pending or self._raised() is not None
        if on_its_way and time.monotonic() - self._since < _PATIENCE:
            return
        if not on_its_way:
            self._since = time.monotonic()
            if self.postponed:
                self.pending = True
                return
        self.interrupt()

    def interrupt(self) -> None:
        self.pending = False
        error = Interrupted()
        # Alive while it is raised or handled; gone once somebody's `except` has swallowed it, and then another signal
        # has to raise it again.
        self._raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # which its own traceback would keep alive


_state = _State()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(STATUS)


def _raise(number: int, frame: FrameType | None) -> None:
    _state.signalled()


def _replace(old: object, new: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Change the handler of each signal that has the old one: what a parent process ignores (`nohup`) stays so."""
    for number in _SIGNALS:
        if signal.getsignal(number) == old:
            signal.signal(number, new)
