"""Settings of a job to be compared: what some keys of one of its trials take, or all of its configurations."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ffsd_ray.config.labels import labels
from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.source.problems import Place, Problems
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import JobError


def variations(
    job: Path, overrides: Sequence[str], vary: Sequence[str], trial: str | None = None
) -> dict[str, TrialSpec]:
    """The job's trial (its first, or the one with an identity) by what is varied; `vary`: KEY=VALUE,VALUE,... each.

    Raises:
        JobError: the job file, a key or a value is wrong, or there is no such trial.
    """
    plan = load_job(job, overrides)
    identities = [spec.identity() for spec in _trials(plan)]
    if trial is not None and trial not in identities:
        raise JobError(f"--trial {trial}: {job} has no such trial; it has {', '.join(identities)}")
    index = identities.index(trial) if trial is not None else 0
    axes = [_axis(option) for option in vary]
    by_label = {}
    for values in product(*(values for _, values in axes)):
        chosen = [f"{key}={value}" for (key, _), value in zip(axes, values, strict=True)]
        varied = _trials(load_job(job, [*overrides, *chosen]))
        if len(varied) != len(identities):
            raise JobError(f"--vary {' '.join(chosen)}: changes how many trials {job} has; vary another key")
        by_label[_label(axes, values) or plan.job.name] = varied[index]
    return by_label


def configurations(job: Path, overrides: Sequence[str]) -> dict[str, TrialSpec]:
    """Every configuration of the job, those that others need included, by its name in tables.

    Raises:
        JobError: the job file is wrong.
    """
    plan = load_job(job, overrides)
    by_identity = {spec.identity(): spec for spec in map(TrialSpec.configuration, _trials(plan))}
    return dict(zip(labels(list(by_identity.values()), plan.job.report.rows), by_identity.values(), strict=True))


def _trials(plan: Plan) -> Sequence[TrialSpec]:
    """The job's trials; of those that are chosen one after the other, what they have in common."""
    return [*plan.trials, *([plan.template] if plan.template is not None else [])]


def _axis(option: str) -> tuple[str, list[str]]:
    """The key, and its values as YAML."""
    problems = Problems()
    place = Place(f"--vary {option}")
    key, equals, text = option.partition("=")
    if not key or not equals or not text:
        problems.add(place, "", "Should be KEY=VALUE,VALUE,..., such as --vary train.precision=fp32,bf16.")
    node = parse(f"[{text}]", lambda line, column: place, problems)
    problems.check()
    assert node is not None
    return key, [value if isinstance(value, str) else json.dumps(value) for value in node.plain()]


def _label(axes: Sequence[tuple[str, list[str]]], values: Sequence[str]) -> str:
    named = [
        (key.removesuffix(".name").rpartition(".")[2], value) for (key, _), value in zip(axes, values, strict=True)
    ]
    return ", ".join(f"{name} {value}" for name, value in named)
