"""What a run's configurations reach and what they cost, a line each: python -m ffsd_ray.report.methods RUN."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ffsd_ray.command import command
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial, collect
from ffsd_ray.report.cost import Cost, cost_of
from ffsd_ray.report.row import Cell, Row
from ffsd_ray.report.sheet import Section, Sheet, marks
from ffsd_ray.report.show import show_of_run
from ffsd_ray.report.table import table_of

_HEAD = ("Configuration", "n", "Accuracy", "Gain", "Images/s", "Time ×", "Work ×", "Peak (MiB)", "Trained", "Deployed")
_WORDS = ("Accuracy of", "Deploys")


@dataclass(frozen=True)
class Line:
    """One configuration, after its last epoch."""

    cost: Cost
    #: The member that is deployed; '' where no trial has completed.
    deploys: str
    #: None where no trial has completed.
    images_per_second: Cell | None
    #: Bytes, the most of any trial; None on CPUs.
    peak: int | None
    #: Seconds and operations an image, relative to the baseline of the same backbone; None without one.
    time: float | None
    work: float | None


@dataclass(frozen=True)
class MethodsTable:
    """A run's configurations; `captions` as in the table of its results."""

    title: str
    captions: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def sheet(self) -> Sheet:
        """A line a configuration; what is missing as a mark."""
        captions = (
            *self.captions,
            "Images/s: in the last epoch's training; Time ×, Work ×: seconds, and operations of the forward pass, for "
            "an image, relative to the baseline with the same backbone; Peak: memory allocated on a GPU; Trained, "
            "Deployed: parameters",
        )
        rows = tuple(tuple(_texts(line)) for line in self.lines)
        return Sheet(self.title, captions, (*_HEAD, *_WORDS), (Section("Last epoch", rows),), self.notes)

    def records(self) -> list[list[str]]:
        """A line a configuration; mean and std in columns of their own."""
        head = ["configuration", "n", "accuracy", "accuracy std", "gain", "gain std", "images/s", "images/s std"]
        head += ["time", "work", "peak bytes", "parameters trained", "parameters deployed", "accuracy of", "deploys"]
        return [head, *(_record(line) for line in self.lines)]


def methods_table(run: RunRecords) -> MethodsTable:
    """One line for each configuration, from what the records hold so far.

    Raises:
        RecordsError: the records are of another version.
    """
    trials = collect(run)
    table = table_of(run.job(), trials, ["last"])
    found = [(cost_of(run, row), _results(trials, row)) for row in table.rows]
    speeds = [Cell.of(_speed(result) for result in results) if results else None for _, results in found]
    alone = {
        cost.row.spec.backbone.name: (cost.macs, speed)
        for (cost, _), speed in zip(found, speeds, strict=True)
        if isinstance(cost.row.spec.method, BaselineSettings)
    }
    lines = []
    for (cost, results), speed in zip(found, speeds, strict=True):
        macs, fastest = alone.get(cost.row.spec.backbone.name, (None, None))
        lines.append(
            Line(
                cost,
                " / ".join(dict.fromkeys(result["deployed"] for result in results)),
                speed,
                max((result.get("peak_memory") or 0 for result in results), default=0) or None,
                fastest.mean / speed.mean if fastest and speed else None,
                cost.macs / macs if cost.macs and macs else None,
            )
        )
    return MethodsTable(table.title, table.captions, tuple(lines), table.notes)


def _results(trials: Sequence[Trial], row: Row) -> list[dict[str, Any]]:
    """Of the row's completed trials."""
    own = row.spec.identity()
    return [trial.result for trial in trials if trial.result and trial.spec.configuration().identity() == own]


def _speed(result: dict[str, Any]) -> float:
    speed: float = result["last"]["images_per_second"]
    return speed


def _texts(line: Line) -> list[str]:
    row, speed, sizes = line.cost.row, line.images_per_second, line.cost.parameters
    return [
        f"{row.configuration} {marks(row.notes.get('configuration', ()))}".strip(),
        f"{len(row.seeds)} {marks(row.notes.get('n', ()))}".strip(),
        row.accuracy.text() if row.accuracy else "",
        f"{row.cells['Gain'].text() if 'Gain' in row.cells else ''} {marks(row.notes.get('Gain', ()))}".strip(),
        speed.text(0) if speed else "",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in (line.time, line.work)),
        "" if line.peak is None else f"{line.peak / 2**20:,.0f}",
        *(f"{sizes[key]:,}" if sizes else "" for key in ("trained", "deployed")),
        row.headline,
        line.deploys,
    ]


def _record(line: Line) -> list[str]:
    row, sizes = line.cost.row, line.cost.parameters
    cells = (row.accuracy, row.cells.get("Gain"), line.images_per_second)
    values = [value for cell in cells for value in (cell or (None, None))]
    return [
        row.configuration,
        str(len(row.seeds)),
        *("" if value is None else f"{value:.2f}" for value in (*values, line.time, line.work)),
        "" if line.peak is None else str(line.peak),
        *(str(sizes[key]) if sizes else "" for key in ("trained", "deployed")),
        row.headline,
        line.deploys,
    ]


@command
def main(argv: Sequence[str] | None = None) -> int:
    return show_of_run(
        argv,
        "python -m ffsd_ray.report.methods",
        "Print what each configuration of a run reaches, what it deploys and what it costs, a line each.",
        methods_table,
    )


if __name__ == "__main__":
    sys.exit(main())
