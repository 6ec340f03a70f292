"""What a view of a job's progress is told, and the words in which every view tells it."""

from types import TracebackType
from typing import Protocol, Self

from ffsd_ray.records.trial import State
from ffsd_ray.series import HistoryRow


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


def measured(row: HistoryRow, series: str) -> str:
    """The primary accuracy on the test images, where this epoch was evaluated, and the speed."""
    return f"{accuracy(row, series)}  {row['images_per_second']:.0f} images/s".lstrip()


def accuracy(row: HistoryRow, series: str) -> str:
    """A series and its accuracy on the test images; nothing where this epoch was not evaluated."""
    top1 = row.get(f"test/{series}/top1")
    return "" if top1 is None else f"{series} {top1:.2f} %"


def clock(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
