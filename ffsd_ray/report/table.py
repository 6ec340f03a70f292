"""The table of a run, as in the paper's Table I: a row a configuration, mean ± standard deviation over its seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from ffsd_ray.data import DataSettings
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import Trial, collect
from ffsd_ray.report.labels import configuration, labels
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train.meters import ANY, LOGITS, MEAN

Epoch = Literal["best", "last"]

#: Columns of trials' own accuracies after Baseline and Common 1..n.
_TOGETHER = {"Mean of common": MEAN, "Ens (any)": ANY, "Ens (logits)": LOGITS}
_NO_BASELINE = "no completed baseline trial with the same data, backbone, optimisation, scale and seed"


class Cell(NamedTuple):
    """Percent (Gain: points) over a row's seeds; `std` is the sample standard deviation, None for one seed."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class Row:
    """One configuration at its models' best or last epoch."""

    configuration: str
    epoch: Epoch
    #: Of the completed trials.
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    #: Numbers (from 1) of the table's notes, by column; `n` for trials that are missing.
    notes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Table:
    """A run's results; `columns` are those with a value in some row, besides the configuration and n."""

    title: str
    captions: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def at(self, epoch: Epoch) -> list[Row]:
        return [row for row in self.rows if row.epoch == epoch]


def result_table(run: RunRecords, epochs: Sequence[Epoch] = ("best", "last")) -> Table:
    """The table of what a run's records hold so far.

    Gain is a trial's headline accuracy minus that of the baseline trial with the same data, backbone, train section,
    scale section and seed, both at their best or both at their last epoch. It is left blank, with the reason as a note,
    unless every completed seed of a row has such a baseline.

    Raises:
        RecordsError: the records are of another version.
    """
    job, trials = run.job(), collect(run)
    completed = {trial.spec.identity(): trial.result for trial in trials if trial.result is not None}
    configurations: dict[str, list[Trial]] = {}
    for trial in trials:
        configurations.setdefault(configuration(trial.spec).identity(), []).append(trial)
    keys = job.get("report", {}).get("rows")
    names = labels([configuration(group[0].spec) for group in configurations.values()], keys)
    notes: list[str] = []
    rows = [
        _row(name, group, epoch, completed, notes)
        for epoch in epochs
        for name, group in zip(names, configurations.values(), strict=True)
    ]
    return Table(job["name"], tuple(_captions(trials, epochs)), _columns(rows), tuple(rows), tuple(notes))


def _row(
    name: str, group: Sequence[Trial], epoch: Epoch, completed: Mapping[str, dict[str, Any]], notes: list[str]
) -> Row:
    def note(text: str) -> int:
        if text not in notes:
            notes.append(text)
        return notes.index(text) + 1

    marks: dict[str, tuple[int, ...]] = {}
    missing = [note(f"{name}, seed {trial.spec.seed}: {trial.error}") for trial in group if trial.error]
    unfinished = [str(trial.spec.seed) for trial in group if trial.result is None and not trial.error]
    if unfinished:
        missing.append(note(f"{name}: not finished for seed{'s' * (len(unfinished) > 1)} {', '.join(unfinished)}"))
    if missing:
        marks["n"] = tuple(missing)

    seeds = tuple(trial.spec.seed for trial in group if trial.result is not None)
    results = [trial.result for trial in group if trial.result is not None]
    cells: dict[str, Cell] = {}
    if results and isinstance(group[0].spec.method, BaselineSettings):
        cells["Baseline"] = _cell(_top1(result, result["headline"], epoch) for result in results)
    elif results:
        for column, series in _series(results[0]).items():
            cells[column] = _cell(_top1(result, series, epoch) for result in results)
        found = {
            trial.spec.seed: completed.get(trial.spec.model_copy(update={"method": BaselineSettings()}).identity())
            for trial in group
            if trial.result is not None
        }
        baselines = [baseline for baseline in found.values() if baseline is not None]
        if len(baselines) == len(results):
            before = [_top1(baseline, baseline["headline"], epoch) for baseline in baselines]
            after = [_top1(result, result["headline"], epoch) for result in results]
            cells["Baseline"] = _cell(before)
            cells["Gain"] = _cell(b - a for a, b in zip(before, after, strict=True))
        else:
            lacking = [str(seed) for seed, baseline in found.items() if baseline is None]
            which = f"for seed{'s' * (len(lacking) > 1)} {', '.join(lacking)} " if baselines else ""
            marks["Gain"] = (note(f"no gain: {which}{_NO_BASELINE}"),)
    return Row(name, epoch, seeds, cells, marks)


