"""What the process that trains a trial runs: each of its workers, or Tune's own."""

import os
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray import tune

from ffsd_ray.errors import DataError, TrialError
from ffsd_ray.launch.population import donor, pointer
from ffsd_ray.launch.schedulers import RANKED
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import Row, TrialRecords
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train.context import Context, LocalContext
from ffsd_ray.train.trainer import Donor, train


class WorkerContext:
    """A worker of a Ray Train worker group."""

    def __init__(self, ranked: str | None) -> None:
        """`ranked`: the column of the history that a scheduler ranks trials by."""
        context = ray.train.get_context()
        self._ranked, self._left = ranked, False
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()

    def report(self, row: Row) -> None:
        ray.train.report(_reported(row, self._ranked))

    def leaving(self) -> bool:
        if self._left or ray.train.get_preemption_info() is None:
            return False
        self._left = True
        return True


class TuneContext(LocalContext):
    """The only worker, in Tune's own process."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(torch.device("cuda" if config["spec"]["scale"]["gpus_per_worker"] != 0 else "cpu"))
        self._config = config

    def report(self, row: Row) -> None:
        reported = _reported(row, self._config["ranked"])
        if not self._config["mutable"]:
            tune.report(reported)
            return
        with pointer(self._config["identity"], int(row["epoch"])) as checkpoint:
            tune.report(reported, checkpoint=checkpoint)


def _reported(row: Row, ranked: str | None) -> dict[str, Any]:
    """Raises TrialError."""
    if ranked is None:
        return dict(row)
    if ranked not in row:
        raise TrialError(f"there is no {ranked} to rank this trial by; its history has {', '.join(sorted(row))}")
    return {**row, RANKED: row[ranked]}


def train_worker(config: dict[str, Any]) -> None:
    """Train as a worker of a Ray Train worker group.

    `config`: `identity`, `spec` (a TrialSpec as plain data), `records` (the trial's folder), `keep_checkpoints`,
    `directory` (the driver's, from which relative paths to images count where this node has it too), `ranked` (the
    column that a scheduler ranks by, or None), `mutable` (dotted keys that a population changes).
    """
    _train(config, WorkerContext(config["ranked"]))


def train_here(config: dict[str, Any]) -> None:
    """Train in a process of Tune's, which may train another trial afterwards; `config` as `train_worker`."""
    _train(config, TuneContext(config), donor(config))


def _train(config: dict[str, Any], context: Context, giver: Donor | None = None) -> None:
    """Train; an error that a retry would only meet again is recorded, and ends the trial without one."""
    if os.path.isdir(config["directory"]):
        os.chdir(config["directory"])
    records = TrialRecords(Store(config["records"]))
    spec = TrialSpec.model_validate(config["spec"])
    try:
        train(spec, records, context, keep_checkpoints=config["keep_checkpoints"], donor=giver)
    except (TrialError, DataError) as error:
        if context.rank == 0:
            records.fail(type(error).__name__, str(error))
