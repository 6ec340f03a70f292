"""Charts of accuracies over settings."""

from collections.abc import Sequence
from typing import Any

from ffsd_ray.report.page.figure import Figure, axis, colour, height, layout, name, points, said, style, text
from ffsd_ray.report.plots.axes import Value
from ffsd_ray.report.plots.heatmap import FRAME, HeatMap
from ffsd_ray.report.plots.heatmap import Panel as Map
from ffsd_ray.report.plots.parallel_coordinates import Line, Parallel
from ffsd_ray.report.plots.style import ACCURACY, COLOURS, INK, MUTED, PAPER, tick
from ffsd_ray.report.plots.sweep import Curves, Panel, positions
from ffsd_ray.report.tables.rows import Cell

#: Colours of a scale, from the lowest to the highest value.
_SCALE = COLOURS.capitalize()
#: Marks on the axis of accuracies.
_MARKS = 5


def sweep(shown: Curves) -> Figure:
    """All panels in one chart; of several, the columns that do not stand for methods are hidden at first."""
    at, logarithmic = positions(shown.values)
    several, data = len(shown.panels) > 1, []
    for index, panel in enumerate(shown.panels):
        data += [_curve(shown, panel, column, at, index if several else None) for column in panel.curves]
    baselines = {panel.baseline: max(panel.seeds.values()) for panel in shown.panels if panel.baseline is not None}
    data += [_horizontal(baseline, seeds, list(at.values())) for baseline, seeds in baselines.items()]
    ticks = {"tickvals": list(at.values()), "ticktext": [text(tick(value)) for value in at], "showgrid": False}
    x = axis(shown.key, **ticks, **({"type": "log"} if logarithmic else {}))
    return {"data": data, "layout": layout(height(len(data)), xaxis=x, yaxis=axis(ACCURACY), hovermode="closest")}


def _curve(shown: Curves, panel: Panel, column: str, at: dict[Value, float], index: int | None) -> dict[str, Any]:
    """The line of a column; `index`: of its panel among several, whose lines share a colour and a group."""
    curve = sorted(panel.curves[column].items(), key=lambda point: at[point[0]])
    cells, values = [cell for _, cell in curve], [value for value, _ in curve]
    look = style(column, None if index is None else colour(index))
    grouped = {"legendgroup": str(index), "legendgrouptitle": {"text": name(panel.name)}} if index is not None else {}
    of_panel = f"{text(panel.name)}: " if index is not None else ""
    key = text(shown.key)
    label = [f"{key} {text(tick(value))}<br>{of_panel}{column}" for value in values]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": column,
        **points([at[value] for value in values], cells, [panel.seeds[value] for value in values]),
        "hovertext": label,
        "hovertemplate": "%{hovertext}: %{customdata}<extra></extra>",
        # One seed has no spread, hence no bar.
        "error_y": {
            "type": "data",
            "array": [0 if cell.std is None else round(cell.std, 4) for cell in cells],
            "visible": any(cell.std for cell in cells),
            "color": look["line"]["color"],
            "thickness": 1.2,
            "width": 3,
        },
        "visible": True if index is None or column in panel.primary else "legendonly",
        **look,
        **grouped,
    }


def _horizontal(baseline: Cell, seeds: int, at: Sequence[float]) -> dict[str, Any]:
    cells = [baseline] * len(at)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Baseline",
        **points(at, cells, [seeds] * len(at)),
        "hovertemplate": "Baseline: %{customdata}<extra></extra>",
        **style("Baseline"),
    }


