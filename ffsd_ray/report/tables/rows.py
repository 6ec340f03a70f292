"""Rows of a table: groups of trials, with mean ± standard deviation of their accuracies."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

import pandas as pd

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.report.columns import BASELINE, GAIN
from ffsd_ray.report.results import Epoch, ended
from ffsd_ray.report.tables.groups import Group
from ffsd_ray.report.tables.text import PLUS_MINUS, Notes

_NO_BASELINE = "no completed baseline trial with the same data, backbone, optimisation, scale and seed"


class Cell(NamedTuple):
    """A mean over trials, with the sample standard deviation, None for one trial; of accuracies in percent."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> "Cell":
        values = list(values)
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def text(self, decimals: int = 2) -> str:
        mean = f"{self.mean:.{decimals}f}"
        return mean if self.std is None else f"{mean}{PLUS_MINUS}{self.std:.{decimals}f}"


class Difference(NamedTuple):
    """A row's primary accuracy minus that of the row compared with, in points, paired over seeds."""

    #: None where they have no seed in common, and of that row itself.
    cell: Cell | None
    pairs: int
    #: Of Student's paired t-test, two-sided; like all below None with fewer than two pairs, or differences that are all
    #: the same.
    p: float | None = None
    #: The same, corrected by Holm's method for the number of rows that are compared.
    p_corrected: float | None = None
    #: The 95 % confidence interval of the mean difference.
    interval: tuple[float, float] | None = None
    #: Seeds with which a difference of `SMALL_DIFFERENCE` points would be found, see `significance.seeds_needed`.
    seeds_needed: int | None = None


class Primary(NamedTuple):
    """Accuracies of the series that stand for the trials' methods, each trial's own."""

    #: The columns that have them: "Leader", or "Leader or Mean of common" where trials differ in it.
    column: str
    #: On the test images; by seed the mean of the trials with that seed.
    accuracy: Cell
    by_seed: dict[int, float]
    #: On the split that chose the epochs: what rows are ranked by.
    ranking: Cell

    def on(self, *, test: bool) -> Cell:
        """The accuracy on the test images, or else on the split that chose the epochs."""
        return self.accuracy if test else self.ranking


@dataclass(frozen=True)
class Row:
    """A group of trials at their best or at their last epoch; mostly one configuration with several seeds."""

    group: Group
    epoch: Epoch
    #: Accuracies on the test images by column, with baseline and gain where every completed trial has a baseline.
    cells: dict[str, Cell]
    #: The same on the split that chose the epochs.
    selected: dict[str, Cell]
    #: The gain over the baseline, seed by seed, of every column of accuracies; empty where a baseline is missing.
    gains: dict[str, Cell]
    #: None where no trial has completed.
    primary: Primary | None
    #: Numbers (from 1) of the table's notes, by column; `n` for trials that are missing, `configuration` for remarks on
    #: the method.
    notes: dict[str, tuple[int, ...]]
    #: None where the table compares with no row.
    difference: Difference | None = None

    @property
    def configuration(self) -> str:
        return self.group.name

    @property
    def spec(self) -> TrialSpec:
        return self.group.spec

    @property
    def primary_column(self) -> str:
        """See `Primary.column`; "" where no trial has completed."""
        return self.primary.column if self.primary is not None else ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the completed trials, one each."""
        return tuple(spec.seed for spec, _ in self.group.completed)

    @property
    def trials(self) -> tuple[str, ...]:
        """Identities of the completed trials, which name their folders."""
        return tuple(spec.identity() for spec, _ in self.group.completed)

    @property
    def ended(self) -> tuple[str, ...]:
        """How each completed trial came to its end, see `ffsd_ray.report.results.ended`."""
        return tuple(ended(result) for _, result in self.group.completed)

    @property
    def selection(self) -> str:
        """The split that chose the epochs, "val" or "test"; "" where none or not the same for all."""
        splits = {result["selection"] for _, result in self.group.completed}
        return splits.pop() if len(splits) == 1 else ""

    @property
    def hours(self) -> Cell | None:
        """Time of training."""
        hours = [result["seconds"] / 3600 for _, result in self.group.completed]
        return Cell.of(hours) if hours else None

    @property
    def cosine(self) -> Cell | None:
        """Cosine similarity of the common students' feature maps after the last epoch."""
        cosines = [result["similarity"]["maps"] for _, result in self.group.completed if "similarity" in result]
        return Cell.of(cosines) if cosines else None

    @property
    def classes(self) -> int | None:
        """Number of classes of the data set; None where no trial has completed."""
        return next((result["classes"] for _, result in self.group.completed), None)


def make_rows(groups: Sequence[Group], epochs: Sequence[Epoch], results: pd.DataFrame, notes: Notes) -> list[Row]:
    """The rows of the groups, epoch by epoch; `results` as `results_frame` has them, of all trials of the run.

    Gain is left blank, with the reason as a note, unless every completed trial of a row has its baseline in `results`.
    Where only some trials have a column, its mean is over those and a note says so.
    """
    row_of = {trial.spec.identity(): index for index, group in enumerate(groups) for trial in group.trials}
    lines = results.assign(row=results["trial"].map(row_of)).dropna(subset="row").set_index(["row", "epoch"])
    led = lines[lines["column"] != BASELINE]
    complete = led["baseline"].notna().groupby(level=["row", "epoch"]).all()
    has_gain = pd.Series(lines.index.map(complete[complete].to_dict()), lines.index).notna()
    shown = _with_baseline_and_gain(lines, has_gain)
    test, selected = _values(shown, "test"), _values(shown, "selected")
    gains = _values(led[has_gain[lines["column"] != BASELINE]], "gain")
    primary = {key: _primary(part) for key, part in lines[lines["is_primary"]].groupby(level=["row", "epoch"])}
    unmatched = led[led["baseline"].isna() & led["is_primary"]]
    without = unmatched.groupby(level=["row", "epoch"])["seed"].agg(list).to_dict()

    def row(index: int, epoch: Epoch) -> Row:
        group, key = groups[index], (index, epoch)
        lacking = _lacking(test.get(key, {}), len(group.completed), has_gain=GAIN in test.get(key, {}))
        return Row(
            group,
            epoch,
            cells=_cells(test.get(key, {})),
            selected=_cells(selected.get(key, {})),
            gains=_cells(gains.get(key, {})),
            primary=primary.get(key),
            notes=_notes(group, without.get(key, []), lacking, notes),
        )

    return [row(index, epoch) for epoch in epochs for index in range(len(groups))]


