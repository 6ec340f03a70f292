"""Who chooses a job's trials, and which of them end early: searchers and schedulers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ffsd_ray.base_settings import MOST_EPOCHS, MOST_ITEMS, Name, Settings
from ffsd_ray.config.distributions import DistributionOrChoices
from ffsd_ray.config.union import by_name

#: What population based training may change while a trial runs: no network, optimiser or batch is of another shape.
MUTABLE = ("method.lambda_div", "method.lambda_fea", "method.lambda_self", "method.alpha", "train.lr")

#: Keys of a part of the search space.
MOST_KEYS = 1000


class Ranking(Settings):
    """The metric by which trials are ranked while others are still to come."""

    metric: Name | None = Field(
        None,
        description="A column of the history, such as val/leader/top1 or term/leader/ce; null: top-1 of the series "
        "that stands for the method, on the validation split (with by_test on the test images).",
    )
    mode: Literal["max", "min"] | None = Field(
        None, description="Which end is the better one; null: max of accuracies, min of losses and terms."
    )
    by_test: bool = Field(
        False, description="Rank by the test images; they no longer measure fairly what is chosen by them."
    )

    def column(self, primary_series: str) -> str:
        """The column of the history that ranks a trial whose method has this primary series."""
        return self.metric or f"{'test' if self.by_test else 'val'}/{primary_series}/top1"

    @property
    def direction(self) -> Literal["max", "min"]:
        """The mode in force."""
        if self.mode is not None:
            return self.mode
        return "max" if self.metric is None or self.metric.endswith(("/top1", "/top5")) else "min"

    def __str__(self) -> str:
        split = "test images" if self.by_test else "validation split"
        return f"{self.direction} {self.metric or f'top-1 on the {split}'}"


class EveryTrial(Settings):
    """Every trial is trained to its end."""

    name: Literal["all"] = "all"


class Asha(Ranking):
    """Asynchronous successive halving (Li et al., MLSys 2020): of the trials that reach a rung the best go on."""

    name: Literal["asha"] = "asha"
    grace_epochs: int = Field(
        1, ge=1, le=MOST_EPOCHS, description="Epochs before a trial may be stopped: the first rung."
    )
    reduction_factor: float = Field(
        4,
        gt=1,
        le=1000,
        allow_inf_nan=False,
        description="η: one in η goes on from a rung, and the next is η times as far.",
    )


class MedianStopping(Ranking):
    """A trial ends whose best value is worse than the median of the others' running means (Vizier, KDD 2017)."""

    name: Literal["median_stopping"] = "median_stopping"
    grace_epochs: int = Field(1, ge=1, le=MOST_EPOCHS, description="Epochs before a trial may be stopped.")
    min_trials: int = Field(
        3, ge=1, le=MOST_ITEMS, description="Trials that must have come as far before one is stopped."
    )


class Pbt(Ranking):
    """Population based training (Jaderberg et al., 2017): now and then the worst go on from the best's state."""

    name: Literal["pbt"] = "pbt"
    every_epochs: int = Field(5, ge=1, le=MOST_EPOCHS, description="Epochs between two comparisons of the population.")
    resample_probability: float = Field(
        0.25,
        ge=0,
        le=1,
        description="How often a key is drawn anew; otherwise its value is scaled by 1.2 or 0.8, or moves in its list.",
    )
    quantile_fraction: float = Field(
        0.25, gt=0, le=0.5, description="Share of the population that gives way, and that is taken over from."
    )
    mutate: dict[str, DistributionOrChoices] = Field(
        min_length=1,
        max_length=MOST_KEYS,
        description=f"What changes then, each with a distribution or a list; of {', '.join(MUTABLE)}.",
    )


class GridSearcher(Settings):
    """The planner: what the job file spells out, and its own draws from `random`."""

    name: Literal["grid"] = "grid"


class Optuna(Ranking):
    """Optuna chooses `samples` trials from `random` while others run, by how they went (an extra)."""

    name: Literal["optuna"] = "optuna"
    seed: int = Field(0, ge=0, lt=2**32, description="Of Optuna's own draws.")


SCHEDULERS: Mapping[str, type[Settings]] = {
    "all": EveryTrial,
    "asha": Asha,
    "median_stopping": MedianStopping,
    "pbt": Pbt,
}
SEARCHERS: Mapping[str, type[Settings]] = {"grid": GridSearcher, "optuna": Optuna}

if TYPE_CHECKING:
    Scheduler = EveryTrial | Asha | MedianStopping | Pbt
    Searcher = GridSearcher | Optuna
else:
    Scheduler, Searcher = by_name(SCHEDULERS), by_name(SEARCHERS)
