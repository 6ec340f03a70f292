"""Executing the training step and the evaluation: eagerly, compiled, or as a CUDA graph."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ffsd_ray.config.optimisation import RequestedExecution, can_capture, resolve_execution
from ffsd_ray.data.base import BatchInputs
from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.methods.base import Losses, Method
from ffsd_ray.nets.concurrent import MemberStreams
from ffsd_ray.train.cuda_graph import Replay
from ffsd_ray.train.distributed import FlatDDP
from ffsd_ray.train.elastic import BatchParts
from ffsd_ray.train.optimisers import Optimisers
from ffsd_ray.train.step import Step
from ffsd_ray.train.weight_average import WeightAverage


class Executor:
    """A worker's training step and predictions, executed as asked."""

    def __init__(
        self,
        method: Method,
        group: nn.Module,
        optimisers: Optimisers,
        batches: TrainBatches,
        requested: RequestedExecution,
        *,
        workers: int = 1,
        parts: BatchParts | None = None,
        flat_ddp: FlatDDP | None = None,
        member_streams: bool = False,
        average: WeightAverage | None = None,
    ) -> None:
        """`group`: what is called in `method`'s place, its DDP wrapper or itself; `parts`: of an elastic trial.

        `flat_ddp`: of several workers whose steps are captured; `member_streams`: see `TrainSettings`; `average`:
        follows the weights, and makes the predictions.
        """
        cuda, one_worker = next(method.parameters()).device.type == "cuda", workers == 1 and parts is None
        self.execution = resolve_execution(requested, cuda=cuda, one_worker=one_worker)
        capturable = can_capture(cuda=cuda, one_worker=one_worker) or flat_ddp is not None
        self._batches, self._parts, self._average = batches, parts, average
        executed_group = (
            _CompiledForFirstSize(torch.compile(group, dynamic=False), group) if self.execution == "compiled" else group
        )
        streams = MemberStreams() if member_streams and capturable and self.execution == "graph" else None
        self._step = Step(method, optimisers, executed_group, streams, flat_ddp)
        self._run: Callable[..., tuple[Losses, Tensor]] = self._train
        predict = method.predict if average is None else average.group.predict
        self.predict: Callable[[Tensor], dict[str, Tensor]] = predict
        if self.execution != "eager" and capturable:
            self._run = Replay(self._train)
            self.predict = Replay(predict)

    def train(self, inputs: Sequence[tuple[BatchInputs, float]]) -> list[tuple[Losses, Tensor]]:
        """Train one step on `TrainBatches.inputs` of a batch, or of the worker's parts of one if the trial is elastic.

        Returns each part's losses before the update, and its labels.
        """
        if self._parts is None:
            [(batch, weight)] = inputs
            # Only a worker beside others has a weight: where shares of a batch differ, and then every worker has one,
            # so that all go on with a graph or none does.
            return [self._run(*batch) if weight == 1 else self._train(*batch, weight=weight)]
        batches = [self._batches.batch(*part) for part in inputs]
        self._parts.begin()
        losses = self._step.accumulated(batches, self._parts)
        self._parts.end()
        self._update_average()
        return [(part, batch.labels) for part, batch in zip(losses, batches, strict=True)]

    @property
    def captured(self) -> bool:
        """Whether steps are replayed as a CUDA graph, which they are not before the first has been captured."""
        return isinstance(self._run, Replay) and self._run.captured

    def _train(self, *inputs: Tensor, weight: float = 1.0) -> tuple[Losses, Tensor]:
        batch = self._batches.batch(inputs, weight)
        losses = self._step(batch)
        self._update_average()
        return losses, batch.labels

    def _update_average(self) -> None:
        if self._average is not None:
            self._average.update()


class _CompiledForFirstSize:
    """Calls the compiled group for batches of the first batch's size, else the plain one: compiling takes minutes."""

    def __init__(self, compiled: Callable[..., Losses], plain: Callable[..., Losses]) -> None:
        self._compiled, self._plain = compiled, plain
        self._size = 0

    def __call__(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        self._size = self._size or len(labels)
        return (self._compiled if len(labels) == self._size else self._plain)(views, labels, phase)
