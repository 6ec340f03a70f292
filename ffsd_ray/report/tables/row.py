"""One row of a table: mean ± standard deviation over its trials, from their results."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.report.scores import Epoch, On, Scores, baselines, ended, scores_of
from ffsd_ray.report.tables.groups import Group
from ffsd_ray.report.tables.text import PLUS_MINUS, Notes

_NO_BASELINE = "no completed baseline trial with the same data, backbone, optimisation, scale and seed"


class Cell(NamedTuple):
    """Percent (gains: points) over a row's seeds; `std` is the sample standard deviation, None for one seed."""

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
    #: Of the paired t-test; None with fewer than two pairs, or differences that are all the same.
    p: float | None


@dataclass(frozen=True)
class Row:
    """A group of trials at their models' best or last epoch; mostly one configuration with several seeds."""

    configuration: str
    #: Its seed is without meaning, unless the rows are told apart by it; see `Group` where trials differ in more.
    spec: TrialSpec
    epoch: Epoch
    #: Of the completed trials, one each; and their identities, which name their folders.
    seeds: tuple[int, ...]
    trials: tuple[str, ...]
    cells: dict[str, Cell]
    #: Of every column of accuracies, its gain over the baseline, seed by seed; empty where there is none.
    gains: dict[str, Cell]
    #: The column that stands for the method in a comparison; '' where no trial has completed.
    primary_series: str
    #: Its accuracy on the test images (where trials differ in it, of each trial its own), and by seed: the mean where
    #: several trials have the same one.
    accuracy: Cell | None
    by_seed: dict[int, float]
    #: The split that chose the epochs ("val" or "test"; "" where none or not the same for all), and on it the columns
    #: of `cells` and the primary accuracy: what rows are ranked by.
    selection: str
    selected: dict[str, Cell]
    ranking: Cell | None
    #: Training time.
    hours: Cell | None
    #: Cosine similarity of the common students' feature maps after the last epoch.
    cosine: Cell | None
    #: Number that the data set has; None where no trial has completed.
    classes: int | None
    #: How each completed trial ended: "completed", "stopped at 12", "exploited from TRIAL at 5".
    ended: tuple[str, ...]
    #: Numbers (from 1) of the table's notes, by column; `n` for trials that are missing, `configuration` for remarks on
    #: its method.
    notes: dict[str, tuple[int, ...]]
    #: Beside the row that the table compares with; None where it compares with none.
    difference: Difference | None = None


def make_row(group: Group, epoch: Epoch, completed: Mapping[str, dict[str, Any]], notes: Notes) -> Row:
    """The row of one group; `completed` has the results of all trials of the run, by identity.

    Gain is left blank, with the reason as a note, unless every completed trial has its baseline in `completed`. Where
    only some trials have a column, its mean is over those and a note says so.
    """
    marks: dict[str, tuple[int, ...]] = {}
    missing = [notes.number(text) for text in _missing(group)]
    if missing:
        marks["n"] = tuple(missing)
    remarks = {text: None for trial in group.trials for text in remarks_on(trial.spec)}
    if remarks:
        marks["configuration"] = tuple(map(notes.number, remarks))

    results = [(trial.spec, trial.result) for trial in group.trials if trial.result is not None]
    scores = [scores_of(spec, result, epoch, completed) for spec, result in results]
    led = [score for score in scores if "Baseline" not in score.test]
    columns = list(dict.fromkeys(column for score in scores for column in score.test))
    over = {column: [score for score in scores if column in score.test] for column in columns}
    cells, selected = _cells(over, "test"), _cells(over, "selection")
    gains: dict[str, Cell] = {}
    if led and all(score.baseline for score in led):
        gains = {
            column: Cell.of(score.gains("test")[column] for score in led if column in score.test)
            for column in columns
            if column != "Baseline"
        }
        cells |= _beside_baseline(scores, led, "test")
        selected |= _beside_baseline(scores, led, "selection")
        over |= {"Baseline": scores, "Gain": led}
    elif led:
        lacking = [score.seed for score in led if not score.baseline]
        which = f"for {_which(lacking)} " if len(lacking) < len(led) else ""
        marks["Gain"] = (notes.number(f"no gain: {which}{_NO_BASELINE}"),)
    for column, having in over.items():
        if len(having) < len(scores):
            marks[column] = (notes.number(f"{column}: {len(having)} of these {len(scores)} trials have it"),)
    splits = {result["selection"] for _, result in results}
    by_seed = {
        seed: fmean(score.test[score.primary_series] for score in scores if score.seed == seed)
        for seed in dict.fromkeys(score.seed for score in scores)
    }
    alike = [result["similarity"]["maps"] for _, result in results if "similarity" in result]
    return Row(
        configuration=group.name,
        spec=group.spec,
        epoch=epoch,
        seeds=tuple(score.seed for score in scores),
        trials=tuple(spec.identity() for spec, _ in results),
        cells=cells,
        gains=gains,
        primary_series=" or ".join(dict.fromkeys(score.primary_series for score in scores)),
        accuracy=Cell.of(score.test[score.primary_series] for score in scores) if scores else None,
        by_seed=by_seed,
        selection=splits.pop() if len(splits) == 1 else "",
        selected=selected,
        ranking=Cell.of(score.selection[score.primary_series] for score in scores) if scores else None,
        hours=Cell.of(result["seconds"] / 3600 for _, result in results) if results else None,
        cosine=Cell.of(alike) if alike else None,
        classes=results[0][1]["classes"] if results else None,
        ended=tuple(ended(result) for _, result in results),
        notes=marks,
    )


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


def _cells(over: Mapping[str, Sequence[Scores]], split: On) -> dict[str, Cell]:
    return {column: Cell.of(score.on(split)[column] for score in having) for column, having in over.items()}


def _beside_baseline(scores: Sequence[Scores], led: Sequence[Scores], split: On) -> dict[str, Cell]:
    """A baseline trial counts once, however many others have it; the gain is of each trial's own primary series."""
    alone = dict(baselines(scores)).values()
    return {
        "Baseline": Cell.of(score.on(split)["Baseline"] for score in alone),
        "Gain": Cell.of(score.gains(split)[score.primary_series] for score in led),
    }


def remarks_on(spec: TrialSpec) -> list[str]:
    """Notes on what of a trial's method no source confirms, and on what of it training does not see the end of."""
    return [*(f"UNCONFIRMED {choice}" for choice in spec.method.assumptions), *spec.schedule_warnings()]
