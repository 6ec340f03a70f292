"""The training process of a trial: each of Ray Train's workers, or Tune's own process."""

import contextlib
import math
import os
import time
import traceback
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError
from ray.train.collective import broadcast_from_rank_zero

from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.errors import DataAway, DataError, RecordsError, TrialError, summary
from ffsd_ray.launch.ray_internals import draining_nodes
from ffsd_ray.launch.search.pbt import donor, pointer
from ffsd_ray.launch.search.schedulers import RANKED
from ffsd_ray.records.run import RunRecords
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.series import HistoryRow
from ffsd_ray.train.context import Context, LocalContext
from ffsd_ray.train.device import release_memory
from ffsd_ray.train.donor import Donor
from ffsd_ray.train.trainer import train

#: Seconds between two checks whether the node is being preempted.
_CHECK_SECONDS = 1.0
#: Seconds after a node has joined in which workers that could be more expect to be replaced, and between checkpoints
#: meanwhile.
_GROWTH_EXPECTED_SECONDS, _CHECKPOINT_SECONDS = 60.0, 5.0


class WorkerContext:
    """A worker of a Ray Train worker group."""

    def __init__(self, ranked: str | None, most_workers: int) -> None:
        """`ranked`: the column of the history that a scheduler ranks trials by."""
        context = ray.train.get_context()
        self._ranked = ranked
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._preempted = False
        self._may_grow = self.world_size < most_workers
        self._known_nodes = _alive_nodes()
        self._node_joined = self._last_checkpoint = -math.inf

    def report(self, row: HistoryRow) -> None:
        ray.train.report(_with_ranked(row, self._ranked))

    def checkpoint_requested(self) -> bool:
        self._preempted = ray.train.get_preemption_info() is not None
        return self._preempted or (self._may_grow and broadcast_from_rank_zero(self._expects_more_workers()))

    def exit_if_preempted(self) -> None:
        if self._preempted:
            raise _preemption_error()

    def _expects_more_workers(self) -> bool:
        """Whether a node has joined lately, and the last checkpoint is some seconds old.

        Ray replaces the workers by more of them at a moment of its own, without a word.
        """
        now = time.monotonic()
        if not (nodes := _alive_nodes()) <= self._known_nodes:
            self._node_joined, self._last_checkpoint = now, -math.inf
        self._known_nodes = nodes
        if now - self._node_joined > _GROWTH_EXPECTED_SECONDS or now - self._last_checkpoint < _CHECKPOINT_SECONDS:
            return False
        self._last_checkpoint = now
        return True


def _alive_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _preemption_error() -> RayActorError:
    """An error that Ray Train and Tune count as a preemption, not as a failure.

    Going on until the node goes would only be work to do again, and put off the search for another node.
    """
    return RayActorError(error_msg="left a node that is taken back", preempted=True)


class TuneContext(LocalContext):
    """The only worker, in Tune's own process."""

    def __init__(self, config: dict[str, Any]) -> None:
        scale = ScaleSettings.model_validate(config["spec"]["scale"])
        super().__init__(torch.device("cuda" if scale.uses_gpu else "cpu"))
        self._config = config
        self._node = ray.get_runtime_context().get_node_id()
        self._last_check = -math.inf

    def report(self, row: HistoryRow) -> None:
        reported = _with_ranked(row, self._config["ranked"])
        if not self._config["mutable"]:
            tune.report(reported)
            return
        with pointer(self._config["identity"], int(row["epoch"])) as checkpoint:
            tune.report(reported, checkpoint=checkpoint)

    def checkpoint_requested(self) -> bool:
        now = time.monotonic()
        if now - self._last_check < _CHECK_SECONDS:
            return False
        self._last_check = now
        return self._node in draining_nodes()  # where Ray Train looks for its workers

    def exit_if_preempted(self) -> None:
        raise _preemption_error()


def _with_ranked(row: HistoryRow, ranked: str | None) -> dict[str, Any]:
    """Raises TrialError."""
    if ranked is None:
        return dict(row)
    if ranked not in row:
        raise TrialError(f"there is no {ranked} to rank this trial by; its history has {', '.join(sorted(row))}")
    return {**row, RANKED: row[ranked]}


def train_worker(config: dict[str, Any]) -> None:
    """Train as a worker of a Ray Train worker group.

    `config`: `identity`, `spec` (a TrialSpec as plain data), `records` (the trial's folder), `keep_checkpoints`,
    `stoppable` (whether a scheduler may end it), `directory` (the driver's, from which relative paths to images count
    where this node has it too), `ranked` (the column that a scheduler ranks by, or None), `mutable` (dotted keys that a
    population changes).
    """
    if TrialRecords(Store(config["records"])).state() == "failed":
        return  # a worker of the group before this one has said why, in this attempt: `forget_error` was before it
    scale = ScaleSettings.model_validate(config["spec"]["scale"])
    _train(config, WorkerContext(config["ranked"], scale.most_workers))


def train_here(config: dict[str, Any]) -> None:
    """Train in a process of Tune's, which may train another trial afterwards; `config` as `train_worker`."""
    _train(config, TuneContext(config), donor(config))
    release_memory()


def _train(config: dict[str, Any], context: Context, donor_trial: Donor | None = None) -> None:
    """Train; an error that a retry would only meet again is recorded, and ends the trial without one.

    Raises:
        DataAway, and what else a retry may not meet: as it is, see `_for_ray`.
        TrialError, DataError: as recorded, where there are other workers: they may wait for this one, and only an error
            has Ray end them.
    """
    if os.path.isdir(config["directory"]):
        os.chdir(config["directory"])
    records = TrialRecords(Store(config["records"]))
    _check_shared(RunRecords(records.store.parent.parent))
    spec = TrialSpec.model_validate(config["spec"])
    failure: BaseException | None = None
    try:
        train(
            spec,
            records,
            context,
            keep_checkpoints=config["keep_checkpoints"],
            stoppable=config["stoppable"],
            donor=donor_trial,
        )
    except DataAway:
        raise
    except (TrialError, DataError) as error:
        records.fail(type(error).__name__, str(error))
        if context.world_size > 1:
            raise
    except (Exception, SystemExit) as error:
        failure = _for_ray(error)
    if failure is not None:
        raise failure  # out here, where it has no context: Ray hands that on as well


def _for_ray(error: BaseException) -> BaseException:
    """The error, or a RuntimeError with its text where Ray would misinterpret it or cannot pickle it."""
    if isinstance(error, RayError):
        return error
    if not isinstance(error, SystemExit | StopIteration):  # by which a process ends, or training without an error
        with contextlib.suppress(Exception):  # a constructor with arguments of its own, say
            cloudpickle.loads(cloudpickle.dumps(error))
            return error
    return RuntimeError(f"{summary(error)}\n{''.join(traceback.format_exception(error))}")


def _check_shared(run: RunRecords) -> None:
    """Refuse to train where this node does not see the driver's records: nobody would find what it writes.

    Raises:
        RecordsError: the driver's records are not to be seen here.
    """
    if not run.exists():
        raise RecordsError(
            f"{run.store.location}: node {ray.util.get_node_ip_address()} does not have the run's folder, which is on "
            "another machine. Expected a folder that every node mounts, or object storage: --storage s3://bucket/folder"
        )
