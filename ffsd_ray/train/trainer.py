"""Training one trial: the same code under Ray and without it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from safetensors.torch import load
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ffsd_ray import data
from ffsd_ray.backbones import backbone, map_shapes
from ffsd_ray.data import Dataset, Split
from ffsd_ray.data.batches import EvalBatches, TrainBatches
from ffsd_ray.errors import TrialError
from ffsd_ray.leader import Card, pack
from ffsd_ray.methods import METHODS, Blueprint, Method
from ffsd_ray.records.trial import LEADER_BEST, LEADER_LAST, Row, TrialRecords
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train import optimisers
from ffsd_ray.train.context import Context
from ffsd_ray.train.distributed import random_states, set_random_state, share_statistics, sum_over_workers
from ffsd_ray.train.elastic import Parts, parts_of, wrapped
from ffsd_ray.train.environment import environment
from ffsd_ray.train.execution import Executor
from ffsd_ray.train.meters import AccuracyMeter, TermMeter
from ffsd_ray.train.similarity import similarity

#: Steps between two questions whether the workers are about to be replaced.
NOTICE_STEPS = 10


@dataclass
class Progress:
    """How far a trial has come: what a checkpoint holds besides the networks and the optimisers."""

    rows: list[Row] = field(default_factory=list)
    #: For every series the epoch of its best top-1 on the selection split, and its test top-1 then.
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    #: The deployed member's weights at its best epoch.
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    #: Each time that this state was taken over from another trial: its identity (`from`), after which `epoch` of its,
    #: and the settings `changed` from then on.
    lineage: list[dict[str, Any]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rows", "best", "best_weights", "lineage")}


@dataclass(frozen=True)
class Within:
    """How far an unfinished epoch has come."""

    epoch: int
    steps: int
    seconds: float
    terms: dict[str, Any]
    accuracy: dict[str, Any]


class Donor(NamedTuple):
    """Whose state a trial takes over in place of its own (population based training)."""

    identity: str
    records: TrialRecords
    epoch: int
    changed: dict[str, Any]
    """The settings that the trial goes on with, by dotted key."""

    @property
    def note(self) -> dict[str, Any]:
        """What the lineage says of it."""
        return {"from": self.identity, "epoch": self.epoch, "changed": self.changed}

    def taken_over(self, lineage: list[dict[str, Any]]) -> bool:
        """Whether a state with this lineage comes from here, and has perhaps been trained on."""
        return lineage[-1:] == [self.note]


def build_method(spec: TrialSpec, classes: int, image_size: int) -> Method:
    """The trial's group, initialised from its seed.

    Raises:
        TrialError: the method cannot work with this backbone on such images.
    """
    build = backbone(spec.backbone.name)
    try:
        shapes = map_shapes(build, image_size)
    except RuntimeError as error:
        size = f"{image_size}×{image_size}"
        raise TrialError(f"backbone.name = {spec.backbone.name}: images of {size} are too small for it") from error
    for problem in spec.method.problems(shapes):
        raise TrialError(f"method.{'.'.join(problem.key)} = {problem.value}: {problem.expected}")
    optimisers.seed_everything(spec.seed)
    grouped = spec.train.execution == "grouped"
    return METHODS[spec.method.name](spec.method, Blueprint(build, shapes, classes, spec.train.precision, grouped))


def train_batches(
    spec: TrialSpec,
    dataset: Dataset,
    device: torch.device | str = "cpu",
    *,
    views: int,
    rank: int = 0,
    world_size: int = 1,
) -> TrainBatches:
    """The trial's stream of training batches, or a worker's share of it, on the device."""
    return TrainBatches(
        dataset.train.to(device),
        dataset.mean,
        dataset.std,
        crop_padding=spec.data.crop_padding,
        flip=spec.data.flip,
        batch_size=spec.train.batch_size,
        seed=spec.seed,
        rank=rank,
        world_size=world_size,
        views=views,
        steps_per_epoch=spec.train.steps_per_epoch,
    )


class Trainer:
    """One worker's part in training one trial."""

    def __init__(self, spec: TrialSpec, records: TrialRecords, context: Context, donor: Donor | None) -> None:
        torch.set_num_threads(spec.scale.worker_threads)
        self._spec, self._records, self._context = spec, records, context
        self._dataset = data.load(spec.data)
        dataset, device = self._dataset, context.device
        self._method = build_method(spec, dataset.num_classes, dataset.image_size)
        if spec.train.batch_norm == "sync":
            self._method = nn.SyncBatchNorm.convert_sync_batchnorm(self._method)
        # Convolutions on small images are faster in this layout, on CPUs and GPUs alike.
        self._method.to(device).to(memory_format=torch.channels_last)
        self._optimisers = optimisers.build(self._method, spec.train)
        self._donor = donor
        self._within: Within | None = None
        self._progress, self._taken_over = self._resume()
        elastic, parts = spec.scale.elastic, spec.scale.most_workers
        own = parts_of(context.rank, context.world_size, parts) if elastic else range(context.rank, context.rank + 1)
        self._batches = [
            train_batches(
                spec,
                dataset,
                device,
                rank=part,
                world_size=parts if elastic else context.world_size,
                views=self._method.views,
            )
            for part in own
        ]
        group = self._wrap()
        self._executor = Executor(
            self._method,
            group,
            self._optimisers,
            self._batches[0],
            spec.train.execution,
            workers=parts if elastic else context.world_size,
            parts=Parts(group, own, context.world_size, parts) if elastic else None,
        )
        self._evaluations = {
            split: self._evaluation(images)
            for split, images in (("val", dataset.val), ("test", dataset.test))
            if images is not None
        }
        self._selection = "val" if "val" in self._evaluations else "test"

    def run(self, *, keep_checkpoints: bool = False) -> None:
        """Train from the last checkpoint to the end, recording every epoch; worker 0 writes.

        Raises:
            TrialError: a loss term was not finite.
        """
        spec, records, leads = self._spec, self._records, self._context.rank == 0
        if leads:
            records.begin(spec.model_dump(), environment(self._context.device, self._context.world_size))
            if self._taken_over:
                records.write_checkpoint(len(self._progress.rows), self._state(), keep_earlier=keep_checkpoints)
                records.write_history(self._progress.rows)
        for epoch in range(len(self._progress.rows) + 1, spec.train.epochs + 1):
            row = self._train_epoch(epoch) | self._evaluate()
            self._progress.rows.append(row)
            self._note_best(epoch, row)
            if leads:
                if epoch % spec.train.checkpoint_every == 0 or epoch == spec.train.epochs:
                    records.write_checkpoint(epoch, self._state(), keep_earlier=keep_checkpoints)
                records.write_history(self._progress.rows)
                records.stand(self._result())
            self._context.report(row)
        alike = similarity(self._method, self._evaluations["test"], self._context.device)
        if leads:
            self._finish(alike)

    def _wrap(self) -> nn.Module:
        if self._context.world_size == 1:
            return self._method
        device = self._context.device
        # Buffers are worker 0's at every step (DDP's default): that is the rule for batch norm's running statistics,
        # and what makes worker 0's checkpoint the whole state.
        wrap = wrapped if self._spec.scale.elastic else DistributedDataParallel
        return wrap(
            self._method,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=len(self._method.phases) > 1,
        )

    def _train_epoch(self, epoch: int) -> Row:
        settings, elastic, steps = self._spec.train, self._spec.scale.elastic, self._batches[0].steps
        optimisers.seed_everything(self._spec.seed, epoch, self._context.rank)
        self._method.train()
        self._method.begin_epoch(epoch)
        terms = TermMeter(self._context.device)
        accuracy = self._accuracy_meter()
        done, before = self._continue(epoch, terms, accuracy)
        began = time.perf_counter()
        factor = 1.0
        drawn = zip(*(batches.drawn(epoch, done) for batches in self._batches), strict=True)
        for index, parts in enumerate(drawn, start=done):
            factor = optimisers.learning_rate_factor(settings, epoch, index, steps)
            self._optimisers.set_learning_rates(factor)
            found = self._executor.train_parts(parts) if elastic else [self._executor.train(*parts[0])]
            for (losses, labels), (_, weight) in zip(found, parts, strict=True):
                if weight:  # an empty share took part with an image that does not count
                    terms.update(losses.terms, index, len(labels))
                    accuracy.update(losses.logits, labels)
            if index + 1 < steps:
                leaving = (index + 1) % NOTICE_STEPS == 0 and self._context.leaving()
                if leaving or self._is_due(index + 1):
                    seconds = before + time.perf_counter() - began
                    self._save_within(Within(epoch, index + 1, seconds, terms.state(), accuracy.state()))
                if leaving:
                    self._context.leave()
        measured = terms.read(epoch) | accuracy.read("train")
        seconds = before + time.perf_counter() - began
        images = min(steps * settings.batch_size, len(self._dataset.train))
        return {
            "epoch": epoch,
            "seconds": seconds,
            "images_per_second": images / seconds,
            "lr": settings.lr * factor,
            **({"workers": self._context.world_size} if elastic else {}),
            **{f"weight/{name}": value for name, value in self._method.weights().items()},
            **measured,
        }

    def _is_due(self, steps: int) -> bool:
        """Whether the settings want a checkpoint after so many steps of the epoch."""
        every = self._spec.train.checkpoint_steps
        return every is not None and steps % every == 0

    def _save_within(self, within: Within) -> None:
        """A checkpoint inside an epoch, with what its meters hold over all workers."""
        random = random_states(self._context.device)
        if self._context.rank == 0:
            state = self._state() | {"within": asdict(within), "random": random}
            self._records.write_checkpoint(within.epoch, state, keep_earlier=False, steps=within.steps)

    def _continue(self, epoch: int, terms: TermMeter, accuracy: AccuracyMeter) -> tuple[int, float]:
        """Steps of the epoch that are done already, and their seconds; the meters get what they had."""
        within = self._within
        if within is None or within.epoch != epoch:
            return 0, 0.0
        self._within = None
        if self._context.rank == 0:  # they are sums over all workers
            terms.load(within.terms)
            accuracy.load(within.accuracy)
        set_random_state(self._random, self._context.rank, self._context.device)
        return within.steps, within.seconds

    @torch.inference_mode()
    def _evaluate(self) -> Row:
        share_statistics(self._method)
        self._method.eval()
        row: Row = {}
        for split, batches in self._evaluations.items():
            meter = self._accuracy_meter()
            for images, labels in batches:
                meter.update(self._executor.predict(images), labels)
            row |= meter.read(split)
        if "val" in self._evaluations:
            self._method.see_held_out(self._evaluations["val"], sum_over_workers)
        return row

    def _accuracy_meter(self) -> AccuracyMeter:
        return AccuracyMeter(self._method.members, self._method.common, self._dataset.num_classes, self._context.device)

    def _evaluation(self, images: Split) -> EvalBatches:
        context, dataset = self._context, self._dataset
        return EvalBatches(
            images.to(context.device),
            dataset.mean,
            dataset.std,
            batch_size=self._spec.train.eval_batch_size,
            rank=context.rank,
            world_size=context.world_size,
        )

    def _note_best(self, epoch: int, row: Row) -> None:
        prefix, suffix = f"{self._selection}/", "/top1"
        for key, value in row.items():
            if not (key.startswith(prefix) and key.endswith(suffix)):
                continue
            series = key.removeprefix(prefix).removesuffix(suffix)
            best = self._progress.best.get(series)
            if best is None or value > best["selected_by"]:
                top1 = row[f"test/{series}/top1"]
                self._progress.best[series] = {"epoch": epoch, "selected_by": value, "top1": top1}
                if series == self._method.deployed[0]:
                    self._progress.best_weights = _copy(self._method.deployed[1].state_dict())

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._spec.identity(),
            "method": self._method.state_dict(),
            "optimisers": self._optimisers.state(),
            "progress": self._progress.state(),
        }

    def _resume(self) -> tuple[Progress, bool]:
        """The progress of this trial's last checkpoint or of the donor's, and whether it is the donor's."""
        state, donor = self._records.latest_checkpoint(), self._donor
        take_over = donor is not None and not (state and donor.taken_over(state["progress"]["lineage"]))
        if donor is not None and take_over:
            state = donor.records.checkpoint(donor.epoch)
            state["progress"]["lineage"] += [donor.note]
        if state is None:
            self._method.load_teachers([self._teacher(spec) for spec in self._spec.prerequisites()])
            return Progress(), False
        self._method.load_state_dict(state["method"])
        self._optimisers.load(state["optimisers"])
        if "within" in state:
            self._within, self._random = Within(**state["within"]), state["random"]
        return Progress(**state["progress"]), take_over

    def _teacher(self, spec: TrialSpec) -> dict[str, torch.Tensor]:
        """The weights at the end of a trial that this one needs, from its records beside this one's."""
        beside = TrialRecords(self._records.store.parent.child(spec.identity()))
        if beside.state() != "completed":
            raise TrialError(
                f"this trial needs trial {spec.identity()} ({spec.backbone.name}), which has not completed"
            )
        return load(beside.store.read(LEADER_LAST))

    def _finish(self, alike: dict[str, float]) -> None:
        name, network = self._method.deployed
        last, best = self._progress.rows[-1], self._progress.best[name]
        weights = _copy(network.state_dict())
        last_card = self._card(int(last["epoch"]), last[f"test/{name}/top1"])
        best_card = self._card(int(best["epoch"]), best["top1"])
        self._records.store.write(LEADER_LAST, pack(weights, last_card))
        self._records.store.write(LEADER_BEST, pack(self._progress.best_weights, best_card))
        self._records.finish(self._result() | ({"similarity": alike} if alike else {}))

    def _card(self, epoch: int, top1: float) -> Card:
        dataset, spec = self._dataset, self._spec
        return Card(
            backbone=spec.backbone.name,
            classes=dataset.classes,
            mean=dataset.mean,
            std=dataset.std,
            image_size=dataset.image_size,
            precision=spec.train.precision,
            member=self._method.deployed[0],
            epoch=epoch,
            split="test",
            top1=top1,
            spec=spec.model_dump(),
        )

    def _result(self) -> dict[str, Any]:
        method, progress = self._method, self._progress
        exploits = [f"exploited from {taken['from']} at {taken['epoch']}" for taken in progress.lineage]
        return {
            "ended": "; ".join(exploits) or "completed",
            "epochs": self._spec.train.epochs,
            "members": method.members,
            "common": method.common,
            "deployed": method.deployed[0],
            "headline": self._spec.method.headline,
            "selection": self._selection,
            "last": progress.rows[-1],
            "best": progress.best,
            "classes": self._dataset.num_classes,
            "image_size": self._dataset.image_size,
            "parameters": {"trained": _parameters(method), "deployed": _parameters(method.deployed[1])},
            "seconds": sum(row["seconds"] for row in progress.rows),
            "execution": {"as": self._executor.execution, "captured": self._executor.captured},
        }


def train(
    spec: TrialSpec,
    records: TrialRecords,
    context: Context,
    *,
    keep_checkpoints: bool = False,
    donor: Donor | None = None,
) -> None:
    """Train a trial to its end, or from its last checkpoint to its end. Its records hold everything that comes of it.

    With a `donor` it goes on from that one's checkpoint, unless it has done so before.

    Raises:
        DataError: the images cannot be read.
        TrialError: it cannot be trained.
    """
    Trainer(spec, records, context, donor).run(keep_checkpoints=keep_checkpoints)


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
