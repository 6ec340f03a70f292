"""A run's accuracies against one of its settings: what a line plot shows."""

from dataclasses import dataclass

from ffsd_ray.report.axis import Group, Value, captions, groups, ordered
from ffsd_ray.report.row import Cell
from ffsd_ray.report.table import Table

#: The columns of a run's table that are drawn.
SERIES = ("Ens (any)", "Ens (logits)", "Fusion", "Leader", "Student", "Mean of common", "Baseline")


@dataclass(frozen=True)
class Panel:
    """The curves of configurations that differ in the key alone."""

    #: What tells this panel from the others; '' for an only one.
    name: str
    #: Accuracy in percent at each value, by column of the run's table.
    curves: dict[str, dict[Value, Cell]]
    #: The accuracy of the network trained alone, where it is the same at every value; else it is a curve.
    baseline: Cell | None


@dataclass(frozen=True)
class Curves:
    """`values`: all that the key takes; numbers in ascending order, others as in the job."""

    title: str
    captions: tuple[str, ...]
    key: str
    values: tuple[Value, ...]
    panels: tuple[Panel, ...]


def curves(table: Table, key: str) -> Curves:
    """Mean and standard deviation over seeds of the accuracies at each value of `key` (dotted); `table` of one epoch.

    Raises:
        JobError: trials have no such key.
        RecordsError: no completed trials differ in it alone.
    """
    found = groups(table, [key])
    rows = [row for group in found for row in group.rows.values()]
    return Curves(
        title=f"{table.title}: accuracy against {key}, {rows[0].epoch} epoch",
        captions=captions(table, rows),
        key=key,
        values=ordered([value for group in found for (value,) in group.rows]),
        panels=tuple(map(_panel, found)),
    )


def _panel(group: Group) -> Panel:
    drawn = {
        column: {value: row.cells[column] for (value,), row in group.rows.items() if column in row.cells}
        for column in SERIES
    }
    baselines = drawn["Baseline"]
    baseline = None
    if not group.is_baseline and len(set(baselines.values())) == 1:
        (baseline,) = set(drawn.pop("Baseline").values())
    return Panel(group.name, {column: curve for column, curve in drawn.items() if curve}, baseline)
