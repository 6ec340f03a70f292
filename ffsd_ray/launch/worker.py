"""What each of a trial's workers runs."""

import os
from typing import Any

import ray.train
import ray.train.torch

from ffsd_ray.errors import DataError, TrialError
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import Row, TrialRecords
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train.trainer import train


class RayContext:
    """A worker of a Ray Train worker group."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()

    def report(self, row: Row) -> None:
        ray.train.report(dict(row))


def train_worker(config: dict[str, Any]) -> None:
    """Train; an error that a retry would only meet again is recorded, and ends the trial without one.

    `config`: `spec` (a TrialSpec as plain data), `records` (the trial's folder), `keep_checkpoints`, `directory` (the
    driver's, from which relative paths to images count where this node has it too).
    """
    if os.path.isdir(config["directory"]):
        os.chdir(config["directory"])
    context = RayContext()
    records = TrialRecords(Store(config["records"]))
    spec = TrialSpec.model_validate(config["spec"])
    try:
        train(spec, records, context, keep_checkpoints=config["keep_checkpoints"])
    except (TrialError, DataError) as error:
        if context.rank == 0:
            records.fail(type(error).__name__, str(error))
