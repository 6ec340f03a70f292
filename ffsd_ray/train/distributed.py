"""The collective operations that training needs beyond DDP's own; each does nothing with one worker."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def sum_over_workers(values: Tensor) -> Tensor:
    """`values` summed over the workers, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def earliest_over_workers(values: Tensor) -> Tensor:
    """The smallest over the workers, entry by entry, in place."""
    if dist.is_initialized():
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def share_statistics(module: nn.Module) -> None:
    """Every worker takes worker 0's batch-norm statistics, as DDP does before each training step.

    Called before an evaluation, so that all workers evaluate, and worker 0 saves, the same network.
    """
    if dist.is_initialized():
        with torch.no_grad():
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)
