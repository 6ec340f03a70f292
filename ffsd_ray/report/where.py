"""Choosing trials by their settings: --where KEY=VALUE."""

from collections.abc import Sequence

from ffsd_ray.errors import JobError, RecordsError
from ffsd_ray.report.labels import has
from ffsd_ray.spec.keys import TRIAL_KEYS, did_you_mean
from ffsd_ray.spec.load import value_at
from ffsd_ray.spec.problems import Place, Problems, shown
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.spec.yaml_file import parse


def where(specs: Sequence[TrialSpec], conditions: Sequence[str]) -> list[TrialSpec]:
    """The trials that meet every `dotted.key=value`, the value in YAML.

    Raises:
        JobError: a condition is not of this form, or names no key of trials.
        RecordsError: no trial meets them.
    """
    kept = list(specs)
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not equals:
            raise JobError(f"--where {condition}: should be KEY=VALUE, such as method.name=ffsd")
        if key not in TRIAL_KEYS:
            raise JobError(f"--where {condition}: not a key of trials.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}")
        value = _value(condition, text)
        met = [spec for spec in kept if value_at(spec, key) == value]
        if not met:
            there = dict.fromkeys(shown(value_at(spec, key)) for spec in kept if has(spec, key)) or ["in none of them"]
            raise RecordsError(f"--where {condition}: no such trial; {key} is {', '.join(there)}")
        kept = met
    return kept


def _value(condition: str, text: str) -> object:
    problems = Problems()
    node = parse(text, lambda line, column: Place(f"--where {condition}"), problems)
    problems.check()
    assert node is not None
    return node.plain()
