"""The progress of a job in plain lines: what a submitted job's log holds."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console

from ffsd_ray.job_progress import JobProgress
from ffsd_ray.progress_view.view import clock, measured
from ffsd_ray.records.trial import State
from ffsd_ray.series import HistoryRow

#: Seconds between two plain lines of one trial.
PLAIN_INTERVAL = 5.0


class PlainView:
    """A line for each trial's start and end, and for its epochs now and then."""

    def __init__(
        self, console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], progress: JobProgress
    ) -> None:
        self._console, self._labels, self._primary_series = console, labels, primary_series
        self._progress = progress
        self._epochs: dict[str, int] = {}
        self._shown: dict[str, float] = {}

    def phase(self, text: str) -> None:
        self._line(text)

    def started(self, identity: str, epochs: int, done: int) -> None:
        self._epochs[identity] = epochs
        self._progress.started(identity, epochs, done)
        where = f"goes on after epoch {done}" if done else "starts"
        self._line(f"{self._labels[identity]}: {where}")

    def epoch(self, identity: str, row: HistoryRow) -> None:
        now, epoch, epochs, series = time.monotonic(), int(row["epoch"]), self._epochs[identity], self._primary_series
        self._progress.epoch(identity, epoch, row.get(f"test/{series[identity]}/top1"))
        if epoch < epochs and now - self._shown.get(identity, -PLAIN_INTERVAL) < PLAIN_INTERVAL:
            return
        self._shown[identity] = now
        own, whole = self._progress.seconds_left(identity), self._progress.seconds_left()
        times = "" if own is None or whole is None else f"  {clock(own)} left, of the job {clock(whole)}"
        self._line(f"{self._labels[identity]}: epoch {epoch}/{epochs}  {measured(row, series[identity])}{times}")

    def ended(self, identity: str, state: State, message: str) -> None:
        self._progress.ended(identity, state)
        self._line(f"{self._labels[identity]}: {state}{': ' + message if message else ''}")

    def warned(self, message: str) -> None:
        self._line(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def _line(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        line = f"{stamp} [{self._progress.finished}/{self._progress.total}] {text}"
        line = line.replace("\n", "\n    ")  # what begins a line begins with a time
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
