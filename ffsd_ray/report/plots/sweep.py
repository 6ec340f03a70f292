"""A run's accuracies against one of its settings: what a line plot shows."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffsd_ray.report.plots.axes import Group, Value, captions, groups, ordered
from ffsd_ray.report.plots.style import ACCURACY, SERIES, STYLES, far_apart, legend, panels, tick
from ffsd_ray.report.tables.rows import Cell
from ffsd_ray.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """The curves of configurations that differ in the key alone."""

    #: What tells this panel from the others; '' for an only one.
    name: str
    #: Accuracy in percent at each value, by column of the run's table.
    curves: dict[str, dict[Value, Cell]]
    #: The accuracy of the network trained alone, where it is the same at every value; else it is a curve.
    baseline: Cell | None
    #: How many seeds each value has.
    seeds: dict[Value, int]
    #: Those of `curves` that stand for the methods.
    primary: frozenset[str]


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
    return Panel(
        group.name,
        {column: curve for column, curve in drawn.items() if curve},
        baseline,
        seeds={value: len(row.seeds) for (value,), row in group.rows.items()},
        primary=frozenset(row.primary_column for row in group.rows.values()),
    )


def positions(values: tuple[Value, ...]) -> tuple[dict[Value, float], bool]:
    """Where each value stands on its axis, and whether that is logarithmic; without a scale they stand side by side."""
    numbers = [value for value in values if not isinstance(value, str)]
    logarithmic = far_apart(values)
    if len(numbers) < len(values) or (logarithmic and min(numbers) == 0):
        return {value: float(index) for index, value in enumerate(values)}, False
    return {value: float(value) for value in values}, logarithmic


def draw(shown: Curves) -> "Figure":
    """A panel for each configuration of what else varies, all to one scale."""
    from matplotlib.figure import Figure

    across = min(3, len(shown.panels))
    width = 2.6 + (5.2 if across == 1 else 3.8 * across)
    figure = Figure(figsize=(width, 1.4 + 3.8 * -(-len(shown.panels) // across)), layout="constrained")
    places = panels(figure, len(shown.panels), across, x_label=shown.key, y_label=ACCURACY)
    for axes, panel in zip(places, shown.panels, strict=True):
        _draw(axes, panel, shown)
    legend(figure, places)
    return figure


def _draw(axes: "Axes", panel: Panel, shown: Curves) -> None:
    at, logarithmic = positions(shown.values)
    if logarithmic:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(at.values()), list(map(tick, at)))
    for column, curve in panel.curves.items():
        points = [(at[value], cell) for value, cell in curve.items()]
        points.sort(key=lambda point: point[0])
        axes.errorbar(
            [position for position, _ in points],
            [cell.mean for _, cell in points],
            # One seed has no spread, hence no bar.
            yerr=[math.nan if cell.std is None else cell.std for _, cell in points],
            label=column,
            elinewidth=1.2,
            capsize=3,
            **STYLES[column],
        )
    if panel.baseline is not None:
        _horizontal(axes, panel.baseline)
    axes.set_title(panel.name, fontsize=11, loc="left")


def _horizontal(axes: "Axes", baseline: Cell) -> None:
    style = STYLES["Baseline"] | {"marker": ""}
    axes.axhline(baseline.mean, label="Baseline", zorder=1, **style)
    if baseline.std:
        low, high = baseline.mean - baseline.std, baseline.mean + baseline.std
        axes.axhspan(low, high, color=style["color"], alpha=0.12, linewidth=0)
