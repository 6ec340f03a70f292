"""The base of every section of a job file."""

from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

#: For fields that say where something lies or how fast it is done, never what is computed:
#: they do not enter a trial's identity (`ffsd_ray.spec.trial.TrialSpec.identity`).
NOT_IDENTITY: dict[str, Any] = {"identity": False}

#: For fields that say where images lie: once their content is known by its fingerprint, that stands in their place in
#: a trial's identity.
LOCATION: dict[str, Any] = {"location": True}

#: Up to what a float32 holds.
NonNegative = Annotated[float, Field(ge=0, le=1e38, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e38, allow_inf_nan=False)]


class Settings(BaseModel):
    """A section of a job file: unknown keys are refused, nothing is coerced from text, values do not change."""

    # Defaults are validated too, so that a spec read back from its records is the same to the last type.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)

    def changed(self, **values: Any) -> Self:
        """A copy with other values for some fields, validated as a whole, which `model_copy` does not do.

        Raises:
            pydantic.ValidationError: the values do not fit together.
        """
        return self.model_validate(dict(self) | values)


class Problem(NamedTuple):
    """One thing wrong between several keys: the key at fault (a path below the model), its value, what was expected."""

    key: tuple[str, ...]
    value: object
    expected: str


def refuse(model: BaseModel, problems: Iterable[Problem]) -> None:
    """Raise all `problems` at once, each at its own key; pydantic alone would place them all at the model."""
    details = []
    for key, value, expected in problems:
        kind = PydanticCustomError("inconsistent", "{expected}", {"expected": expected})
        details.append(InitErrorDetails(type=kind, loc=key, input=value))
    if details:
        raise ValidationError.from_exception_data(type(model).__name__, details)
