"""Distributions that values of a key are drawn from."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ffsd_ray.base_settings import MOST_ITEMS, Problem, Settings, refuse

Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Values = Annotated[list[Any], Field(min_length=1, max_length=MOST_ITEMS)]


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
