"""Accuracy and cost of a run's configurations, a line each: python -m ffsd_ray.report.methods RUN."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ffsd_ray.command import command
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods.shared.with_teacher import TeacherSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial, collect, environments
from ffsd_ray.report.columns import GAIN
from ffsd_ray.report.cost import SIZES, Cost, cost_of
from ffsd_ray.report.measured import Measured, read_measured
from ffsd_ray.report.tables.frame import INTEGER, NUMBER, TEXT, TEXTS, column, mean_and_std
from ffsd_ray.report.tables.groups import without_teachers
from ffsd_ray.report.tables.rows import Cell
from ffsd_ray.report.tables.show import check_format, parser_of_run, show
from ffsd_ray.report.tables.table import table_of
from ffsd_ray.report.tables.text import Section, TableText, footnote_marks

#: Columns that are there in any case.
_NAMES = ("Configuration", "n")


@dataclass(frozen=True)
class Line:
    """One configuration, after its last epoch."""

    cost: Cost
    #: The member that is deployed; '' where no trial has completed.
    deploys: str
    #: Seconds of a step measured apart; None without.
    step: float | None
    #: None where no trial has completed.
    images_per_second: Cell | None
    #: Bytes, the most of any trial; None on CPUs, unless it was measured apart.
    peak: int | None
    #: Seconds an image, relative to the row's baseline, and to as many baselines as networks are trained together; and
    #: operations an image, relative to the baseline. None without one.
    time: float | None
    per_network: float | None
    work: float | None
    #: The networks that are trained before, '' for none.
    before: str


@dataclass(frozen=True)
class MethodsTable:
    """A run's configurations; `captions` as in the table of its results."""

    title: str
    captions: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    #: See `Printable`.
    damages: tuple[str, ...] = ()

    def text(self) -> TableText:
        """A line a configuration; what is missing as a mark. What no line has is left out."""
        texts = [_texts(line) for line in self.lines]
        names = texts[0] if texts else _NAMES
        head = [name for name in names if name in _NAMES or any(text[name] for text in texts)]
        rows = tuple(tuple(text[name] for name in head) for text in texts)
        return TableText(self.title, self.captions, tuple(head), (Section("Last epoch", rows),), self.notes)

    def frame(self) -> pd.DataFrame:
        """A line a configuration; `trials`: the folders under RUN/trials of those that have completed."""
        lines, rows = self.lines, [line.cost.row for line in self.lines]
        sizes = [line.cost.parameters or {} for line in lines]
        return pd.DataFrame(
            {
                "configuration": column((row.configuration for row in rows), TEXT),
                "n": column((len(row.seeds) for row in rows), INTEGER),
                **mean_and_std("accuracy", [row.primary and row.primary.accuracy for row in rows]),
                **mean_and_std("gain", [row.cells.get(GAIN) for row in rows]),
                **mean_and_std("images/s", [line.images_per_second for line in lines]),
                "time": column((line.time for line in lines), NUMBER),
                "time / members": column((line.per_network for line in lines), NUMBER),
                "work": column((line.work for line in lines), NUMBER),
                "step ms": column((line.step and 1e3 * line.step for line in lines), NUMBER),
                "peak bytes": column((line.peak for line in lines), INTEGER),
                **{f"parameters {which}": column((size.get(which) for size in sizes), INTEGER) for which in SIZES},
                "trained before": column((line.before for line in lines), TEXT),
                "accuracy of": column((row.primary_column for row in rows), TEXT),
                "deploys": column((line.deploys for line in lines), TEXT),
                "trials": column((list(row.trials) for row in rows), TEXTS),
            }
        )


