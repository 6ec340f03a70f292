"""Which combinations of a search space are trials: `search.only`."""

from typing import Any

from ffsd_ray.config.keys import TRIAL_KEYS, class_at, did_you_mean, split
from ffsd_ray.config.search import listed
from ffsd_ray.config.source.located import LocatedValue, same
from ffsd_ray.config.source.problems import Problems, shown
from ffsd_ray.config.trial import TrialSpec

_ABSENT = object()


def constrained(job: LocatedValue, trials: list[LocatedValue], problems: Problems) -> list[LocatedValue]:
    """Those of `trials` that keep to every entry of `search.only`.

    An entry whose key is unknown, that applies to none of them, or that leaves none of them is a mistake.
    """
    only = job.get("search", "only")
    entries = only.value if only is not None and isinstance(only.value, list) else []
    kept = trials
    for index, entry in enumerate(entries):
        when, then = (_conditions(entry.get(part)) for part in ("when", "then"))
        path = f"search.only[{index}]"
        if not when or not then or not _known(entry, path, problems):
            continue
        applies = [trial for trial in trials if all(_has(trial, *condition, absent=False) for condition in when)]
        if trials and not applies:
            said = " and ".join(f"{key} = {' or '.join(shown(value) for value in values)}" for key, values in when)
            problems.add(entry.at, f"{path}.when", f"No combination has {said}, so this does nothing.")
        broken = {id(trial) for trial in applies if not all(_has(trial, *wanted, absent=True) for wanted in then)}
        left = [trial for trial in kept if id(trial) not in broken]
        if kept and not left:
            problems.add(entry.at, path, f"Leaves none of the {len(kept)} combinations; some should remain.")
            return []
        kept = left
    return kept


def _conditions(node: LocatedValue | None) -> list[tuple[str, list[Any]]]:
    """Dotted keys and their values; empty where they are not well-formed, which validation of the job reports."""
    if node is None or not isinstance(node.value, dict):
        return []
    return [(key, listed(value.plain())) for key, value in node.value.items() if value.value not in (None, [])]


def _known(entry: LocatedValue, path: str, problems: Problems) -> bool:
    wrong = [
        (part, key, node)
        for part in ("when", "then")
        for key, node in entry.value[part].value.items()
        if key not in TRIAL_KEYS
    ]
    for part, key, node in wrong:
        expected = f"Should be a key that trials have.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)}"
        problems.add(node.key_at, f"{path}.{part}.{key}", expected)
    return not wrong


def _has(trial: LocatedValue, key: str, values: list[Any], *, absent: bool) -> bool:
    """Whether the trial has one of the values at the key; `absent` where its kinds have no such key."""
    found = _value(trial, key)
    return absent if found is _ABSENT else any(same(found, value) for value in values)


def _value(trial: LocatedValue, key: str) -> Any:
    path = split(key)
    node = trial.get(*path)
    if node is not None:
        return node.plain()
    holder = class_at(path[:-1], trial) if len(path) > 1 else TrialSpec
    field = holder.model_fields.get(path[-1]) if holder else None
    return _ABSENT if field is None or field.is_required() else field.get_default(call_default_factory=True)
