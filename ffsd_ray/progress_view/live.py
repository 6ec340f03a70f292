"""The progress of a job on a terminal."""

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from ffsd_ray.job_progress import JobProgress
from ffsd_ray.progress_view.view import accuracy, clock, measured
from ffsd_ray.records.trial import State
from ffsd_ray.series import HistoryRow

#: Lines of a terminal that are kept for what is not a running trial.
_ABOVE = 6


class _TimeLeft(ProgressColumn):
    """The time until a task's `due`, a time of the monotonic clock; None where it is not known yet."""

    def render(self, task: Task) -> Text:
        due: float | None = task.fields["due"]
        return Text("" if due is None else f"{clock(max(0.0, due - time.monotonic()))} left", style="cyan")


class _Bars(Progress):
    """Bars below a line of text."""

    headline = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield Text(self.headline, overflow="ellipsis", no_wrap=True)
        yield self.make_tasks_table(self.tasks)


class LiveView:
    """A progress bar for the job and one for each running trial that there is room for; a line stays for each end."""

    def __init__(
        self, console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], progress: JobProgress
    ) -> None:
        self._labels, self._primary_series, self._progress = labels, primary_series, progress
        self._bars = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            _TimeLeft(),
            TextColumn("{task.fields[measured]}", markup=False),
            console=console,
        )
        self._began = time.monotonic()
        self._job = self._bars.add_task(
            "trials", total=progress.total, completed=progress.finished, measured="", due=None
        )
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, HistoryRow] = {}

    def phase(self, text: str) -> None:
        self._bars.headline = text

    def started(self, identity: str, epochs: int, done: int) -> None:
        self._progress.started(identity, epochs, done)
        if identity in self._tasks:  # begun again after its process failed
            self._bars.remove_task(self._tasks[identity])
        self._tasks[identity] = self._bars.add_task(
            self._labels[identity], total=epochs, completed=done, measured="starting", due=None
        )
        self._refresh()

    def epoch(self, identity: str, row: HistoryRow) -> None:
        self._last[identity] = row
        series, epoch = self._primary_series[identity], int(row["epoch"])
        self._progress.epoch(identity, epoch, row.get(f"test/{series}/top1"))
        self._bars.update(
            self._tasks[identity], completed=epoch, measured=accuracy(row, series), due=self._due(identity)
        )
        self._refresh()

    def ended(self, identity: str, state: State, message: str) -> None:
        self._progress.ended(identity, state)
        task = self._tasks.pop(identity, None)
        if task is not None:
            self._bars.remove_task(task)
        row = self._last.get(identity)
        detail = message or (measured(row, self._primary_series[identity]) if row else "")
        mark = "✓" if state == "completed" else "✗"
        self._tell_end(state, f"{mark} {self._labels[identity]}: {state}  {detail}")
        self._refresh()

    def _tell_end(self, state: State, line: str) -> None:
        self.warned(line)

    def warned(self, message: str) -> None:
        self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _room(self) -> int:
        """How many running trials there is room for."""
        return max(1, self._bars.console.height - _ABOVE)

    def _due(self, identity: str | None) -> float | None:
        left = self._progress.seconds_left(identity)
        return None if left is None else time.monotonic() + left

    def _refresh(self) -> None:
        """Say how the trials stand, and show as many of those that run as there is room for."""
        progress, room = self._progress, self._room()
        counts = {
            "running": progress.running,
            "waiting": progress.waiting,
            "failed": progress.failed,
            "not shown": max(0, len(self._tasks) - room),
        }
        told = [clock(time.monotonic() - self._began), *(f"{count} {what}" for what, count in counts.items() if count)]
        if progress.best is not None:
            told.append(f"best {progress.best[0]:.2f} % ({self._labels[progress.best[1]]})")
        self._bars.headline = ", ".join(told)
        self._bars.update(self._job, completed=progress.finished, due=self._due(None))
        for place, task in enumerate(self._tasks.values()):
            self._bars.update(task, visible=place < room)
