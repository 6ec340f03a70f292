"""A lock on a run: two drivers would train the same trials into the same files."""

import itertools
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from ffsd_ray.errors import DamagedRecords, RecordsError, StorageError
from ffsd_ray.interruption import postponed
from ffsd_ray.records.store import Store

#: Where a process that drives a run says so.
FILE = "driver.json"
#: On a disk: held while that file is looked at and written, so that of several processes one at a time does.
LOCK = ".driver.lock"
#: Seconds between two signs of life, and for which a process is watched for one.
BEAT, WATCH = 15.0, 40.0
#: Seconds after which a process looks whether its sign still stands, where the storage has no locks: other processes
#: that saw no sign either have written theirs by then.
SETTLE = 2.0


class _SignOfLife(BaseModel):
    """A process's sign of life."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    host: str
    #: Tells machines, and containers on one, apart: within one, numbers of processes mean the same.
    machine: str
    process: int
    #: When the process started: numbers are used again.
    started: str
    #: Of this attempt to drive.
    token: str
    beat: int

    @classmethod
    def of_this_process(cls, token: str, beat: int) -> Self:
        process = os.getpid()
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            process=process,
            started=_started(process),
            token=token,
            beat=beat,
        )

    @property
    def who(self) -> str:
        return f"process {self.process} on {self.host}"

    def is_alive(self) -> bool:
        """Whether the other process is certainly alive; False for this very process."""
        on_this_machine = self.machine == _machine() and self.process != os.getpid()
        return on_this_machine and _started(self.process) == self.started != ""

    def is_gone(self) -> bool:
        """Whether the process is certainly gone."""
        if self.machine != _machine():
            return False
        with suppress(PermissionError, OverflowError):
            try:
                os.kill(self.process, 0)
            except ProcessLookupError:
                return True
        return _started(self.process) not in ("", self.started)


@contextmanager
def sole_driver(run: Store, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on the run for the block.

    A process that was killed leaves its last sign behind. Of one of this machine it is known whether it lives; one of
    another is watched for `WATCH` seconds, which `say` is told. On a disk no two processes get in. An object store has
    no locks: of processes that start within `SETTLE` seconds the last to write gets in; one that is slower still is met
    at the other's next sign of life, which ends that other.

    Raises:
        RecordsError: another process drives it, or has begun to.
    """
    token = uuid.uuid4().hex
    _enter(run, token, say)
    over, lost = threading.Event(), threading.Event()

    def beat() -> None:
        for count in itertools.count(1):
            if over.wait(BEAT):
                return
            with suppress(StorageError):  # others have more to say of storage that is away
                if not _renew(run, token, count):
                    lost.set()
                    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # in a script's background
                    os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                    return

    thread = threading.Thread(target=beat, name="driver", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise _refusal(run, _last_sign(run)) from None
        raise
    finally:
        with postponed():
            over.set()
            thread.join(BEAT)  # a write to storage that is away takes longer
            with suppress(StorageError), run.locked(LOCK):
                if (last := _last_sign(run)) is not None and last.token == token:
                    run.delete(FILE)


class DriverObserver:
    """Tells a process that only reads a run how long ago the one that drives it showed a sign of life.

    By this process's own clock from its first look on: clocks of machines differ.
    """

    def __init__(self, run: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._last: _SignOfLife | None = None
        self._seen = 0.0

    def silence(self) -> float | None:
        """Seconds since the last sign of life; None where no process drives the run, or its end is certain."""
        sign, now = _last_sign(self._run), self._clock()
        if sign is None or sign.is_gone():
            return None
        if sign != self._last or sign.is_alive():
            self._last, self._seen = sign, now
        return now - self._seen

    @property
    def who(self) -> str:
        """The process that the last sign is of."""
        return self._last.who if self._last is not None else "no process"


def _enter(run: Store, token: str, say: Callable[[str], None]) -> None:
    """Put this process's sign in place of none, or of one whose process is gone. Raises RecordsError."""
    gone: _SignOfLife | None = None
    while True:
        with run.locked(LOCK) as exclusive:
            last = _last_sign(run)
            if last is None or last == gone or last.is_gone():
                _write(run, _SignOfLife.of_this_process(token, 0))
                break
        if last.is_alive():
            raise _refusal(run, last)
        say(f"The last to work on this run was {last.who}, and did not say that it ended: watching it: {WATCH:.0f} s.")
        if _shows_life(run, last):
            raise _refusal(run, last)
        gone = last
    if not exclusive:
        time.sleep(SETTLE)
        if (last := _last_sign(run)) is None or last.token != token:
            raise _refusal(run, last)


def _renew(run: Store, token: str, count: int) -> bool:
    """Write the next sign of life; False where another process has put its own there."""
    with run.locked(LOCK):
        last = _last_sign(run)
        if last is not None and last.token != token:
            return False
        _write(run, _SignOfLife.of_this_process(token, count))
    return True


def _write(run: Store, sign: _SignOfLife) -> None:
    run.write_json(FILE, sign.model_dump())


def _refusal(run: Store, sign: _SignOfLife | None) -> RecordsError:
    who = sign.who if sign is not None else "another process"
    return RecordsError(
        f"{run.location}: {who} is at work on this run. Wait for its end, or end it, and go on then: --resume"
    )


def _last_sign(run: Store) -> _SignOfLife | None:
    if not run.exists(FILE):
        return None
    with suppress(DamagedRecords):  # also where it has just gone
        return run.parsed(FILE, _SignOfLife.model_validate_json, "JSON")
    return None


def _shows_life(run: Store, sign: _SignOfLife) -> bool:
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(1)
        latest = _last_sign(run)
        if latest != sign:
            return latest is not None
    return False


def _machine() -> str:
    """This boot of this machine, and the container's own numbering of processes in it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _started(process: int) -> str:
    """When a process started, in ticks since the boot; nothing where that is not to be known."""
    with suppress(OSError):
        # The name, in brackets, may hold anything.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
