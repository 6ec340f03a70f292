"""Ray Tune's schedulers and distributions for a job's `search` section."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from ffsd_ray.config.distributions import Distribution
from ffsd_ray.config.search import SearchSettings
from ffsd_ray.config.searchers import Asha, EveryTrial, MedianStopping, Ranking, Scheduler
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.launch.ray_internals import Trial

#: The column of a trial's reports that Tune ranks by, whichever of its history it is (`Ranking.column`).
RANKED = "ranked"
#: A trial's states in which it may be begun, in the order of preference.
_WAITING = (Trial.PENDING, Trial.PAUSED)


def ranked(search: SearchSettings, spec: TrialSpec) -> str | None:
    """The column of a trial's history that it is ranked by, by the scheduler or the searcher."""
    ranking = next((part for part in (search.searcher, search.scheduler) if isinstance(part, Ranking)), None)
    return ranking.column(spec.method.primary_series) if ranking else None


class InOrder(FIFOScheduler):
    """Begins trials in the order in which they were added.

    Tune's own does too, and looks for the next one among all trials of the run, at every event.
    """

    def __init__(self) -> None:
        super().__init__()
        self._not_ended: list[Trial] = []

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._not_ended.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        self._not_ended = [trial for trial in self._not_ended if not trial.is_finished()]
        by_preference = (trial for state in _WAITING for trial in self._not_ended if trial.status == state)
        return next(by_preference, None)


def scheduler(settings: Scheduler, trials: Sequence[TrialSpec]) -> TrialScheduler:
    """Ray Tune's schedulers, which stop or change trials while they run. All count in epochs."""
    if isinstance(settings, EveryTrial):
        return InOrder()
    ranking: dict[str, Any] = {"metric": RANKED, "mode": settings.direction, "time_attr": "epoch"}
    if isinstance(settings, Asha):
        return AsyncHyperBandScheduler(
            max_t=max(spec.train.epochs for spec in trials),
            grace_period=settings.grace_epochs,
            reduction_factor=settings.reduction_factor,
            stop_last_trials=False,  # a trial at its end is completed, not stopped
            **ranking,
        )
    if isinstance(settings, MedianStopping):
        return MedianStoppingRule(
            grace_period=settings.grace_epochs, min_samples_required=settings.min_trials, **ranking
        )
    return PopulationBasedTraining(
        perturbation_interval=settings.every_epochs,
        resample_probability=settings.resample_probability,
        quantile_fraction=settings.quantile_fraction,
        hyperparam_mutations={"trial": {"spec": _nested(settings.mutate)}},
        log_config=False,
        **ranking,
    )


def _nested(mutate: Mapping[str, Distribution]) -> dict[str, dict[str, Any]]:
    """Nest dotted keys by section, as a spec holds them."""
    nested: dict[str, dict[str, Any]] = {}
    for dotted, distribution in mutate.items():
        section, _, key = dotted.partition(".")
        nested.setdefault(section, {})[key] = list(distribution.choice) if distribution.choice else domain(distribution)
    return nested


def domain(distribution: Distribution) -> Any:
    """Convert a distribution to Tune's."""
    if distribution.choice:
        return tune.choice(distribution.choice)
    assert distribution.ends is not None
    low, high = distribution.ends
    if distribution.integers:
        return tune.randint(int(low), int(high) + 1)
    return (tune.loguniform if distribution.log_uniform else tune.uniform)(low, high)
