"""Charts of accuracies and losses over epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

from ffsd_ray.report.page.figure import (
    Figure,
    axis,
    band,
    colour,
    dash,
    height,
    layout,
    menu,
    name,
    points,
    style,
    text,
)
from ffsd_ray.report.plots.learning_curves import Panel
from ffsd_ray.report.plots.style import ACCURACY, MUTED
from ffsd_ray.report.tables.rows import Cell

#: With more lines than this, what is told is of the one at the pointer, not of all at its epoch.
_TOGETHER = 8


def accuracies(panels: Sequence[Panel]) -> Figure:
    """Of each configuration the series that stands for its method, on the test images."""
    return _overlaid([(panel, panel.accuracy) for panel in panels], ACCURACY)


def losses(panels: Sequence[Panel]) -> Figure:
    """The same series' losses on the training images."""
    return _overlaid([(panel, panel.loss) for panel in panels], "Cross-entropy (nats)", decimals=3)


def members(panels: Sequence[Panel]) -> Figure:
    """Every column of one configuration, which a menu above the chart chooses."""
    data, owners = [], []
    for index, panel in enumerate(panels):
        for column, curve in panel.curves.items():
            data.append(_line(column, curve, panel.seeds, style(column)) | {"visible": index == 0})
            owners.append(index)
    above = menu([panel.name for panel in panels], owners)
    return {"data": data, "layout": _layout(len(panels[0].curves), ACCURACY, **above)}


def _overlaid(curves: Sequence[tuple[Panel, Mapping[int, Cell]]], label: str, decimals: int = 2) -> Figure:
    """A line a configuration; the baseline's stands back."""
    data, others = [], 0
    for panel, curve in curves:
        look: dict[str, Any] = {"color": MUTED, "width": 2.2, "dash": "solid"}
        if not panel.is_baseline:
            look |= {"color": colour(others), "dash": dash(others)}
            others += 1
        marked = {"line": look, "marker": {"color": look["color"]}}
        trace = _line(panel.name, curve, panel.seeds, marked, decimals)
        # One seed has no spread, hence no band.
        data += [trace, band(trace, list(curve.values()))] if any(cell.std for cell in curve.values()) else [trace]
    return {"data": data, "layout": _layout(len(curves), label)}


def _line(
    label: str, curve: Mapping[int, Cell], seeds: Mapping[int, int], look: Mapping[str, Any], decimals: int = 2
) -> dict[str, Any]:
    return {
        "type": "scatter",
        # A single epoch would be invisible without its marker, many are a line.
        "mode": "lines" if len(curve) > 20 else "lines+markers",
        "name": name(label),
        "legendgroup": text(label),
        **points(curve, list(curve.values()), [seeds[epoch] for epoch in curve], decimals),
        "hovertemplate": "%{fullData.name}: %{customdata}<extra></extra>",
        "line": look["line"],
        "marker": look["marker"] | {"size": 6},
    }


def _layout(lines: int, label: str, **options: Any) -> dict[str, Any]:
    hover = "x unified" if lines <= _TOGETHER else "closest"
    x = axis("Epoch", showgrid=False, tickformat="d", unifiedhovertitle={"text": "Epoch %{x}"})
    return layout(height(lines), xaxis=x, yaxis=axis(label), hovermode=hover, **options)
