"""Overrides of a job file from the command line: `--set key=value`."""

from collections.abc import Callable, Sequence

from ffsd_ray.config.keys import split
from ffsd_ray.config.search import flat
from ffsd_ray.config.source.located import LocatedValue, put
from ffsd_ray.config.source.problems import Place, Problems
from ffsd_ray.config.source.yaml_file import parse


def override(job: LocatedValue, options: Sequence[str], problems: Problems) -> LocatedValue:
    """`job` with each `key=value` of `options` put in, in their order (see `put` for what becomes of other keys).

    The value is YAML. A whole section is replaced. What the search space sets anyway cannot be set from here: it
    would change nothing.
    """
    set_keys: list[tuple[str, Place]] = []
    for option in options:
        place = Place(f"--set {option}")
        key, equals, text = option.partition("=")
        path = split(key)
        if not equals or not all(path):
            problems.add(place, "", "Should be KEY=VALUE, such as --set train.epochs=2.")
            continue
        value = parse(text, _constant_place(place), problems)
        if value is None:
            continue
        changed = put(job, path, value)
        if changed is job:
            problems.add(place, key, "A part of this key is not a section, so there is nothing to set in it.")
        job = changed
        set_keys.append((key, place))
    settled = _keys_of_search_space(job)
    for key, place in set_keys:
        for axis in (key, split(key)[0]):
            if axis in settled:
                part, there = settled[axis]
                problems.add(place, key, f"{part} sets `{axis}` in every trial; change {there}.")
                break
    return job


def _constant_place(place: Place) -> Callable[[int, int], Place]:
    return lambda line, column: place


def _keys_of_search_space(job: LocatedValue) -> dict[str, tuple[str, str]]:
    """The keys that every combination of the search space sets: the part that does, and what to change instead."""
    settled: dict[str, tuple[str, str]] = {}
    for part in ("random", "grid"):
        node = job.get("search", part)
        for key, values in node.value.items() if node and isinstance(node.value, dict) else []:
            if values.value:
                settled[key] = f"search.{part}", f"search.{part}.{key}"
    variants = job.get("search", "variants")
    changes = list(variants.plain().values()) if variants and isinstance(variants.value, dict) else []
    if changes and all(isinstance(change, dict) for change in changes):
        common = set.intersection(*({key for _, key in flat(change)} for change in changes))
        settled |= dict.fromkeys(common, ("search.variants", "the variants"))
    return settled