def heat_map(shown: HeatMap, panel: Map) -> Figure:
    """The map of one panel, with the scale of colours that all of `shown` have."""
    first, second = shown.values
    means = [cell.mean for each in shown.panels for cell in each.cells.values()]
    at = [[(one, other) for one in first] for other in second]
    cells = [[panel.cells.get(place) for place in row] for row in at]
    across, down = map(text, shown.keys)
    data = {
        "type": "heatmap",
        "x": list(range(len(first))),
        "y": list(range(len(second))),
        "z": [[None if cell is None else round(cell.mean, 4) for cell in row] for row in cells],
        "zmin": min(means),
        "zmax": max(means),
        "colorscale": _SCALE,
        "colorbar": {"title": {"text": "top-1 (%)"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "text": [["–" if cell is None else cell.text().replace(" ± ", "<br>± ") for cell in row] for row in cells],
        "texttemplate": "%{text}",
        "hovertext": [
            [
                f"{across} {text(tick(place[0]))}<br>{down} {text(tick(place[1]))}<br>{text(shown.primary_series)}: "
                + ("none completed" if cell is None else said(cell, panel.seeds[place]))
                for place, cell in zip(places, row, strict=True)
            ]
            for places, row in zip(at, cells, strict=True)
        ],
        "hoverinfo": "text",
        "hoverongaps": False,
    }
    shapes = []
    if panel.best is not None:
        x, y = first.index(panel.best[0]), second.index(panel.best[1])
        frame = {"type": "rect", "x0": x - 0.48, "x1": x + 0.48, "y0": y - 0.48, "y1": y + 0.48}
        shapes = [frame | {"line": {"color": FRAME, "width": 4}}]
    x_axis, y_axis = (
        axis(
            key,
            tickvals=list(range(len(values))),
            ticktext=[text(tick(value)) for value in values],
            showgrid=False,
            range=[-0.5, len(values) - 0.5],
        )
        for key, values in zip(shown.keys, shown.values, strict=True)
    )
    width = 230 + 110 * len(first)
    options = {"shapes": shapes, "xaxis": x_axis, "yaxis": y_axis, "meta": {"width": width}}
    return {"data": [data], "layout": layout(max(250, 100 + 58 * len(second)), **options)}


def parallel(shown: Parallel) -> Figure:
    """A vertical axis a key and one for the accuracy; a line a configuration, the best one thick.

    Of lines: Plotly's own kind of such charts compiles code in the browser, which the page forbids.
    """
    from plotly.colors import sample_colorscale

    last = len(shown.keys)
    courses = [(line, shown.course(line)) for line in shown.ascending]
    colours = sample_colorscale(_SCALE, [course[-1] for _, course in courses])
    data = [_line(shown, line, course, ink) for (line, course), ink in zip(courses, colours, strict=True)]
    data.sort(key=lambda trace: trace["line"]["width"])
    low, high = shown.ends
    marks = {f"{low + part * (high - low):.4g}": part for part in (i / _MARKS for i in range(_MARKS + 1))}
    labels = [*({tick(value): at for value, at in heights.items()} for heights in shown.heights), marks]
    heads = [text(key.partition(".")[2]) for key in shown.keys]
    annotations = [
        {"x": place, "y": at, "text": text(label), "showarrow": False, "bgcolor": PAPER}
        | ({"xanchor": "right", "xshift": -7} if place < last else {"xanchor": "left", "xshift": 7})
        for place, of_axis in enumerate(labels)
        for label, at in of_axis.items()
    ]
    upright = {"type": "line", "y0": 0, "y1": 1, "line": {"color": MUTED, "width": 1}, "layer": "below"}
    lines = [upright | {"x0": place, "x1": place} for place in range(last + 1)]
    x = axis(tickvals=list(range(last + 1)), ticktext=[*heads, f"{text(shown.primary_series)}<br>top-1 (%)"])
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    options = {
        "xaxis": x | bare | {"range": [-0.5, last + 0.4]},
        "yaxis": axis(visible=False, range=[-0.08, 1.08]),
        "annotations": annotations,
        "shapes": lines,
    }
    return {"data": data, "layout": layout(460, hovermode="closest", showlegend=False, **options)}


def _line(shown: Parallel, line: Line, course: list[float], ink: str) -> dict[str, Any]:
    settings = [f"{text(key)} {text(tick(value))}" for key, value in zip(shown.keys, line.values, strict=True)]
    told = "<br>".join([*settings, f"<b>{said(line.cell, line.seeds)}</b>"])
    best = line is shown.best
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(len(course))),
        "y": [round(at, 4) for at in course],
        "text": told,
        "hoverinfo": "text",
        "line": {"color": INK if best else ink, "width": 3.5 if best else 1.6},
        "marker": {"color": INK if best else ink, "size": 5},
        "opacity": 1 if best else 0.8,
    }
