"""A job: what a job file says. The sections of its trials, and what is to be done with them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ffsd_ray.base_settings import LONGEST_NAME, MOST_ITEMS, Location, Name, Settings
from ffsd_ray.config.optimisation import TrainSettings
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.search import SearchSettings, listed
from ffsd_ray.config.tracking import WatchSettings
from ffsd_ray.config.trial import SEEDS, BackboneSection, DataSection, MethodSection

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
_Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_ITEMS)]
_Rows = Annotated[list[Name], Field(max_length=100)]


class FailureSettings(Settings):
    """Retries of trials whose workers die or raise."""

    max_retries: int = Field(
        2, ge=0, le=1000, description="Times a trial goes on from its last checkpoint before it is recorded as failed."
    )


class ReportSettings(Settings):
    """How the table at the end is laid out."""

    rows: Annotated[_Rows | None, BeforeValidator(listed, json_schema_input_type=_Rows | Name | None)] = Field(
        None, description="Dotted key, or several, that tell the rows apart; null: those that vary."
    )
    rank_by: Literal["validation", "test"] = Field(
        "validation",
        description="What the report ranks configurations by. test: by test accuracy, also without a validation split; "
        "the test images then no longer measure fairly what is chosen by them.",
    )


class RecordSettings(Settings):
    """Where records go."""

    storage: Location = Field(
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
        max_length=LONGEST_NAME,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Names the run's folder: letters, digits, '.', '_' and '-', the first a letter or digit.",
    )
    context: Literal["ray", "local"] = Field(
        "ray", description="ray: trials on a Ray cluster; local: one after another in this process, without Ray."
    )
    data: DataSection | None = Field(None, description="The images.")
    backbone: BackboneSection | None = Field(None, description="The network.")
    method: MethodSection | None = Field(None, description="How the group is trained.")
    train: TrainSettings = TrainSettings()
    scale: ScaleSettings = ScaleSettings()
    seed: Annotated[_Seeds, BeforeValidator(listed, json_schema_input_type=Seed | _Seeds)] = Field(
        [0], description="A seed, or several: every configuration is trained with each."
    )
    search: SearchSettings = SearchSettings()
    records: RecordSettings = RecordSettings()
    failures: FailureSettings = FailureSettings()
    report: ReportSettings = ReportSettings()
    watch: WatchSettings = WatchSettings()
