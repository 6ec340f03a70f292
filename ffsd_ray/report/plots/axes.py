"""The settings that a picture has as its axes, and the rows that differ in them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ffsd_ray.config.keys import TRIAL_KEYS, did_you_mean
from ffsd_ray.config.labels import has
from ffsd_ray.config.source.problems import format_value
from ffsd_ray.config.trial import TrialSpec, identifying
from ffsd_ray.config.varying import value_at, varying
from ffsd_ray.errors import JobError, RecordsError
from ffsd_ray.methods.baseline import BaselineSettings
from ffsd_ray.report.tables.rows import Row
from ffsd_ray.report.tables.table import Table
from ffsd_ray.report.tables.text import footnotes

#: What a key is set to; lists as text.
Value = float | str


@dataclass(frozen=True)
class Group:
    """Completed configurations that differ in the keys alone, by their values."""

    #: What tells this group from the others; '' for an only one.
    name: str
    rows: dict[tuple[Value, ...], Row]

    @property
    def is_baseline(self) -> bool:
        return all(isinstance(row.spec.method, BaselineSettings) for row in self.rows.values())


def check_keys(keys: Sequence[str]) -> None:
    """
    Raises:
        JobError: trials have no such setting, or one is named twice.
    """
    for key in keys:
        if key not in TRIAL_KEYS or "." not in key:
            raise JobError(f"--plot {key}: not a setting of trials.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}")
        if keys.count(key) > 1:
            raise JobError(f"--plot {' '.join(keys)}: {key} is there twice")


def value_of(spec: TrialSpec, key: str) -> Value:
    value = value_at(spec, key)
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else format_value(value)


def ordered(found: Sequence[Value]) -> tuple[Value, ...]:
    """Each once: numbers ascending, others as they come."""
    distinct = list(dict.fromkeys(found))
    numbers = [value for value in distinct if not isinstance(value, str)]
    return tuple(sorted(numbers)) if len(numbers) == len(distinct) else tuple(distinct)


def groups(table: Table, keys: Sequence[str]) -> list[Group]:
    """The table's completed rows, where all else is equal and each of `keys` takes two values or more.

    Raises:
        JobError: see `check_keys`.
        RecordsError: there are no such rows, or two of them stand at the same place.
    """
    check_keys(keys)
    found: dict[str, dict[tuple[Value, ...], Row]] = {}
    for row in table.rows:
        if not row.seeds or not all(has(row.spec, key) for key in keys):
            continue
        place = tuple(value_of(row.spec, key) for key in keys)
        there = found.setdefault(_others(row.spec, keys), {}).setdefault(place, row)
        if there is not row:
            raise RecordsError(
                f"{table.title}: {there.configuration} and {row.configuration} both have {' and '.join(keys)} "
                f"{', '.join(map(str, place))}: choose among them with --where KEY=VALUE"
            )
    # Where other keys are swept beside these, most configurations have but one value of them.
    kept = [rows for rows in found.values() if all(len(set(places)) > 1 for places in zip(*rows, strict=True))]
    if not kept:
        alone = "it alone" if len(keys) == 1 else "these alone, each with two values or more"
        raise RecordsError(
            f"{table.title}: nothing to plot against {' and '.join(keys)}: "
            f"no two completed configurations differ in {alone}"
        )
    firsts = [next(iter(rows.values())).spec for rows in kept]
    telling = [name for name in varying(firsts) if name not in keys]
    named = [Group(_name(first, telling), rows) for first, rows in zip(firsts, kept, strict=True)]
    # With other methods the baseline is in their pictures.
    return [group for group in named if not group.is_baseline] or named


def captions(table: Table, rows: Sequence[Row]) -> tuple[str, ...]:
    """The table's captions and its notes on trials that these rows lack."""
    missing = [note for row in rows for note in footnotes(table.notes, row.notes.get("n", ()))]
    return (*table.captions_without("gain", "deployed"), *dict.fromkeys(missing))


def _name(spec: TrialSpec, keys: Sequence[str]) -> str:
    """The settings of the keys as text; numbers with the key's name, words without."""
    found = {key: value_at(spec, key) for key in keys if has(spec, key)}
    return ", ".join(
        value if isinstance(value, str) else f"{key.rpartition('.')[2]}={format_value(value)}"
        for key, value in found.items()
    )


def _others(spec: TrialSpec, keys: Sequence[str]) -> str:
    """Everything else that a configuration is; with the name of a part goes what is set for that part."""
    content = identifying(spec)
    for key in keys:
        section, _, name = key.partition(".")
        if name == "name":
            content[section] = {}
        else:
            content[section].pop(name, None)
    return json.dumps(content, sort_keys=True)
