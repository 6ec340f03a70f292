"""The drawing of `ffsd_ray.report.epochs`."""

import math
import textwrap
from typing import TYPE_CHECKING

from ffsd_ray.report.epochs import Panel, TrainingCurves
from ffsd_ray.report.look import ACCURACY, STYLES, legend, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
