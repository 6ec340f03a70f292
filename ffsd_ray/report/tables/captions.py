"""Captions of a table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import PurePath
from typing import Literal, NamedTuple

from ffsd_ray.base_settings import ADDED_LATER
from ffsd_ray.config.optimisation import TrainSettings
from ffsd_ray.config.trial import TrialSpec, identifies
from ffsd_ray.data import DataSettings
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.report.collect import Trial
from ffsd_ray.report.columns import columns_of
from ffsd_ray.report.results import Epoch, ended

#: Of when there is an evaluation, the caption on the best epoch tells.
_SAID_ELSEWHERE = {"evaluate_every"}

#: A caption names no more values of a setting than this.
_MOST_VALUES = 8


class Caption(NamedTuple):
    """A caption, and what it is about, by which a plot leaves out what it does not show."""

    about: Literal["protocol", "accuracy", "best epoch", "ended", "ensembles", "gain", "deployed", "teachers", "rows"]
    text: str


def captions(trials: Sequence[Trial], epochs: Sequence[Epoch], averaged: Sequence[str] = ()) -> Iterator[Caption]:
    """Captions on data, protocol, split, choice of the epoch and seeds.

    `averaged`: the keys in which a row's trials differ; none: their seeds alone.
    """
    specs = [trial.spec for trial in trials]
    results = [trial.result for trial in trials if trial.result is not None]
    protocol = [
        _each(specs, lambda spec: images_of(spec.data) + _own_settings(spec.data, int)),
        _each(specs, lambda spec: spec.backbone.name),
        _each(specs, lambda spec: str(spec.train.epochs)) + " epochs",
        "batch size " + _each(specs, lambda spec: str(spec.train.batch_size)),
        "lr " + _each(specs, lambda spec: f"{spec.train.lr:g}"),
        _each(specs, lambda spec: spec.train.precision),
    ]
    yield Caption("protocol", ", ".join([*protocol, *_further(specs)]))
    over = f"the n trials of a row, which differ in {', '.join(averaged)}" if averaged else "n seeds"
    yield Caption(
        "accuracy",
        f"top-1 accuracy on the test images in %, mean ± sample standard deviation over {over}; "
        f"seed {', '.join(map(str, sorted({spec.seed for spec in specs})))}",
    )
    if "best" in epochs:
        for selection in sorted({result["selection"] for result in results}):
            chosen = "the test images, as the paper did" if selection == "test" else "held-out validation images"
            every = _each(specs, lambda spec: str(spec.train.evaluate_every))
            among = "" if every == "1" else f" among those evaluated (train.evaluate_every {every})"
            yield Caption("best epoch", f"best epoch: each column's own, chosen on {chosen}{among}")
    if any(ended(result) != "completed" for result in results):
        yield Caption("ended", "Ended: how the trials of a row did; one that was stopped counts as it stood then")
    if any(result["common"] for result in results):
        yield Caption(
            "ensembles", "Ens (any): right where any common student is; Ens (logits): the mean of their logits"
        )
    heads = {
        f"{column} ({trial.spec.method.name})": None
        for trial in trials
        if trial.result is not None and not isinstance(trial.spec.method, BaselineSettings)
        for column, name in columns_of(trial.result, trial.spec.method).items()
        if name == trial.result["primary_series"]
    }
    if heads:
        yield Caption("gain", f"Gain: {' or '.join(heads)} minus Baseline, seed by seed")
    deployed: dict[str, dict[str, None]] = {}
    for trial in trials:
        if trial.result is not None:
            best = ", the best on validation images" if trial.spec.method.deploys_best else ""
            kept = deployed.setdefault(f"{trial.result['deployed']} of {trial.spec.method.name}{best}", {})
            kept[f"{trial.result['parameters']['deployed']:,}"] = None
    if deployed:
        each = (f"{name} ({' / '.join(sizes)})" for name, sizes in deployed.items())
        yield Caption("deployed", f"Deployed (parameters): {', '.join(each)}")


def _further(specs: Sequence[TrialSpec]) -> Iterator[str]:
    """What networks begin with, and settings of training that the paper does not have, where they are set."""
    if any(spec.backbone.weights is not None for spec in specs):
        yield "weights " + _each(specs, lambda spec: PurePath(spec.backbone.weights or "random").name)
    for name, field in TrainSettings.model_fields.items():
        later = field.json_schema_extra == ADDED_LATER and name not in _SAID_ELSEWHERE
        if later and any(getattr(spec.train, name) != field.default for spec in specs):
            yield f"{name} {_each(specs, partial(_train_setting, name))}"


def _train_setting(name: str, spec: TrialSpec) -> str:
    value = getattr(spec.train, name)
    return "none" if value is None else str(value)


def _each(specs: Iterable[TrialSpec], value: Callable[[TrialSpec], str]) -> str:
    """Every value once; of many the first ones."""
    found = list(dict.fromkeys(map(value, specs)))
    if len(found) > _MOST_VALUES:
        found = [*found[: _MOST_VALUES - 1], f"{len(found) - _MOST_VALUES + 1} more"]
    return " / ".join(found)


def images_of(settings: DataSettings) -> str:
    """A data source's name, what it must be told to find its images, and which and how many of them are used."""
    required = [name for name, field in type(settings).model_fields.items() if field.is_required()]
    told = ", ".join(str(getattr(settings, name)) for name in required)
    limits = [f"{n} {part}" for part in ("train", "test") if (n := getattr(settings, f"{part}_per_class")) is not None]
    used = f", at most {' and '.join(limits)} images a class" if limits else ""
    return (f"{settings.name} ({told})" if told else settings.name) + used + _own_settings(settings, float)


def _own_settings(settings: DataSettings, kind: type[float]) -> str:
    """The settings that this source alone has and that are set: shares, which are floats, or sizes, which are ints."""
    return "".join(
        f", {name} {getattr(settings, name)}"
        for name, field in type(settings).model_fields.items()
        if name not in DataSettings.model_fields and identifies(field) and not field.is_required()
        if isinstance(getattr(settings, name), kind) and getattr(settings, name) != field.default
    )
