"""From a job's sections and its search space to its trials, before validation, every part with its place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from ffsd_ray.config.distributions import Distribution
from ffsd_ray.config.expansion.constraints import constrained
from ffsd_ray.config.expansion.sampling import as_nodes, distributions, sample_values
from ffsd_ray.config.keys import TRIAL_KEYS, did_you_mean, split
from ffsd_ray.config.searchers import MUTABLE
from ffsd_ray.config.source.located import LocatedValue, merge, put
from ffsd_ray.config.source.problems import Place, Problems, format_value
from ffsd_ray.config.trial import SEEDS, TrialSpec

_MOST_TRIALS = 10_000

#: `variant` is what the search space calls a trial.
_SECTIONS = [name for name in TrialSpec.model_fields if name != "variant"]

_SEEDS = "Every combination is trained with every seed: set the job's `seed`, or the grid's."


@dataclass(frozen=True)
class Expansion:
    """The sections of every trial of a job."""

    trials: list[LocatedValue] = field(default_factory=list)
    #: With Optuna, a trial that has some value of every key that Optuna chooses; there are no `trials` then.
    template: LocatedValue | None = None
    #: The first trial at each end of each distribution, by the path of that: right if whatever is drawn is right.
    extremes: dict[tuple[str, ...], list[LocatedValue]] = field(default_factory=dict)

    @property
    def first(self) -> LocatedValue | None:
        return self.trials[0] if self.trials else self.template


@dataclass(frozen=True)
class _Change:
    """A key of a trial that is set; `merged`: of a whole section the keys that are not set stay."""

    key: str
    value: LocatedValue
    merged: bool = False

    @property
    def order(self) -> int:
        """Whole sections go in first, then what is merged into them, then kinds, then other keys."""
        _, *rest = split(self.key)
        if not rest:
            return 1 if self.merged else 0
        return 2 if rest == ["name"] else 3

    def put_into(self, trial: LocatedValue) -> LocatedValue:
        path = split(self.key)
        return merge(trial, self.key, self.value) if self.merged and len(path) == 1 else put(trial, path, self.value)


def expand(job: LocatedValue, problems: Problems) -> Expansion:
    """Every combination of variants, grid, draws and steps of the sweep that `only` allows, each with every seed; then
    the entries of `also`.

    Whole sections of the grid are put in first, then what variants say, then kinds (`method.name`), then other keys,
    each in the file's order. An entry of `also` changes the job's sections, not the grid's; without seeds of its own it
    has the job's. What is not well-formed in the search space is left out here: validation of the job reports it.
    """
    sections = {key: node for key, node in job.value.items() if key in _SECTIONS and key != "seed"}
    base = replace(job, value=sections)
    grid, sweep = (_known(_axes(job, part), part, problems) for part in ("grid", "sweep"))
    seeds = grid.pop("seed", None) or _as_list(job.get("seed"))
    _check_seeds(seeds, problems)
    random = distributions(job.get("search", "random"))
    random = {
        key: random[key] for key in _known({key: [node] for key, (_, node) in random.items()}, "random", problems)
    }
    samples = _count(_setting(job, "samples")) if random else 1
    if _setting(job, "searcher", "name") == "optuna":
        if samples > _MOST_TRIALS:
            _report_too_many(job, samples, problems)
            return Expansion()
        template = _with(
            base, _changes({key: as_nodes(one.extremes[:1], one, node)[0] for key, (one, node) in random.items()})
        )
        [template, *_] = _with_seeds(template, seeds)
        return Expansion(template=template, extremes=_extremes(template, random, "random"))

    variants = _variants(job, problems) or [[]]
    steps = [_changes({key: value}) for key, values in sweep.items() for value in values] or [[]]
    axes = [len(values) for values in grid.values()]
    number = math.prod((samples, len(variants), len(steps), max(1, len(seeds)), *axes))
    if number > _MOST_TRIALS and job.get("search") is not None:
        _report_too_many(job, number, problems)
        return Expansion()
    drawn = sample_values(random, samples, _count(_setting(job, "sampling_seed"))) or [{}]
    trials = [
        seeded
        for variant in variants
        for values in product(*grid.values())
        for values_drawn in drawn
        for trial in [_with(base, [*variant, *_changes(dict(zip(grid, values, strict=True)) | values_drawn)])]
        for step in steps
        for seeded in _with_seeds(_with(trial, step), seeds)
    ]
    trials = constrained(job, trials, problems)
    mutated = distributions(job.get("search", "scheduler", "mutate"))
    mutated = {key: drawn_from for key, drawn_from in mutated.items() if key in MUTABLE}
    extremes = (
        _extremes(trials[0], random, "random") | _extremes(trials[0], mutated, "scheduler", "mutate") if trials else {}
    )
    also = job.get("search", "also")
    for index, entry in enumerate(also.value if also and isinstance(also.value, list) else []):
        if isinstance(entry.value, dict):
            trials += _added_trials(base, entry, index, seeds, problems)
    return Expansion(trials, extremes=extremes)


def sections_in_search(job: LocatedValue) -> set[str]:
    """The sections in which the search space sets single keys."""
    keys = {key for part in ("grid", "sweep", "random") for key in _mapping(job, part) if "." in key}
    for changes in _mapping(job, "variants").values():
        keys |= set(changes.value) if isinstance(changes.value, dict) else set()
    return {split(key)[0] for key in keys}


def _mapping(job: LocatedValue, part: str) -> dict[str, LocatedValue]:
    node = job.get("search", part)
    return node.value if node is not None and isinstance(node.value, dict) else {}


def _setting(job: LocatedValue, *path: str) -> Any:
    node = job.get("search", *path)
    return node.plain() if node is not None else None


def _count(value: Any) -> int:
    """A whole number; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _known(axes: dict[str, list[LocatedValue]], part: str, problems: Problems) -> dict[str, list[LocatedValue]]:
    """The axes whose keys trials have; the others are reported."""
    for key, values in axes.items():
        path = f"search.{part}.{key}"
        if not _is_trial_key(key):
            _report_unknown(values[0].key_at, path, key, problems)
        elif key == "seed" and part != "grid":
            problems.add(values[0].key_at, path, _SEEDS)
    return {key: values for key, values in axes.items() if _is_trial_key(key)}


