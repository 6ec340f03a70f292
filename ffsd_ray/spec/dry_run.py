"""What a job would do, and what it would cost, without doing it."""

import math
import time

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch.utils.flop_counter import FlopCounterMode

from ffsd_ray.backbones import backbone
from ffsd_ray.data import DataSettings
from ffsd_ray.spec.flops import flops_per_image
from ffsd_ray.spec.load import Plan, value_at, varying
from ffsd_ray.spec.problems import shown
from ffsd_ray.spec.trial import TrialSpec

_CALIBRATION_SECONDS = 1.0


def describe(plan: Plan) -> Group:
    """A row a trial (identity, what tells it apart, resources, length, cost), then totals; for a rich console.

    The cost is the floating point operations of training: those of one step of the whole group, forward and backward,
    counted by torch on its meta device, times images and epochs; evaluation comes on top. Where neither the number of
    images nor their size is known before they are read, it is unknown. Takes a second to time this machine.
    """
    shown_anyway = ("train.epochs", "scale.workers", "scale.cpus_per_worker", "scale.gpus_per_worker")
    keys = [key for key in varying(plan.trials) if key not in shown_anyway]
    table = Table(title=f"{plan.job.name}: {_count(len(plan.trials), 'trial')}")
    table.add_column("trial", no_wrap=True)
    for heading in (*_headings(keys), "workers"):
        table.add_column(heading, overflow="fold")
    for heading in ("epochs", "steps", "TFLOP"):
        table.add_column(heading, justify="right", no_wrap=True)
    costs = [training_flops(trial) for trial in plan.trials]
    for trial, cost in zip(plan.trials, costs, strict=True):
        values = [value_at(trial, key) for key in keys]
        cells = ["" if value is None else value if isinstance(value, str) else shown(value) for value in values]
        steps = _steps(trial)
        table.add_row(
            trial.identity(),
            *cells,
            _workers(trial),
            str(trial.train.epochs),
            "unknown" if steps is None else f"{steps * trial.train.epochs:,}",
            "unknown" if cost is None else f"{cost / 1e12:,.1f}",
        )
    return Group(table, Text("\n".join(_totals(plan, costs))))


def _headings(keys: list[str]) -> list[str]:
    """`method.name` as method, other keys without their section where that is enough."""
    ends = [key.rpartition(".")[2] for key in keys]
    short = [key.partition(".")[0] if end == "name" else end for key, end in zip(keys, ends, strict=True)]
    return [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]


def training_flops(trial: TrialSpec) -> float | None:
    """Floating point operations of a trial's training; None where the data settings alone do not say.

    Convolutions and matrix products, a multiplication and an addition each counted, as `FlopCounterMode` does.
    """
    steps, size, classes = _steps(trial), trial.data.known_size, trial.data.known_classes
    images = known_train_images(trial.data)
    if steps is None or size is None or classes is None or images is None:
        return None
    seen = min(images, steps * trial.train.batch_size)
    return flops_per_image(trial.method, trial.backbone.name, classes, size) * seen * trial.train.epochs


def known_train_images(data: DataSettings) -> int | None:
    """Number of training images, less those held out for validation, where it is known before any is read."""
    total = data.known_train_images
    return None if total is None else total - math.ceil(data.validation * total)


def _steps(trial: TrialSpec) -> int | None:
    """Steps an epoch."""
    images = known_train_images(trial.data)
    if images is None:
        return None
    whole = math.ceil(images / trial.train.batch_size)
    return min(whole, trial.train.steps_per_epoch or whole)


def _workers(trial: TrialSpec) -> str:
    scale = trial.scale
    gpus = f" + {_count(scale.gpus_per_worker, 'GPU')}" if scale.gpus_per_worker else ""
    return f"{scale.workers} × {_count(scale.cpus_per_worker, 'CPU')}{gpus}"


def _totals(plan: Plan, costs: list[float | None]) -> list[str]:
    known = [(trial, cost) for trial, cost in zip(plan.trials, costs, strict=True) if cost is not None]
    epochs = sum(trial.train.epochs for trial in plan.trials)
    lines = [f"Total: {_count(len(plan.trials), 'trial')}, {epochs:,} epochs."]
    if len(known) < len(costs):
        lines.append(
            f"Cost of {_count(len(costs) - len(known), 'trial')} unknown: the number, size or classes of the images "
            "are known only once they are read."
        )
    if not known:
        return lines
    total = sum(cost for _, cost in known)
    lines.append(f"Training: {total / 1e12:,.1f} TFLOP (forward and backward of every network; not evaluation).")
    on_cpu = [(trial, cost) for trial, cost in known if not trial.scale.gpus_per_worker]
    if on_cpu:
        rate = cpu_rate(on_cpu[0][0])
        hours = sum(cost for _, cost in on_cpu) / rate / 3600
        lines.append(
            f"On the CPU: about {hours:.2g} hours of one thread, at the {rate / 1e9:.3g} GFLOP/s this machine reaches "
            f"on one thread (a second of {on_cpu[0][0].backbone.name}, fp32)."
        )
    if len(on_cpu) < len(known):
        where = "not timed beforehand" if torch.cuda.is_available() else "no GPU here to measure on"
        lines.append(f"On GPUs: hours unknown, {where}.")
    return lines


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
        net(images).logits.sum().backward()  # the first pass also sets things up
        with FlopCounterMode(display=False) as counter:
            net(images).logits.sum().backward()
        passes, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < _CALIBRATION_SECONDS:
            net(images).logits.sum().backward()
            passes += 1
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops() * passes / elapsed


def _count(number: float, noun: str) -> str:
    return f"{number:,g} {noun}{'' if number == 1 or noun.isupper() else 's'}"
