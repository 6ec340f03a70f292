"""Which combinations of a search space are trials: `search.only`."""

from typing import Any

from ffsd_ray.config.keys import TRIAL_KEYS, class_at, did_you_mean, split
from ffsd_ray.config.search import listed
from ffsd_ray.config.source.located import LocatedValue, same
from ffsd_ray.config.source.problems import Problems, format_value
from ffsd_ray.config.trial import TrialSpec

_ABSENT = object()


def constrained(job: LocatedValue, trials: list[LocatedValue], problems: Problems) -> list[LocatedValue]:
    """Those of `trials` that keep to every entry of `search.only`.

    An entry whose key is unknown, that applies to none of them, or that leaves none of them is a mistake.
    """
    only = job.get("search", "only")
    entries = only.value if only is not None and isinstance(only.value, list) else []
    remaining = trials
    for index, entry in enumerate(entries):
        when, then = (_conditions(entry.get(part)) for part in ("when", "then"))
        path = f"search.only[{index}]"
        if not when or not then or not _check_keys(entry, path, problems):
            continue
        applies = [trial for trial in trials if all(_has_one_of(trial, *condition, absent=False) for condition in when)]
        if trials and not applies:
            condition_text = " and ".join(
                f"{key} = {' or '.join(format_value(value) for value in values)}" for key, values in when
            )
            problems.add(entry.at, f"{path}.when", f"No combination has {condition_text}, so this does nothing.")
        broken = {
            id(trial) for trial in applies if not all(_has_one_of(trial, *condition, absent=True) for condition in then)
        }
        keeping_to_entry = [trial for trial in remaining if id(trial) not in broken]
        if remaining and not keeping_to_entry:
            problems.add(entry.at, path, f"Leaves none of the {len(remaining)} combinations; some should remain.")
            return []
        remaining = keeping_to_entry
    return remaining


def _conditions(node: LocatedValue | None) -> list[tuple[str, list[Any]]]:
    """Dotted keys and their values; empty where they are not well-formed, which validation of the job reports."""
    if node is None or not isinstance(node.value, dict):
        return []
    return [(key, listed(value.plain())) for key, value in node.value.items() if value.value not in (None, [])]


def _check_keys(entry: LocatedValue, path: str, problems: Problems) -> bool:
    unknown = [
        (part, key, node)
        for part in ("when", "then")
        for key, node in entry.value[part].value.items()
        if key not in TRIAL_KEYS
    ]
    for part, key, node in unknown:
        expected = f"Should be a key that trials have.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}"
        problems.add(node.key_at, f"{path}.{part}.{key}", expected)
    return not unknown


def _has_one_of(trial: LocatedValue, key: str, values: list[Any], *, absent: bool) -> bool:
    """Whether the trial has one of the values at the key; `absent` where its kinds have no such key."""
    actual = _value(trial, key)
    return absent if actual is _ABSENT else any(same(actual, value) for value in values)


def _value(trial: LocatedValue, key: str) -> Any:
    path = split(key)
    node = trial.get(*path)
    if node is not None:
        return node.plain()
    holder = class_at(path[:-1], trial) if len(path) > 1 else TrialSpec
    field = holder.model_fields.get(path[-1]) if holder else None
    return _ABSENT if field is None or field.is_required() else field.get_default(call_default_factory=True)
