"""Trials that Optuna chooses while others run."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from ffsd_ray.config.load import resolved, with_values
from ffsd_ray.config.search import SearchSettings
from ffsd_ray.config.searchers import Optuna
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at
from ffsd_ray.errors import UserError
from ffsd_ray.launch.search.schedulers import RANKED, domain
from ffsd_ray.records.run import RunRecords

#: Told of each trial when it is chosen.
Announce = Callable[[TrialSpec], None]


def spec_of(config: dict[str, Any]) -> TrialSpec:
    """The spec that a Tune trial was made with: the one in its configuration, with what a searcher chose."""
    spec = TrialSpec.model_validate(config["trial"]["spec"])
    return with_values(spec, config["chosen"]) if "chosen" in config else spec


def completed(run: RunRecords, template: TrialSpec) -> dict[str, TrialSpec]:
    """The chosen trials that this run has completed already, by identity; not those that they learn from.

    Raises:
        DamagedRecords: one is not a spec of this version.
    """
    specs = run.specs()
    needed = {other.identity() for spec in (resolved(template), *specs.values()) for other in spec.prerequisites()}
    return {
        identity: spec
        for identity, spec in specs.items()
        if identity not in needed and run.trial(identity).state() == "completed"
    }


def optuna(
    search: SearchSettings, settings: Optuna, run: RunRecords, primary_series: str, known: Mapping[str, TrialSpec]
) -> ConcurrencyLimiter:
    """Optuna, told of the trials that this run has completed already (`known`, see `completed`).

    Raises:
        UserError: Optuna is not installed.
        DamagedRecords: a completed trial's are.
    """
    if find_spec("optuna") is None:
        raise UserError('search.searcher: needs the package optuna: pip install -e ".[optuna]"')
    space = {"chosen": {key: domain(distribution) for key, distribution in search.random.items()}}
    points, rewards = [], []
    for identity, spec in known.items():
        points.append({f"chosen/{key}": value_at(spec, key) for key in search.random})
        rewards.append(run.trial(identity).last_measured(settings.column(primary_series)))
    searcher = OptunaSearch(
        OptunaSearch.convert_search_space(space),
        metric=RANKED,
        mode=settings.direction,
        seed=settings.seed + len(points),  # the same one would choose again what is trained already
        points_to_evaluate=points or None,
        evaluated_rewards=rewards or None,
    )
    return ConcurrencyLimiter(searcher, max_concurrent=1)
