"""The table of a run: python -m ffsd_ray.report RUN."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from ffsd_ray.command import command
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.render import render_csv, render_markdown, render_terminal
from ffsd_ray.report.table import Epoch, result_table


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.report", description="Print the table of a run.")
    parser.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    parser.add_argument("--format", choices=["terminal", "markdown", "csv"], default="terminal")
    parser.add_argument("--epoch", choices=["best", "last", "both"], default="both", help="default: both")
    arguments = parser.parse_args(argv)
    epochs: Sequence[Epoch] = ("best", "last") if arguments.epoch == "both" else (arguments.epoch,)
    table = result_table(RunRecords.open(arguments.run), epochs)
    if arguments.format == "markdown":
        print(render_markdown(table), end="")
    elif arguments.format == "csv":
        print(render_csv(table), end="")
    else:
        Console().print(render_terminal(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
