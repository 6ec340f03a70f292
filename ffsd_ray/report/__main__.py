"""What a run's records say: python -m ffsd_ray.report RUN, its table, beside the paper's or as a plot."""

import argparse
import sys
from collections.abc import Sequence

from ffsd_ray.command import command
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import collect
from ffsd_ray.report.comparison import compare
from ffsd_ray.report.page import write_page
from ffsd_ray.report.paper import paper_tables
from ffsd_ray.report.plot import plot
from ffsd_ray.report.row import Epoch
from ffsd_ray.report.show import FORMATS, show
from ffsd_ray.report.table import result_table


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.epoch == "both" and (arguments.paper or arguments.plot):
        parser.error("--paper and --plot show one epoch: best or last")
    if arguments.out and not arguments.plot:
        parser.error("--out is for --plot; a table goes to the standard output")
    run = RunRecords.open(arguments.run)
    if arguments.plot:
        print(plot(run, result_table(run, [arguments.epoch or "best"]), arguments.plot, arguments.out))
    elif arguments.html:
        print(write_page(run, result_table(run, _epochs(arguments.epoch)), collect(run), arguments.html))
    elif arguments.paper:
        show(compare(run, arguments.paper, arguments.epoch or "best"), arguments.format)
    else:
        show(result_table(run, _epochs(arguments.epoch)), arguments.format)
    return 0


def _epochs(asked: str | None) -> Sequence[Epoch]:
    return ("last",) if asked == "last" else ("best",) if asked == "best" else ("best", "last")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ffsd_ray.report", description="Print the table of a run, or what else its records say."
    )
    parser.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--paper", choices=list(paper_tables()), help="ours beside what the paper prints")
    what.add_argument(
        "--plot",
        nargs="+",
        metavar="KEY",
        help="accuracies against dotted keys: one, e.g. method.students (Fig. 6): lines; two: a heat map; more: "
        "parallel coordinates; the word epochs: training curves",
    )
    what.add_argument("--html", metavar="FILE", help="all of it as one page that opens offline")
    parser.add_argument("--out", metavar="FILE", help="of --plot: .png, .svg or .pdf; default: JOB-KEY.png")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="of tables")
    parser.add_argument(
        "--epoch", choices=["best", "last", "both"], help="default: both; with --paper and --plot: best"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
