"""What a trial does again and again, apart from its trainer: its training step, its epoch and its evaluation."""

import math
from dataclasses import replace
from itertools import islice

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray.data import Dataset
from ffsd_ray.data.batches import EvalBatches, TrainBatches
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train import optimisers
from ffsd_ray.train.execution import Executor
from ffsd_ray.train.meters import AccuracyMeter, TermMeter
from ffsd_ray.train.trainer import build_method, train_batches

#: Every λ has risen by then.
EPOCH = 6


class Workload:
    """A trial of the data set's images as the trainer would train it, on a device, with its spec's threads.

    `rank` and `world_size`: of the process group, where it is one of several workers.
    """

    def __init__(
        self, spec: TrialSpec, dataset: Dataset, device: torch.device, *, rank: int = 0, world_size: int = 1
    ) -> None:
        use_threads(spec)
        self._spec, self._device, self._rank, self._world_size = spec, device, rank, world_size
        self._dataset = on_device(dataset, device)
        self._method = build_method(spec, dataset.num_classes, dataset.image_size)
        self._method.to(device).to(memory_format=torch.channels_last)
        self._optimisers = optimisers.build(self._method, spec.train)
        group: nn.Module = self._method
        if world_size > 1:
            group = DistributedDataParallel(group, gradient_as_bucket_view=True)
        batches = self._batches(spec.train.steps_per_epoch)
        self._executor = Executor(
            self._method, group, self._optimisers, batches, spec.train.execution, workers=world_size
        )
        self._method.begin_epoch(EPOCH)
        self._resident = next(self._batches(1).drawn(EPOCH))
        #: Steps of an epoch, and batches of an evaluation.
        self.steps = batches.steps
        self.evaluations = math.ceil(len(dataset.test) / spec.train.eval_batch_size)

    @property
    def captured(self) -> bool:
        """Whether steps are replayed as a CUDA graph."""
        return self._executor.captured

    def step(self) -> object:
        """One training step on a batch that is on the device already."""
        use_threads(self._spec)
        self._optimisers.set_learning_rates(1.0)
        return self._executor.train(*self._resident)

    def epoch(self, steps: int) -> None:
        """The first `steps` of an epoch, with everything that training does in one but the evaluation."""
        use_threads(self._spec)
        terms, accuracy = TermMeter(self._device), self._meter()
        for index, (drawn, weight) in enumerate(self._batches(steps).drawn(EPOCH)):
            self._optimisers.set_learning_rates(1.0)
            losses, labels = self._executor.train(drawn, weight)
            terms.update(losses.terms, index, len(labels))
            accuracy.update(losses.logits, labels)
        terms.read(EPOCH)
        accuracy.read("train")

    @torch.inference_mode()
    def evaluate(self, batches: int) -> None:
        """The first `batches` of the test images."""
        use_threads(self._spec)
        self._method.eval()
        meter, dataset = self._meter(), self._dataset
        size = self._spec.train.eval_batch_size
        for images, labels in islice(EvalBatches(dataset.test, dataset.mean, dataset.std, batch_size=size), batches):
            meter.update(self._executor.predict(images), labels)
        meter.read("test")
        self._method.train()

    def _batches(self, steps: int | None) -> TrainBatches:
        return train_batches(
            cut(self._spec, steps),
            self._dataset,
            self._device,
            views=self._method.views,
            rank=self._rank,
            world_size=self._world_size,
        )

    def _meter(self) -> AccuracyMeter:
        return AccuracyMeter(self._method.members, self._method.common, self._dataset.num_classes, self._device)


def cut(spec: TrialSpec, steps: int | None) -> TrialSpec:
    """The trial with epochs of `steps` steps."""
    return with_train(spec, steps_per_epoch=steps)


def with_train(spec: TrialSpec, **changes: object) -> TrialSpec:
    """The trial with other settings of its `train` section."""
    return spec.model_copy(update={"train": spec.train.model_copy(update=changes)})


def on_device(dataset: Dataset, device: torch.device) -> Dataset:
    """The data set with its batches on the device."""
    return replace(dataset, train=dataset.train.to(device), test=dataset.test.to(device))


def use_threads(spec: TrialSpec) -> None:
    """Compute with the trial's number of CPU threads."""
    if torch.get_num_threads() != spec.scale.worker_threads:
        torch.set_num_threads(spec.scale.worker_threads)
