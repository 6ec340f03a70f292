"""A run's accuracies epoch by epoch: what training curves show."""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ffsd_ray.errors import RecordsError
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import parallel_map
from ffsd_ray.report.collect import histories
from ffsd_ray.report.columns import columns_of
from ffsd_ray.report.plots.style import ACCURACY, SERIES, STYLES, TRAINING, legend, panels
from ffsd_ray.report.tables.rows import Cell, Row
from ffsd_ray.report.tables.table import Table
from ffsd_ray.series import HistoryRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More configurations than this nobody reads.
MOST_SHOWN = 24


@dataclass(frozen=True)
class Panel:
    """A configuration after each epoch; of accuracies (in percent) and losses those seeds count that came as far."""

    name: str
    is_baseline: bool
    #: Accuracies by column of the run's table; none where no trial has completed.
    curves: dict[str, dict[int, Cell]]
    #: Of the method's primary series: accuracy on the test images, cross-entropy (nats) on the training images.
    accuracy: dict[int, Cell]
    loss: dict[int, Cell]
    #: How many seeds came as far.
    seeds: dict[int, int]


@dataclass(frozen=True)
class TrainingCurves:
    """Mean and standard deviation over the seeds of each configuration, but for those that failed."""

    title: str
    captions: tuple[str, ...]
    panels: tuple[Panel, ...]


def training_curves(run: RunRecords, table: Table) -> TrainingCurves:
    """The completed configurations of `table`, in its order, from their trials' histories, which it was made with.

    Raises:
        RecordsError: no trial has completed.
    """
    found = curves_so_far(run, table)
    completed = tuple(panel for panel in found.panels if panel.curves)
    if not completed:
        raise RecordsError(f"{table.title}: nothing to plot against epochs: no trial has completed")
    return replace(found, panels=completed)


def curves_so_far(run: RunRecords, table: Table) -> TrainingCurves:
    """The same of every configuration that has an epoch behind it; there may be none."""
    rows = [row for row in table.first_epoch.rows if any(not trial.error for trial in row.group.trials)]
    panels = parallel_map(lambda row: _panel(run, row), rows[:MOST_SHOWN])
    captions = list(table.captions_without("gain", "best epoch", "deployed"))
    captions.append(f"{TRAINING}: the method’s primary column, measured on augmented images while they are trained on")
    if any(not trial.error and trial.result is None for row in rows for trial in row.group.trials):
        captions.append("trials that have not ended count as far as they have come")
    captions += of_more(len(rows))
    return TrainingCurves(
        f"{table.title}: accuracy on the test images after each epoch",
        tuple(captions),
        tuple(panel for panel in panels if panel.seeds),
    )


def of_more(configurations: int) -> list[str]:
    """A caption where there are more than are shown."""
    if configurations <= MOST_SHOWN:
        return []
    return [f"the first {MOST_SHOWN} of {configurations} configurations; choose others with --where KEY=VALUE"]


def _panel(run: RunRecords, row: Row) -> Panel:
    trials = [trial for trial in row.group.trials if not trial.error]
    read = [histories(run.trial(trial.spec.identity()), trial.result) for trial in trials]
    method = row.spec.method
    primary = method.primary_series
    keys: dict[str, str] = {}
    if result := next((trial.result for trial in trials if trial.result is not None), None):
        primary, columns = result["primary_series"], columns_of(result, method)
        keys = {column: f"test/{columns[column]}/top1" for column in SERIES if column in columns}
        keys[TRAINING] = f"train/{primary}/top1"
    drawn = {column: _curve(read, key) for column, key in keys.items()}
    return Panel(
        row.configuration,
        isinstance(method, BaselineSettings),
        {column: curve for column, curve in drawn.items() if curve},
        accuracy=_curve(read, f"test/{primary}/top1"),
        loss=_curve(read, f"train/{primary}/loss"),
        seeds=dict(Counter(int(measured["epoch"]) for history in read for measured in history)),
    )


def _curve(read: Sequence[Sequence[HistoryRow]], key: str) -> dict[int, Cell]:
    found: dict[int, list[float]] = {}
    for history in read:
        for measured in history:
            if math.isfinite(measured.get(key, math.nan)):
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
