"""A run beside the paper: python -m ffsd_ray.report RUN --paper table1."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, Literal

import pandas as pd

from ffsd_ray.config.varying import value_at
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.paper.pairs import Pair, gains, numbers
from ffsd_ray.report.paper.protocol import differences
from ffsd_ray.report.paper.values import PaperRow, PaperTable, Printed, matches, paper_tables, printed_baseline
from ffsd_ray.report.results import Epoch
from ffsd_ray.report.tables.frame import INTEGER, INTEGERS, NUMBER, TEXT, TEXTS, column, mean_and_std
from ffsd_ray.report.tables.rows import Cell, Row, remarks_on
from ffsd_ray.report.tables.table import Table, result_table
from ffsd_ray.report.tables.text import Notes, Section, TableText, footnote_marks, footnotes

_NO_SPREAD = "no standard deviation in the paper: taken as 0"
_ONE_SEED = "one seed: no spread to judge by"
_NOT_RECORDED = "not in the records of a run"

Verdict = Literal["yes", "no", "too noisy to say"]


@dataclass(frozen=True)
class Entry:
    """One number of the paper and ours, both in the unit of `measure` (accuracies: percent; gains: points)."""

    row: str
    measure: str
    #: None where the run has no such row, or not this number of it.
    ours: Cell | None
    seeds: tuple[int, ...]
    #: As printed, and with the sample standard deviation of the paper's runs, as ours is.
    paper: Printed
    theirs: Cell
    #: Half the 95 % confidence interval of the difference; None without a verdict, or with one seed.
    margin: float | None = None
    #: None where ours is missing or the paper's table is not judged.
    within: Verdict | None = None
    #: Numbers (from 1) of the comparison's notes, by what they are on: ours, n, paper or within.
    notes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        return None if self.ours is None else self.ours.mean - self.paper.cell.mean

    @property
    def decimals(self) -> int:
        """Decimals of our number and of the difference: counts have none."""
        return self.paper.decimals and max(2, self.paper.decimals)


@dataclass(frozen=True)
class Comparison:
    """Ours and the paper's, at the models' best or last epoch."""

    title: str
    captions: tuple[str, ...]
    epoch: Epoch
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    #: See `Printable`.
    damages: tuple[str, ...] = ()

    def text(self) -> TableText:
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
        return TableText(self.title, self.captions, head, (Section(title, tuple(lines)),), self.notes, words=2)

    def frame(self) -> pd.DataFrame:
        """A line a number, those that the run lacks included; `within`: a verdict or nothing.

        Every std but `printed std` is a sample's.
        """
        entries = self.entries
        columns: dict[str, pd.Series[Any]] = {
            "row": column((entry.row for entry in entries), TEXT),
            "measure": column((entry.measure for entry in entries), TEXT),
            "epoch": column((self.epoch for _ in entries), TEXT),
            "n": column((len(entry.seeds) for entry in entries), INTEGER),
            "seeds": column((list(entry.seeds) for entry in entries), INTEGERS),
            **mean_and_std("ours", [entry.ours for entry in entries]),
            **mean_and_std("paper", [entry.theirs for entry in entries]),
            "printed std": column((entry.paper.cell.std for entry in entries), NUMBER),
            "difference": column((entry.difference for entry in entries), NUMBER),
            "margin": column((entry.margin for entry in entries), NUMBER),
            "within": column((entry.within for entry in entries), TEXT),
        }
        notes = (footnotes(self.notes, chain.from_iterable(entry.notes.values())) for entry in entries)
        return pd.DataFrame({**columns, "notes": column(notes, TEXTS)})


def compare(run: RunRecords, name: str, epoch: Epoch = "best") -> Comparison:
    """Compare a run's records so far with the table `name` of `paper_tables()`.

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
            pairs = numbers(paper, wanted, row) if _on_its_data(row, paper) else gains(paper, wanted, row)
            entries += [_entry(label, pair, paper, wanted, row, table, notes) for pair in pairs]
        if not found:
            of_none = gains if len(others) == len(table.rows) else numbers
            pairs = of_none(paper, wanted, None)
            entries += [Entry(wanted.label, pair.measure, None, (), pair.paper, _theirs(pair, paper)) for pair in pairs]
    title = f"{table.title} beside the paper's {paper.title}"
    if others:
        title += f" (data: {', '.join(dict.fromkeys(others))}, not the paper's {paper.data.name}: gains only)"
    captions = (*table.captions, *_captions(paper, matched, gains_only=bool(others)))
    return Comparison(title, captions, epoch, tuple(entries), tuple(notes.texts), table.damages)


def _on_its_data(row: Row, paper: PaperTable) -> bool:
    return matches(row.spec, paper.data.match) and row.classes in (None, paper.data.classes)


