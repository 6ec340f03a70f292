"""A run at a glance: a line a configuration with one accuracy, its gain and its cost, and what is not noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import pandas as pd

from ffsd_ray.config.inspection.flops import flops_per_image
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.report.columns import GAIN
from ffsd_ray.report.results import Epoch
from ffsd_ray.report.significance import CONFIDENCE, holm, paired_test
from ffsd_ray.report.tables.rows import Row
from ffsd_ray.report.tables.table import Table
from ffsd_ray.report.tables.text import PLUS_MINUS, Section, TableText, footnote_marks, footnotes

#: Behind a gain that chance explains.
NOISE = "~"
#: p values below it are no chance.
_LEVEL = 0.05
#: Captions of the table that the summary has as they are.
_CAPTIONS = ("protocol", "best epoch", "ended", "teachers", "rows")
#: Gains that the verdict names on each side.
_NAMED = 3
#: Columns whose notes are about trials that are missing; other notes are on methods.
_NOTED = ("n", GAIN)


class Gain(NamedTuple):
    """A row's gain over the baseline at an epoch, paired over seeds, and what a t-test makes of it."""

    row: Row
    mean: float
    #: Of the mean, 95 %; None with one seed, or where it is the same for every seed.
    interval: tuple[float, float] | None = None
    #: Two-sided, and corrected by Holm's method for the number of the table's gains.
    p: float | None = None
    p_corrected: float | None = None

    @property
    def is_noise(self) -> bool:
        """Whether chance explains it, or may do."""
        return self.p_corrected is None or self.p_corrected >= _LEVEL


@dataclass(frozen=True)
class Summary:
    """A table of results in short; `table` has the best epoch, the last, or both."""

    table: Table

    @property
    def damages(self) -> tuple[str, ...]:
        return self.table.damages

    @property
    def title(self) -> str:
        return self.table.title

    @property
    def captions(self) -> tuple[str, ...]:
        rows = self._rows
        heads = dict.fromkeys(row.primary_column for row in rows if row.primary_column)
        seeds = ", ".join(map(str, sorted({seed for row in rows for seed in row.seeds})))
        accuracy = f"top-1 on the test images in % ({', '.join(heads)}), mean ± standard deviation over seeds {seeds}"
        gain = f"Gain: over the baseline, {self._main} epoch, seed by seed; {NOISE}: may be noise; "
        work = "× work: operations of training beside the baseline's; Deployed: parameters"
        said = {about: [c.text for c in self.table.all_captions if c.about == about] for about in _CAPTIONS}
        return (
            *said["protocol"],
            *[accuracy] * bool(heads),
            *said["best epoch"],
            gain * any(GAIN in row.cells for row in rows) + work,
            *(text for about in _CAPTIONS[2:] for text in said[about]),
        )

    def text(self) -> TableText:
        gains = {gain.row.configuration: gain for gain in self.gains()}
        both = {row.configuration: row for row in self.table.at("best")} if self._main == "last" else {}
        lines = tuple(self._line(row, gains.get(row.configuration), both.get(row.configuration)) for row in self._rows)
        head = ["Configuration", "n", self._main.capitalize(), "Gain", "Best", "× work", "Deployed"]
        kept = [i for i in range(len(head)) if i < 3 or any(line[i] for line in lines)]
        section = Section("", tuple(tuple(line[i] for i in kept) for line in lines))
        notes = tuple(footnotes(self.table.notes, self._shown_notes))
        return TableText(self.title, self.captions, tuple(head[i] for i in kept), (section,), notes, self._closing())

    def frame(self) -> pd.DataFrame:
        """All columns: see `Table.frame`."""
        return self.table.frame()

    def gains(self) -> list[Gain]:
        """Of the rows that have one."""
        one_a_seed = self.table.averaged == ("seed",)
        rows = [row for row in self._rows if GAIN in row.cells and not isinstance(row.spec.method, BaselineSettings)]
        found = [_tested(row) if one_a_seed else Gain(row, row.cells[GAIN].mean) for row in rows]
        tested = [gain for gain in found if gain.p is not None]
        corrected = dict(zip(map(id, tested), holm([gain.p for gain in tested if gain.p is not None]), strict=True))
        return [gain._replace(p_corrected=corrected.get(id(gain))) for gain in found]

    def verdict(self) -> str:
        """What can be said of the gains, in a sentence or two; '' where there are none."""
        gains = self.gains()
        if not gains:
            return ""
        if max(len(gain.row.seeds) for gain in gains) < 2:
            return "One seed: what is a gain and what is noise cannot be told; give several, such as seed: [0, 1, 2]."
        if all(gain.p is None for gain in gains):
            return ""
        certain = sorted((gain for gain in gains if not gain.is_noise), key=lambda gain: -gain.mean)
        if not certain:
            top = max(gains, key=lambda gain: gain.mean)
            return f"No gain stands out from noise (p < {_LEVEL}, corrected); the largest: {_said(top)}."
        better = _several([gain for gain in certain if gain.mean > 0])
        worse = _several([gain for gain in reversed(certain) if gain.mean < 0])
        parts = [f"Better than the baseline beyond noise: {better}"] * bool(better)
        parts += [f"Worse: {worse}"] * bool(worse)
        return f"{'. '.join(parts)}. Paired t-test over seeds, p < {_LEVEL} after Holm's correction."

    @property
    def _main(self) -> Epoch:
        """The epoch whose gains are shown: the last, which nothing chose, where the table has it."""
        return "last" if self.table.at("last") else "best"

    @property
    def _rows(self) -> list[Row]:
        return self.table.at(self._main)

    def _line(self, row: Row, gain: Gain | None, best: Row | None) -> list[str]:
        accuracy = row.primary.accuracy.text() if row.primary else ""
        sizes = {result["parameters"]["deployed"] for _, result in row.group.completed}
        return [
            row.configuration,
            f"{len(row.seeds)} {self._mark(row, 'n')}".strip(),
            accuracy,
            (_gain_text(gain) if gain else "") + self._mark(row, GAIN),
            f"{best.primary.accuracy.mean:.2f}" if best is not None and best.primary else "",
            _work(row),
            " / ".join(_millions(size) for size in sorted(sizes)),
        ]

    @property
    def _shown_notes(self) -> list[int]:
        """Numbers of the table's notes that are shown here: those on trials, not those on methods."""
        return sorted({*chain.from_iterable(row.notes.get(name, ()) for row in self._rows for name in _NOTED)})

    def _mark(self, row: Row, column: str) -> str:
        return footnote_marks([self._shown_notes.index(number) + 1 for number in row.notes.get(column, ())])

    def _closing(self) -> tuple[str, ...]:
        """The verdict, and what is left out here."""
        others = {*chain.from_iterable(row.notes.get("configuration", ()) for row in self._rows)}
        of_methods = f"{len(others)} note{'s' * (len(others) > 1)} on methods, " * bool(others)
        return (*filter(None, [self.verdict()]), f"More: --detail has {of_methods}every member and ensemble.")


