"""The keys of a job file, and suggestions for a wrong one."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from inspect import isclass
from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ffsd_ray.base_settings import Settings
from ffsd_ray.config.job import JobSpec
from ffsd_ray.config.source.located import LocatedValue
from ffsd_ray.config.trial import KINDS, TrialSpec, identifies

_OF_DOTTED_KEYS = (
    ("search", "grid"),
    ("search", "sweep"),
    ("search", "random"),
    ("search", "scheduler", "mutate"),
)


def split(dotted: str) -> tuple[str, ...]:
    """A dotted key as a path. What maps dotted keys to something, as `search.grid` does, has them as one step."""
    for above in _OF_DOTTED_KEYS:
        key = dotted.removeprefix(f"{'.'.join(above)}.")
        if key != dotted:
            return (*above, key)
    return tuple(dotted.split("."))


def class_at(path: Sequence[str | int], tree: LocatedValue) -> type[Settings] | None:
    """The settings class whose fields are the keys at `path` of a job or trial; None where there is none."""
    name = tree.get(*path, "name")
    for candidate in _members(_annotation(path, tree)):
        if not _is_settings(candidate):
            continue
        if not _is_kind(path) or (name and candidate.model_fields["name"].default == name.value):
            return candidate
    return None


def _is_settings(annotation: Any) -> TypeGuard[type[Settings]]:
    return isclass(annotation) and issubclass(annotation, Settings)


def _is_kind(path: Sequence[str | int]) -> bool:
    return bool(path) and path[-1] in KINDS


def _annotation(path: Sequence[str | int], tree: LocatedValue) -> Any:
    """The declared type of the value at `path`; None where there is none."""
    if not path:
        return JobSpec
    *above, step = path
    holder = class_at(above, tree)
    if holder is not None:
        field = holder.model_fields.get(str(step))
        return field.annotation if field else None
    item_types = [
        get_args(member) for member in _members(_annotation(above, tree)) if get_origin(member) in (dict, list)
    ]
    return item_types[0][-1] if item_types else None


def _members(annotation: Any) -> list[Any]:
    """The types of a union, without what annotates them."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [unwrapped for member in get_args(annotation) for unwrapped in _members(member)]
    return [annotation]


def dotted_keys(model: type[Settings]) -> list[str]:
    """Every section, each followed by its dotted keys, those of all kinds."""
    return list(_fields(model))


def _fields(model: type[Settings]) -> dict[str, FieldInfo]:
    """By dotted key; of several kinds that have it, the last one's."""
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        fields[name] = field
        for kind in _members(field.annotation):
            if _is_settings(kind):
                fields |= {f"{name}.{key}": inner_field for key, inner_field in kind.model_fields.items()}
    return fields


JOB_KEYS = dotted_keys(JobSpec)
TRIAL_KEYS = dotted_keys(TrialSpec)
#: Those that are no part of a trial's identity.
NOT_IDENTITY_KEYS = {key for key, field in _fields(TrialSpec).items() if not identifies(field)}


#: What other tools call our keys.
SYNONYMS = {
    "allow_tf32": "train.precision",
    "amp": "train.precision",
    "arch": "backbone",
    "architecture": "backbone",
    "batch": "train.batch_size",
    "batchsize": "train.batch_size",
    "bs": "train.batch_size",
    "cpus": "scale.cpus_per_worker",
    "dataset": "data",
    "device": "scale.gpus_per_worker",
    "gpu": "scale.gpus_per_worker",
    "gpus": "scale.gpus_per_worker",
    "img_size": "data.image_size",
    "imgsz": "data.image_size",
    "learning_rate": "train.lr",
    "lr_schedule": "train.schedule",
    "max_epochs": "train.epochs",
    "mixed_precision": "train.precision",
    "model": "backbone",
    "n": "method.students",
    "network": "backbone",
    "num_epochs": "train.epochs",
    "num_students": "method.students",
    "num_workers": "data.loader_processes",
    "optimizer": "train.optimiser",
    "output_dir": "records.storage",
    "seeds": "seed",
    "student": "backbone",
    "t": "method.temperature",
    "wd": "train.weight_decay",
}


#: What to write there, where other tools have other values.
_VALUES = {"allow_tf32": "tf32", "amp": "bf16", "device": "1", "mixed_precision": "bf16"}


def did_you_mean(wrong: object, here: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """' Did you mean `…`?' or ''. `elsewhere` are dotted keys: one that ends in `wrong` exactly goes before all."""
    if not isinstance(wrong, str):
        return ""
    dotted = list(elsewhere)
    ends = {key.rpartition(".")[2]: key for key in reversed(dotted) if "." in key}
    candidates = {**ends, **{key: key for key in here}}
    meant = SYNONYMS.get(wrong.lower(), "")
    known = next((key for key in (meant.rpartition(".")[2], meant) if key in candidates or key in dotted), None)
    closest = ends.get(wrong) or known or next(iter(get_close_matches(wrong, candidates, 1)), None)
    if closest is None:
        return ""
    value = f": {_VALUES[wrong.lower()]}" if closest == known and wrong.lower() in _VALUES else ""
    return f" Did you mean `{candidates.get(closest, closest)}{value}`?"


def _may_have(tree: LocatedValue, dotted: str) -> bool:
    """Whether the section of a key has it, or may have it, for its kind is not known yet."""
    section, _, name = dotted.rpartition(".")
    keys = class_at([section], tree) if section else None
    return keys is None or name in keys.model_fields


def unknown_to_all_kinds(path: Sequence[str | int], tree: LocatedValue) -> list[str]:
    """The keys of a section that no kind of it has."""
    section = tree.get(*path)
    known = _keys_of_kinds(str(path[-1]))
    return [key for key in section.value if key not in known] if section and isinstance(section.value, dict) else []


def _keys_of_kinds(section: str) -> list[str]:
    return list(dict.fromkeys(key for kind in KINDS[section].values() for key in kind.model_fields))


def unknown_key(path: Sequence[str | int], tree: LocatedValue) -> str:
    """The message for a key that the settings at its place do not have."""
    wrong = str(path[-1])
    keys = class_at(path[:-1], tree)
    if keys is None and _is_kind(path[:-1]):  # of an unknown kind
        return f"Unknown key.{did_you_mean(wrong, _keys_of_kinds(str(path[-2])))}"
    here = list(keys.model_fields) if keys else []
    listed = f" Keys here: {', '.join(here)}."
    if _is_kind(path[:-1]):
        kinds = KINDS[str(path[-2])]
        others = [name for name, kind in kinds.items() if wrong in kind.model_fields]
        if others:
            kind = tree.get(*path[:-1], "name")
            assert kind is not None
            have = "have" if len(others) > 1 else "has"
            return f"{kind.value} has no such key ({', '.join(others)} {have} it).{listed}"
    # A key that this section might have, but has not, is no help; nor one that the chosen kind of another has not.
    section = next((step for step in reversed(path[:-1]) if isinstance(step, str)), "")
    elsewhere = [key for key in JOB_KEYS if (not section or not key.startswith(f"{section}.")) and _may_have(tree, key)]
    return f"Unknown key.{did_you_mean(wrong, here, elsewhere)}{listed}"
