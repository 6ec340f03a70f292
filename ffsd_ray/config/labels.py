"""Names of a table's rows."""

from collections.abc import Sequence

from pydantic import BaseModel

from ffsd_ray.config.optimisation import RECIPE
from ffsd_ray.config.source.problems import format_value
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at, varying


def trial_labels(specs: Sequence[TrialSpec], keys: Sequence[str] | None) -> dict[str, str]:
    """A name for every trial, by identity: its configuration's, and its seed."""
    rows = {spec.identity(): spec.configuration() for spec in specs}
    distinct = {row.identity(): row for row in rows.values()}
    names = dict(zip(distinct, labels(list(distinct.values()), keys), strict=True))
    return {spec.identity(): f"{names[rows[spec.identity()].identity()]}, {spec.seed_label}" for spec in specs}


def labels(specs: Sequence[TrialSpec], keys: Sequence[str] | None) -> list[str]:
    """A name for every configuration (their seeds being equal), different for different ones.

    `keys`: the dotted keys whose values tell them apart. None: the method's own label, with whatever else varies.
    Configurations that would still share a name get the values in which they differ behind it.
    """
    if keys is None:
        outside = [key for key in varying(specs) if not key.startswith("method.")]
        parts = [key for key in outside if key.endswith(".name")]
        others = [key for key in outside if key not in parts]
        names = [", ".join([*values(spec, parts), spec.method.label(), *values(spec, others)]) for spec in specs]
    else:
        names = [", ".join(values(spec, keys)) or spec.method.label() for spec in specs]
    shared: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        shared.setdefault(name, []).append(index)
    for name, indices in shared.items():
        differing = varying([specs[index] for index in indices])
        for index in indices:
            names[index] = ", ".join([name, *values(specs[index], differing)])
    return names


def has(spec: TrialSpec, dotted: str) -> bool:
    """Whether the spec's kind of section has such a key."""
    section, _, key = dotted.rpartition(".")
    return key in type(value_at(spec, section) if section else spec).model_fields


def values(spec: TrialSpec, keys: Sequence[str]) -> list[str]:
    """`lr=0.1` for each key that the configuration has a value for; of a part and of a recipe its name alone."""
    named = [f"{key}.name" if isinstance(value_at(spec, key), BaseModel) else key for key in keys]
    by_key = {key: value_at(spec, key) for key in named}
    return [
        str(value)
        if key.endswith(".name") or key in ("variant", RECIPE)
        else f"{key.rpartition('.')[2]}={format_value(value)}"
        for key, value in by_key.items()
        if value is not None
    ]
