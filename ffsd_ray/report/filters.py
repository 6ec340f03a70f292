"""Choosing trials by their settings: --where KEY=VALUE."""

import re
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from ffsd_ray.config.keys import TRIAL_KEYS, did_you_mean
from ffsd_ray.config.labels import has
from ffsd_ray.config.source.located import same
from ffsd_ray.config.source.problems import Place, Problems, format_value
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at
from ffsd_ray.errors import JobError, RecordsError


def trial_key(said: str, option: str) -> str:
    """The dotted key of trials that is meant; of a section with kinds or names, such as `method`, its `name`.

    Raises:
        JobError: trials have no such key; the message begins with `option`.
    """
    if f"{said}.name" in TRIAL_KEYS:
        return f"{said}.name"
    within = [key for key in TRIAL_KEYS if key.startswith(f"{said}.")]
    if within:
        raise JobError(f"{option}: {said} is a section; give a key in it: {', '.join(within)}")
    if said not in TRIAL_KEYS:
        raise JobError(f"{option}: not a key of trials.{did_you_mean(said, TRIAL_KEYS, TRIAL_KEYS)}")
    return said


def where(specs: Sequence[TrialSpec], conditions: Iterable[str], option: str = "--where") -> list[TrialSpec]:
    """The trials that meet every `key=value`; keys as in `trial_key`, values in YAML.

    Raises:
        JobError: a condition is not of this form, or names no key of trials.
        RecordsError: no trial meets them.
    """
    kept = list(specs)
    for condition in conditions:
        said, equals, text = condition.partition("=")
        place = f"{option} {condition}"
        if not equals:
            raise JobError(f"{place}: should be KEY=VALUE, such as method.name=ffsd")
        key, value = trial_key(said.strip(), place), _value(place, text)
        met = [spec for spec in kept if same(_plain(spec, key), value)]
        if not specs:
            raise RecordsError(f"{place}: the run has no trials yet")
        if not met:
            there = dict.fromkeys(format_value(_plain(spec, key)) for spec in kept if has(spec, key)) or [
                "in none of them"
            ]
            raise RecordsError(f"{place}: no such trial; {key} is {', '.join(there)}")
        kept = met
    return kept


def _plain(spec: TrialSpec, key: str) -> object:
    """The value of a dotted key as a job file has it: a section (such as a range of workers) as its keys."""
    value = value_at(spec, key)
    return value.model_dump() if isinstance(value, BaseModel) else value


def split_conditions(conditions: str) -> list[str]:
    """`a=1,b=[2, 3]` as its conditions."""
    return re.split(r",(?=\s*[\w.]+\s*=)", conditions)


def _value(place: str, text: str) -> object:
    problems = Problems()
    node = parse(text, lambda line, column: Place(place), problems)
    problems.check()
    assert node is not None
    return node.plain()
