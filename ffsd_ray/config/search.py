"""Which trials a job has, who chooses them, and which end early: the `search` section of a job file."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ffsd_ray.base_settings import MOST_EPOCHS, MOST_ITEMS, Name, Problem, Settings, refuse
from ffsd_ray.config.union import by_name

#: What population based training may change while a trial runs: no network, optimiser or batch is of another shape.
MUTABLE = ("method.lambda_div", "method.lambda_fea", "method.lambda_self", "method.alpha", "train.lr")

Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
#: Of a part of the search space.
_MOST_KEYS = 1000
Values = Annotated[list[Any], Field(min_length=1, max_length=MOST_ITEMS)]


def listed(value: Any) -> Any:
    """One value where a list may be."""
    return value if value is None or isinstance(value, list) else [value]


class Distribution(Settings):
    """A distribution that the values of a key are drawn from: exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    uniform: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[low, high]: numbers between two, all equally likely."
    )
    log_uniform: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[low, high]: numbers between two above 0, every order of magnitude equally likely."
    )
    integers: (
        Annotated[list[Annotated[int, Field(ge=-(2**32), le=2**32)]], Field(min_length=2, max_length=2)] | None
    ) = Field(None, description="[low, high]: whole numbers, both ends included.")
    choice: Values | None = Field(None, description="Values, all equally likely.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        refuse(self, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            yield Problem((), None, f"Should have one of {kinds}, such as {{log_uniform: [1e-4, 1e-1]}}")
        elif self.ends is not None:
            low, high = self.ends
            if low >= high:
                yield Problem((given[0],), self.ends, "The first should be less than the second")
            elif self.log_uniform and low <= 0:
                yield Problem((given[0],), self.ends, "Both should be more than 0")

    @property
    def ends(self) -> tuple[float, float] | None:
        """Lowest and highest value; None of a choice."""
        ends = self.uniform or self.log_uniform or self.integers
        return (ends[0], ends[1]) if ends else None

    @property
    def extremes(self) -> list[Any]:
        """Values of which one at least is wrong if any is: both ends, or every choice."""
        return list(self.ends) if self.ends else list(self.choice or [])

    def __str__(self) -> str:
        if self.ends is None:
            return ", ".join(map(str, self.extremes))
        kind = "log-uniform, " if self.log_uniform else "whole, " if self.integers else ""
        return f"{kind}{self.ends[0]:g} to {self.ends[1]:g}"


#: A list says what a choice says.
DistributionOrChoices = Annotated[
    Distribution,
    BeforeValidator(
        lambda value: {"choice": value} if isinstance(value, list) else value,
        json_schema_input_type=Distribution | Values,
    ),
]


class Constraint(Settings):
    """Which combinations are trials. A key that a trial's kinds do not have restricts nothing."""

    when: dict[str, Annotated[Values, BeforeValidator(listed, json_schema_input_type=Any)]] = Field(
        min_length=1,
        max_length=_MOST_KEYS,
        description="Dotted keys, each with a value or several: the combinations that are restricted.",
    )
    then: dict[str, Annotated[Values, BeforeValidator(listed, json_schema_input_type=Any)]] = Field(
        min_length=1,
        max_length=_MOST_KEYS,
        description="Dotted keys, each with the value or the values that it may have there.",
    )


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
        max_length=_MOST_KEYS,
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


class SearchSettings(Settings):
    """Which trials a job has, beyond the one its sections say."""

    grid: dict[str, Values] = Field(
        default_factory=dict,
        max_length=_MOST_KEYS,
        description="Dotted keys, each with the values it takes; every combination is a trial. "
        "A whole section is a key too.",
    )
    sweep: dict[str, Values] = Field(
        default_factory=dict,
        max_length=_MOST_KEYS,
        description="Dotted keys, each over its values while the other ones stay as the sections have them; "
        "with a grid, for every combination of the grid.",
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=_MOST_KEYS,
        description="Named settings, nested or in dotted keys: one more axis, whose names the tables show. A section "
        "with another name is replaced, otherwise keys are merged.",
    )
    random: dict[str, DistributionOrChoices] = Field(
        default_factory=dict,
        max_length=_MOST_KEYS,
        description="Dotted keys, each with a distribution or a list: `samples` times all are drawn, each time for "
        "every combination of the other axes.",
    )
    samples: int | None = Field(None, ge=1, le=MOST_ITEMS, description="How many times `random` is drawn.")
    sampling_seed: int = Field(
        0, ge=0, lt=2**32, description="Of the draws. A key's draws depend on this and the key alone."
    )
    only: list[Constraint] = Field(
        default_factory=list,
        max_length=_MOST_KEYS,
        description="Combinations that are left out are those that break one of these.",
    )
    also: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=_MOST_KEYS,
        description="Further trials outside the grid: what each has different from the job's sections, nested or in "
        "dotted keys. A section with another name is replaced, otherwise keys are merged; seed may be a list.",
    )
    searcher: Searcher = Field(GridSearcher(), description="Who chooses the trials.")
    scheduler: Scheduler = Field(EveryTrial(), description="Which trials end early.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.random and self.samples is None:
            yield Problem(("random",), None, "Needs search.samples: how many times to draw")
        if self.samples is not None and not self.random:
            yield Problem(("samples",), self.samples, "Needs search.random: what to draw")
        for key in self.grid.keys() & self.random.keys():
            yield Problem(("random", key), None, "search.grid sets this key too; leave it to one of them")
        for name, changes in self.variants.items():
            for path, key in flat(changes):
                taken = next((part for part in ("grid", "random") if key in getattr(self, part)), None)
                if taken:
                    where = ("variants", name, *path)
                    yield Problem(where, None, f"search.{taken} sets `{key}` too; leave it to one of them")
        if isinstance(self.searcher, Optuna):
            if not self.random:
                yield Problem(("searcher",), None, "Optuna chooses from search.random; there is none")
            for part in ("grid", "sweep", "variants", "only", "also"):
                if getattr(self, part):
                    yield Problem((part,), None, "Optuna chooses from search.random alone; leave this out")
            if isinstance(self.scheduler, Pbt):
                expected = "Population based training goes with the grid searcher only; leave Optuna or it out"
                yield Problem(("scheduler",), None, expected)


def flat(changes: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where each key of a variant stands, and the dotted key that it is."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and "." not in key:
            yield from (((key, below), f"{key}.{below}") for below in value)
        else:
            yield (key,), key