def _with_baseline_and_gain(lines: pd.DataFrame, has_gain: "pd.Series[bool]") -> pd.DataFrame:
    """The lines of every row, with those of the columns Baseline and Gain for the rows that have a gain."""
    is_method = lines["column"] != BASELINE
    # A baseline trial counts once, however many others have it.
    baselines = lines[has_gain].set_index("baseline", append=True)
    baselines = baselines[~baselines.index.duplicated()].reset_index("baseline")
    # The gain is of each trial's own primary series.
    gains = lines[has_gain & is_method & lines["is_primary"]]
    return pd.concat(
        [
            lines[~has_gain | is_method],
            baselines.assign(column=BASELINE, test=baselines["baseline_test"], selected=baselines["baseline_selected"]),
            gains.assign(column=GAIN, test=gains["gain"], selected=gains["gain_selected"]),
        ]
    )


def _values(lines: pd.DataFrame, name: str) -> dict[tuple[int, Epoch], dict[str, list[float]]]:
    """Of each row and epoch the values of its trials by column."""
    found: dict[tuple[int, Epoch], dict[str, list[float]]] = defaultdict(dict)
    by_column = lines.set_index("column", append=True)[name].groupby(level=[0, 1, 2], sort=False).agg(list)
    for (row, epoch, column), values in by_column.items():
        found[row, epoch][column] = values
    return found


def _cells(values: Mapping[str, Sequence[float]]) -> dict[str, Cell]:
    return {column: Cell.of(numbers) for column, numbers in values.items()}


def _primary(lines: pd.DataFrame) -> Primary:
    by_seed: dict[int, list[float]] = defaultdict(list)
    for seed, accuracy in zip(lines["seed"], lines["test"], strict=True):
        by_seed[seed].append(accuracy)
    return Primary(
        " or ".join(lines["column"].unique()),
        Cell.of(lines["test"]),
        {int(seed): fmean(accuracies) for seed, accuracies in by_seed.items()},
        Cell.of(lines["selected"]),
    )


def _lacking(values: Mapping[str, Sequence[float]], completed: int, *, has_gain: bool) -> Iterator[tuple[str, str]]:
    """A column that only some of the completed trials have, and a note that says so."""
    for column, numbers in values.items():
        # One baseline may serve several trials.
        if len(numbers) < completed and not (column == BASELINE and has_gain):
            yield column, f"{column}: {len(numbers)} of these {completed} trials have it"


def _notes(
    group: Group, without_baseline: Sequence[int], lacking: Iterable[tuple[str, str]], notes: Notes
) -> dict[str, tuple[int, ...]]:
    """Numbers of the row's notes by column; `without_baseline`: seeds of trials whose baseline has not completed."""
    texts: dict[str, list[str]] = {
        "n": list(_missing(group)),
        "configuration": list(dict.fromkeys(text for trial in group.trials for text in remarks_on(trial.spec))),
    }
    if without_baseline:
        led = sum(not isinstance(spec.method, BaselineSettings) for spec, _ in group.completed)
        which = f"for {_which(without_baseline)} " if len(without_baseline) < led else ""
        texts[GAIN] = [f"no gain: {which}{_NO_BASELINE}"]
    texts |= {column: [text] for column, text in lacking}
    return {column: tuple(map(notes.number, said)) for column, said in texts.items() if said}


def _missing(group: Group) -> Iterator[str]:
    """A note a failed trial, or an error where seeds do not tell trials apart; and one for what has not finished."""
    failed: dict[str, list[int]] = {}
    for trial in group.trials:
        if trial.error:
            failed.setdefault(trial.error, []).append(trial.spec.seed)
    for error, seeds in failed.items():
        each = [[seed] for seed in seeds] if len(set(seeds)) == len(seeds) else [seeds]
        yield from (f"{group.name}, {_which(some)}: {error}" for some in each)
    unfinished = [trial.spec.seed for trial in group.trials if trial.result is None and not trial.error]
    if unfinished:
        yield f"{group.name}: not finished for {_which(unfinished)}"


def _which(seeds: Sequence[int]) -> str:
    """Trials by their seeds; their number where these do not tell them apart."""
    distinct = list(dict.fromkeys(map(str, seeds)))
    return (
        f"{len(seeds)} trials" if len(distinct) < len(seeds) else f"seed{'s' * (len(seeds) > 1)} {', '.join(distinct)}"
    )


def remarks_on(spec: TrialSpec) -> list[str]:
    """Notes on assumptions of a trial's method that no source confirms, and on schedules longer than its training."""
    return [*(f"UNCONFIRMED {assumption}" for assumption in spec.method.assumptions), *spec.schedule_warnings()]
