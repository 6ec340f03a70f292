"""Report a run: python -m ffsd_ray.report RUN prints its table, compares it with the paper's, or draws a plot."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffsd_ray.command import command, parse_positional
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.best import STDOUT, best_job, write_best
from ffsd_ray.report.collect import Trial, collect, environments, histories
from ffsd_ray.report.page.build import write_page
from ffsd_ray.report.page.watch import watch
from ffsd_ray.report.paper.compare import compare
from ffsd_ray.report.paper.values import paper_tables
from ffsd_ray.report.plots.plot import EPOCHS, plot
from ffsd_ray.report.ranking import in_order
from ffsd_ray.report.results import Epoch
from ffsd_ray.report.tables.show import FORMATS, check_format, show, tell
from ffsd_ray.report.tables.summary import Summary
from ffsd_ray.report.tables.table import Table, filter_trials, table_of

#: What does not go with another way to show a run.
_APART = {
    "paper": ("detail", "where", "by", "sort", "reverse", "by_test", "against"),
    "plot": ("detail", "by", "against"),
    "html": ("detail", "by"),
    "best": ("detail", "by", "sort", "reverse", "against"),
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parse_positional(parser, argv, "run", "plot", "best")
    _check(parser, arguments)
    run = RunRecords.open(arguments.run)
    if arguments.paper:
        comparison = compare(run, arguments.paper, arguments.epoch or "best")
        return show(comparison, arguments.format, arguments.out)
    if arguments.html:
        return _page(run, arguments)
    job, trials = run.job(), collect(run, *[histories] * (arguments.plot == [EPOCHS]))
    table = _table(job, trials, arguments)
    if not (arguments.best or arguments.plot):
        detailed = arguments.detail or arguments.against or arguments.format != "terminal"
        return show(table if detailed else Summary(table), arguments.format, arguments.out)
    status = tell(table.damages)
    if arguments.best:
        write_best(best_job(job, table, trials, by_test=_by_test(job, arguments)), arguments.best)
    else:
        print(plot(run, table, arguments.plot, arguments.out))
    return status


def _page(run: RunRecords, arguments: argparse.Namespace) -> int:
    """Write the page, with --watch until the run has ended; the exit status."""
    damages: tuple[str, ...] = ()

    def write(watched: bool = False) -> tuple[Path, list[Trial]]:
        nonlocal damages
        job, trials = run.job(), collect(run, histories, environments)
        table, shown = _table(job, trials, arguments), filter_trials(trials, arguments.where)
        damages = table.damages
        return write_page(run, table, shown, arguments.html, watched=watched), shown

    if arguments.watch:
        watch(run, write)
    else:
        page, _ = write()
        print(page)
    return tell(damages)


def _table(job: Mapping[str, Any], trials: Sequence[Trial], arguments: argparse.Namespace) -> Table:
    epochs = _epochs(arguments.epoch or ("best" if arguments.plot or arguments.best else None))
    table = table_of(job, trials, epochs, conditions=arguments.where, by=arguments.by, against=arguments.against)
    if arguments.sort:
        by_test = _by_test(job, arguments)
        table = in_order(table, arguments.sort, reverse=arguments.reverse, by_test=by_test)
    return table


def _by_test(job: Mapping[str, Any], arguments: argparse.Namespace) -> bool:
    return bool(arguments.by_test) or job.get("report", {}).get("rank_by") == "test"


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    for way, others in _APART.items():
        for other in others if getattr(arguments, way) else ():
            if getattr(arguments, other):
                parser.error(f"--{other.replace('_', '-')} does not go with --{way}")
    if arguments.epoch == "both" and (arguments.paper or arguments.plot or arguments.best):
        parser.error("--paper, --plot and --best are of one epoch: best or last")
    if arguments.reverse and not arguments.sort:
        parser.error("--reverse turns the order of --sort round; give that too")
    if arguments.format != "terminal" and (arguments.plot or arguments.html or arguments.best):
        parser.error("--format is of tables: it does not go with --plot, --html and --best")
    if arguments.watch and not arguments.html:
        parser.error("--watch keeps a page up to date; give its file: --html FILE")
    if not arguments.plot:
        check_format(parser, arguments)


def _epochs(asked: str | None) -> Sequence[Epoch]:
    return ("last",) if asked == "last" else ("best",) if asked == "best" else ("best", "last")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffsd report", description="Print the table of a run, or what else its records say."
    )
    parser.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--paper", choices=list(paper_tables()), help="ours beside what the paper prints")
    what.add_argument(
        "--plot",
        action="extend",
        nargs="+",
        metavar="KEY",
        help="accuracies against dotted keys: one, e.g. method.students (Fig. 6): lines; two: a heat map; more: "
        "parallel coordinates; the word epochs: training curves",
    )
    what.add_argument("--html", metavar="FILE", help="all of it as one page that opens offline")
    parser.add_argument(
        "--watch", action="store_true", help="with --html: write the page again as the run goes on, until it has ended"
    )
    what.add_argument(
        "--best",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="the best configuration as a job file, ready to run; without FILE it is printed",
    )
    parser.add_argument(
        "--detail",
        action="store_true",
        help="every member's accuracy and the ensembles', best and last epoch (Table I); --against and --format other "
        "than terminal have it anyway",
    )
    rows = parser.add_argument_group("rows", "KEY is a dotted key of trials; method, backbone and data mean their name")
    rows.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only trials with this setting; repeatable"
    )
    rows.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="KEY",
        help="a row for each value of this key, the mean of all trials that have it; repeatable",
    )
    rows.add_argument(
        "--sort",
        metavar="COLUMN|KEY",
        help="rows by a column (leader, gain, ...; accuracy: each method's own), the highest first, compared on the "
        "validation split where there is one; or by a key, ascending",
    )
    rows.add_argument("--reverse", action="store_true", help="reverse the order of --sort")
    rows.add_argument(
        "--by-test",
        action="store_true",
        help="--sort and --best by accuracy on the test images, as report.rank_by: test in the job file",
    )
    rows.add_argument(
        "--against",
        metavar="KEY=VALUE,...",
        help="differences from the row with these settings, paired over seeds, with the p value of a paired t-test",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="of --format parquet; of --plot: .png, .svg or .pdf, default: JOB-KEY.png"
    )
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="of tables")
    parser.add_argument(
        "--epoch", choices=["best", "last", "both"], help="default: both; with --paper, --plot and --best: best"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
