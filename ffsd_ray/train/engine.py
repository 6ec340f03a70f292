"""The computation of one worker of a trial; recording it is the trainer's."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.data.base import BatchInputs
from ffsd_ray.data.batches import EvalBatches
from ffsd_ray.methods import Losses, Method
from ffsd_ray.nets.batch_norm import synchronised
from ffsd_ray.series import HistoryRow
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.device import memory_format, use_device
from ffsd_ray.train.distributed import FlatDDP, share_statistics, sum_over_workers
from ffsd_ray.train.elastic import BatchParts, batch_parts, ddp_with_local_buffers
from ffsd_ray.train.execution import Executor
from ffsd_ray.train.meters import AccuracyMeter, Meters, TermMeter
from ffsd_ray.train.starting_weights import load_starting_weights
from ffsd_ray.train.weight_average import WeightAverage


class Engine:
    """A trial's group (`method`) on a device: its training steps and its evaluations."""

    def __init__(
        self, spec: TrialSpec, dataset: Dataset, device: torch.device, *, rank: int = 0, world_size: int = 1
    ) -> None:
        """`rank`, `world_size`: of several workers, which torch.distributed joins; without it, one of them by itself.

        Raises:
            TrialError: see `build_method` and `load_starting_weights`.
        """
        self._spec, self.device, self._rank = spec, device, rank
        use_device(device, spec.train.precision)
        dataset = dataset.to(device)
        self._classes = dataset.num_classes
        method = build_method(spec, dataset.num_classes, dataset.image_size, dataset)
        if spec.train.batch_norm == "sync":
            method = synchronised(method)
        #: What is to be said of how the group was built.
        self.notes = load_starting_weights(method, spec.backbone, dataset.num_classes)
        self.method = method.to(device).to(memory_format=memory_format(device, spec.train.precision))
        self.optimisers = optimisers.build(self.method, spec.train, pretrained_factor=spec.backbone.lr_factor)
        self.average = WeightAverage(self.method, spec.train.ema) if spec.train.ema is not None else None
        elastic, parts = spec.scale.elastic, spec.scale.most_workers
        worker_parts = batch_parts(rank, world_size, parts) if elastic else range(rank, rank + 1)
        shares = parts if elastic else world_size
        self._batches = [
            train_batches(spec, dataset, device, rank=part, world_size=shares, views=self.method.views)
            for part in worker_parts
        ]
        joined = world_size > 1 and dist.is_initialized()
        flat_ddp = FlatDDP(self.method) if joined and spec.train.execution == "graph" else None
        group = self._in_ddp() if joined and flat_ddp is None else self.method
        self.executor = Executor(
            self.method,
            group,
            self.optimisers,
            self._batches[0],
            spec.train.execution,
            workers=shares,
            parts=BatchParts(group, worker_parts, world_size, parts) if elastic else None,
            flat_ddp=flat_ddp,
            member_streams=spec.train.member_streams,
            average=self.average,
        )
        #: This worker's share of the images, normalised, by split: `val`, if there is one, and `test`.
        self.evaluations = {
            split: EvalBatches(
                images,
                dataset.mean,
                dataset.std,
                batch_size=spec.train.eval_batch_size,
                rank=rank,
                world_size=world_size,
            )
            for split, images in (("val", dataset.val), ("test", dataset.test))
            if images is not None
        }

    def _in_ddp(self) -> DistributedDataParallel:
        # Buffers are worker 0's at every step (DDP's default): that is the rule for batch norm's running statistics,
        # and what makes worker 0's checkpoint the whole state.
        wrap = ddp_with_local_buffers if self._spec.scale.elastic else DistributedDataParallel
        return wrap(
            self.method,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=len(self.method.phases) > 1,
        )

    @property
    def evaluated(self) -> Method:
        """The group that is evaluated, and of which a member is deployed: that of averaged weights, if there is one."""
        return self.method if self.average is None else self.average.group

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._batches[0].steps

    @property
    def images(self) -> int:
        """Training images of an epoch, over all workers."""
        return self._batches[0].images

    def begin(self, epoch: int) -> None:
        """Prepare for training in an epoch, before its first step or a later one."""
        optimisers.seed_everything(self._spec.seed, epoch, self._rank)
        self.method.train()
        self.method.begin_epoch(epoch)

    def epoch(self, epoch: int, meters: Meters, first_step: int = 0, stop: int | None = None) -> Iterator[int]:
        """Train the steps from `first_step` to before `stop`; yield, after each, how many of the epoch are done."""
        for step, parts in enumerate(self.inputs(epoch, first_step, stop), start=first_step):
            results = self.step(parts, optimisers.learning_rate_factor(self._spec.train, epoch, step, self.steps))
            for (losses, labels), (_, weight) in zip(results, parts, strict=True):
                meters.terms.expect(losses.terms)
                if weight:  # an empty share took part with an image that does not count
                    meters.update(losses, labels, step)
            yield step + 1

    def inputs(
        self, epoch: int, first_step: int = 0, stop: int | None = None
    ) -> Iterator[Sequence[tuple[BatchInputs, float]]]:
        """This worker's batches as `step` takes them."""
        return zip(*(batches.inputs(epoch, first_step, stop) for batches in self._batches), strict=True)

    def step(self, parts: Sequence[tuple[BatchInputs, float]], factor: float) -> list[tuple[Losses, Tensor]]:
        """One step at `factor` times the learning rates: each part's losses before it, and its labels."""
        self.optimisers.set_learning_rates(factor)
        return self.executor.train(parts)

    @torch.inference_mode()
    def end_epoch(self, *, evaluate: bool) -> tuple[HistoryRow, dict[str, Tensor]]:
        """Show the method what is held out; where it is to `evaluate`, measure the group.

        Returns accuracies and losses on every split, and confusion matrices of the test images by member.
        """
        share_statistics(self.method)
        if self.average is not None:
            share_statistics(self.average.group)
        self.method.eval()
        row: HistoryRow = {}
        confusion: dict[str, Tensor] = {}
        for split in self.evaluations if evaluate else ():
            meter = self._evaluate(split)
            row |= meter.read(split)
            confusion |= meter.confusion()
        if "val" in self.evaluations:
            self.method.fit_on_validation(self.evaluations["val"], sum_over_workers)
        return row, confusion

    @torch.inference_mode()
    def measure(self, split: str, batches: int | None = None) -> HistoryRow:
        """Accuracies and losses on a split, or on its first `batches`, as the method is."""
        return self._evaluate(split, batches).read(split)

    def _evaluate(self, split: str, batches: int | None = None) -> AccuracyMeter:
        meter = self._accuracy_meter(confusion=split == "test")
        for images, labels in islice(self.evaluations[split], batches):
            meter.update(self.executor.predict(images), labels)
        return meter

    def meters(self) -> Meters:
        """New meters for a training epoch."""
        return Meters(TermMeter(self.device), self._accuracy_meter())

    def _accuracy_meter(self, *, confusion: bool = False) -> AccuracyMeter:
        method = self.method
        return AccuracyMeter(method.members, method.common, self._classes, self.device, confusion=confusion)


def trained_parameters(module: nn.Module) -> int:
    """The number of a module's parameters that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
