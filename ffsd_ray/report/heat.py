"""A run's headline accuracies over two of its settings: what a heat map shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffsd_ray.report.axis import Group, Value, captions, groups, ordered
from ffsd_ray.report.ranking import best, ranked_by
from ffsd_ray.report.row import Cell
from ffsd_ray.report.table import Table


@dataclass(frozen=True)
class Panel:
    """Configurations that differ in the two keys alone."""

    #: What tells this panel from the others; '' for an only one.
    name: str
    #: Headline accuracy in percent by the values of the two keys; a combination without a completed trial is absent.
    cells: dict[tuple[Value, ...], Cell]
    #: The place of the best; None where the panel's trials chose their epochs on different splits.
    best: tuple[Value, ...] | None
    #: The accuracy of the network trained alone, where it is the same everywhere.
    baseline: Cell | None


@dataclass(frozen=True)
class HeatMap:
    """`values`: all that each key takes; numbers in ascending order, others as in the job."""

    title: str
    captions: tuple[str, ...]
    keys: tuple[str, str]
    values: tuple[tuple[Value, ...], tuple[Value, ...]]
    panels: tuple[Panel, ...]
    #: What is drawn: the column, or columns, that stand for the methods.
    headline: str

    @property
    def is_grid(self) -> bool:
        """Whether some panel has more than a cross of one-at-a-time sweeps."""
        cross = len(self.values[0]) + len(self.values[1]) - 1
        return any(len(panel.cells) > cross for panel in self.panels)


def heat_map(table: Table, keys: Sequence[str]) -> HeatMap:
    """Mean and standard deviation over seeds of the headline accuracy at each pair of values; `table` of one epoch.

    Raises:
        JobError: trials have no such key.
        RecordsError: no completed trials differ in both alone.
    """
    across, down = keys
    found = groups(table, keys)
    rows = [row for group in found for row in group.rows.values()]
    first, second = zip(*(place for group in found for place in group.rows), strict=True)
    headline = " or ".join(dict.fromkeys(row.headline for row in rows))
    panels = tuple(map(_panel, found))
    framed = f"framed: {'the' if len(panels) == 1 else 'each panel’s'} best, {ranked_by(rows[0])}"
    said = (framed,) if any(panel.best for panel in panels) else ()
    return HeatMap(
        title=f"{table.title}: {headline} over {across} and {down}, {rows[0].epoch} epoch",
        captions=(*captions(table, rows), *said),
        keys=(across, down),
        values=(ordered(first), ordered(second)),
        panels=panels,
        headline=headline,
    )


def _panel(group: Group) -> Panel:
    chosen = best(list(group.rows.values()))
    baselines = {row.cells.get("Baseline") for row in group.rows.values()}
    return Panel(
        group.name,
        {place: row.cells[row.headline] for place, row in group.rows.items()},
        next((place for place, row in group.rows.items() if row is chosen), None),
        baselines.pop() if len(baselines) == 1 and not group.is_baseline else None,
    )
