"""Parts of the page's charts, as Plotly's JavaScript takes them (https://plotly.com/javascript/reference)."""

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from ffsd_ray.report.plots.style import GRID, INK, MUTED, PALETTE, PAPER, STYLES
from ffsd_ray.report.tables.rows import Cell
from ffsd_ray.terminal import plain

#: `data` and `layout` of a chart, in values that JSON has.
Figure = dict[str, Any]

#: Around what is drawn, in pixels.
MARGIN = {"l": 60, "r": 16, "t": 24, "b": 52}
#: Of matplotlib's markers and lines.
_SYMBOLS = {"o": "circle", "s": "square", "X": "x", "^": "triangle-up", "D": "diamond", "v": "triangle-down"}
_SYMBOLS |= {"P": "cross", ".": "circle"}
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
#: Letters in a line of a legend.
_LETTERS = 44


def text(value: object) -> str:
    """Text that Plotly, which takes `<b>` and `<a href>` for markup, shows as it is."""
    return html.escape(plain(str(value)))


def name(value: str) -> str:
    """Such text for a legend or an axis, in lines."""
    return "<br>".join(map(text, textwrap.wrap(value, _LETTERS))) or text(value)


def style(column: str, colour: str | None = None) -> dict[str, Any]:
    """Line and marker of a column, as `--plot` draws it, or in a colour of its own."""
    look = STYLES[column]
    colour = colour or look["color"]
    return {
        "line": {"color": colour, "width": look.get("linewidth", 1.8), "dash": _DASHES[look.get("linestyle", "-")]},
        "marker": {"color": colour, "size": 8, "symbol": _SYMBOLS[look["marker"]]},
    }


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def dash(index: int) -> str:
    """The line of a series, which tells it from the one that has its colour."""
    return list(_DASHES.values())[index // len(PALETTE) % len(_DASHES)]


def points(at: Iterable[Any], cells: Sequence[Cell], seeds: Sequence[int], decimals: int = 2) -> dict[str, Any]:
    """Points of a line, and what is said of each: mean ± standard deviation, and how many seeds it is of."""
    return {
        "x": list(at),
        "y": [round(cell.mean, 4) for cell in cells],
        "customdata": [said(cell, count, decimals) for cell, count in zip(cells, seeds, strict=True)],
    }


def said(cell: Cell, seeds: int, decimals: int = 2) -> str:
    return f"{cell.text(decimals)} ({seeds} seed{'s' * (seeds != 1)})"


def band(trace: dict[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
    """The standard deviation about the line of a trace, which is shown and hidden with it."""
    ends = [[round(cell.mean + sign * (cell.std or 0.0), 4) for cell in cells] for sign in (1, -1)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*trace["x"], *reversed(trace["x"])],
        "y": [*ends[0], *reversed(ends[1])],
        "fill": "toself",
        "fillcolor": trace["line"]["color"],
        "opacity": 0.15,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": trace["legendgroup"],
        "visible": trace.get("visible", True),
    }


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    """An axis with a line for each value of the other one; `options` go over it."""
    return {
        "title": {"text": text(title)},
        "gridcolor": GRID,
        "linecolor": INK,
        "tickcolor": INK,
        "zeroline": False,
        "automargin": True,
    } | options


def menu(names: Sequence[str], owners: Sequence[int], changes: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A layout's options: a menu above the chart, which chooses what is shown; nothing where there is no choice.

    `owners`: of each trace whose it is, as an index of `names`; `changes`: of the layout with each choice.
    """
    if len(names) < 2:
        return {}
    choices = [
        {
            "label": text(value),
            "method": "update",
            "args": [{"visible": [owner == index for owner in owners]}, changes[index] if changes else {}],
        }
        for index, value in enumerate(names)
    ]
    menu = {
        "buttons": choices,
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "bgcolor": PAPER,
        "bordercolor": MUTED,
        "font": {"color": INK},
    }
    return {"updatemenus": [menu], "margin": MARGIN | {"t": 84}}


def height(lines: int) -> int:
    """In pixels, of a chart with so many lines in its legend."""
    return min(max(430, 80 + 26 * lines), 720)


def layout(height: int, **options: Any) -> dict[str, Any]:
    """A chart's layout in the page's colours; `height` in pixels; `options` go over it.

    `meta: {"width": pixels}`: the page makes the chart no wider.
    """
    return {
        "height": height,
        "autosize": True,
        "margin": MARGIN,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 13},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": INK, "font": {"color": INK}, "align": "left", "namelength": -1},
        "legend": {"bgcolor": "rgba(0,0,0,0)", "groupclick": "toggleitem"},
        # What was zoomed and chosen stays when colours change.
        "uirevision": "kept",
    } | options
