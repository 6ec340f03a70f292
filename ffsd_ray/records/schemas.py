"""Schemas of the JSON files of a run and of its trials. Each file has an `ffsd_ray.stamp` besides.

A key that may be absent is `NotRequired`: it is not always written, or nobody needs it. Others than these may be there,
and are kept. Accuracies are in percent, losses in nats, times in seconds.
"""

import math
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, FiniteFloat, StringConstraints
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from ffsd_ray.base_settings import NonNegative
from ffsd_ray.file_schema import Schema, expected
from ffsd_ray.series import ANY, LOGITS, MEAN, HistoryRow

#: Of what there is at least one.
Count = Annotated[int, Field(gt=0, lt=2**31)]


def _of_an_epoch(row: HistoryRow) -> HistoryRow:
    epoch = float(row.get("epoch", 0))
    if not (epoch >= 1 and epoch.is_integer()):
        raise expected("a key epoch, a whole number from 1")
    for key, value in row.items():
        if key.endswith("/top1") and not math.isfinite(value):
            raise expected(f"a finite number as {key}")
    return row


#: A row as it is read: losses need not be finite.
EpochRow = Annotated[HistoryRow, AfterValidator(_of_an_epoch)]

HISTORY = Schema(list[EpochRow])


# ---- job.json


class Search(TypedDict):
    """The part of a job's section `search` that tables read."""

    #: Their `name`, and of most `by_test`: whether they go by the test images.
    searcher: NotRequired[dict[str, Any]]
    scheduler: NotRequired[dict[str, Any]]


class Report(TypedDict):
    """A job's section `report`."""

    #: Dotted keys that tell the rows of tables apart; null: those that vary.
    rows: NotRequired[list[str] | None]
    #: `validation` or `test`.
    rank_by: NotRequired[str]


class Job(TypedDict):
    """A job file with every default in it (a JobSpec). What its trials are made of is in their own specs."""

    #: Part of the names of files.
    name: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    search: NotRequired[Search]
    report: NotRequired[Report]
    context: NotRequired[str]
    scale: NotRequired[dict[str, Any]]
    records: NotRequired[dict[str, Any]]
    failures: NotRequired[dict[str, Any]]
    watch: NotRequired[dict[str, Any]]


#: What tells trials apart: see `TrialSpec.identity`. The name of a trial's folder.
IDENTITY = "^[0-9a-f]{16}$"
Identity = Annotated[str, StringConstraints(pattern=IDENTITY)]


#: Of all of a run's files. It goes up by one where a version writes what earlier ones would read wrongly.
FORMAT = 2


def _of_this_format(number: int) -> int:
    if number != FORMAT:
        raise expected(f"{FORMAT}, the format of this version's records")
    return number


class Run(TypedDict):
    """job.json."""

    format: Annotated[int, AfterValidator(_of_this_format)]
    job: Job
    #: What was set on the command line, each KEY=VALUE.
    overrides: list[str]
    #: The planned trials' specs (TrialSpec), in the job's order.
    trials: dict[Identity, dict[str, Any]]


RUN = Schema(Run)


# ---- spec.json and environment.json: what a trial is, and what it runs on

#: The trial's, as in job.json.
SPEC = Schema(dict[str, Any])


class Device(TypedDict):
    """The device and the threads of a trial's workers."""

    #: `cpu` or `cuda`.
    type: str
    #: The GPU's or the processor's.
    name: str
    workers: int
    #: Of each worker.
    threads: int


class Environment(TypedDict):
    """environment.json; where a trial was resumed, the last one."""

    device: Device
    #: Python's, and packages'.
    versions: NotRequired[dict[str, str]]
    #: The package's own in git, `+` behind it where files differ; null outside of a checkout.
    revision: NotRequired[str | None]
    #: When (ISO 8601, UTC).
    began: NotRequired[str]
    #: What was to be told of the images and of how they are trained on.
    notes: NotRequired[list[str]]


ENVIRONMENT = Schema(Environment)


