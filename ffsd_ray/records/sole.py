"""One process at a time drives a run: two would train the same trials into the same files."""

import itertools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self

from ffsd_ray.errors import DamagedRecords, RecordsError, StorageError
from ffsd_ray.records.store import Store

#: Where a process that drives a run says so.
FILE = "driver.json"
#: Seconds between two signs of life, and for which a process is watched for one.
BEAT, WATCH = 15.0, 40.0


class _Sign(NamedTuple):
    """What the file says: whose sign of life it is, and one that no other equals."""

    host: str
    process: int
    beat: str

    @classmethod
    def parse(cls, content: bytes) -> Self:
        found: dict[str, Any] = json.loads(content)
        return cls(str(found["host"]), int(found["process"]), str(found["beat"]))


@contextmanager
def sole_driver(run: Store, say: Callable[[str], None]) -> Iterator[None]:
    """For the time of the block this process drives the run.

    A process that was killed leaves its last sign behind. One of this machine is known to be gone; one of another is
    watched for `WATCH` seconds, which `say` is told.

    Raises:
        RecordsError: another process drives it.
    """
    before = _last_sign(run)
    if before is not None and not _is_gone(before):
        who = f"process {before.process} on {before.host}"
        say(f"The last to work on this run was {who}, and did not say that it ended: watching it for {WATCH:.0f} s.")
        if _lives_on(run, before):
            raise RecordsError(
                f"{run.location}: {who} is at work on this run. Wait for its end, or end it, and go on then: --resume"
            )
    over, own = threading.Event(), uuid.uuid4().hex

    def beat() -> None:
        for count in itertools.count():
            with suppress(StorageError):  # others have more to say of storage that is away
                run.write_json(FILE, _Sign(socket.gethostname(), os.getpid(), f"{own} {count}")._asdict())
            if over.wait(BEAT):
                return

    thread = threading.Thread(target=beat, name="driver", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(BEAT)  # a write to storage that is away takes longer
        with suppress(StorageError):
            run.delete(FILE)


def _last_sign(run: Store) -> _Sign | None:
    if not run.exists(FILE):
        return None
    with suppress(DamagedRecords):  # also where it has just gone
        return run.parsed(FILE, _Sign.parse, "JSON")
    return None


def _is_gone(sign: _Sign) -> bool:
    """Whether it is certain that the process is not there any more."""
    if sign.host != socket.gethostname():
        return False
    try:
        os.kill(sign.process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _lives_on(run: Store, sign: _Sign) -> bool:
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(1)
        found = _last_sign(run)
        if found != sign:
            return found is not None
    return False
