"""The table of a run, as in the paper's Table I: a row a configuration, mean ± standard deviation over its seeds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pandas as pd

from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial, collect, damages
from ffsd_ray.report.columns import in_table_order
from ffsd_ray.report.filters import trial_key, where
from ffsd_ray.report.results import EPOCHS, Epoch, results_frame
from ffsd_ray.report.significance import COMPARED, compared, comparison_caption, comparison_texts, reference_of
from ffsd_ray.report.tables.captions import Caption, captions
from ffsd_ray.report.tables.frame import INTEGER, INTEGERS, NUMBER, TEXT, TEXTS, column, mean_and_std, settings
from ffsd_ray.report.tables.groups import Group, averaged, configurations, grouped, without_teachers
from ffsd_ray.report.tables.rows import Cell, Difference, Row, make_rows
from ffsd_ray.report.tables.text import Notes, Section, TableText, footnote_marks, footnotes

#: A caption says no more of teachers than this many configurations.
_MOST_TEACHERS = 8


@dataclass(frozen=True)
class Table:
    """A run's results; `columns` are those with a value in some row, besides the configuration and n."""

    title: str
    all_captions: tuple[Caption, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    #: The keys in which trials of the same row may differ.
    averaged: tuple[str, ...] = ("seed",)
    #: See `Printable`.
    damages: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        return self.captions_without()

    def captions_without(self, *subjects: str) -> tuple[str, ...]:
        """The captions but for those about these `subjects`."""
        return tuple(caption.text for caption in self.all_captions if caption.about not in subjects)

    def at(self, epoch: Epoch) -> list[Row]:
        return [row for row in self.rows if row.epoch == epoch]

    @property
    def first_epoch(self) -> "Table":
        """The rows of one epoch alone: the best, where there are both."""
        return replace(self, rows=tuple(row for row in self.rows if row.epoch == self.rows[0].epoch))

    @property
    def compares(self) -> bool:
        return any(row.difference is not None for row in self.rows)

    @property
    def ends(self) -> bool:
        """Whether some trial ended otherwise than by completing."""
        return any(end != "completed" for row in self.rows for end in row.ended)

    def text(self) -> TableText:
        """A section an epoch; what is missing as a mark."""
        sections = [
            Section(f"{epoch.capitalize()} epoch", tuple(map(self._line, rows)))
            for epoch in EPOCHS
            if (rows := self.at(epoch))
        ]
        head = ["Configuration", "n", *self.columns, *(COMPARED if self.compares else ()), *["Ended"] * self.ends]
        return TableText(self.title, self.captions, tuple(head), tuple(sections), self.notes)

    def frame(self) -> pd.DataFrame:
        """A line a row and epoch.

        `configuration`, `epoch`, `n` (trials), `seeds`; each setting in which the rows differ, under its dotted key;
        each column of the table and its standard deviation; where the table compares, the fields of `Difference`;
        `ended`, an entry a trial; `notes`; `trials`, the folders under RUN/trials.
        """
        rows = self.rows
        columns: dict[str, pd.Series[Any]] = {
            "configuration": column((row.configuration for row in rows), TEXT),
            "epoch": column((row.epoch for row in rows), TEXT),
            "n": column((len(row.seeds) for row in rows), INTEGER),
            "seeds": column((list(row.seeds) for row in rows), INTEGERS),
            **settings([row.spec for row in rows], without=self.averaged),
        }
        for name in self.columns:
            columns |= mean_and_std(name, [row.cells.get(name) for row in rows])
        if self.compares:
            differences = [row.difference or Difference(None, 0) for row in rows]
            columns |= mean_and_std("difference", [difference.cell for difference in differences])
            for index, bound in enumerate(("low", "high")):
                bounds = (difference.interval and difference.interval[index] for difference in differences)
                columns[f"difference {bound}"] = column(bounds, NUMBER)
            columns["p"] = column((difference.p for difference in differences), NUMBER)
            columns["p corrected"] = column((difference.p_corrected for difference in differences), NUMBER)
            columns["pairs"] = column((difference.pairs for difference in differences), INTEGER)
            columns["seeds needed"] = column((difference.seeds_needed for difference in differences), INTEGER)
        columns["ended"] = column((list(row.ended) for row in rows), TEXTS)
        columns["notes"] = column(map(self.notes_on, rows), TEXTS)
        columns["trials"] = column((list(row.trials) for row in rows), TEXTS)
        return pd.DataFrame(columns)

    def notes_on(self, row: Row) -> list[str]:
        return footnotes(self.notes, chain.from_iterable(row.notes.values()))

    def _line(self, row: Row) -> tuple[str, ...]:
        texts = {"configuration": row.configuration, "n": str(len(row.seeds))}
        texts |= {name: row.cells[name].text() if name in row.cells else "" for name in self.columns}
        if self.compares:
            texts |= dict(zip(COMPARED, comparison_texts(row), strict=True))
        marked = [f"{text} {footnote_marks(row.notes.get(name, ()))}".strip() for name, text in texts.items()]
        return *marked, *([_ended(row.ended)] if self.ends else [])


def _ended(ends: Sequence[str]) -> str:
    """In few words: who exploited whom is in the records."""
    found = list(dict.fromkeys(map(_shortened, ends)))
    if len(found) < 2:
        return "".join(found)
    return ", ".join(f"{count} {kind}" for kind, count in Counter(end.split()[0] for end in ends).items())


def _shortened(end: str) -> str:
    exploits = end.split("; ")
    if not end.startswith("exploited"):
        return end
    last = exploits[-1].rpartition(" at ")[2]
    return f"exploited at {last}" if len(exploits) == 1 else f"exploited {len(exploits)} times, last at {last}"


def result_table(run: RunRecords, epochs: Sequence[Epoch] = EPOCHS) -> Table:
    """The table of what a run's records hold so far, see `table_of`.

    Raises:
        RecordsError: the records are of another version.
    """
    return table_of(run.job(), collect(run), epochs)


def table_of(
    job: Mapping[str, Any],
    trials: Sequence[Trial],
    epochs: Sequence[Epoch] = EPOCHS,
    *,
    conditions: Sequence[str] = (),
    by: Sequence[str] = (),
    against: str | None = None,
) -> Table:
    """The table of a run's trials.

    Gain is a trial's primary accuracy minus that of the baseline trial with the same data, backbone, train section,
    scale section and seed, both at their best or both at their last epoch. It is left blank, with the reason as a note,
    unless every completed trial of a row has such a baseline. Trials that others only learn from are in no row; a
    caption says what they reach.

    Args:
        job: as `RunRecords.job` has it.
        trials: all of them, in the job's order: gains are found there even where `conditions` leave baselines out.
        conditions: rows are of the trials that meet these, see `where`.
        by: the dotted keys whose values make a row; none: everything but the seed.
        against: `key=value,...` of the row whose primary accuracy is compared with.

    Raises:
        JobError, RecordsError: no such key, no such trial, or not one row to compare with.
    """
    keys = [trial_key(key, f"--by {key}") for key in by]
    kept = filter_trials(trials, conditions)
    results = results_frame(trials)

    def group(some: Sequence[Trial]) -> list[Group]:
        return grouped(some, keys) if keys else configurations(some, job.get("report", {}).get("rows"))

    shown = without_teachers(kept)
    groups, notes = group(shown), Notes()
    rows = make_rows(groups, epochs, results, notes)
    said = list(captions(shown, epochs, averaged(groups) if keys else ()))
    if len(shown) < len(kept):
        said += _about_teachers([trial for trial in kept if trial.spec.is_teacher])
    if against is not None:
        reference = reference_of(groups, lambda: group(without_teachers(trials)), against)
        others = {row.epoch: row for row in make_rows([reference], epochs, results, Notes())}
        rows = compared(rows, others, notes)
        said.append(Caption("rows", comparison_caption(rows, others[epochs[0]])))
    return Table(
        _title(job),
        tuple(said),
        in_table_order(name for row in rows for name in (*row.cells, *row.notes)),
        tuple(rows),
        tuple(notes.texts),
        averaged=tuple(averaged(groups)) if keys else ("seed",),
        damages=damages(trials),
    )


def filter_trials(trials: Sequence[Trial], conditions: Sequence[str]) -> list[Trial]:
    """Those that meet the conditions, see `where`."""
    met = {spec.identity() for spec in where([trial.spec for trial in trials], conditions)}
    return [trial for trial in trials if trial.spec.identity() in met]


def _about_teachers(teachers: Sequence[Trial]) -> Iterator[Caption]:
    """Accuracies of the trials that are in no row, by configuration."""
    groups = configurations(teachers, None)
    backbones = [group.spec.backbone.name for group in groups]
    names = backbones if len(set(backbones)) == len(groups) else [group.name for group in groups]
    each = []
    for name, group in zip(names, groups, strict=True):
        results = [trial.result for trial in group.trials if trial.result is not None]
        top1 = [result["last"][f"test/{result['primary_series']}/top1"] for result in results]
        each.append(f"{name} {Cell.of(top1).text() if top1 else 'not completed'} (n = {len(top1)})")
    if len(each) > _MOST_TEACHERS:
        each = [*each[: _MOST_TEACHERS - 1], f"{len(each) - _MOST_TEACHERS + 1} more"]
    if each:
        reached = f"last epoch: {', '.join(each)}"
        yield Caption("teachers", f"In no row: teachers and ensemble members, whose seeds are their own; {reached}")


def _title(job: Mapping[str, Any]) -> str:
    """The job's name, and whether its trials were chosen by what they are compared by."""
    search = job.get("search", {})
    by_test = any(search.get(part, {}).get("by_test") for part in ("searcher", "scheduler"))
    return f"{job['name']} (trials chosen while training, ranked by test accuracy)" if by_test else job["name"]