def methods_table(run: RunRecords, bench: Path | None = None) -> MethodsTable:
    """One line for each configuration, from what the records hold so far.

    `bench`: the record of `python -m ffsd_ray.bench JOB --all`, whose times and memory are shown in place of the run's.

    Raises:
        RecordsError: the records are of another version; `bench` is no such record, or has none of the configurations.
    """
    trials = collect(run, environments)
    table = table_of(run.job(), trials, ["last"])
    apart = read_measured(bench, [row.spec.identity() for row in table.rows]) if bench else None
    costs = {row.spec.identity(): cost_of(run, row) for row in table.rows}
    shown = without_teachers(trials)
    results = {identity: _results(shown, identity) for identity in costs}
    measured = apart.figures if apart else {identity: _of_run(found) for identity, found in results.items() if found}
    lines = []
    for identity, cost in costs.items():
        own, alone = measured.get(identity), _baseline(cost.row.spec)
        beside, work = measured.get(alone), costs[alone].step if alone in costs else None
        time = beside.images_per_second.mean / own.images_per_second.mean if own and beside else None
        lines.append(
            Line(
                cost,
                " / ".join(dict.fromkeys(result["deployed"] for result in results[identity])),
                own.step if own else None,
                own.images_per_second if own else None,
                own.peak if own else None,
                time,
                time / own.networks if own and time else None,
                cost.step / work if cost.step and work else None,
                _before(cost.row.spec),
            )
        )
    said = (
        apart.caption if apart else "Images/s: of training in the last epoch; Peak: most memory allocated on a GPU",
        "Time ×, Work ×: seconds and operations of a training step, for an image, relative to the baseline with the "
        "same data, backbone, optimisation and scale; ÷ members: Time × by the networks that are trained together",
        "Trained, Deployed: parameters; Trained before: networks, each as a trial of its own, "
        "which no other column counts",
    )
    return MethodsTable(table.title, (*table.captions, *said), tuple(lines), table.notes, table.damages)


def _baseline(spec: TrialSpec) -> str:
    return spec.baseline().identity()


def _results(trials: Sequence[Trial], identity: str) -> list[dict[str, Any]]:
    """Images per second, mean and deviation over a row's completed trials."""
    return [trial.result for trial in trials if trial.result and trial.spec.configuration().identity() == identity]


def _of_run(results: Sequence[Mapping[str, Any]]) -> Measured:
    networks = {*results[0]["common"], results[0]["deployed"]}
    return Measured(
        None,
        Cell.of(result["last"]["images_per_second"] for result in results),
        max(result.get("peak_memory") or 0 for result in results) or None,
        len(networks),
    )


def _before(spec: TrialSpec) -> str:
    if isinstance(spec.method, TeacherSettings) and spec.method.teacher_weights:
        return f"{spec.method.teacher or spec.backbone.name} (a file)"
    found = Counter(trial.backbone.name for trial in spec.prerequisites())
    return ", ".join(f"{number} × {name}" for name, number in found.items())


def _texts(line: Line) -> dict[str, str]:
    row, speed, sizes = line.cost.row, line.images_per_second, line.cost.parameters or {}
    gain = row.cells[GAIN].text() if GAIN in row.cells else ""
    return {
        "Configuration": f"{row.configuration} {footnote_marks(row.notes.get('configuration', ()))}".strip(),
        "n": f"{len(row.seeds)} {footnote_marks(row.notes.get('n', ()))}".strip(),
        "Accuracy": row.primary.accuracy.text() if row.primary else "",
        "Gain": f"{gain} {footnote_marks(row.notes.get(GAIN, ()))}".strip(),
        "Step (ms)": "" if line.step is None else f"{1e3 * line.step:.0f}",
        "Time ×": _number(line.time),
        "÷ members": _number(line.per_network),
        "Work ×": _number(line.work),
        "Images/s": speed.text(0) if speed else "",
        "Peak (MiB)": "" if line.peak is None else f"{line.peak / 2**20:,.0f}",
        "Trained": f"{sizes['trained']:,}" if sizes else "",
        "Deployed": f"{sizes['deployed']:,}" if sizes else "",
        "Trained before": line.before,
        "Accuracy of": row.primary_column,
        "Deploys": line.deploys,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of_run(
        "ffsd methods",
        "Print what each configuration of a run reaches, what it deploys and what it costs, a line each.",
    )
    parser.add_argument(
        "--bench",
        type=Path,
        metavar="FILE",
        help="times and memory from this record of `python -m ffsd_ray.bench JOB --all`, in place of the run's own",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    check_format(parser, arguments)
    table = methods_table(RunRecords.open(arguments.run), arguments.bench)
    return show(table, arguments.format, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
