"""The base of every section of a job file."""

from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

#: For fields that say where something lies or how fast it is done, never what is computed:
#: they do not enter a trial's identity (`ffsd_ray.config.trial.TrialSpec.identity`).
NOT_IDENTITY: dict[str, Any] = {"identity": False}

#: For fields that were added once trials had been recorded: they enter a trial's identity only where they are not at
#: their default, so that earlier records stay those of the same trials.
ADDED_LATER: dict[str, Any] = {"identity": "unless default"}

#: For fields that say where images lie: once their content is known by its fingerprint, that stands in their place in
#: a trial's identity.
LOCATION: dict[str, Any] = {"location": True}

#: More than these no data set has.
LARGEST_IMAGE, MOST_CLASSES = 2048, 100_000

#: Of pixels scaled to [0, 1]: a mean, and a standard deviation (1 for a channel that never varies).
Share = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=10)]

#: Weights of losses and the like: the paper's largest is 1e6.
NonNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
#: A learning rate: above it every network is lost at its first step.
Rate = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]

#: What is counted in epochs, and so ends before the longest training does; and images taken at once.
MOST_EPOCHS, LARGEST_BATCH = 100_000, 1_000_000

#: The most items of a list in a job file, and the longest name that people give to something.
MOST_ITEMS, LONGEST_NAME = 10_000, 200
Name = Annotated[str, Field(max_length=LONGEST_NAME)]

#: A path or a URI: systems take no longer ones, and no NUL in them.
Location = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Sha256 = Annotated[str, Field(max_length=64, pattern="^[0-9a-f]{64}$")]


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
