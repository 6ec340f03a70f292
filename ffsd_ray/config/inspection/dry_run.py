"""The dry run: a job's trials and their cost, without training them."""

import math
import time
from collections.abc import Sequence

import torch
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ffsd_ray.backbones import backbone
from ffsd_ray.config.inspection.flops import FlopCounter, flops_per_image
from ffsd_ray.config.inspection.memory import estimate_memory
from ffsd_ray.config.labels import trial_labels
from ffsd_ray.config.load import Plan
from ffsd_ray.config.searchers import Asha, MedianStopping, Pbt
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import DataSettings
from ffsd_ray.data.subsets import held_out_of

_CALIBRATION_SECONDS = 0.3


def describe(plan: Plan) -> Group:
    """A row a trial (identity, name in tables, resources, length, cost), then totals; for a rich console.

    The cost is the floating point operations of training: those of one step of the whole group, forward and backward,
    counted by torch on its meta device, times images and epochs; evaluation comes on top. Where the number of images or
    their size is not known before they are read, or a method does not run there, it is unknown. This machine is timed
    for a moment. Trials that Optuna chooses have no rows; the keys that it chooses have one each.
    """
    if plan.template is not None:
        chosen = [_most_expensive(plan)] * _samples(plan)
        return Group(_choices(plan), Text("\n".join(_totals(plan, [*plan.trials, *chosen]))))
    names = trial_labels(plan.trials, plan.job.report.rows)
    table = Table(
        title=f"{plan.job.name}: {_count(len(plan.trials), 'trial')}",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    table.add_column("identity", no_wrap=True)
    table.add_column("trial", overflow="fold", ratio=1)
    table.add_column("workers", no_wrap=True)
    for heading in ("epochs", "steps", "TFLOP"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in plan.trials:
        steps, cost = _steps(trial), training_flops(trial)
        table.add_row(
            trial.identity(),
            Text(names[trial.identity()]),
            _workers(trial),
            str(trial.train.epochs),
            "unknown" if steps is None else f"{steps * trial.train.epochs:,}",
            "unknown" if cost is None else f"{cost / 1e12:,.1f}",
        )
    return Group(table, Text("\n".join(_totals(plan, plan.trials))))


def _choices(plan: Plan) -> Table:
    """A row for each key that Optuna chooses."""
    table = Table(title=f"{plan.job.name}: {_count(_samples(plan), 'trial')}, chosen by Optuna while others run")
    table.add_column("key", no_wrap=True)
    table.add_column("chosen from", overflow="fold")
    for key, distribution in plan.job.search.random.items():
        table.add_row(key, str(distribution))
    return table


def _samples(plan: Plan) -> int:
    return plan.job.search.samples or 0


def _most_expensive(plan: Plan) -> TrialSpec:
    """The most expensive extreme of Optuna's search space, by operations, then by epochs."""
    return max(plan.extremes, key=lambda trial: (training_flops(trial) or 0, trial.train.epochs))


def training_flops(trial: TrialSpec) -> float | None:
    """Floating point operations of a trial's training; None where settings alone do not say, see `flops_per_image`.

    Convolutions and matrix products, a multiplication and an addition each counted, as `FlopCounterMode` does.
    """
    steps, size, classes = _steps(trial), trial.data.known_size, trial.data.known_classes
    images = known_train_images(trial.data)
    if steps is None or size is None or classes is None or images is None:
        return None
    images_per_epoch = min(images, steps * trial.train.batch_size)
    per_image = flops_per_image(trial.method, trial.backbone.name, classes, size)
    return None if per_image is None else per_image * images_per_epoch * trial.train.epochs


def known_train_images(data: DataSettings) -> int | None:
    """Number of training images, less those held out for validation, where it is known before any is read."""
    total = data.known_train_images
    return None if total is None else total - held_out_of(total, data.validation)


def _steps(trial: TrialSpec) -> int | None:
    """Steps an epoch."""
    images = known_train_images(trial.data)
    if images is None:
        return None
    all_steps = math.ceil(images / trial.train.batch_size)
    return min(all_steps, trial.train.steps_per_epoch or all_steps)


def _workers(trial: TrialSpec) -> str:
    scale = trial.scale
    parts = [_count(scale.cpus, "CPU")]
    if scale.gpus_per_worker == "auto":
        parts.append("GPU share as measured")
    elif scale.uses_gpu:
        parts.append(_count(scale.gpu_share, "GPU"))
    if scale.memory_per_worker_gib:
        parts.append(f"{scale.memory_per_worker_gib:g} GiB")
    workers = f"{scale.fewest_workers} to {scale.most_workers}" if scale.elastic else f"{scale.most_workers}"
    return f"{workers} × {' + '.join(parts)}"


def _scheduled(plan: Plan, trials: Sequence[TrialSpec]) -> list[str]:
    """One line on what the scheduler does; none where it lets all trials run."""
    scheduler = plan.job.search.scheduler
    if isinstance(scheduler, Asha | MedianStopping):
        least = sum(
            trial.train.epochs if trial.identity() in plan.needed else min(scheduler.grace_epochs, trial.train.epochs)
            for trial in trials
        )
        return [f"Scheduler: {scheduler.name} ({scheduler}) may stop trials; at least {least:,} epochs."]
    if isinstance(scheduler, Pbt):
        keys = ", ".join(scheduler.mutate)
        return [f"Scheduler: pbt ({scheduler}) changes {keys} every {_count(scheduler.every_epochs, 'epoch')}."]
    return []


def _totals(plan: Plan, trials: Sequence[TrialSpec]) -> list[str]:
    """Totals over all trials: upper bounds where a scheduler may stop some or Optuna chooses them."""
    stops = isinstance(plan.job.search.scheduler, Asha | MedianStopping)
    at_most = "at most " if stops or plan.template is not None else ""
    costs = [(trial, training_flops(trial)) for trial in trials]
    known_costs = [(trial, cost) for trial, cost in costs if cost is not None]
    epochs = sum(trial.train.epochs for trial in trials)
    lines = [f"Total: {_count(len(trials), 'trial')}, {at_most}{epochs:,} epochs.", *_scheduled(plan, trials)]
    if plan.needed:
        lines.append(f"Of these, {_count(len(plan.needed), 'trial')} first and to the end: the others learn from them.")
    lines += [f"Note: {text}." for text in _unfinished_schedules(plan)]
    if needs := [worker for trial in set(trials) if (worker := estimate_memory(trial)) is not None]:
        lines.append(f"Memory of a worker: about {max(needs, key=lambda worker: worker.total)} or more.")
    if len(known_costs) < len(costs):
        lines.append(
            f"Cost of {_count(len(costs) - len(known_costs), 'trial')} unknown: the number, size or classes of the "
            "images are known only once they are read, or the method looks at values, of which there are none yet."
        )
    if not known_costs:
        return lines
    total = sum(cost for _, cost in known_costs)
    flops = f"{at_most}{total / 1e12:,.1f} TFLOP"
    lines.append(f"Training: {flops} (forward and backward of every network; not evaluation).")
    on_cpu = [(trial, cost) for trial, cost in known_costs if not trial.scale.uses_gpu]
    if on_cpu:
        rate = cpu_rate(on_cpu[0][0])
        hours = sum(cost for _, cost in on_cpu) / rate / 3600
        lines.append(
            f"On the CPU: {at_most}about {hours:.2g} hours of one thread, at the {rate / 1e9:.3g} GFLOP/s this machine "
            f"reaches on one thread with {on_cpu[0][0].backbone.name} in fp32."
        )
    if len(on_cpu) < len(known_costs):
        where = "not timed beforehand" if torch.cuda.is_available() else "no GPU here to measure on"
        lines.append(f"On GPUs: hours unknown, {where}.")
    return lines


def _unfinished_schedules(plan: Plan) -> list[str]:
    """Each once: what of a method's schedule does not end in time."""
    return list(dict.fromkeys(text for trial in plan.specs for text in trial.schedule_warnings()))


def cpu_rate(trial: TrialSpec) -> float:
    """FLOP/s that one thread of this machine reaches in forward and backward of a trial's backbone."""
    size, classes = trial.data.known_size, trial.data.known_classes
    assert size is not None
    assert classes is not None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net = backbone(trial.backbone.name)(classes).to(memory_format=torch.channels_last)
        images = torch.randn(min(trial.train.batch_size, 32), 3, size, size).to(memory_format=torch.channels_last)
        counter = FlopCounter()
        with counter:  # the first pass, which also sets things up
            net(images).logits.sum().backward()
        passes, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < _CALIBRATION_SECONDS:
            net(images).logits.sum().backward()
            passes += 1
    finally:
        torch.set_num_threads(threads)
    return counter.total * passes / elapsed


def _count(number: float, noun: str) -> str:
    return f"{number:,g} {noun}{'' if number == 1 or noun.isupper() else 's'}"
