"""A run's primary accuracies over three settings or more: what parallel coordinates show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ffsd_ray.config.labels import has
from ffsd_ray.errors import RecordsError
from ffsd_ray.report.plots.axes import Value, captions, check_keys, ordered, value_of
from ffsd_ray.report.plots.style import COLOURS, INK, MUTED, PAPER, far_apart, tick
from ffsd_ray.report.ranking import best, ranked_by
from ffsd_ray.report.tables.rows import Cell
from ffsd_ray.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """A configuration: its value of each key, and its primary accuracy in percent."""

    values: tuple[Value, ...]
    cell: Cell
    #: How many seeds it has.
    seeds: int


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
    primary_series: str

    @property
    def ends(self) -> tuple[float, float]:
        """Of the axis of accuracies."""
        means = [line.cell.mean for line in self.lines]
        low, high = min(means), max(means)
        return (low, high) if high > low else (low - 1, high + 1)

    @property
    def ascending(self) -> list[Line]:
        """The lines by accuracy: the better ones lie over the others."""
        return sorted(self.lines, key=lambda line: line.cell.mean)

    @property
    def heights(self) -> list[dict[Value, float]]:
        """Where each value stands on its axis, from 0 to 1: to scale where they are numbers, else evenly."""
        return [_heights(values) for values in self.values]

    def course(self, line: Line) -> list[float]:
        """Where a line crosses each axis, from 0 to 1; at last that of accuracies."""
        at = share(line.cell.mean, self.ends)
        crossed = zip(self.heights, line.values, strict=True)
        return [*(height[value] + _spread(height, at) for height, value in crossed), at]


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
    lines = [
        Line(tuple(value_of(row.spec, key) for key in keys), row.cells[row.primary_column], len(row.seeds))
        for row in rows
    ]
    chosen = best(rows)
    said = ["lines through one value are spread by their accuracy, the better the higher"]
    if chosen is not None:
        said.append(f"thick: the best, {ranked_by(chosen)}: {chosen.configuration}")
    if len(rows) < len(completed):
        said.append(f"{len(completed) - len(rows)} of {len(completed)} configurations lack one of these keys")
    primary_series = " or ".join(dict.fromkeys(row.primary_column for row in rows))
    return Parallel(
        title=f"{table.title}: {primary_series} over {len(keys)} settings, {rows[0].epoch} epoch",
        captions=(*captions(table, rows), *said),
        keys=tuple(keys),
        values=tuple(map(ordered, zip(*(line.values for line in lines), strict=True))),
        lines=tuple(lines),
        best=next((line for line, row in zip(lines, rows, strict=True) if row is chosen), None),
        primary_series=primary_series,
    )


#: Of an axis's length, the least between two labels.
_APART = 0.05
#: Steps of the colours along the axis of accuracies.
_STEPS = 64


def draw(shown: Parallel) -> "Figure":
    """A vertical axis a key and one, coloured, for the accuracy; a line a configuration, the best thick."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(2.0 + 2.0 * len(shown.keys), 5.4), layout="constrained")
    axes = figure.subplots()
    ends, colours, last = shown.ends, colormaps[COLOURS], len(shown.keys)
    for line in shown.ascending:
        best, course = line is shown.best, shown.course(line)
        axes.plot(
            range(last + 1),
            course,
            color=INK if best else colours(course[-1]),
            linewidth=2.8 if best else 1.4,
            alpha=1 if best else 0.8,
            zorder=2.5 if best else 2,
            solid_joinstyle="round",
        )
    for place, height in enumerate(shown.heights):
        axes.plot([place, place], [0, 1], color=MUTED, linewidth=1, zorder=1)
        _label(axes, place, {tick(value): share for value, share in height.items()}, -8)
    for step in range(_STEPS):
        bounds = [step / _STEPS, (step + 1) / _STEPS]
        axes.plot([last, last], bounds, color=colours(bounds[0]), linewidth=7, solid_capstyle="butt", zorder=3)
    marks = [mark for mark in MaxNLocator(6).tick_values(*ends) if ends[0] <= mark <= ends[1]]
    _label(axes, last, {f"{mark:.4g}": share(mark, ends) for mark in marks}, 9)
    axes.set_xlim(-0.45, last + 0.35)
    axes.set_ylim(-0.08, 1.08)
    heads = [_head(key, values) for key, values in zip(shown.keys, shown.values, strict=True)]
    axes.set_xticks(range(last + 1), [*heads, f"{shown.primary_series}\ntop-1 (%)"])
    axes.tick_params(axis="x", length=0, labelsize=10)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _heights(values: tuple[Value, ...]) -> dict[Value, float]:
    """Of one axis, see `Parallel.heights`."""
    numbers = [value for value in values if not isinstance(value, str)]
    logarithmic = far_apart(values)
    if len(values) == 1:
        return {values[0]: 0.5}
    if len(numbers) < len(values) or (logarithmic and min(numbers) == 0):
        return {value: index / (len(values) - 1) for index, value in enumerate(values)}
    scaled = [math.log10(value) if logarithmic else value for value in numbers]
    return {value: share(at, (scaled[0], scaled[-1])) for value, at in zip(numbers, scaled, strict=True)}


def _spread(height: Mapping[Value, float], accuracy: float) -> float:
    """How far from its value a line passes, so that those through one value are told apart: the better the higher."""
    at = sorted(height.values())
    room = min((after - before for before, after in pairwise(at)), default=0.3)
    return (accuracy - 0.5) * min(0.4 * room, 0.12)


def share(value: float, ends: tuple[float, float]) -> float:
    """Where a value stands between the ends, from 0 to 1."""
    return (value - ends[0]) / (ends[1] - ends[0])


def _label(axes: "Axes", place: int, labels: Mapping[str, float], offset: float) -> None:
    """Labels of an axis; of values close together the first, and always the last."""
    written: list[float] = []
    for text, share in reversed(list(labels.items())):
        if all(abs(share - other) >= _APART for other in written):
            written.append(share)
            around = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
            axes.annotate(
                text,
                (place, share),
                xytext=(offset, 0),
                textcoords="offset points",
                ha="left" if offset > 0 else "right",
                va="center",
                fontsize=8.5,
                zorder=4,
                bbox=around,
            )


def _head(key: str, values: tuple[Value, ...]) -> str:
    name = key.replace(".", ".\n", 1)
    return f"{name}\n(logarithmic)" if far_apart(values) else name
