"""A run's headline accuracies over three settings or more: what parallel coordinates show."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffsd_ray.errors import RecordsError
from ffsd_ray.report.axis import Value, captions, check_keys, ordered, value_of
from ffsd_ray.report.ranking import best, ranked_by
from ffsd_ray.report.row import Cell
from ffsd_ray.report.table import Table
from ffsd_ray.spec.labels import has


@dataclass(frozen=True)
class Line:
    """A configuration: its value of each key, and its headline accuracy in percent."""

    values: tuple[Value, ...]
    cell: Cell


@dataclass(frozen=True)
class Parallel:
    """`values`: all that each key takes; numbers in ascending order, others as in the job."""

    title: str
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    lines: tuple[Line, ...]
    #: Of `lines`; None where the trials chose their epochs on different splits.
    best: Line | None
    headline: str


def parallel(table: Table, keys: Sequence[str]) -> Parallel:
    """Every completed configuration that has all `keys`; `table` of one epoch.

    Raises:
        JobError: trials have no such key.
        RecordsError: there are not two such configurations.
    """
    check_keys(keys)
    completed = [row for row in table.rows if row.seeds]
    rows = [row for row in completed if all(has(row.spec, key) for key in keys)]
    if len(rows) < 2:
        raise RecordsError(
            f"{table.title}: nothing to plot against {', '.join(keys)}: "
            f"{len(rows) or 'no'} completed configuration{'s' * (not rows)} with all of these keys"
        )
    lines = [Line(tuple(value_of(row.spec, key) for key in keys), row.cells[row.headline]) for row in rows]
    chosen = best(rows)
    said = ["lines through one value are spread by their accuracy, the better the higher"]
    if chosen is not None:
        said.append(f"thick: the best, {ranked_by(chosen)}: {chosen.configuration}")
    if len(rows) < len(completed):
        said.append(f"{len(completed) - len(rows)} of {len(completed)} configurations lack one of these keys")
    headline = " or ".join(dict.fromkeys(row.headline for row in rows))
    return Parallel(
        title=f"{table.title}: {headline} over {len(keys)} settings, {rows[0].epoch} epoch",
        captions=(*captions(table, rows), *said),
        keys=tuple(keys),
        values=tuple(map(ordered, zip(*(line.values for line in lines), strict=True))),
        lines=tuple(lines),
        best=next((line for line, row in zip(lines, rows, strict=True) if row is chosen), None),
        headline=headline,
    )
