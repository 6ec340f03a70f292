"""A global batch in a fixed number of parts, computed by however many workers there are.

Each part is what one worker would compute if there were as many as parts: its own batch norm, the statistics from
before the step, and of all parts only the first moves them. So nothing but the order of summation depends on the number
of workers.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray.data.batches import rank_slice
from ffsd_ray.train.distributed import by_type, share_statistics


def batch_parts(rank: int, workers: int, parts: int) -> range:
    """The parts that a worker computes; the first worker has the first part."""
    worker_parts = rank_slice(0, parts, rank, workers)
    return range(worker_parts.start, worker_parts.stop)


#: The DDP option, by this torch's name, that makes DDP copy worker 0's buffers to every worker in each forward pass.
_BUFFER_SYNC_OPTION = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


def ddp_with_local_buffers(method: nn.Module, **options: Any) -> DistributedDataParallel:
    """Wrap an elastic trial's group in DDP that leaves every worker its own buffers."""
    options[_BUFFER_SYNC_OPTION] = False
    return DistributedDataParallel(method, **options)


class BatchParts:
    """A worker's parts of every step."""

    def __init__(self, group: nn.Module, worker_parts: range, workers: int, parts: int) -> None:
        """`group`: the method or its wrapper from `ddp_with_local_buffers`; `worker_parts`: from `batch_parts`."""
        self._group, self._worker_parts = group, worker_parts
        self._buffers = by_type(group.buffers())
        #: Of each part's loss: DDP averages over the workers what is to be the mean over the parts.
        self.factor = workers / parts
        #: The buffers before a step, and as they are to be after it.
        self._before = self._after = list[list[Tensor]]()

    def begin(self) -> None:
        """Copy the first worker's batch-norm statistics to every worker, before a step."""
        share_statistics(self._group)
        self._before = self._copy()
        self._after = self._before

    def end(self) -> None:
        """Keep the batch-norm statistics of the first part, after a step."""
        self._restore(self._after)

    @contextlib.contextmanager
    def part(self, index: int) -> Iterator[None]:
        """The forward and backward pass of the worker's part `index`; gradients are shared in the last."""
        self._restore(self._before)
        last = index == len(self._worker_parts) - 1
        synchronises = last or not isinstance(self._group, DistributedDataParallel)
        with contextlib.nullcontext() if synchronises else self._group.no_sync():  # type: ignore[operator]
            yield
        if self._worker_parts[index] == 0:
            self._after = self._copy()

    @torch.no_grad()
    def _copy(self) -> list[list[Tensor]]:
        copies = [[torch.empty_like(buffer) for buffer in buffers] for buffers in self._buffers]
        for copied, buffers in zip(copies, self._buffers, strict=True):
            torch._foreach_copy_(copied, buffers)
        return copies

    @torch.no_grad()
    def _restore(self, copies: list[list[Tensor]]) -> None:
        for buffers, copied in zip(self._buffers, copies, strict=True):
            torch._foreach_copy_(buffers, copied)
