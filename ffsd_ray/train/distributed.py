"""The collective operations that training needs beyond DDP's own, and DDP's in a form that can be captured.

Each function does nothing with one worker.
"""

import contextlib
from collections.abc import Iterable, Iterator
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


class FlatDDP:
    """DistributedDataParallel's part in a step, as operations that a CUDA graph can hold.

    One broadcast gives every worker the buffers of worker 0, and one all-reduce averages the gradients once all are
    computed, while DDP's overlap with the backward pass. Two workers' averages have the bits of DDP's; more workers'
    may be added in another order.

    Every worker must have gradients of the same parameters and, as NCCL requires, replay a graph in the same steps.
    Tried on GPUs with a group of one alone; the tests replay recorded operations of two workers joined by gloo.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Around a forward pass and its backward pass, before which no parameter has a gradient."""
        share_statistics(self._module)
        yield
        self._average_gradients()

    @torch.no_grad()
    def _average_gradients(self) -> None:
        trained = [parameter for parameter in self._module.parameters() if parameter.grad is not None]
        for parameters in by_type(trained):
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            sizes = [gradient.numel() for gradient in gradients]
            flat = gradients[0].new_empty(sum(sizes))
            parts = zip(flat.split(sizes), gradients, strict=True)
            # In the gradients' memory format, which one copy of all of them and the optimisers expect.
            views = [part.as_strided(gradient.shape, gradient.stride()) for part, gradient in parts]
            torch._foreach_copy_(views, gradients)
            dist.all_reduce(flat.div_(dist.get_world_size()))
            for parameter, view in zip(parameters, views, strict=True):
                parameter.grad = view


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
