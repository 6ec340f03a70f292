"""Accuracies of one completed trial, from its result."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.methods import MethodSettings
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.series import ANY, LOGITS, MEAN

Epoch = Literal["best", "last"]

#: On the test images, or on the split that chose the epochs.
On = Literal["test", "selection"]

#: Columns of trials' own accuracies after Baseline and Common 1..n.
TOGETHER = {"Mean of common": MEAN, "Ens (any)": ANY, "Ens (logits)": LOGITS}


class Scores(NamedTuple):
    """Top-1 in percent by column, on the test images and on the split that chose the epochs."""

    seed: int
    #: The column that stands for the method.
    primary_series: str
    test: dict[str, float]
    selection: dict[str, float]
    #: The identity and scores of the trial's baseline, which is itself where it is one; None: there is none.
    baseline: "tuple[str, Scores] | None"

    def on(self, split: On) -> dict[str, float]:
        return self.test if split == "test" else self.selection

    def gains(self, split: On) -> dict[str, float]:
        """The gain of every column over the baseline, which must be there, in percentage points."""
        assert self.baseline is not None
        alone = self.baseline[1].on(split)["Baseline"]
        return {column: value - alone for column, value in self.on(split).items()}


def scores_of(
    spec: TrialSpec, result: Mapping[str, Any], epoch: Epoch, completed: Mapping[str, Mapping[str, Any]]
) -> Scores:
    """`completed` has the results of all trials of the run, by identity: the trial's baseline is found there."""
    columns = series(result, spec.method)
    primary_series = next(column for column, name in columns.items() if name == result["primary_series"])
    test = {column: _top1(result, name, epoch) for column, name in columns.items()}
    selection = {column: _selected(result, name, epoch) for column, name in columns.items()}
    own = Scores(spec.seed, primary_series, test, selection, None)
    if isinstance(spec.method, BaselineSettings):
        return own._replace(baseline=(spec.identity(), own))
    alone = spec.baseline()
    identity = alone.identity()
    found = completed.get(identity)
    return own._replace(baseline=(identity, scores_of(alone, found, epoch, {}))) if found is not None else own


def baselines(scores: Sequence[Scores]) -> Iterator[tuple[str, Scores]]:
    """The baselines of the trials that have one, each with its identity."""
    return (score.baseline for score in scores if score.baseline is not None)


def ended(result: Mapping[str, Any]) -> str:
    """How the trial did: completed, stopped at 12, exploited from TRIAL at 5."""
    return str(result.get("ended", "completed"))


def series(result: Mapping[str, Any], method: MethodSettings) -> dict[str, str]:
    """The series behind each column of a trial's own accuracies."""
    if result["members"] == [result["deployed"]]:
        return {"Baseline" if isinstance(method, BaselineSettings) else "Student": result["deployed"]}
    common: list[str] = result["common"]
    columns = {f"Common {number}": name for number, name in enumerate(common, 1)}
    if common:
        columns |= TOGETHER
    columns |= {member.capitalize(): member for member in ("ensemble", "fusion") if member in result["members"]}
    if result["deployed"] not in common:
        columns["Leader"] = result["deployed"]
    return columns


def _top1(result: Mapping[str, Any], name: str, epoch: Epoch) -> float:
    value: float = result["best"][name]["top1"] if epoch == "best" else result["last"][f"test/{name}/top1"]
    return value


def _selected(result: Mapping[str, Any], name: str, epoch: Epoch) -> float:
    """On the split that chose the epochs."""
    last: float = result["last"][f"{result['selection']}/{name}/top1"]
    return result["best"][name]["selected_by"] if epoch == "best" else last
