"""Printing a table in the form asked for."""

from rich.console import Console

from ffsd_ray.report.latex import render_latex
from ffsd_ray.report.render import render_csv, render_markdown, render_terminal
from ffsd_ray.report.sheet import Tabular

FORMATS = ("terminal", "markdown", "latex", "csv")
_TEXT = {"markdown": render_markdown, "latex": render_latex, "csv": render_csv}


def show(table: Tabular, form: str) -> None:
    """Print `table` in one of `FORMATS`."""
    if form in _TEXT:
        print(_TEXT[form](table), end="")
    else:
        Console().print(render_terminal(table))
