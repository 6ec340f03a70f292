"""The progress view of a job: live on a terminal and in a notebook, plain lines elsewhere."""

import io
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

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
from ffsd_ray.records.trial import State
from ffsd_ray.series import HistoryRow
from ffsd_ray.terminal import Screen

#: Seconds between two plain lines of one trial.
PLAIN_INTERVAL = 5.0

#: Lines of a terminal that are kept for what is not a running trial.
_ABOVE = 6

#: Of a notebook's output: columns, running and completed trials that are shown, and seconds until it is rewritten.
_COLUMNS, _SHOWN, _KEPT, _INTERVAL = 110, 20, 10, 1.0


class View(Protocol):
    """Told of every trial's start, epochs and end, by identity, and of what a person should know beside."""

    def phase(self, text: str) -> None:
        """What is being done before any trial begins."""

    def started(self, identity: str, epochs: int, done: int) -> None: ...

    def epoch(self, identity: str, row: HistoryRow) -> None: ...

    def ended(self, identity: str, state: State, message: str) -> None: ...

    def warned(self, message: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_view(
    console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], progress: JobProgress
) -> View:
    """The view that suits the console.

    `primary_series`: the series whose test accuracy is shown, by the identity of the trials that are to run; `labels`:
    names by identity; `progress`: the job's, which the view keeps.
    """
    kind = NotebookView if console.is_jupyter else LiveView if console.is_terminal else PlainView
    return kind(console, labels, primary_series, progress)


class PlainView:
    """A line a trial's start and end, and its epochs now and then: what a submitted job's log holds."""

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
            self._tasks[identity], completed=epoch, measured=_accuracy(row, series), due=self._due(identity)
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


class NotebookView(LiveView):
    """The live view as one output below a notebook's cell, which is rewritten: rich's own would need ipywidgets.

    The last trials that have completed are named in it; failures and warnings are outputs of their own, and stay.
    """

    def __init__(
        self, console: Console, labels: Mapping[str, str], primary_series: Mapping[str, str], progress: JobProgress
    ) -> None:
        super().__init__(console, labels, primary_series, progress)
        self._completed: list[str] = []
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._keep_showing, daemon=True)

    def __enter__(self) -> Self:
        from IPython.display import display  # of the notebook that this runs in

        self._output = display(self._html(), display_id=True)
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._clock.join()
        self._output.update(self._html())

    def _keep_showing(self) -> None:
        while not self._over.wait(_INTERVAL):
            self._output.update(self._html())

    def _html(self) -> Any:
        from IPython.display import HTML

        page = Screen(io.StringIO(), record=True, force_jupyter=False, width=_COLUMNS)
        for line in self._completed[-_KEPT:]:
            page.print(line, markup=False, highlight=False, overflow="ellipsis", no_wrap=True)
        page.print(self._bars.get_renderable())
        return HTML(page.export_html(inline_styles=True, code_format="<pre>{code}</pre>"))

    def _tell_end(self, state: State, line: str) -> None:
        if state == "completed":
            self._completed.append(line)
        else:
            self.warned(line)

    def _room(self) -> int:
        return _SHOWN


def measured(row: HistoryRow, series: str) -> str:
    """The primary accuracy on the test images, where this epoch was evaluated, and the speed."""
    return f"{_accuracy(row, series)}  {row['images_per_second']:.0f} images/s".lstrip()


def _accuracy(row: HistoryRow, series: str) -> str:
    accuracy = row.get(f"test/{series}/top1")
    return "" if accuracy is None else f"{series} {accuracy:.2f} %"


def clock(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
