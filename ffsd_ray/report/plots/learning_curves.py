"""A run's accuracies epoch by epoch: what training curves show."""

import math
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffsd_ray.errors import RecordsError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.columns import columns_of
from ffsd_ray.report.plots.style import ACCURACY, SERIES, STYLES, TRAINING, legend, panels
from ffsd_ray.report.tables.rows import Cell, Row
from ffsd_ray.report.tables.table import Table
from ffsd_ray.series import HistoryRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More panels than this nobody reads.
_PANELS = 24


@dataclass(frozen=True)
class Panel:
    """A configuration: accuracy in percent after each epoch, by column of the run's table."""

    name: str
    curves: dict[str, dict[int, Cell]]


@dataclass(frozen=True)
class TrainingCurves:
    """Mean and standard deviation over the completed seeds that came as far."""

    title: str
    captions: tuple[str, ...]
    panels: tuple[Panel, ...]


def training_curves(run: RunRecords, table: Table) -> TrainingCurves:
    """The completed configurations of `table`, in its order, from their trials' histories, which it was made with.

    Raises:
        RecordsError: no trial has completed.
    """
    rows = [row for row in table.first_epoch.rows if row.seeds]
    with ThreadPoolExecutor(16) as pool:
        panels = list(pool.map(lambda row: _panel(run, row), rows[:_PANELS]))
    if not panels:
        raise RecordsError(f"{table.title}: nothing to plot against epochs: no trial has completed")
    captions = list(table.captions_without("gain", "best epoch", "deployed"))
    captions.append(f"{TRAINING}: the method’s primary column, measured on augmented images while they are trained on")
    if len(rows) > _PANELS:
        captions.append(f"the first {_PANELS} of {len(rows)} configurations; choose others with --where KEY=VALUE")
    return TrainingCurves(
        f"{table.title}: accuracy on the test images after each epoch", tuple(captions), tuple(panels)
    )


def _panel(run: RunRecords, row: Row) -> Panel:
    trials = [run.trial(name) for name in row.trials]
    results = [trial.result() for trial in trials]
    result, histories = results[0], [trial.history_of(ended) for trial, ended in zip(trials, results, strict=True)]
    columns = columns_of(result, row.spec.method)
    keys = {column: f"test/{columns[column]}/top1" for column in SERIES if column in columns}
    keys[TRAINING] = f"train/{result['primary_series']}/top1"
    drawn = {column: _curve(histories, key) for column, key in keys.items()}
    return Panel(row.configuration, {column: curve for column, curve in drawn.items() if curve})


def _curve(histories: Sequence[Sequence[HistoryRow]], key: str) -> dict[int, Cell]:
    found: dict[int, list[float]] = {}
    for history in histories:
        for measured in history:
            if key in measured:
                found.setdefault(int(measured["epoch"]), []).append(measured[key])
    return {epoch: Cell.of(values) for epoch, values in sorted(found.items())}


#: Of a title, in a line.
_LETTERS = 32


def draw(shown: TrainingCurves) -> "Figure":
    """A panel a configuration, all to one scale; a band of a standard deviation about each mean."""
    from matplotlib.figure import Figure

    across = min(4, len(shown.panels))
    width = 2.6 + (5.2 if across == 1 else 2.9 * across)
    height = 4.4 if across == 1 else 2.5 * -(-len(shown.panels) // across) + 0.6
    figure = Figure(figsize=(width, height), layout="constrained")
    places = panels(figure, len(shown.panels), across, x_label="Epoch", y_label=ACCURACY, share_x=True)
    for axes, panel in zip(places, shown.panels, strict=True):
        _draw(axes, panel)
    legend(figure, places)
    return figure


def _draw(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for column, curve in panel.curves.items():
        style = STYLES[column] | {"linewidth": 1.4, "markersize": 3}
        # A single epoch would be invisible without its marker, many are a line.
        if len(curve) > 20:
            style["marker"] = ""
        epochs, cells = list(curve), list(curve.values())
        axes.plot(epochs, [cell.mean for cell in cells], label=column, **style)
        # One seed has no spread, hence no band.
        stds = [math.nan if cell.std is None else cell.std for cell in cells]
        low, high = ([cell.mean + sign * std for cell, std in zip(cells, stds, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(textwrap.fill(panel.name, _LETTERS), fontsize=9.5, loc="left")
