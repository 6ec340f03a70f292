"""Temporary folders that do not stay behind: a killed process's are cleared by the next one that makes some."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ffsd_ray.interruption import postponed

#: What the names of all these folders begin with.
_PREFIX = "ffsd_ray-"
_TRIES = 10


@contextlib.contextmanager
def scratch_folder(parent: str, name: str = "") -> Iterator[str]:
    """A new folder in `parent` for the time of the block, with `name` in its own; its path."""
    clear_abandoned(parent)
    with contextlib.ExitStack() as at_the_end:
        with postponed():
            folder, lock = _new_folder(parent, name)
            at_the_end.callback(_remove, folder, lock)
        yield folder


def clear_abandoned(parent: str) -> None:
    """Delete those of this user's folders in `parent` whose processes are gone."""
    for folder in Path(parent).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, a file or a link, or locked by a process that lives
            lock = _locked(str(folder))
            _remove(str(folder), lock)


def _new_folder(parent: str, name: str) -> tuple[str, int]:
    while True:
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{name}", dir=parent)
        with contextlib.suppress(OSError):  # another process takes it for an abandoned one, and deletes it
            lock = _locked(folder)
            if os.path.exists(folder):
                return folder, lock
            os.close(lock)


def _locked(folder: str) -> int:
    """An open descriptor of a folder of this user, which is locked until it is closed or the process ends.

    Raises:
        OSError: it is locked, is another user's or is no folder.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid != os.getuid():
            raise PermissionError(folder)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _remove(folder: str, lock: int) -> None:
    with postponed():
        for _ in range(_TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.2)  # a process that is ending still writes there
        os.close(lock)
