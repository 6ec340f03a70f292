"""Showing a table in the form asked for: --format and --out of every command that prints one."""

import argparse
import sys
from collections.abc import Sequence

from ffsd_ray.report.tables.export import render_csv, render_latex, render_markdown, write_parquet
from ffsd_ray.report.tables.terminal import render_terminal
from ffsd_ray.report.tables.text import Printable
from ffsd_ray.terminal import Screen

_TEXT = {"markdown": render_markdown, "latex": render_latex, "csv": render_csv}
FORMATS = ("terminal", *_TEXT, "parquet")


def show(table: Printable, form: str, out: str | None = None) -> int:
    """Say what is left out of `table`, and print it in one of `FORMATS` or write it to `out`; the status of `tell`.

    Raises:
        JobError: `out`, which Parquet needs, cannot be written.
    """
    status = tell(table.damages)
    if form == "parquet":
        assert out is not None
        print(write_parquet(table, out))
    elif form in _TEXT:
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
    """The argument parser of a command that takes a run, and a format and a file for its table."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    parser.add_argument("--out", metavar="FILE", help="of --format parquet")
    return parser


def check_format(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the command with a message on `--format` and `--out` that do not go together."""
    if arguments.format == "parquet" and not arguments.out:
        parser.error("--format parquet needs --out FILE")
    if arguments.out and arguments.format != "parquet":
        parser.error("--out is for --format parquet; other tables go to the standard output")
