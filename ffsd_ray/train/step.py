"""One training step of a group."""

import contextlib
from collections.abc import Callable, Sequence

from torch import Tensor

from ffsd_ray.data.batches import Batch
from ffsd_ray.methods.base import Losses, Method
from ffsd_ray.nets.batch_norm import BatchNormCounters
from ffsd_ray.nets.concurrent import MemberStreams
from ffsd_ray.train.distributed import FlatDDP
from ffsd_ray.train.elastic import BatchParts
from ffsd_ray.train.optimisers import Optimisers


class Step:
    """Every phase of a method in order: one backward pass over the sum of its terms, then its optimisers.

    Cross-model targets are detached, so for FFSD the single backward equals Algorithm 1's sequence of updates.
    Nothing here waits for the device.
    """

    def __init__(
        self,
        method: Method,
        optimisers: Optimisers,
        group: Callable[[list[Tensor], Tensor, str], Losses] | None = None,
        streams: MemberStreams | None = None,
        flat_ddp: FlatDDP | None = None,
    ) -> None:
        """`group`: what is called in `method`'s place, such as its DDP wrapper; `streams`: for its networks.

        `flat_ddp`: of several workers without that wrapper.
        """
        self._phases, self._optimisers = method.phases, optimisers
        self._group = method if group is None else group
        self._counters, self._streams, self._flat_ddp = BatchNormCounters(method), streams, flat_ddp

    def __call__(self, batch: Batch) -> Losses:
        """Train on a batch; return its losses, from before the update."""
        return self.accumulated([batch])[0]

    def accumulated(self, batches: Sequence[Batch], parts: BatchParts | None = None) -> list[Losses]:
        """One update from several batches, the parts of a global batch that this worker computes."""
        collected = [Losses({}, {}) for _ in batches]
        for phase in self._phases:
            self._optimisers.zero_grad()
            for index, batch in enumerate(batches):
                with (
                    parts.part(index) if parts else contextlib.nullcontext(),
                    self._flat_ddp.in_step() if self._flat_ddp else contextlib.nullcontext(),
                    self._streams.in_use() if self._streams else contextlib.nullcontext(),
                ):
                    with self._counters.raised_together():
                        losses = self._group(batch.views, batch.targets, phase.name)
                    weight = batch.weight * parts.factor if parts else batch.weight
                    (losses.total if weight == 1 else losses.total * weight).backward()
                # without their autograd graph: kept beyond the step, it would hold gradients to the stream of this one
                collected[index].terms.update({name: term.detach() for name, term in losses.terms.items()})
                collected[index].logits.update(losses.logits)
            self._optimisers.step(phase.roles)
        return collected