def _tested(row: Row) -> Gain:
    """The row's gain; the test takes two seeds or more, whose gains are not all the same."""
    cell, n = row.cells[GAIN], len(row.seeds)
    if cell.std is None or cell.std < 1e-9:
        return Gain(row, cell.mean)
    p, interval = paired_test(cell, n)
    return Gain(row, cell.mean, interval, p)


def _said(gain: Gain) -> str:
    text = f"{gain.row.configuration} {gain.mean:+.2f}"
    if gain.interval is None:
        return text
    return f"{text} ({CONFIDENCE:.0%} interval {gain.interval[0]:+.2f} to {gain.interval[1]:+.2f})"


def _several(gains: Sequence[Gain]) -> str:
    """The first ones, and how many more there are."""
    more = [f"{len(gains) - _NAMED} more"] if len(gains) > _NAMED else []
    return "; ".join([*map(_said, gains[:_NAMED]), *more])


def _gain_text(gain: Gain) -> str:
    std = gain.row.cells[GAIN].std
    text = f"{gain.mean:+.2f}" + ("" if std is None else f"{PLUS_MINUS}{std:.2f}")
    return f"{text} {NOISE if gain.is_noise else ' '}"


def _work(row: Row) -> str:
    """Operations of a training step, relative to the baseline's; '' where they are not known."""
    spec, result = row.spec, next((result for _, result in row.group.completed), {})
    classes, size = result.get("classes"), result.get("image_size")
    if classes is None or size is None:
        return ""
    work, alone = (
        flops_per_image(method, spec.backbone.name, classes, size) for method in (spec.method, spec.baseline().method)
    )
    return "" if work is None or alone is None else f"{work / alone:.2f}"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e6 else f"{parameters:,}"