class Skipped(TypedDict):
    """skipped.json, where images were passed over."""

    #: Each one's name and what is wrong with it.
    images: list[str]


SKIPPED = Schema(Skipped)


# ---- result.json, provisional_result.json and error.json: how a trial ended


class Best(TypedDict):
    """A series at its best epoch."""

    epoch: Count
    #: Its top-1 accuracy then: on the split that chose the epoch, and on the test images.
    selected_by: FiniteFloat
    top1: FiniteFloat


class Parameters(TypedDict):
    """Numbers of parameters that are trained: of the whole group, and of the deployed network."""

    trained: int
    deployed: int


class Similarity(TypedDict):
    """Mean cosine between the common students after the last epoch: of their last feature maps, of their attention."""

    maps: FiniteFloat
    attention: FiniteFloat


def _of_classes(confusion: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    if not all(row.keys() <= confusion.keys() for row in confusion.values()):
        raise expected("as predicted classes those that are true ones")
    return confusion


Confusion = Annotated[dict[str, dict[str, Count]], AfterValidator(_of_classes)]


class Result(TypedDict):
    """result.json; and provisional_result.json, which is the result if a scheduler ends the trial now."""

    #: `completed`, `stopped at EPOCH`, or `exploited from TRIAL at EPOCH`, of which there may be several.
    ended: NotRequired[Annotated[str, StringConstraints(pattern="^(completed$|stopped at .|exploited from .)")]]
    #: As many as were asked for.
    epochs: NotRequired[int]
    #: The networks and what else makes predictions, in the order of the tables.
    members: list[str]
    #: Of these the common students, and the one that is deployed.
    common: list[str]
    deployed: str
    #: The series that stands for the method in a comparison.
    primary_series: str
    #: The split that chose the best epochs.
    selection: Literal["val", "test"]
    #: The history's last row.
    last: EpochRow
    #: By series.
    best: dict[str, Best]
    #: Test images by true and by predicted class, of the deployed network after the last epoch: every class in order,
    #: with the numbers that are not 0. With up to `CONFUSION_TO` classes.
    confusion: NotRequired[Confusion]
    #: How many the data set has, and its images' side in pixels; null where the trial knew neither.
    classes: Count | None
    image_size: Count | None
    parameters: Parameters
    #: Most bytes allocated on a GPU; null on CPUs.
    peak_memory: NotRequired[int | None]
    #: Of training; evaluations are not in it.
    seconds: NonNegative
    #: How steps were computed: `as` (one of `train.execution`), and whether `captured` in a CUDA graph. Several workers
    #: average gradients by `FlatDDP` where it is `graph`, else by DDP.
    execution: NotRequired[dict[str, Any]]
    #: Where there are several common students, unless a scheduler ended the trial.
    similarity: NotRequired[Similarity]
    #: The run that it was taken over from.
    reused: NotRequired[str]


def _has_what_tables_show(result: Result) -> Result:
    members, common, deployed = result["members"], result["common"], result["deployed"]
    if not {deployed, *common} <= set(members):
        raise expected(f"{deployed} (deployed) and common among the members")
    series = [deployed]
    if members != series:
        series += [*common, *([MEAN, ANY, LOGITS] if common else ()), *({"ensemble", "fusion"} & set(members))]
    if result["primary_series"] not in series:
        raise expected(f"as primary_series one of {', '.join(series)}")
    if not 0 < result["last"].get("images_per_second", 0) < math.inf:
        raise expected("a key images_per_second in last, finite and above 0")
    for name in series:
        if name not in result["best"]:
            raise expected(f"a key {name} in best")
        for split in ("test", result["selection"]):
            if f"{split}/{name}/top1" not in result["last"]:
                raise expected(f"a key {split}/{name}/top1 in last")
    return result


RESULT = Schema(Annotated[Result, AfterValidator(_has_what_tables_show)])


class Failure(TypedDict):
    """error.json: why there is no result."""

    #: The error's class.
    kind: str
    message: str
    #: What is too long for a message.
    details: NotRequired[str]


FAILURE = Schema(Failure)
