"""Printing a table in the form asked for."""

import argparse
import sys
from collections.abc import Callable, Sequence

from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.tables.latex import render_latex
from ffsd_ray.report.tables.render import render_csv, render_markdown, render_terminal
from ffsd_ray.report.tables.text import Printable
from ffsd_ray.terminal import Screen

FORMATS = ("terminal", "markdown", "latex", "csv")
_TEXT = {"markdown": render_markdown, "latex": render_latex, "csv": render_csv}


def show(table: Printable, form: str) -> int:
    """Say what is left out of `table` and print it in one of `FORMATS`; the exit status, see `tell`."""
    status = tell(table.damages)
    if form in _TEXT:
        print(_TEXT[form](table), end="")
    else:
        Screen().print(render_terminal(table))
    return status


def tell(damages: Sequence[str]) -> int:
    """Say which trials a report leaves out because of damaged records; the exit status, 1 where there are any."""
    for damage in damages:
        print(f"Left out: {damage}", file=sys.stderr)
    return 1 if damages else 0


def parser_of_run(prog: str, description: str) -> argparse.ArgumentParser:
    """The argument parser of a command that takes a run and a format."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    return parser


def show_of_run(
    argv: Sequence[str] | None, prog: str, description: str, table: Callable[[RunRecords], Printable]
) -> int:
    """Such a command, which prints the run's table; its exit status."""
    arguments = parser_of_run(prog, description).parse_args(argv)
    return show(table(RunRecords.open(arguments.run)), arguments.format)
