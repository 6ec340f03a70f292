"""pydantic's errors in plain words, each at its place."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ffsd_ray.base_settings import Settings
from ffsd_ray.config.keys import class_at, did_you_mean, unknown_key, unknown_to_all_kinds
from ffsd_ray.config.source.located import LocatedValue
from ffsd_ray.config.source.problems import Place, Problems, format_value
from ffsd_ray.config.trial import KINDS

_Model = TypeVar("_Model", bound=Settings)

#: By error type; filled in from pydantic's context.
_EXPECTED = {
    "int_type": "Should be a whole number.",
    "float_type": "Should be a number.",
    "bool_type": "Should be true or false.",
    "string_type": "Should be text (a number or true/false is text in quotes).",
    "list_type": "Should be a list, such as [1, 2].",
    "finite_number": "Should be a finite number.",
    "greater_than_equal": "Should be {ge:.12g} or more.",
    "greater_than": "Should be more than {gt:.12g}.",
    "less_than_equal": "Should be {le:.12g} or less.",
    "less_than": "Should be less than {lt:.12g}.",
    "too_short": "Should have {min_length} item{plural} or more.",
    "too_long": "Should have {max_length} items.",
    "string_too_long": "Should have {max_length} characters or fewer.",
}


def validate(model: type[_Model], tree: LocatedValue, problems: Problems, *, in_trial: bool = False) -> _Model | None:
    """`tree` as a `model`; None where it is wrong, `problems` then say why."""
    try:
        # As JSON: strict about numbers and text, but a list will do for a tuple.
        return model.model_validate_json(json.dumps(tree.plain()))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            problems.add(*_explain(details, tree), in_trial=in_trial)
            if details["type"].startswith("union_tag"):  # pydantic looks no further into the section
                for place, key, expected, value in _unknown(_find(details["loc"], tree).path, tree):
                    problems.add(place, key, expected, value, in_trial=in_trial)
    return None


def _unknown(section: list[str | int], tree: LocatedValue) -> Iterator[tuple[Place, str, str, str]]:
    """Place, key, message and value of each key of a section that no kind of it has."""
    for name in unknown_to_all_kinds(section, tree):
        node = tree.get(*section, name)
        assert node is not None
        path = [*section, name]
        yield node.key_at, dotted(path), unknown_key(path, tree), format_value(node.plain())


class _ErrorLocation(NamedTuple):
    """Where an error points: the path, the node there if there is one, and the last node on the way."""

    path: list[str | int]
    node: LocatedValue | None
    nearest: LocatedValue


def _explain(error: ErrorDetails, tree: LocatedValue) -> tuple[Place, str, str, str]:
    """Place, key, what was expected, value."""
    kind = error["type"]
    location = _find(error["loc"], tree)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        location = _find((*location.path, "name"), tree)
    key, node = dotted(location.path), location.node
    if node is None and kind in ("missing", "union_tag_not_found"):
        return location.nearest.key_at, key, _missing(location.path, tree), ""
    expected = _expected(error, location, tree)
    if node is None:
        return location.nearest.key_at, key, expected, f"{format_value(error['input'])} (default)"
    at_key = kind == "extra_forbidden" or isinstance(node.value, dict)
    return node.key_at if at_key else node.at, key, expected, format_value(node.plain())


def _find(location: tuple[str | int, ...], tree: LocatedValue) -> _ErrorLocation:
    path: list[str | int] = []
    node: LocatedValue | None = tree
    nearest = tree
    for step in location:
        name = node.get("name") if node and path and path[-1] in KINDS else None
        if name is not None and step == name.value:  # pydantic puts the kind into the location
            continue
        if isinstance(step, int) and not isinstance(nearest.value, list):  # one value where a list may be
            continue
        if step == "choice" and isinstance(nearest.value, list):  # a list where a distribution may be
            continue
        node = node.get(step) if node else None
        if path != ["seed"]:  # one of a job's seeds is the seed of a trial
            path.append(step)
        nearest = node or nearest
    return _ErrorLocation(path, node, nearest)


def dotted(path: list[str | int]) -> str:
    """search, also, 0, method → search.also[0].method"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _missing(path: list[str | int], tree: LocatedValue) -> str:
    if path[-1] == "name" and len(path) > 1 and path[-2] in KINDS:
        return f"Missing. Should be one of {', '.join(KINDS[str(path[-2])])}."
    holder = class_at(path[:-1], tree)
    field = holder.model_fields.get(str(path[-1])) if holder else None
    return f"Missing. {field.description}" if field and field.description else "Missing."


def _expected(error: ErrorDetails, location: _ErrorLocation, tree: LocatedValue) -> str:
    kind, context = error["type"], error.get("ctx", {})
    value = location.node.value if location.node else error["input"]
    if kind == "extra_forbidden":
        return unknown_key(location.path, tree)
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "Should be a section, such as {key: value}."
    if kind == "union_tag_invalid":
        return _one_of(value, list(KINDS[str(location.path[-2])]))
    if kind == "literal_error":
        return _one_of(value, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "unknown_name":
        return f"{error['msg']}.{did_you_mean(value, context['names'])}"
    if kind == "string_pattern_mismatch":
        return "Not allowed." + _missing(location.path, tree).removeprefix("Missing.")
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context, plural="s" if context.get("min_length", 1) > 1 else "")
    message = str(context["error"]) if kind == "value_error" else error["msg"].replace("Input should", "Should")
    return message if message.endswith(".") else f"{message}."


def _one_of(value: object, names: list[str]) -> str:
    return f"Should be one of {', '.join(names)}.{did_you_mean(value, names)}"