def _entry(label: str, pair: Pair, paper: PaperTable, wanted: PaperRow, row: Row, table: Table, notes: Notes) -> Entry:
    on_ours: list[str] = []
    on_paper, on_within = list(pair.notes), []
    theirs = _theirs(pair, paper)
    within, margin = None, None
    if pair.ours is None and row.seeds:
        # A gain is missing for a reason that the run's own table gives.
        of_gain = row.notes.get("Gain", ()) if pair.is_gain else ()
        on_ours = footnotes(table.notes, of_gain) or [_NOT_RECORDED]
    elif pair.ours is not None:
        on_ours = [*_not_the_protocol(row, paper, wanted), *remarks_on(row.spec)]
    if paper.no_verdict:
        on_within = [f"no verdict: {paper.no_verdict}"] if pair.ours is not None else []
    else:
        on_paper += [_NO_SPREAD] if pair.paper.cell.std is None else []
        if pair.ours is not None:
            assert pair.claim is not None
            margin = _margin(pair.ours, len(row.seeds), theirs, paper.runs)
            within = _verdict(pair.ours.mean - theirs.mean, margin, pair.claim)
            on_within = [_ONE_SEED] if margin is None else []
    said = {
        "ours": on_ours,
        "n": footnotes(table.notes, row.notes.get("n", ())),
        "paper": on_paper,
        "within": on_within,
    }
    numbered = {about: tuple(map(notes.number, texts)) for about, texts in said.items() if texts}
    return Entry(label, pair.measure, pair.ours, row.seeds, pair.paper, theirs, margin, within, numbered)


def _theirs(pair: Pair, paper: PaperTable) -> Cell:
    """The paper's number with the sample standard deviation of its runs; it prints the population's."""
    mean, std = pair.paper.cell
    if std is None:
        return pair.paper.cell
    assert paper.runs is not None
    return Cell(mean, std * math.sqrt(paper.runs / (paper.runs - 1)))


def _margin(ours: Cell, n: int, theirs: Cell, runs: int | None) -> float | None:
    """Half the 95 % confidence interval of the difference of two means (Welch); None where ours has no spread.

    The paper's mean counts as exact where it prints no spread.
    """
    if ours.std is None:
        return None
    errors = [(ours.std**2 / n, n - 1)]
    if theirs.std is not None and runs is not None:
        errors.append((theirs.std**2 / runs, runs - 1))
    error = sum(square for square, _ in errors)
    if error == 0:
        return 0.0
    from scipy.stats import t  # takes a second

    freedom = error**2 / sum(square**2 / degrees for square, degrees in errors)
    return float(t.ppf(0.975, freedom)) * math.sqrt(error)


def _verdict(difference: float, margin: float | None, claim: float) -> Verdict:
    """Whether the interval difference ± margin holds 0, which says something only where it is narrower than `claim`."""
    if margin is None:
        return "too noisy to say"
    if abs(difference) > margin and not math.isclose(abs(difference), margin):
        return "no"
    return "yes" if 2 * margin <= claim else "too noisy to say"


def _captions(paper: PaperTable, matched: Sequence[Row], *, gains_only: bool) -> Iterator[str]:
    if not paper.no_verdict:
        yield (
            "Within: m is half the 95 % confidence interval of the difference of the two means (Welch: m = "
            "t·√(s²/n + s_paper²/n_paper)). no: |Δ| > m; too noisy to say: one seed, or |Δ| ≤ m with an interval 2·m "
            "wider than the paper's claim (the number's gain over the baseline; without one, its least difference from "
            "another row); yes: |Δ| ≤ m otherwise"
        )
    if paper.runs:
        yield (
            f"Paper: its ± is the population's standard deviation of {paper.runs} runs; here and in Within it is the "
            f"sample's, as ours is: √({paper.runs}/{paper.runs - 1}) times what is printed (CSV: printed std)"
        )
    yield from paper.captions
    alone = [row.model for row in paper.rows if printed_baseline(row.model) is None]
    if gains_only and alone:
        yield f"the paper prints no baseline for {', '.join(dict.fromkeys(alone))}: no gain to compare"
    formulations = dict.fromkeys(filter(None, (value_at(row.spec, "method.formulation") for row in matched)))
    if formulations:
        yield f"formulation: {' / '.join(formulations)}"


def _not_the_protocol(row: Row, paper: PaperTable, wanted: PaperRow) -> list[str]:
    """One note with every setting in which the row's trials differ; none where they are as the paper's."""
    found = differences(row.spec, paper, wanted)
    texts = [f"{key} {ours} (protocol: {theirs})" for key, (ours, theirs) in found.items()]
    return [f"not the paper's protocol: {'; '.join(texts)}"] if texts else []


def _line(entry: Entry) -> tuple[str, ...]:
    decimals = entry.decimals
    return (
        entry.row,
        entry.measure,
        _marked(entry, "ours", "" if entry.ours is None else entry.ours.text(decimals)),
        _marked(entry, "n", str(len(entry.seeds))),
        _marked(entry, "paper", entry.theirs.text(entry.paper.decimals)),
        "" if entry.difference is None else f"{entry.difference:+.{decimals}f}",
        _marked(entry, "within", entry.within or ""),
    )


def _marked(entry: Entry, about: str, text: str) -> str:
    return f"{text} {footnote_marks(entry.notes.get(about, ()))}".strip()
