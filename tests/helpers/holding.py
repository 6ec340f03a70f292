"""Holding a training in another process at a step, for as long as a test wants: no test guesses how long one takes."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

#: Holds a `sitecustomize.py`, which is part of every Python process that has this on its PYTHONPATH.
_FOLDER = Path(__file__).resolve().parent / "hold"


class Hold:
    """Trainings of one method, from an epoch on, wait after a step. Processes started meanwhile are affected too."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        """`patch`: sets this process's environment, which those that it starts inherit."""
        self._file = folder / "hold"
        self._reached = folder / "held"  # a file a process, by its number
        self._reached.mkdir()
        patch.setenv("PYTHONPATH", str(_FOLDER), prepend=":")
        patch.setenv("FFSD_RAY_TEST_HOLD", str(self._file))

    def at(self, method: str, epoch: int, *, slowly: bool = False, anew: bool = False) -> Callable[[], bool]:
        """Hold at the first step of `epoch` and of later ones; what is returned says whether a training is there.

        With `slowly` it goes on by a step in 0.1 s, and is held at the epoch's last. With `anew` only processes that
        start from now on count as there.
        """
        began = time.time() if anew else 0.0
        for mark in self._reached.iterdir():
            mark.unlink()
        written = self._file.with_suffix(".new")
        written.write_text(f"{method} {epoch} {'slowly' if slowly else 'still'}")
        written.replace(self._file)
        return lambda: any(_started(int(mark.name)) > began for mark in self._reached.iterdir())

    def release(self) -> None:
        self._file.unlink()


def _started(process: int) -> float:
    """When a process was started; 0 where it is gone."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).create_time()
    return 0.0
