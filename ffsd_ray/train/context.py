"""The interface between a trainer and the place where it runs."""

from typing import Protocol

import torch

from ffsd_ray.series import HistoryRow


class Context(Protocol):
    """One of a trial's workers. With several, torch.distributed is initialised before training begins."""

    rank: int
    world_size: int
    device: torch.device

    def report(self, row: HistoryRow) -> None:
        """Called by every worker at the end of every epoch."""

    def checkpoint_requested(self) -> bool:
        """Whether the workers may be replaced any moment, so that a checkpoint is due now; called by every worker."""

    def exit_if_preempted(self) -> None:
        """After that checkpoint: ends the worker if they are sure to be replaced; called by every worker."""


class LocalContext:
    """The only worker, in the calling process."""

    rank, world_size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def report(self, row: HistoryRow) -> None:
        pass

    def checkpoint_requested(self) -> bool:
        return False

    def exit_if_preempted(self) -> None:
        pass
