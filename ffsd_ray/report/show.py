"""Printing a table in the form asked for."""

from rich.console import Console

from ffsd_ray.report.render import render_csv, render_markdown, render_terminal
from ffsd_ray.report.sheet import Tabular

FORMATS = ("terminal", "markdown", "csv")


def show(table: Tabular, form: str) -> None:
    """Print `table` in one of `FORMATS`."""
    if form == "markdown":
        print(render_markdown(table), end="")
    elif form == "csv":
        print(render_csv(table), end="")
    else:
        Console().print(render_terminal(table))
