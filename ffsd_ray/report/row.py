"""One configuration's row: mean ± standard deviation over its seeds, from its trials' results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.sheet import PLUS_MINUS, Notes
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train.meters import ANY, LOGITS, MEAN

Epoch = Literal["best", "last"]

#: Columns of trials' own accuracies after Baseline and Common 1..n.
TOGETHER = {"Mean of common": MEAN, "Ens (any)": ANY, "Ens (logits)": LOGITS}
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


@dataclass(frozen=True)
class Row:
    """One configuration at its models' best or last epoch."""

    configuration: str
    #: Its seed is without meaning.
    spec: TrialSpec
    epoch: Epoch
    #: Of the completed trials.
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    #: Of every column of accuracies, its gain over the baseline, seed by seed; empty where there is none.
    gains: dict[str, Cell]
    #: The column that stands for the method in a comparison; '' where no trial has completed.
    headline: str
    #: Training time.
    hours: Cell | None
    #: Cosine similarity of the common students' feature maps after the last epoch.
    cosine: Cell | None
    #: Number that the data set has; None where no trial has completed.
    classes: int | None
    #: Numbers (from 1) of the table's notes, by column; `n` for trials that are missing.
    notes: dict[str, tuple[int, ...]]


def make_row(
    name: str, group: Sequence[Trial], epoch: Epoch, completed: Mapping[str, dict[str, Any]], notes: Notes
) -> Row:
    """The row of one configuration's trials; `completed` has the results of all trials of the run, by identity.

    Gain is left blank, with the reason as a note, unless every completed seed has its baseline in `completed`.
    """
    marks: dict[str, tuple[int, ...]] = {}
    missing = [notes.number(f"{name}, seed {trial.spec.seed}: {trial.error}") for trial in group if trial.error]
    unfinished = [str(trial.spec.seed) for trial in group if trial.result is None and not trial.error]
    if unfinished:
        missing.append(notes.number(f"{name}: not finished for seed{'s' * (len(unfinished) > 1)} {_list(unfinished)}"))
    if missing:
        marks["n"] = tuple(missing)

    specs = [trial.spec for trial in group if trial.result is not None]
    results = [trial.result for trial in group if trial.result is not None]
    cells: dict[str, Cell] = {}
    gains: dict[str, Cell] = {}
    headline = ""
    if results:
        columns = series(results[0])
        headline = next(column for column, name in columns.items() if name == results[0]["headline"])
        accuracies = {c: [_top1(result, name, epoch) for result in results] for c, name in columns.items()}
        cells |= {column: Cell.of(values) for column, values in accuracies.items()}
        if not isinstance(group[0].spec.method, BaselineSettings):
            found = [completed.get(spec.model_copy(update={"method": BaselineSettings()}).identity()) for spec in specs]
            baselines = [_top1(result, result["headline"], epoch) for result in found if result is not None]
            if len(baselines) == len(results):
                cells["Baseline"] = Cell.of(baselines)
                gains = {
                    column: Cell.of(after - before for before, after in zip(baselines, values, strict=True))
                    for column, values in accuracies.items()
                }
                cells["Gain"] = gains[headline]
            else:
                lacking = [str(spec.seed) for spec, result in zip(specs, found, strict=True) if result is None]
                which = f"for seed{'s' * (len(lacking) > 1)} {_list(lacking)} " if baselines else ""
                marks["Gain"] = (notes.number(f"no gain: {which}{_NO_BASELINE}"),)
    alike = [result["similarity"]["maps"] for result in results if "similarity" in result]
    return Row(
        configuration=name,
        spec=group[0].spec.configuration(),
        epoch=epoch,
        seeds=tuple(spec.seed for spec in specs),
        cells=cells,
        gains=gains,
        headline=headline,
        hours=Cell.of(result["seconds"] / 3600 for result in results) if results else None,
        cosine=Cell.of(alike) if alike else None,
        classes=results[0]["classes"] if results else None,
        notes=marks,
    )


def series(result: Mapping[str, Any]) -> dict[str, str]:
    """The series behind each column of a trial's own accuracies."""
    if result["members"] == [result["deployed"]]:
        return {"Baseline": result["deployed"]}
    common: list[str] = result["common"]
    columns = {f"Common {number}": name for number, name in enumerate(common, 1)}
    if common:
        columns |= TOGETHER
    if "fusion" in result["members"]:
        columns["Fusion"] = "fusion"
    if result["deployed"] not in common:
        columns["Leader"] = result["deployed"]
    return columns


def _top1(result: Mapping[str, Any], name: str, epoch: Epoch) -> float:
    value: float = result["best"][name]["top1"] if epoch == "best" else result["last"][f"test/{name}/top1"]
    return value


def _list(values: Iterable[str]) -> str:
    return ", ".join(values)
