"""The collective operations that training needs beyond DDP's own; each does nothing with one worker."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def sum_over_workers(values: Tensor) -> Tensor:
    """Sum `values` over the workers, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def earliest_over_workers(values: Tensor) -> Tensor:
    """Take the minimum over the workers, entry by entry, in place."""
    if dist.is_initialized():
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def share_statistics(module: nn.Module) -> None:
    """Copy worker 0's batch-norm statistics to every worker, as DDP does before each training step.

    Called before an evaluation, so that all workers evaluate, and worker 0 saves, the same network.
    """
    if not dist.is_initialized():
        return
    for buffers in by_type(module.buffers()):
        flat = torch.cat([buffer.flatten() for buffer in buffers])  # one message
        dist.broadcast(flat, 0)
        received = flat.split([buffer.numel() for buffer in buffers])
        with torch.no_grad():
            torch._foreach_copy_(
                buffers, [value.view_as(buffer) for value, buffer in zip(received, buffers, strict=True)]
            )


def by_type(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Lists of the tensors of one type each, in the order in which types occur, the same on every worker."""
    lists: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        lists.setdefault(tensor.dtype, []).append(tensor)
    return list(lists.values())


def random_states(device: torch.device) -> list[list[torch.Tensor]]:
    """torch's random states by worker (dropout): the CPU's, and the GPU's where there is one. Collective."""
    worker_states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    if not dist.is_initialized():
        return [worker_states]
    all_states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_states, worker_states)
    return all_states


def set_random_state(states: list[list[torch.Tensor]], rank: int, device: torch.device) -> None:
    """Restore this worker's random state, if it was saved by as many workers; otherwise leave it."""
    if rank < len(states) == (dist.get_world_size() if dist.is_initialized() else 1):
        torch.set_rng_state(states[rank][0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[rank][1], device)
