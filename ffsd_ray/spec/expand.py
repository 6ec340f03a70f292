"""From a job's sections and its search space to its trials, before validation, every part with its place."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

from ffsd_ray.spec.keys import TRIAL_KEYS, did_you_mean, split
from ffsd_ray.spec.problems import Place, Problems, shown
from ffsd_ray.spec.tree import Node, merge, put
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.spec.yaml_file import parse

_MOST_TRIALS = 10_000


def override(job: Node, options: Sequence[str], problems: Problems) -> Node:
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
        value = parse(text, _everywhere(place), problems)
        if value is None:
            continue
        changed = put(job, path, value)
        if changed is job:
            problems.add(place, key, "A part of this key is not a section, so there is nothing to set in it.")
        job = changed
        set_keys.append((key, place))
    axes = _axes(job, "grid")
    for key, place in set_keys:
        for axis in (key, split(key)[0]):
            if axis in axes:
                problems.add(place, key, f"search.grid sets `{axis}` in every trial; change search.grid.{axis}.")
                break
    return job


def _everywhere(place: Place) -> Callable[[int, int], Place]:
    return lambda line, column: place


def expand(job: Node, problems: Problems) -> list[Node]:
    """The trials' sections: every combination of the grid (each with every step of the sweep, if there is one) and
    every seed, then the entries of `also`.

    The grid's whole sections are put in first, then kinds (`method.name`), then other keys, each in the file's order.
    An entry of `also` changes the job's sections, not the grid's; without seeds of its own it has the job's.
    What is not well-formed in the search space is left out here: validation of the job reports it.
    """
    sections = {key: node for key, node in job.value.items() if key in TrialSpec.model_fields and key != "seed"}
    base = replace(job, value=sections)
    axes, sweep = (_known(_axes(job, part), part, problems) for part in ("grid", "sweep"))
    seeds = axes.pop("seed", None) or _listed(job.get("seed"))
    steps = [(split(key), value) for key, values in sweep.items() for value in values]
    number = math.prod(len(values) for values in axes.values()) * max(1, len(seeds)) * max(1, len(steps))
    search = job.get("search")
    if number > _MOST_TRIALS and search is not None:
        problems.add(search.key_at, "search", f"{number:,} trials; should be {_MOST_TRIALS:,} or fewer.")
        return []
    trials = []
    for values in product(*axes.values()):
        trial = base
        for key, value in zip(axes, values, strict=True):
            trial = put(trial, split(key), value)
        for swept in [put(trial, path, value) for path, value in steps] or [trial]:
            trials += _with_seeds(swept, seeds)
    also = job.get("search", "also")
    for index, entry in enumerate(also.value if also and isinstance(also.value, list) else []):
        if isinstance(entry.value, dict):
            trials += _also(base, entry, index, seeds, problems)
    return trials


def touched(job: Node) -> set[str]:
    """The sections in which the grid or the sweep sets single keys."""
    return {split(key)[0] for part in ("grid", "sweep") for key in _axes(job, part) if "." in key}


def _known(axes: dict[str, list[Node]], part: str, problems: Problems) -> dict[str, list[Node]]:
    """The axes whose keys trials have; the others are reported."""
    for key, values in axes.items():
        if not _is_trial_key(key):
            _report_unknown(values[0].key_at, f"search.{part}.{key}", key, problems)
    return {key: values for key, values in axes.items() if _is_trial_key(key)}


def _axes(job: Node, part: str) -> dict[str, list[Node]]:
    """The values of each axis of the grid or the sweep, keyed as it is, in the order in which they are put in."""
    grid = job.get("search", part)
    entries = grid.value if grid and isinstance(grid.value, dict) else {}
    return {
        key: [replace(value, key_at=entries[key].key_at) for value in entries[key].value]
        for key in sorted(entries, key=_order)
        if isinstance(entries[key].value, list) and entries[key].value
    }


def _order(key: str) -> int:
    path = split(key)
    return 0 if len(path) == 1 else 1 if path[1:] == ("name",) else 2


def _also(base: Node, entry: Node, index: int, seeds: list[Node], problems: Problems) -> list[Node]:
    trial = replace(base, at=entry.at, key_at=entry.at)
    for key in sorted(entry.value, key=_order):
        value, path = entry.value[key], split(key)
        if not _is_trial_key(key):
            _report_unknown(value.key_at, f"search.also[{index}].{key}", key, problems, shown(value.plain()))
        elif key == "seed":
            seeds = _listed(value)
            if not seeds:
                problems.add(value.at, f"search.also[{index}].seed", "Should have 1 item or more.", "[]")
        elif len(path) == 1:
            trial = merge(trial, key, value)
        else:
            trial = put(trial, path, value)
    return _with_seeds(trial, seeds)


def _is_trial_key(key: str) -> bool:
    """Whether the key's section exists; what is in it, validation knows."""
    section, *rest = split(key)
    return section in TrialSpec.model_fields and not (section == "seed" and rest)


def _report_unknown(place: Place, path: str, key: str, problems: Problems, value: str = "") -> None:
    sections = ", ".join(TrialSpec.model_fields)
    expected = f"Unknown key.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)} The first part should be one of {sections}."
    problems.add(place, path, expected, value)


def _listed(seed: Node | None) -> list[Node]:
    if seed is None:
        return []
    return seed.value if isinstance(seed.value, list) else [seed]


def _with_seeds(trial: Node, seeds: list[Node]) -> list[Node]:
    return [put(trial, ("seed",), seed) for seed in seeds] or [trial]
