"""The progress view of a job: live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ffsd_ray.records.trial import State
from ffsd_ray.series import HistoryRow

#: Seconds between two plain lines of one trial.
PLAIN_INTERVAL = 5.0


class View(Protocol):
    """Told of every trial's start, epochs and end, by identity, and of what a person should know beside."""

    def started(self, identity: str, epochs: int, done: int) -> None: ...

    def epoch(self, identity: str, row: HistoryRow) -> None: ...

    def ended(self, identity: str, state: State, message: str) -> None: ...

    def warned(self, message: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_view(
    console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], *, done: int, total: int
) -> View:
    """The view that suits the console.

    `primary_series`: the series whose test accuracy is shown, by the identity of the trials that are to run; `labels`:
    names by identity; of the `total` trials so many are `done`.
    """
    view = LiveView if console.is_terminal else PlainView
    return view(console, labels, primary_series, done, total)


class PlainView:
    """A line a trial's start and end, and its epochs now and then: what a submitted job's log holds."""

    def __init__(
        self, console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], done: int, total: int
    ) -> None:
        self._console, self._labels, self._primary_series = console, labels, primary_series
        self._finished, self._total = done, total
        self._epochs: dict[str, int] = {}
        self._shown: dict[str, float] = {}
        self._began: dict[str, tuple[float, int]] = {}

    def started(self, identity: str, epochs: int, done: int) -> None:
        self._epochs[identity] = epochs
        self._began[identity] = (time.monotonic(), done)
        where = f"goes on after epoch {done}" if done else "starts"
        self._line(f"{self._labels[identity]}: {where}")

    def epoch(self, identity: str, row: HistoryRow) -> None:
        now, epoch, epochs = time.monotonic(), int(row["epoch"]), self._epochs[identity]
        if epoch < epochs and now - self._shown.get(identity, -PLAIN_INTERVAL) < PLAIN_INTERVAL:
            return
        self._shown[identity] = now
        began, before = self._began[identity]
        left = (now - began) / max(epoch - before, 1) * (epochs - epoch)
        self._line(
            f"{self._labels[identity]}: epoch {epoch}/{epochs}  {measured(row, self._primary_series[identity])}  "
            f"{_clock(left)} left"
        )

    def ended(self, identity: str, state: State, message: str) -> None:
        self._finished += 1
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
        line = f"{stamp} [{self._finished}/{self._total}] {text}"
        line = line.replace("\n", "\n    ")  # what begins a line begins with a time
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A progress bar for the job and one for every running trial; a line stays for each that ended."""

    def __init__(
        self, console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], done: int, total: int
    ) -> None:
        self._labels, self._primary_series = labels, primary_series
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[measured]}", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        self._job = self._progress.add_task("trials", total=total, completed=done, measured="")
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, HistoryRow] = {}

    def started(self, identity: str, epochs: int, done: int) -> None:
        if identity in self._tasks:  # begun again after its process failed
            self._progress.remove_task(self._tasks[identity])
        self._tasks[identity] = self._progress.add_task(
            self._labels[identity], total=epochs, completed=done, measured="starting"
        )

    def epoch(self, identity: str, row: HistoryRow) -> None:
        self._last[identity] = row
        text = measured(row, self._primary_series[identity])
        self._progress.update(self._tasks[identity], completed=int(row["epoch"]), measured=text)

    def ended(self, identity: str, state: State, message: str) -> None:
        task = self._tasks.pop(identity, None)
        if task is not None:
            self._progress.remove_task(task)
        self._progress.advance(self._job)
        row = self._last.get(identity)
        detail = message or (measured(row, self._primary_series[identity]) if row else "")
        mark = "✓" if state == "completed" else "✗"
        self._progress.console.print(
            f"{mark} {self._labels[identity]}: {state}  {detail}", markup=False, highlight=False, soft_wrap=True
        )

    def warned(self, message: str) -> None:
        self._progress.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


def measured(row: HistoryRow, series: str) -> str:
    """The primary accuracy on the test images, where this epoch was evaluated, and the speed."""
    accuracy = row.get(f"test/{series}/top1")
    evaluated = "" if accuracy is None else f"{series} {accuracy:.2f} %  "
    return f"{evaluated}{row['images_per_second']:.0f} images/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
