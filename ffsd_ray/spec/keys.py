"""What keys there are, and which of them somebody may have meant."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from inspect import isclass
from typing import Any, get_args

from ffsd_ray.settings import Settings
from ffsd_ray.spec.job import JobSpec
from ffsd_ray.spec.tree import Node
from ffsd_ray.spec.trial import KINDS, TrialSpec


def split(dotted: str) -> tuple[str, ...]:
    """A dotted key as a path. An axis of `search.grid` is one step, dots included."""
    axis = dotted.removeprefix("search.grid.")
    return ("search", "grid", axis) if axis != dotted else tuple(dotted.split("."))


def class_at(path: Sequence[str | int], tree: Node) -> type[Settings] | None:
    """The settings class whose fields are the keys at `path` of a job or trial; None where there is none."""
    if not path:
        return JobSpec
    if len(path) == 1 and path[0] in KINDS:
        name = tree.get(path[0], "name")
        return KINDS[str(path[0])].get(name.value) if name and isinstance(name.value, str) else None
    parent = class_at(path[:-1], tree)
    field = parent.model_fields.get(str(path[-1])) if parent else None
    return _settings_class(field.annotation) if field else None


def dotted_keys(model: type[Settings]) -> list[str]:
    """Every section, each followed by its dotted keys, those of all kinds."""
    found: dict[str, None] = {}
    for name, field in model.model_fields.items():
        found[name] = None
        only = _settings_class(field.annotation)
        for kind in KINDS[name].values() if name in KINDS else [only] if only else []:
            found |= dict.fromkeys(f"{name}.{key}" for key in kind.model_fields)
    return list(found)


def _settings_class(annotation: Any) -> type[Settings] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isclass(candidate) and issubclass(candidate, Settings):
            return candidate
    return None


JOB_KEYS = dotted_keys(JobSpec)
TRIAL_KEYS = dotted_keys(TrialSpec)


def did_you_mean(wrong: object, here: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """' Did you mean `…`?' or ''. `elsewhere` are dotted keys: one that ends in `wrong` exactly goes before all."""
    if not isinstance(wrong, str):
        return ""
    ends = {key.rpartition(".")[2]: key for key in reversed(list(elsewhere)) if "." in key}
    candidates = {**ends, **{key: key for key in here}}
    found = ends.get(wrong) or next(iter(get_close_matches(wrong, candidates, 1)), None)
    return f" Did you mean `{candidates.get(found, found)}`?" if found else ""


def unknown_key(path: Sequence[str | int], tree: Node) -> str:
    """What to say about a key that the settings at its place do not have."""
    wrong, section = str(path[-1]), path[0]
    keys = class_at(path[:-1], tree)
    here = list(keys.model_fields) if keys else []
    listed = f" Keys here: {', '.join(here)}."
    if len(path) == 2 and section in KINDS:
        kinds = KINDS[str(section)]
        others = [name for name, kind in kinds.items() if wrong in kind.model_fields]
        if others:
            kind = tree.get(section, "name")
            assert kind is not None
            have = "have" if len(others) > 1 else "has"
            return f"{kind.value} has no such key ({', '.join(others)} {have} it).{listed}"
    return f"Unknown key.{did_you_mean(wrong, here, JOB_KEYS)}{listed}"
