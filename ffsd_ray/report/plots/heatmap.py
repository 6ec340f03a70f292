"""A run's primary accuracies over two of its settings: what a heat map shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffsd_ray.report.plots.axes import Group, Value, captions, groups, ordered
from ffsd_ray.report.plots.style import COLOURS, GRID, INK, MUTED, far_apart, panels, tick
from ffsd_ray.report.ranking import best, ranked_by
from ffsd_ray.report.tables.rows import Cell
from ffsd_ray.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """Configurations that differ in the two keys alone."""

    #: What tells this panel from the others; '' for an only one.
    name: str
    #: Primary accuracy in percent by the values of the two keys; a combination without a completed trial is absent.
    cells: dict[tuple[Value, ...], Cell]
    #: How many seeds each of them has.
    seeds: dict[tuple[Value, ...], int]
    #: The place of the best; None where the panel's trials chose their epochs on different splits.
    best: tuple[Value, ...] | None
    #: The accuracy of the network trained alone, where it is the same everywhere.
    baseline: Cell | None

    @property
    def title(self) -> str:
        """Its name and the baseline's accuracy."""
        baseline = "" if self.baseline is None else f"baseline {self.baseline.text()}"
        return " · ".join(filter(None, (self.name, baseline)))


@dataclass(frozen=True)
class HeatMap:
    """`values`: all that each key takes; numbers in ascending order, others as in the job."""

    title: str
    captions: tuple[str, ...]
    keys: tuple[str, str]
    values: tuple[tuple[Value, ...], tuple[Value, ...]]
    panels: tuple[Panel, ...]
    #: What is drawn: the column, or columns, that stand for the methods.
    primary_series: str

    @property
    def is_grid(self) -> bool:
        """Whether some panel has more than a cross of one-at-a-time sweeps."""
        cross = len(self.values[0]) + len(self.values[1]) - 1
        return any(len(panel.cells) > cross for panel in self.panels)


def heat_map(table: Table, keys: Sequence[str]) -> HeatMap:
    """Mean and standard deviation over seeds of the primary accuracy at each pair of values; `table` of one epoch.

    Raises:
        JobError: trials have no such key.
        RecordsError: no completed trials differ in both alone.
    """
    across, down = keys
    found = groups(table, keys)
    rows = [row for group in found for row in group.rows.values()]
    first, second = zip(*(place for group in found for place in group.rows), strict=True)
    primary_series = " or ".join(dict.fromkeys(row.primary_column for row in rows))
    panels = tuple(map(_panel, found))
    framed = f"framed: {'the' if len(panels) == 1 else 'each panel’s'} best, {ranked_by(rows[0])}"
    said = (framed,) if any(panel.best for panel in panels) else ()
    return HeatMap(
        title=f"{table.title}: {primary_series} over {across} and {down}, {rows[0].epoch} epoch",
        captions=(*captions(table, rows), *said),
        keys=(across, down),
        values=(ordered(first), ordered(second)),
        panels=panels,
        primary_series=primary_series,
    )


def _panel(group: Group) -> Panel:
    chosen = best(list(group.rows.values()))
    baselines = {row.cells.get("Baseline") for row in group.rows.values()}
    return Panel(
        group.name,
        {place: row.cells[row.primary_column] for place, row in group.rows.items()},
        {place: len(row.seeds) for place, row in group.rows.items()},
        next((place for place, row in group.rows.items() if row is chosen), None),
        baselines.pop() if len(baselines) == 1 and not group.is_baseline else None,
    )


#: Inches of a cell, wide enough for `97.53 ± 0.12` on two lines.
_WIDE, _HIGH = 0.78, 0.58
#: The best's frame; seen on every colour of the map.
FRAME = "#D55E00"


def draw(shown: HeatMap) -> "Figure":
    """A panel for each configuration of what else varies, all with one scale of colours."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    first, second = shown.values
    across = min(2 if len(first) > 4 else 3, len(shown.panels))
    down = -(-len(shown.panels) // across)
    width = max(6.0, 2.2 + across * (1.1 + _WIDE * len(first)))
    figure = Figure(figsize=(width, 1.6 + down * (0.9 + _HIGH * len(second))), layout="constrained")
    names = {"x_label": _titled(shown.keys[0], first), "y_label": _titled(shown.keys[1], second)}
    places = panels(figure, len(shown.panels), across, **names, share_x=True)
    means = [cell.mean for panel in shown.panels for cell in panel.cells.values()]
    scale = Normalize(min(means), max(means))
    for axes, panel in zip(places, shown.panels, strict=True):
        _draw(axes, panel, shown, scale)
    label = f"{shown.primary_series}: top-1 accuracy (%)"
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=places, label=label, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    assert bar.solids is not None
    # As shapes: matplotlib makes an image of them otherwise, in SVG too.
    bar.solids.set(rasterized=False, edgecolor="face")
    return figure


def _draw(axes: "Axes", panel: Panel, shown: HeatMap, scale: "Normalize") -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    first, second = shown.values
    for x, one in enumerate(first):
        for y, other in enumerate(second):
            cell = panel.cells.get((one, other))
            if cell is None:
                face, ink, text = (0.0, 0.0, 0.0, 0.0), MUTED, "–"
            else:
                face = colormaps[COLOURS](float(scale(cell.mean)))
                ink = "#101010" if _lightness(face) > 0.45 else "#ffffff"
                text = cell.text().replace(" ± ", "\n± ")
            corner = (x - 0.5, y - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor=GRID, linewidth=0.8))
            axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=8.5, linespacing=1.25)
            if (one, other) == panel.best:
                frame = Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=FRAME, linewidth=3)
                axes.add_patch(frame).set_zorder(3)
    axes.set_xlim(-0.5, len(first) - 0.5)
    axes.set_ylim(-0.5, len(second) - 0.5)
    axes.set_xticks(range(len(first)), list(map(tick, first)))
    axes.set_yticks(range(len(second)), list(map(tick, second)))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(panel.title, fontsize=10.5, loc="left", color=INK)


def _titled(key: str, values: tuple[Value, ...]) -> str:
    return f"{key} (logarithmic)" if far_apart(values) else key


def _lightness(colour: tuple[float, ...]) -> float:
    """Perceived, of 1 (Rec. 601's luma)."""
    red, green, blue = colour[:3]
    return math.fsum((0.299 * red, 0.587 * green, 0.114 * blue))
