"""Running a function in several processes joined by gloo, as a trial's workers are."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.records.store import Store
from ffsd_ray.records.trial import TrialRecords
from ffsd_ray.series import HistoryRow
from ffsd_ray.train.trainer import train

from helpers.ports import free_port


class Stopped(Exception):
    """A worker was told to stop."""


class Worker:
    """A `Context` that can stop after an epoch, as if the machine had gone, or inside one after a notice."""

    def __init__(self, rank: int, world_size: int, stop_after: int | None, noticed: bool, device: str = "cpu") -> None:
        self.rank, self.world_size, self._stop_after = rank, world_size, stop_after
        self.device = torch.device(device)
        self._noticed = noticed

    def report(self, row: HistoryRow) -> None:
        if row["epoch"] == self._stop_after:
            self._stop()

    def checkpoint_requested(self) -> bool:
        return self._noticed

    def exit_if_preempted(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.world_size > 1:
            os._exit(0)  # a process that goes without a word
        raise Stopped


def train_with(
    spec: TrialSpec,
    folder: Path,
    *,
    stop_after: int | None = None,
    noticed: bool = False,
    workers: int | None = None,
) -> TrialRecords:
    """Train a trial with its spec's number of workers, each a process; one worker trains in this process.

    It stops after epoch `stop_after`, or inside one where it is `noticed`.

    The trials that it needs are trained before, beside `folder`.
    """
    for needed in spec.prerequisites():
        beside = folder.parent / needed.identity()
        if TrialRecords(Store(str(beside))).state() != "completed":
            train_with(needed, beside)
    if (workers := workers or spec.scale.most_workers) == 1:
        _train(0, 1, spec.model_dump(), folder, stop_after, noticed)
    else:
        run_workers(workers, _train, spec.model_dump(), folder, stop_after, noticed)
    return TrialRecords(Store(str(folder)))


def undisturbed(records: TrialRecords, folder: Path) -> TrialRecords:
    """The trial of these records, trained anew to its end, without Ray."""
    return train_with(TrialSpec.model_validate(records.spec()), folder)


def run_workers(world_size: int, work: Callable[..., None], *arguments: object) -> None:
    """`work(rank, world_size, *arguments)` in `world_size` processes of one gloo group."""
    spawn(_join, (world_size, free_port(), work, arguments), nprocs=world_size)


def _join(rank: int, world_size: int, port: int, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    work(rank, world_size, *arguments)
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads now and then abort a process that takes itself apart in the usual way


def _train(
    rank: int, world_size: int, content: dict[str, Any], folder: Path, stop_after: int | None, noticed: bool
) -> None:
    spec, records = TrialSpec.model_validate(content), TrialRecords(Store(str(folder)))
    device = "cuda" if spec.scale.uses_gpu else "cpu"
    with contextlib.suppress(Stopped):
        train(spec, records, Worker(rank, world_size, stop_after, noticed, device))
