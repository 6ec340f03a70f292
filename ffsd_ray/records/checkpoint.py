"""Contents of a training checkpoint: all that a trial needs to go on."""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, InstanceOf, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict  # as in formats

from ffsd_ray.file_schema import Schema, expected
from ffsd_ray.records.schemas import Best, Count, EpochRow

#: Of what is read into a dataclass, which takes no other keys.
_NO_OTHERS = ConfigDict(extra="forbid")

Weights = dict[str, InstanceOf[Tensor]]

Takeover = TypedDict(
    "Takeover",
    {
        "from": str,  # the trial whose state this was
        "epoch": int,  # of its, after which
        "changed": dict[str, Any],  # the settings from then on, by dotted key
    },
)


@with_config(_NO_OTHERS)
class Progress(TypedDict):
    """See `ffsd_ray.train.mid_epoch.Progress`."""

    #: The history's, each with its `seconds`.
    rows: list[EpochRow]
    #: By series.
    best: dict[str, Best]
    #: Of the deployed network; none before the first evaluation.
    best_weights: Weights
    #: [K, K]; earlier versions did not write it.
    confusion: NotRequired[InstanceOf[Tensor] | None]
    lineage: list[Takeover]


class TermSums(TypedDict):
    """The loss terms of an epoch so far."""

    names: list[str]
    #: [terms]: over the images; and the first step at which each was not finite, or infinity.
    sums: InstanceOf[Tensor]
    first_bad: InstanceOf[Tensor]
    images: int


class AccuracySums(TypedDict):
    """The accuracies of an epoch so far."""

    #: [series, (top1, top5, loss)]: over the images.
    sums: InstanceOf[Tensor]
    images: int


@with_config(_NO_OTHERS)
class MidEpochState(TypedDict):
    """The progress inside an unfinished epoch."""

    epoch: Count
    #: Of the epoch that are done, and how long they took.
    steps: int
    seconds: float
    terms: TermSums
    accuracy: AccuracySums


class ParameterGroup(TypedDict):
    """A parameter group of torch's optimiser state, with its hyper-parameters."""

    params: list[int]


class OptimiserState(TypedDict):
    """A torch optimiser's state."""

    state: dict[int, dict[str, Any]]
    param_groups: list[ParameterGroup]


class Checkpoint(TypedDict):
    """checkpoints/epoch-EPOCH.pt; within an epoch epoch-EPOCH-step-STEPS.pt."""

    #: The group's parameters and buffers.
    method: Weights
    #: Of the moving average of the group's, if there is one.
    average: NotRequired[Weights]
    #: By name: `sgd`, and the role that another one trains.
    optimisers: dict[str, OptimiserState]
    progress: Progress
    within: NotRequired[MidEpochState]
    #: With `within`: torch's random states by worker, each the CPU's and, where there is one, the GPU's.
    random: NotRequired[list[list[InstanceOf[Tensor]]]]


def _can_go_on(state: Checkpoint) -> Checkpoint:
    progress = state["progress"]
    rows = progress["rows"]
    if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
        raise expected("in progress.rows every epoch from 1, in order")
    if not all("seconds" in row for row in rows):
        raise expected("a key seconds in each of progress.rows")
    tops = dict.fromkeys(key for row in rows for key in row if key.startswith("test/") and key.endswith("/top1"))
    for _, *series, _ in (key.split("/") for key in tops):
        if "/".join(series) not in progress["best"]:
            raise expected(f"a key {'/'.join(series)} in progress.best")
    if tops and not progress["best_weights"]:
        raise expected("weights in progress.best_weights")
    if "within" in state and not state.get("random"):
        raise expected("a key random beside within")
    return state


CHECKPOINT = Schema(Annotated[Checkpoint, AfterValidator(_can_go_on)])


def fits(network: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether a state dictionary fits a network's parameters and buffers."""
    ours, theirs = (
        {name: (value.shape, value.dtype) for name, value in tensors.items()}
        for tensors in (network.state_dict(), weights)
    )
    return ours == theirs
