"""The interface between a trainer and the place where it runs."""

from typing import Protocol

import torch

from ffsd_ray.series import HistoryRow


class Context(Protocol):
    """A trial's worker as the trainer sees it. With several, torch.distributed is initialised beforehand."""

    rank: int
    world_size: int
    device: torch.device

    def report(self, row: HistoryRow) -> None:
        """Called by every worker at the end of every epoch."""

    def checkpoint_requested(self) -> bool:
        """Whether the workers may be replaced any moment, so that a checkpoint is due now; called by every worker."""

    def exit_if_preempted(self) -> None:
        """End the worker if all are sure to be replaced; called by every worker, after that checkpoint."""


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
