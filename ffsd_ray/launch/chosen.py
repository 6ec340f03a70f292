"""The trials that a searcher chooses while others run."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from ffsd_ray.errors import UserError
from ffsd_ray.launch.schedulers import RANKED, domain
from ffsd_ray.records.run import RunRecords
from ffsd_ray.spec.load import value_at, with_values
from ffsd_ray.spec.search import Optuna, SearchSettings
from ffsd_ray.spec.trial import TrialSpec

#: Told of each trial when it is chosen.
Announce = Callable[[TrialSpec], None]


def spec_of(config: dict[str, Any]) -> TrialSpec:
    """The spec that a Tune trial was made with: the one in its configuration, with what a searcher chose."""
    spec = TrialSpec.model_validate(config["trial"]["spec"])
    return with_values(spec, config["chosen"]) if "chosen" in config else spec


def samples_left(search: SearchSettings, run: RunRecords) -> int:
    """How many trials are still to be chosen."""
    assert search.samples is not None
    return search.samples - sum(run.trial(identity).state() == "completed" for identity in run.trials())


def optuna(search: SearchSettings, settings: Optuna, run: RunRecords, headline: str) -> ConcurrencyLimiter:
    """Optuna, told of the trials that this run has completed already.

    Raises:
        UserError: Optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise UserError('search.searcher: needs the package optuna: pip install -e ".[optuna]"')
    space = {"chosen": {key: domain(distribution) for key, distribution in search.random.items()}}
    points, rewards = [], []
    for identity, planned in run.trials().items():
        records = run.trial(identity)
        if records.state() == "completed":
            spec = TrialSpec.model_validate(planned)
            points.append({f"chosen/{key}": value_at(spec, key) for key in search.random})
            rewards.append(records.history()[-1][settings.column(headline)])
    searcher = OptunaSearch(
        OptunaSearch.convert_search_space(space),
        metric=RANKED,
        mode=settings.direction,
        seed=settings.seed + len(points),  # the same one would choose again what is trained already
        points_to_evaluate=points or None,
        evaluated_rewards=rewards or None,
    )
    return ConcurrencyLimiter(searcher, max_concurrent=1)