def _axes(job: LocatedValue, part: str) -> dict[str, list[LocatedValue]]:
    """The values of each axis of the grid or the sweep, keyed as it is, in the order in which they are put in."""
    entries = _mapping(job, part)
    return {
        key: [replace(value, key_at=entries[key].key_at) for value in entries[key].value]
        for key in sorted(entries, key=lambda key: _Change(key, entries[key]).order)
        if isinstance(entries[key].value, list) and entries[key].value
    }


def _changes(values: Mapping[str, LocatedValue], *, merged: bool = False) -> list[_Change]:
    return [_Change(key, value, merged) for key, value in values.items()]


def _with(trial: LocatedValue, changes: list[_Change]) -> LocatedValue:
    for change in sorted(changes, key=lambda change: change.order):
        trial = change.put_into(trial)
    return trial


def _variants(job: LocatedValue, problems: Problems) -> list[list[_Change]]:
    """The changes that each variant makes, its name included."""
    variants = []
    for name, node in _mapping(job, "variants").items():
        if not isinstance(node.value, dict):
            continue
        changes = [_Change("variant", LocatedValue(name, node.key_at, node.key_at))]
        for key, value in node.value.items():
            path = f"search.variants.{name}.{key}"
            if key == "seed":
                problems.add(value.key_at, path, _SEEDS)
            elif not _is_trial_key(key):
                _report_unknown(value.key_at, path, key, problems, format_value(value.plain()))
            else:
                changes.append(_Change(key, value, merged=True))
        variants.append(changes)
    return variants


def _extremes(
    trial: LocatedValue, drawn: Mapping[str, tuple[Distribution, LocatedValue]], *part: str
) -> dict[tuple[str, ...], list[LocatedValue]]:
    return {
        ("search", *part, key): [
            _with(trial, [_Change(key, extreme)]) for extreme in as_nodes(distribution.extremes, distribution, node)
        ]
        for key, (distribution, node) in drawn.items()
    }


def _added_trials(
    base: LocatedValue, entry: LocatedValue, index: int, seeds: list[LocatedValue], problems: Problems
) -> list[LocatedValue]:
    changes = []
    for key, value in entry.value.items():
        if not _is_trial_key(key):
            _report_unknown(value.key_at, f"search.also[{index}].{key}", key, problems, format_value(value.plain()))
        elif key == "seed":
            seeds = _as_list(value)
            if not seeds:
                problems.add(value.at, f"search.also[{index}].seed", "Should have 1 item or more.", "[]")
            _check_seeds(seeds, problems)
        else:
            changes.append(_Change(key, value, merged=True))
    return _with_seeds(_with(replace(base, at=entry.at, key_at=entry.at), changes), seeds)


def _is_trial_key(key: str) -> bool:
    """Whether the key's section exists; what is in it, validation knows."""
    section, *rest = split(key)
    return section in _SECTIONS and not (section == "seed" and rest)


def _report_too_many(job: LocatedValue, number: int, problems: Problems) -> None:
    search = job.get("search")
    assert search is not None
    problems.add(search.key_at, "search", f"{number:,} trials; should be {_MOST_TRIALS:,} or fewer.")


def _report_unknown(place: Place, path: str, key: str, problems: Problems, value: str = "") -> None:
    sections = ", ".join(_SECTIONS)
    expected = f"Unknown key.{did_you_mean(key, TRIAL_KEYS, TRIAL_KEYS)} The first part should be one of {sections}."
    problems.add(place, path, expected, value)


def _as_list(seed: LocatedValue | None) -> list[LocatedValue]:
    if seed is None:
        return []
    return seed.value if isinstance(seed.value, list) else [seed]


def _check_seeds(seeds: list[LocatedValue], problems: Problems) -> None:
    """Report those that only teachers have, which validation of a trial lets pass."""
    for seed in seeds:
        if isinstance(seed.value, int) and seed.value >= SEEDS:
            problems.add_unreadable(seed.at, "seed", f"Should be less than {SEEDS}.", format_value(seed.value))


def _with_seeds(trial: LocatedValue, seeds: list[LocatedValue]) -> list[LocatedValue]:
    return [put(trial, ("seed",), seed) for seed in seeds] or [trial]
