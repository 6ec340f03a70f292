"""A run beside the paper: python -m ffsd_ray.report RUN --paper table1."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ffsd_ray.methods.dml import MutualSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.pairs import Pair, gains, numbers
from ffsd_ray.report.paper import PaperTable, Printed, matches, paper_tables, printed_baseline
from ffsd_ray.report.row import Cell, Epoch, Row, remarks_on
from ffsd_ray.report.sheet import Notes, Section, Sheet, marks
from ffsd_ray.report.table import Table, result_table
from ffsd_ray.spec.labels import has
from ffsd_ray.spec.load import value_at
from ffsd_ray.spec.problems import shown
from ffsd_ray.spec.trial import TrialSpec

_NO_SPREAD = "no standard deviation in the paper: taken as 0"
_ONE_SEED = "one seed: no spread, so no verdict"
_NOT_RECORDED = "not in the records of a run"


@dataclass(frozen=True)
class Entry:
    """One number of the paper and ours, both in the unit of `measure` (accuracies: percent; gains: points)."""

    row: str
    measure: str
    #: None where the run has no such row, or not this number of it.
    ours: Cell | None
    seeds: tuple[int, ...]
    paper: Printed
    #: |Δ| ≤ 2·sqrt(s_ours² + s_paper²); None where there is no verdict.
    within: bool | None
    #: Numbers (from 1) of the comparison's notes, by what they are on: ours, n, paper or within.
    notes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        return None if self.ours is None else self.ours.mean - self.paper.cell.mean

    @property
    def decimals(self) -> int:
        """Of ours and of the difference: counts have none."""
        return self.paper.decimals and max(2, self.paper.decimals)


@dataclass(frozen=True)
class Comparison:
    """Ours and the paper's, at the models' best or last epoch."""

    title: str
    captions: tuple[str, ...]
    epoch: Epoch
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    def sheet(self) -> Sheet:
        """A line a number; a row that the run lacks is one line."""
        lines: list[tuple[str, ...]] = []
        for _, entries in groupby(self.entries, key=lambda entry: entry.row):
            group = list(entries)
            if any(entry.seeds for entry in group):
                lines += map(_line, group)
            else:
                lines.append((group[0].row, "", "missing", _marked(group[0], "n", "0"), "", "", ""))
        head = ("Row", "Measure", "Ours", "n", "Paper", "Δ", "Within")
        title = f"{self.epoch.capitalize()} epoch"
        return Sheet(self.title, self.captions, head, (Section(title, tuple(lines)),), self.notes, words=2)

    def records(self) -> list[list[str]]:
        """A line a number, those that the run lacks included; within: yes, no or nothing."""
        head = ["row", "measure", "epoch", "n", "seeds", "ours", "ours std", "paper", "paper std", "difference"]
        lines = [[*head, "within", "notes"]]
        for entry in self.entries:
            ours = entry.ours or (None, None)
            numbers = [*ours, *entry.paper.cell, entry.difference]
            lines.append(
                [
                    *(entry.row, entry.measure, self.epoch, str(len(entry.seeds)), " ".join(map(str, entry.seeds))),
                    *("" if number is None else f"{number:.{entry.decimals}f}" for number in numbers),
                    _verdict(entry),
                    "; ".join(self.notes[number - 1] for numbers in entry.notes.values() for number in numbers),
                ]
            )
        return lines


def compare(run: RunRecords, name: str, epoch: Epoch = "best") -> Comparison:
    """What a run's records hold so far, beside the table `name` of `paper_tables()`.

    On another data set than the paper's, gains over the baseline are compared and accuracies are not.

    Raises:
        RecordsError: the records are of another version.
    """
    table, paper = result_table(run, [epoch]), paper_tables()[name]
    notes = Notes()
    entries: list[Entry] = []
    matched: list[Row] = []
    others = [row.spec.data.name for row in table.rows if not _on_its_data(row, paper)]
    for wanted in paper.rows:
        found = [row for row in table.rows if matches(row.spec, wanted.match)]
        matched += found
        for row in found:
            label = wanted.label if len(found) == 1 else f"{wanted.label} ({row.configuration})"
            pairs = numbers(wanted, row) if _on_its_data(row, paper) else gains(wanted, row)
            entries += [_entry(label, pair, paper, row, table, notes) for pair in pairs]
        if not found:
            pairs = gains(wanted, None) if len(others) == len(table.rows) else numbers(wanted, None)
            entries += [Entry(wanted.label, pair.measure, None, (), pair.paper, None) for pair in pairs]
    title = f"{table.title} beside the paper's {paper.title}"
    if others:
        title += f" (data: {', '.join(dict.fromkeys(others))}, not the paper's {paper.data.name}: gains only)"
    captions = (*table.captions, *_captions(paper, [row.spec for row in matched], gains_only=bool(others)))
    return Comparison(title, captions, epoch, tuple(entries), tuple(notes.texts))


def _on_its_data(row: Row, paper: PaperTable) -> bool:
    return matches(row.spec, paper.data.match) and row.classes in (None, paper.data.classes)


def _entry(label: str, pair: Pair, paper: PaperTable, row: Row, table: Table, notes: Notes) -> Entry:
    on_ours: list[str] = []
    on_paper, on_within = list(pair.notes), []
    within = None
    if pair.ours is None and row.seeds:
        # A gain is missing for a reason that the run's own table gives.
        of_gain = row.notes.get("Gain", ()) if pair.is_gain else ()
        on_ours = [table.notes[number - 1] for number in of_gain] or [_NOT_RECORDED]
    elif pair.ours is not None:
        on_ours = remarks_on(row.spec)
    if paper.no_verdict:
        on_within = [f"no verdict: {paper.no_verdict}"] if pair.ours is not None else []
    else:
        on_paper += [_NO_SPREAD] if pair.paper.cell.std is None else []
        if pair.ours is not None and pair.ours.std is None:
            on_within = [_ONE_SEED]
        elif pair.ours is not None:
            within = _within(pair.ours, pair.paper.cell)
    said = {
        "ours": on_ours,
        "n": [table.notes[number - 1] for number in row.notes.get("n", ())],
        "paper": on_paper,
        "within": on_within,
    }
    numbered = {about: tuple(map(notes.number, texts)) for about, texts in said.items() if texts}
    return Entry(label, pair.measure, pair.ours, row.seeds, pair.paper, within, numbered)


def _within(ours: Cell, paper: Cell) -> bool:
    assert ours.std is not None
    difference, bound = abs(ours.mean - paper.mean), 2 * math.hypot(ours.std, paper.std or 0.0)
    return difference <= bound or math.isclose(difference, bound)


def _captions(paper: PaperTable, specs: Sequence[TrialSpec], *, gains_only: bool) -> Iterator[str]:
    if not paper.no_verdict:
        yield "within: |Δ| ≤ 2·√(s² + s_paper²), where s and s_paper are the standard deviations over seeds"
    yield from paper.captions
    alone = [row.model for row in paper.rows if printed_baseline(row.model) is None]
    if gains_only and alone:
        yield f"the paper prints no baseline for {', '.join(dict.fromkeys(alone))}: no gain to compare"
    formulations = dict.fromkeys(filter(None, (value_at(spec, "method.formulation") for spec in specs)))
    if formulations:
        yield f"formulation: {' / '.join(formulations)}"
    differing = [_differing(key, value, specs) for key, value in paper.protocol.items()]
    if any(differing):
        yield f"not the paper's protocol: {'; '.join(filter(None, differing))}"


def _differing(key: str, wanted: object, specs: Sequence[TrialSpec]) -> str:
    """`epochs 10 (paper: 300)`; '' where every trial is as the paper's."""
    if key == "train.milestones":
        values: list[object] = [spec.train.decay_epochs for spec in specs]
    else:
        # What it says of a method is of DML and FFSD.
        own = [spec for spec in specs if isinstance(spec.method, MutualSettings) or not key.startswith("method.")]
        values = [value_at(spec, key) for spec in own if has(spec, key)]
    others = dict.fromkeys(shown(value) for value in values if value != wanted)
    return f"{key.rpartition('.')[2]} {' / '.join(others)} (paper: {shown(wanted)})" if others else ""


def _line(entry: Entry) -> tuple[str, ...]:
    decimals = entry.decimals
    return (
        entry.row,
        entry.measure,
        _marked(entry, "ours", "" if entry.ours is None else entry.ours.text(decimals)),
        _marked(entry, "n", str(len(entry.seeds))),
        _marked(entry, "paper", entry.paper.cell.text(entry.paper.decimals)),
        "" if entry.difference is None else f"{entry.difference:+.{decimals}f}",
        _marked(entry, "within", _verdict(entry)),
    )


def _marked(entry: Entry, about: str, text: str) -> str:
    return f"{text} {marks(entry.notes.get(about, ()))}".strip()


def _verdict(entry: Entry) -> str:
    return "" if entry.within is None else "yes" if entry.within else "no"
