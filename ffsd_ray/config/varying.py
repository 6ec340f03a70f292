"""Values of trials by their dotted keys, and the keys that tell trials apart."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ffsd_ray.config.keys import NOT_IDENTITY_KEYS, TRIAL_KEYS
from ffsd_ray.config.optimisation import RECIPE, RECIPES, TrainSettings
from ffsd_ray.config.trial import TrialSpec


def value_at(spec: BaseModel, dotted: str) -> Any:
    """The value of a dotted key; None, too, where the trial's kind of section has no such key."""
    value: Any = spec
    for key in dotted.split("."):
        if not isinstance(value, BaseModel) or key not in type(value).model_fields:
            return None
        value = getattr(value, key)
    return value


def varying(trials: Sequence[TrialSpec]) -> list[str]:
    """The dotted keys that tell the trials apart, in the order of the spec; `seed`, if it is one, comes last.

    A key counts among the trials that have it. One that differs only because two kinds have different defaults does
    not count: the kind's `name` says as much. One that differs only between `search.variants` does not count either,
    nor does one that decides nothing of what is computed, unless trials have nothing else that tells them apart. Where
    recipes differ, `train.recipe` stands for the keys that are as each trial's recipe says.
    """
    leaves = [key for key in TRIAL_KEYS if "." in key or key == "seed"]
    named: dict[str | None, list[TrialSpec]] = {}
    for trial in trials:
        named.setdefault(trial.variant, []).append(trial)
    keys = [key for key in leaves if any(_varies(group, key) for group in named.values())]
    by_recipe = _set_by_recipe(trials) if RECIPE in keys else set()
    keys = [key for key in keys if key not in by_recipe]
    identity_keys = [key for key in keys if key not in NOT_IDENTITY_KEYS or (by_recipe and key == RECIPE)]
    combinations = {(trial.variant, *(repr(value_at(trial, key)) for key in identity_keys)) for trial in trials}
    if identity_keys != keys and len(combinations) == len(trials):
        keys = identity_keys
    return [*(["variant"] if len(named) > 1 else []), *keys]


def _set_by_recipe(trials: Sequence[TrialSpec]) -> set[str]:
    """The keys that recipes set, less those of which some trial has another value than by its recipe."""
    plain = {recipe: TrainSettings.model_validate({"recipe": recipe}) for recipe in RECIPES}
    names = {name for recipe in RECIPES.values() for name in recipe}
    return {
        f"train.{name}"
        for name in names
        if all(getattr(trial.train, name) == getattr(plain[trial.train.recipe], name) for trial in trials)
    }


def _varies(trials: Sequence[TrialSpec], key: str) -> bool:
    section, _, name = key.rpartition(".")
    holders = [value_at(trial, section) if section else trial for trial in trials]
    having = [holder for holder in holders if name in type(holder).model_fields]
    values = [getattr(holder, name) for holder in having]
    if all(value == values[0] for value in values):
        return False
    defaults = [type(holder).model_fields[name].get_default(call_default_factory=True) for holder in having]
    return name == "name" or values != defaults
