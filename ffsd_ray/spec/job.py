"""A job: what a job file says. The sections of its trials, and what is to be done with them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ffsd_ray.settings import Settings
from ffsd_ray.spec.scale import ScaleSettings
from ffsd_ray.spec.trial import BackboneSettings, DataSection, MethodSection
from ffsd_ray.train.settings import TrainSettings

Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


class SearchSettings(Settings):
    """Which trials a job has, beyond the one its sections say."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Dotted keys, each with the values it takes; every combination is a trial. "
        "A whole section is a key too.",
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Dotted keys, each over its values while the other ones stay as the sections have them; "
        "with a grid, for every combination of the grid.",
    )
    also: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Further trials outside the grid: what each has different from the job's sections, nested or in "
        "dotted keys. A section with another name is replaced, otherwise keys are merged; seed may be a list.",
    )


class FailureSettings(Settings):
    """What happens when a trial's workers die or raise."""

    max_retries: int = Field(
        2, ge=0, description="Times a trial goes on from its last checkpoint before it is recorded as failed."
    )


class ReportSettings(Settings):
    """How the table at the end is laid out."""

    rows: Annotated[list[str] | None, BeforeValidator(_listed, json_schema_input_type=list[str] | str | None)] = Field(
        None, description="Dotted key, or several, that tell the rows apart; null: those that vary."
    )


class RecordSettings(Settings):
    """Where records go."""

    storage: str = Field(
        "runs", description="A folder, or a URI of an object store (s3://, gs://); a run is a folder in it."
    )
    reuse: bool = Field(
        True, description="Take over trials that other runs in the same storage have completed, in place of training."
    )
    keep_checkpoints: Literal["last", "all"] = Field(
        "last", description="Which training checkpoints outlive the next one."
    )


class JobSpec(Settings):
    """A job file. Sections that every trial needs may come from the search space instead."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Names the run's folder: letters, digits, '.', '_' and '-', the first a letter or digit.",
    )
    context: Literal["ray", "local"] = Field(
        "ray", description="ray: trials on a Ray cluster; local: one after another in this process, without Ray."
    )
    data: DataSection | None = Field(None, description="The images.")
    backbone: BackboneSettings | None = Field(None, description="The network.")
    method: MethodSection | None = Field(None, description="How the group is trained.")
    train: TrainSettings = TrainSettings()
    scale: ScaleSettings = ScaleSettings()
    seed: Annotated[
        list[Seed], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=Seed | list[Seed])
    ] = Field([0], description="A seed, or several: every configuration is trained with each.")
    search: SearchSettings = SearchSettings()
    records: RecordSettings = RecordSettings()
    failures: FailureSettings = FailureSettings()
    report: ReportSettings = ReportSettings()
