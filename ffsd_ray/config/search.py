"""Which trials a job has, who chooses them, and which end early: the `search` section of a job file."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from ffsd_ray.base_settings import MOST_ITEMS, Problem, Settings, refuse
from ffsd_ray.config.distributions import DistributionOrChoices, Values
from ffsd_ray.config.searchers import MOST_KEYS, EveryTrial, GridSearcher, Optuna, Pbt, Scheduler, Searcher


def listed(value: Any) -> Any:
    """One value where a list may be."""
    return value if value is None or isinstance(value, list) else [value]


class Constraint(Settings):
    """Which combinations are trials. A key that a trial's kinds do not have restricts nothing."""

    when: dict[str, Annotated[Values, BeforeValidator(listed, json_schema_input_type=Any)]] = Field(
        min_length=1,
        max_length=MOST_KEYS,
        description="Dotted keys, each with a value or several: the combinations that are restricted.",
    )
    then: dict[str, Annotated[Values, BeforeValidator(listed, json_schema_input_type=Any)]] = Field(
        min_length=1,
        max_length=MOST_KEYS,
        description="Dotted keys, each with the value or the values that it may have there.",
    )


class SearchSettings(Settings):
    """Which trials a job has, beyond the one its sections say."""

    grid: dict[str, Values] = Field(
        default_factory=dict,
        max_length=MOST_KEYS,
        description="Dotted keys, each with the values it takes; every combination is a trial. "
        "A whole section is a key too.",
    )
    sweep: dict[str, Values] = Field(
        default_factory=dict,
        max_length=MOST_KEYS,
        description="Dotted keys, each over its values while the other ones stay as the sections have them; "
        "with a grid, for every combination of the grid.",
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=MOST_KEYS,
        description="Named settings, nested or in dotted keys: one more axis, whose names the tables show. A section "
        "with another name is replaced, otherwise keys are merged.",
    )
    random: dict[str, DistributionOrChoices] = Field(
        default_factory=dict,
        max_length=MOST_KEYS,
        description="Dotted keys, each with a distribution or a list: `samples` times all are drawn, each time for "
        "every combination of the other axes.",
    )
    samples: int | None = Field(None, ge=1, le=MOST_ITEMS, description="How many times `random` is drawn.")
    sampling_seed: int = Field(
        0, ge=0, lt=2**32, description="Of the draws. A key's draws depend on this and the key alone."
    )
    only: list[Constraint] = Field(
        default_factory=list,
        max_length=MOST_KEYS,
        description="Combinations that are left out are those that break one of these.",
    )
    also: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=MOST_KEYS,
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
