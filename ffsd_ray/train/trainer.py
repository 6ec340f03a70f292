"""Training one trial: the same code under Ray and without it."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.deployed import pack
from ffsd_ray.errors import TrialError, summary
from ffsd_ray.records.checkpoint import fits
from ffsd_ray.records.trial import MODEL_BEST, MODEL_LAST, TrialRecords
from ffsd_ray.series import HistoryRow
from ffsd_ray.train.before_training import check_before_training
from ffsd_ray.train.build import load_images
from ffsd_ray.train.context import Context
from ffsd_ray.train.distributed import random_states, set_random_state
from ffsd_ray.train.donor import Donor
from ffsd_ray.train.engine import Engine
from ffsd_ray.train.environment import environment
from ffsd_ray.train.meters import Meters
from ffsd_ray.train.mid_epoch import MidEpochState, Progress
from ffsd_ray.train.optimisers import learning_rate_factor
from ffsd_ray.train.outcome import card, result
from ffsd_ray.train.similarity import similarity

#: Steps between two questions whether the workers are about to be replaced.
NOTICE_STEPS = 10


class Trainer:
    """Training one trial, in one of its workers."""

    def __init__(self, spec: TrialSpec, records: TrialRecords, context: Context, donor: Donor | None) -> None:
        torch.set_num_threads(spec.scale.worker_threads)
        self._spec, self._records, self._context, self._donor = spec, records, context, donor
        self._dataset = load_images(spec)
        self._notes = check_before_training(spec, self._dataset)
        self._engine = Engine(spec, self._dataset, context.device, rank=context.rank, world_size=context.world_size)
        if context.device.type == "cuda":  # the images and the group, which are there already, stay in the peak
            torch.cuda.reset_peak_memory_stats(context.device)
        self._method = self._engine.method
        self._selection = "val" if "val" in self._engine.evaluations else "test"
        self._mid_epoch: MidEpochState | None = None
        #: The workers' random states at that mid-epoch checkpoint.
        self._random_states: Any = None
        #: Steps since `checkpoint_requested` was last asked, counted over epochs, which may be shorter than that.
        self._steps_since_notice = 0
        self._progress, self._taken_over = self._resume()

    def run(self, *, keep_checkpoints: bool = False, stoppable: bool = False) -> None:
        """Train from the last checkpoint to the end, recording every epoch; worker 0 writes.

        Raises:
            TrialError: a loss term was not finite.
        """
        spec, records, writes = self._spec, self._records, self._context.rank == 0
        if writes:
            environment_record = environment(self._context.device, self._context.world_size) | {
                "notes": [*self._notes, *self._engine.notes]
            }
            records.begin(spec.model_dump(), environment_record, self._dataset.skipped)
            if self._taken_over:
                records.checkpoints.write(len(self._progress.rows), self._state(), keep_earlier=keep_checkpoints)
                records.checkpoints.delete_after(len(self._progress.rows))
            if self._progress.rows:
                records.write_history(self._progress.rows)
        for epoch in range(len(self._progress.rows) + 1, spec.train.epochs + 1):
            evaluate = spec.train.evaluates_after(epoch)
            trained = self._train_epoch(epoch)
            evaluated, confusion = self._engine.end_epoch(evaluate=evaluate)
            row = trained | evaluated
            improved = self._progress.add(row, self._selection)
            name, network = self._deployed
            self._progress.confusion = confusion.get(name)
            if name in improved:
                self._progress.best_weights = _copy(network.state_dict())
            if writes:
                if epoch % spec.train.checkpoint_every == 0 or epoch == spec.train.epochs:
                    records.checkpoints.write(epoch, self._state(), keep_earlier=keep_checkpoints)
                records.write_history(self._progress.rows)
                if stoppable:
                    records.write_provisional(self._result())
            self._context.report(row)
        similarities = similarity(self._engine.evaluated, self._engine.evaluations["test"], self._context.device)
        if writes:
            self._finish(similarities)

    def _train_epoch(self, epoch: int) -> HistoryRow:
        engine, settings = self._engine, self._spec.train
        engine.begin(epoch)
        meters = engine.meters()
        done, before = self._continue_epoch(epoch, meters)
        began = time.perf_counter() - before
        for steps in engine.epoch(epoch, meters, done):
            self._steps_since_notice += 1
            if steps < engine.steps:
                self._after_step(epoch, steps, meters, began)
        measured = meters.read(epoch)
        seconds = time.perf_counter() - began
        return {
            "epoch": epoch,
            "seconds": seconds,
            "images_per_second": engine.images / seconds,
            "lr": settings.lr * learning_rate_factor(settings, epoch, engine.steps - 1, engine.steps),
            **({"workers": self._context.world_size} if self._spec.scale.elastic else {}),
            **{f"weight/{name}": value for name, value in self._method.weights().items()},
            **measured,
        }

    def _after_step(self, epoch: int, steps: int, meters: Meters, began: float) -> None:
        """Write a checkpoint inside the epoch where one is due, and end the worker where it is to be replaced."""
        checkpoint_requested = False
        if self._steps_since_notice >= NOTICE_STEPS:
            self._steps_since_notice, checkpoint_requested = 0, self._context.checkpoint_requested()
        every = self._spec.train.checkpoint_steps
        if checkpoint_requested or (every is not None and steps % every == 0):
            seconds = time.perf_counter() - began
            self._save_mid_epoch(MidEpochState(epoch, steps, seconds, meters.terms.state(), meters.accuracy.state()))
        if checkpoint_requested:
            self._context.exit_if_preempted()

    def _save_mid_epoch(self, mid_epoch: MidEpochState) -> None:
        """Save a checkpoint inside an epoch; its meters hold sums over all workers."""
        random = random_states(self._context.device)
        if self._context.rank == 0:
            state = self._state() | {"within": asdict(mid_epoch), "random": random}
            self._records.checkpoints.write(mid_epoch.epoch, state, keep_earlier=False, steps=mid_epoch.steps)

    def _continue_epoch(self, epoch: int, meters: Meters) -> tuple[int, float]:
        """Continue an unfinished epoch: restore the meters; return the steps that are done, and their seconds."""
        state = self._mid_epoch
        if state is None or state.epoch != epoch:
            return 0, 0.0
        self._mid_epoch = None
        if self._context.rank == 0:  # they are sums over all workers
            meters.terms.load(state.terms)
            meters.accuracy.load(state.accuracy)
        set_random_state(self._random_states, self._context.rank, self._context.device)
        return state.steps, state.seconds

    def _state(self) -> dict[str, Any]:
        average = self._engine.average
        return {
            "method": self._method.state_dict(),
            **({"average": average.group.state_dict()} if average is not None else {}),
            "optimisers": self._engine.optimisers.state(),
            "progress": self._progress.state(),
        }

    def _resume(self) -> tuple[Progress, bool]:
        """Load this trial's last checkpoint or the donor's; return its progress and whether it is the donor's."""
        state, donor = self._records.checkpoints.latest(), self._donor
        take_over = donor is not None and not (state and donor.taken_over(state["progress"]["lineage"]))
        if donor is not None and take_over:
            state = donor.records.checkpoints.after(donor.epoch)
            state["progress"]["lineage"] += [donor.note]
        teachers = zip(self._spec.prerequisites(), self._method.teachers, strict=False)
        self._method.load_teachers([self._teacher(spec, network) for spec, network in teachers])
        if state is None:
            return Progress(), False
        if not self._fits(state):
            raise (
                donor.records.checkpoints.mismatch_error(donor.epoch)
                if donor is not None and take_over
                else self._records.checkpoints.mismatch_error()
            )
        self._method.load_state_dict(state["method"])
        if self._engine.average is not None:
            self._engine.average.group.load_state_dict(state["average"])
        self._engine.optimisers.load(state["optimisers"])
        if "within" in state:
            self._mid_epoch, self._random_states = MidEpochState(**state["within"]), state["random"]
        return Progress(**state["progress"]), take_over

    def _fits(self, state: dict[str, Any]) -> bool:
        """Whether a checkpoint fits the group and its optimisers."""
        measured = [f"test/{name}/top1" for name in self._method.members]
        rows = state["progress"]["rows"]
        evaluated = [row for row in rows if self._spec.train.evaluates_after(int(row["epoch"]))]
        return (
            fits(self._method, state["method"])
            and (self._engine.average is None or fits(self._method, state.get("average", {})))
            and self._engine.optimisers.fits(state["optimisers"])
            and all(key in row for row in evaluated for key in measured)
        )

    def _teacher(self, spec: TrialSpec, network: nn.Module) -> dict[str, torch.Tensor]:
        """The final weights of a trial that this one learns from, read from the records beside its own."""
        teacher_records = TrialRecords(self._records.store.parent.child(spec.identity()))
        if not teacher_records.store.exists(MODEL_LAST):  # also where a scheduler has stopped it
            raise TrialError(
                f"this trial needs trial {spec.identity()} ({spec.backbone.name}), which has not completed"
            )
        return teacher_records.last_weights(network)

    @property
    def _deployed(self) -> tuple[str, nn.Module]:
        """Name and network of the member that is deployed, by the epochs so far.

        Of several students the best may be: one that becomes it has improved in that epoch, so that its weights are
        kept (`Progress.best_weights`).
        """
        method, best = self._engine.evaluated, self._progress.best
        if not self._spec.method.deploys_best or not best:
            return method.deployed
        name = max(method.common, key=lambda student: best[student]["selected_by"])
        return name, method.networks[name]

    def _finish(self, similarities: dict[str, float]) -> None:
        name, network = self._deployed
        last, best = self._progress.rows[-1], self._progress.best[name]
        card_of = partial(card, self._spec, self._method, self._dataset, name)
        last_card = card_of(int(last["epoch"]), last[f"test/{name}/top1"])
        self._records.store.write(MODEL_LAST, pack(_copy(network.state_dict()), last_card))
        self._records.store.write(
            MODEL_BEST, pack(self._progress.best_weights, card_of(int(best["epoch"]), best["top1"]))
        )
        self._records.finish(self._result() | ({"similarity": similarities} if similarities else {}))

    def _result(self) -> dict[str, Any]:
        return result(self._spec, self._dataset, self._engine, self._progress, self._deployed[0], self._selection)


def train(
    spec: TrialSpec,
    records: TrialRecords,
    context: Context,
    *,
    keep_checkpoints: bool = False,
    stoppable: bool = False,
    donor: Donor | None = None,
) -> None:
    """Train a trial to its end, or from its last checkpoint to its end. Its records hold everything that comes of it.

    Where it is `stoppable` they can make a result of any epoch (`TrialRecords.stop`). With a `donor` it goes on from
    that one's checkpoint, unless it has done so before.

    Raises:
        DataError: the images cannot be read.
        TrialError: it cannot be trained, or not in the GPU's memory.
    """
    try:
        Trainer(spec, records, context, donor).run(keep_checkpoints=keep_checkpoints, stoppable=stoppable)
    except torch.OutOfMemoryError as error:
        hint = "lower train.batch_size, or give a worker more of a GPU (scale.gpus_per_worker)"
        raise TrialError(f"{summary(error)} ({hint})") from error


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