def _series(result: Mapping[str, Any]) -> dict[str, str]:
    """The series behind each column that a trial has, Baseline and Gain excepted."""
    common: list[str] = result["common"]
    columns = {f"Common {number}": name for number, name in enumerate(common, 1)}
    if common:
        columns |= _TOGETHER
    if "fusion" in result["members"]:
        columns["Fusion"] = "fusion"
    if result["deployed"] not in common:
        columns["Leader"] = result["deployed"]
    return columns


def _top1(result: Mapping[str, Any], series: str, epoch: Epoch) -> float:
    value: float = result["best"][series]["top1"] if epoch == "best" else result["last"][f"test/{series}/top1"]
    return value


def _cell(values: Iterable[float]) -> Cell:
    values = list(values)
    return Cell(fmean(values), stdev(values) if len(values) > 1 else None)


def _columns(rows: Sequence[Row]) -> tuple[str, ...]:
    used = {column for row in rows for column in (*row.cells, *row.notes)}
    common = sorted((c for c in used if c.startswith("Common ")), key=lambda c: int(c.split()[1]))
    return tuple(c for c in ("Baseline", *common, *_TOGETHER, "Fusion", "Leader", "Gain") if c in used)


def _captions(trials: Sequence[Trial], epochs: Sequence[Epoch]) -> Iterable[str]:
    """What the numbers are of: data, protocol, split, choice of the epoch, seeds."""
    specs = [trial.spec for trial in trials]
    results = [trial.result for trial in trials if trial.result is not None]
    protocol = [
        _each(specs, lambda spec: _images(spec.data)),
        _each(specs, lambda spec: spec.backbone.name),
        _each(specs, lambda spec: str(spec.train.epochs)) + " epochs",
        "batch size " + _each(specs, lambda spec: str(spec.train.batch_size)),
        "lr " + _each(specs, lambda spec: f"{spec.train.lr:g}"),
        _each(specs, lambda spec: spec.train.precision),
    ]
    yield ", ".join(protocol)
    yield (
        "top-1 accuracy on the test images in %, mean ± sample standard deviation over n seeds; "
        f"seed {', '.join(map(str, sorted({spec.seed for spec in specs})))}"
    )
    if "best" in epochs:
        for selection in sorted({result["selection"] for result in results}):
            chosen = "the test images, as the paper did" if selection == "test" else "held-out validation images"
            yield f"best epoch: each column's own, chosen on {chosen}"
    if any(result["common"] for result in results):
        yield "Ens (any): right where any common student is; Ens (logits): the mean of their logits"
    heads = {
        f"{column} ({trial.spec.method.name})": None
        for trial in trials
        if trial.result is not None and not isinstance(trial.spec.method, BaselineSettings)
        for column, series in _series(trial.result).items()
        if series == trial.result["headline"]
    }
    if heads:
        yield f"Gain: {' or '.join(heads)} minus Baseline, seed by seed"


def _each(specs: Iterable[TrialSpec], value: Callable[[TrialSpec], str]) -> str:
    return " / ".join(dict.fromkeys(map(value, specs)))


def _images(settings: DataSettings) -> str:
    """A data source's name, and what it must be told to find its images."""
    required = [name for name, field in type(settings).model_fields.items() if field.is_required()]
    told = ", ".join(str(getattr(settings, name)) for name in required)
    return f"{settings.name} ({told})" if told else settings.name
