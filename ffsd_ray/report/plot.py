"""A line plot with error bars: python -m ffsd_ray.report RUN --plot KEY (the paper's Fig. 6)."""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.curves import SERIES, Curves, Panel, Value, curves
from ffsd_ray.report.picture import check_picture, write_picture
from ffsd_ray.report.row import Cell, Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that the colour-blind can tell apart (Okabe and Ito); markers for prints without colour.
_STYLES: dict[str, dict[str, Any]] = {
    "Leader": {"color": "#D55E00", "marker": "o", "linewidth": 2.4},
    "Fusion": {"color": "#0072B2", "marker": "s"},
    "Mean of common": {"color": "#009E73", "marker": "^"},
    "Ens (logits)": {"color": "#CC79A7", "marker": "D", "linestyle": "--"},
    "Ens (any)": {"color": "#56B4E9", "marker": "v", "linestyle": "--"},
    "Baseline": {"color": "#555555", "marker": "P", "linestyle": ":"},
}
_LOOK: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
_ACROSS = 3
#: From this ratio of the largest to the smallest value on, the axis is logarithmic.
_LOGARITHMIC = 50


def plot(run: RunRecords, key: str, out: str | None, epoch: Epoch) -> Path:
    """Draw the accuracies against `key`, a panel for each configuration of what else varies; the file written.

    Raises:
        UserError: matplotlib is missing.
        JobError: trials have no such key, or the file cannot be such a picture.
        RecordsError: nothing varies in `key`; the records are of another version.
    """
    path = Path(out or f"{run.job()['name']}-{key}.png")
    check_picture(path)
    import matplotlib

    with matplotlib.rc_context(_LOOK):
        write_picture(_figure(curves(run, key, epoch), epoch), path)
    return path


def _figure(shown: Curves, epoch: Epoch) -> "Figure":
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(shown.panels))
    down = -(-len(shown.panels) // across)
    width = 2.6 + (5.2 if across == 1 else 3.8 * across)
    figure = Figure(figsize=(width, 1.4 + 3.8 * down))
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    places = [axes for row in grid for axes in row]
    for axes in places[len(shown.panels) :]:
        axes.remove()
    for axes, panel in zip(places, shown.panels, strict=False):
        _draw(axes, panel, shown)
    for row in grid:
        row[0].set_ylabel("Top-1 accuracy (%)")
    _legend(figure, places[: len(shown.panels)])
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    figure.suptitle(
        f"{shown.title}: accuracy against {shown.key}, {epoch} epoch", x=0.01, ha="left", weight="bold", fontsize=13
    )
    wrapped = [line for caption in shown.captions for line in textwrap.wrap(caption, int(14.5 * width))]
    figure.supxlabel("\n".join(wrapped), x=0.01, ha="left", fontsize=8.5, color="#555555")
    return figure


def _draw(axes: "Axes", panel: Panel, shown: Curves) -> None:
    positions = _positions(axes, shown.values)
    for column, curve in panel.curves.items():
        points = [(positions[value], cell) for value, cell in curve.items()]
        points.sort(key=lambda point: point[0])
        axes.errorbar(
            [position for position, _ in points],
            [cell.mean for _, cell in points],
            # One seed has no spread, hence no bar.
            yerr=[math.nan if cell.std is None else cell.std for _, cell in points],
            label=column,
            elinewidth=1.2,
            capsize=3,
            **_STYLES[column],
        )
    if panel.baseline is not None:
        _horizontal(axes, panel.baseline)
    axes.set_xlabel(shown.key)
    axes.set_title(panel.name, fontsize=11, loc="left")


def _positions(axes: "Axes", values: tuple[Value, ...]) -> dict[Value, float]:
    """Where each value stands; sets the axis up with a tick at each. Without a scale they stand side by side."""
    numbers = [value for value in values if not isinstance(value, str)]
    far_apart = len(numbers) == len(values) and max(numbers) >= _LOGARITHMIC * min(numbers)
    positions: dict[Value, float]
    if len(numbers) < len(values) or (far_apart and min(numbers) <= 0):
        positions = {value: float(index) for index, value in enumerate(values)}
    else:
        positions = {value: float(value) for value in values}
        if far_apart:
            axes.set_xscale("log")
            axes.minorticks_off()
    axes.set_xticks(list(positions.values()), list(map(_tick, positions)))
    return positions


def _tick(value: Value) -> str:
    if isinstance(value, str):
        return value
    short = f"{value:.4g}"
    return (short if float(short) == value else f"{value:g}").replace("e-0", "e-").replace("e+0", "e")


def _horizontal(axes: "Axes", baseline: Cell) -> None:
    style = _STYLES["Baseline"] | {"marker": ""}
    axes.axhline(baseline.mean, label="Baseline", zorder=1, **style)
    if baseline.std:
        low, high = baseline.mean - baseline.std, baseline.mean + baseline.std
        axes.axhspan(low, high, color=style["color"], alpha=0.12, linewidth=0)


def _legend(figure: "Figure", places: "list[Axes]") -> None:
    """One for all panels."""
    handles = {
        label: handle for axes in places for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    labels = [label for label in SERIES if label in handles]
    figure.legend([handles[label] for label in labels], labels, loc="outside right upper", frameon=False)
