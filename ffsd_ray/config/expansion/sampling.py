"""Values drawn from a job's `search.random`, before anything of it is validated, each with its place."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ffsd_ray.config.distributions import Distribution, DistributionOrChoices
from ffsd_ray.config.source.located import LocatedValue

_DIGITS = 4

_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(DistributionOrChoices)


def distributions(section: LocatedValue | None) -> dict[str, tuple[Distribution, LocatedValue]]:
    """Well-formed distributions by dotted key, each with its node; validation of the job reports the others."""
    by_key: dict[str, tuple[Distribution, LocatedValue]] = {}
    for key, node in section.value.items() if section and isinstance(section.value, dict) else []:
        try:
            by_key[key] = _DISTRIBUTION.validate_json(json.dumps(node.plain())), node
        except ValidationError:
            continue
    return by_key


def draw(key: str, distribution: Distribution, samples: int, seed: int) -> list[Any]:
    """The key's first `samples` values: the same whatever else is drawn, and however many more.

    Fractions have 4 significant digits, so that they can be typed again.
    """
    probabilities = np.random.default_rng([seed, *key.encode()]).random(samples).tolist()
    return [_inverse_cdf(distribution, probability) for probability in probabilities]


def _inverse_cdf(distribution: Distribution, probability: float) -> Any:
    """Inverse CDF: the value below which the given `probability` in [0, 1) of the distribution lies."""
    if distribution.ends is None:
        return distribution.extremes[int(probability * len(distribution.extremes))]
    low, high = distribution.ends
    if distribution.integers:
        return low + int(probability * (high - low + 1))
    if distribution.log_uniform:
        value = math.exp(math.log(low) + probability * (math.log(high) - math.log(low)))
    else:
        value = low + probability * (high - low)
    return min(max(rounded(value), low), high)


def rounded(value: float) -> float:
    """Round to 4 significant digits."""
    return float(f"{value:.{_DIGITS}g}")


def as_nodes(values: Sequence[Any], distribution: Distribution, node: LocatedValue) -> list[LocatedValue]:
    """Values of a distribution as nodes: a choice where it stands, a number where its distribution does."""
    if distribution.choice is None:
        return [LocatedValue(value, node.at, node.key_at) for value in values]
    items = node.value if isinstance(node.value, list) else node.value["choice"].value
    return [_keyed(items[distribution.choice.index(value)], node) for value in values]


def _keyed(item: LocatedValue, node: LocatedValue) -> LocatedValue:
    return LocatedValue(item.value, item.at, node.key_at)


def sample_values(
    by_key: Mapping[str, tuple[Distribution, LocatedValue]], samples: int, seed: int
) -> list[dict[str, LocatedValue]]:
    """`samples` random assignments of a value to every key."""
    columns = {
        key: as_nodes(draw(key, distribution, samples, seed), distribution, node)
        for key, (distribution, node) in by_key.items()
    }
    return [{key: column[index] for key, column in columns.items()} for index in range(samples if columns else 0)]
