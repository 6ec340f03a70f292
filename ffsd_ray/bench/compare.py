"""Settings of a trial measured against each other, and against the literal Algorithm 1."""

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ffsd_ray.bench.loader import loader_rate
from ffsd_ray.bench.measure import memory
from ffsd_ray.bench.measure.kernels import kernels
from ffsd_ray.bench.measure.roofline import bytes_per_image, probes
from ffsd_ray.bench.measure.timing import Timing, time_interleaved
from ffsd_ray.bench.measure.workload import Workload
from ffsd_ray.bench.reference.plain_ffsd import Reference, reference_spec
from ffsd_ray.config.inspection.flops import flops_per_image
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.errors import TrialError
from ffsd_ray.train.cuda_graph import WARM_UP

#: What is known of one setting; seconds, bytes and FLOP.
Figures = dict[str, Any]

_EPOCHS = 3
_LOADER_SECONDS = 3.0

#: A step that waits for less than this share of the epoch does not wait: timings differ by as much.
_WAITING = 0.05


@dataclass(frozen=True)
class TimingBudget:
    """How much is measured of each setting."""

    repeats: int = 10
    #: For epochs, and for evaluations: as many of their steps as are done in this time; 0: neither is timed.
    seconds: float = 15.0
    #: On the CPU a new process is started for it; on a GPU it costs nothing and is measured anyway.
    memory: bool = True
    #: On the CPU alone: beside an H200 a point with it had not ended after 105 s.
    reference_epoch: bool = True


@dataclass
class _Subject:
    label: str
    spec: TrialSpec
    dataset: Dataset
    reference: str | None
    """The label of what it is measured against; None for a reference and where there is none."""
    literal: bool = False
    peak: int | None = None
    error: str | None = None
    #: Operations of a step, for each of its images.
    flops: float = 0.0

    def build(self, device: torch.device, *, measure: bool) -> Workload | Reference | None:
        """Ready to be timed, one step done at least. What fails leaves its error."""
        try:
            dataset = self.dataset
            flops = flops_per_image(self.spec.method, self.spec.backbone.name, dataset.num_classes, dataset.image_size)
            if flops is None:
                raise TrialError("this method looks at values, so that its operations cannot be counted beforehand")
            self.flops = flops
            if measure and device.type == "cpu":
                self.peak = memory.on_cpu(self.spec, dataset.num_classes, dataset.image_size, literal=self.literal)
            self.dataset = self.dataset.to(device)  # before, since images are no part of a step's memory
            if device.type == "cuda":
                work, self.peak = memory.on_gpu(partial(self._warmed_up, device, WARM_UP + 2), device)
                return work
            return self._warmed_up(device, 1)
        except (RuntimeError, TrialError) as error:
            self.error = f"{type(error).__name__}: {error}"
            return None

    def _warmed_up(self, device: torch.device, steps: int) -> Workload | Reference:
        work = (Reference if self.literal else Workload)(self.spec, self.dataset, device)
        for _ in range(steps):
            work.step()
        return work


def compare(
    settings: Mapping[str, TrialSpec],
    dataset_of: Callable[[TrialSpec], Dataset],
    device: torch.device,
    effort: TimingBudget,
) -> Figures:
    """`settings`: figures of every setting and reference by its label, and the device's `ceiling` of the same minute.

    Everything is timed in turns in this process. A setting that fails has an `error` in place of figures, and so
    has the whole, beside the figures of the others.
    """
    gc.collect()
    if any(spec.train.execution == "compiled" for spec in settings.values()):
        torch.compiler.reset()  # or what was compiled before counts against the limit of what is kept
    subjects = _subjects(settings, dataset_of)
    workloads = {subject.label: subject.build(device, measure=effort.memory) for subject in subjects}
    working = {label: work for label, work in workloads.items() if work is not None}
    probed = probes(device, dict.fromkeys(subject.spec.train.precision for subject in subjects))
    runs: dict[str, Callable[[], object]] = {label: work.step for label, work in working.items()}
    runs |= {f"ceiling {name}": probe.run for name, probe in probed.items()}
    steps = time_interleaved(runs, warm_up=1, repeats=effort.repeats, device=device)
    ceiling = {name: probe.amount / steps[f"ceiling {name}"].median for name, probe in probed.items()}
    epochs = _time_epochs(working, steps, effort, device)
    by_label: dict[str, Figures] = {}
    for subject in subjects:
        label, work = subject.label, workloads[subject.label]
        by_label[label] = {"spec": subject.spec.model_dump(), "literal": subject.literal}
        if work is None:
            by_label[label]["error"] = subject.error
            continue
        figures = by_label[label] | _step_figures(subject, steps[label], ceiling, device)
        figures |= {"peak_bytes": subject.peak, **epochs.get(label, {})}
        if isinstance(work, Workload):
            figures |= {"captured": work.captured, "networks": work.networks, "parameters": work.parameters}
            figures |= _evaluation(work, effort, device)
            figures |= _relative_to_reference(figures, by_label.get(subject.reference or "", {}))
            figures |= _loader_figures(subject, figures, device)
        by_label[label] = figures
    for label, work in working.items():  # last: what a profiler leaves behind may slow down what follows
        by_label[label]["kernels"] = kernels(work.step, device)
    _add_ratios_to_baseline(subjects, by_label)
    failed = {label: figures["error"] for label, figures in by_label.items() if "error" in figures}
    return {"settings": by_label, "ceiling": ceiling} | ({"error": "; ".join(failed.values())} if failed else {})


def _subjects(settings: Mapping[str, TrialSpec], dataset_of: Callable[[TrialSpec], Dataset]) -> list[_Subject]:
    """The settings, each behind the reference it is the first to need."""
    subjects: list[_Subject] = []
    names: dict[str, str] = {}
    for label, spec in settings.items():
        literal, dataset = reference_spec(spec), dataset_of(spec)
        if literal is not None and literal.identity() not in names:
            names[literal.identity()] = name = f"literal Algorithm 1{f' for {label}' if names else ''}"
            subjects.append(_Subject(name, literal, dataset, None, literal=True))
        subjects.append(_Subject(label, spec, dataset, names[literal.identity()] if literal is not None else None))
    return subjects


def _time_epochs(
    works: Mapping[str, Workload | Reference], steps: Mapping[str, Timing], effort: TimingBudget, device: torch.device
) -> dict[str, Figures]:
    """`epoch` by label; the first epoch of a stream, which starts its processes, does not count."""
    if not effort.seconds:
        return {}
    works = {
        label: work
        for label, work in works.items()
        if isinstance(work, Workload) or (effort.reference_epoch and work.has_epoch and device.type == "cpu")
    }
    number = {
        label: min(work.steps, max(2, round(effort.seconds / _EPOCHS / steps[label].median)))
        for label, work in works.items()
    }
    for work in works.values():
        work.epoch(1)
    runs = {(label, count): partial(work.epoch, count) for label, work in works.items() for count in (1, number[label])}
    timed = time_interleaved(runs, warm_up=0, repeats=_EPOCHS, device=device)
    return {
        label: {
            "epoch": {
                **_extrapolated_epoch(
                    timed[label, 1], timed[label, number[label]], number[label], work.steps
                ).figures(),
                "steps": work.steps,
                "steps_timed": number[label],
            }
        }
        for label, work in works.items()
    }


def _extrapolated_epoch(first: Timing, part: Timing, timed: int, steps: int) -> Timing:
    """An epoch of `steps` from one of `timed` steps and one of a single step, which holds what each begins with."""
    factor = (steps - 1) / (timed - 1) if timed < steps else 1.0
    low, middle, high = (
        first.median + factor * (seconds - first.median) for seconds in (part.low, part.median, part.high)
    )
    return Timing(middle, low, high, part.repeats)


def _evaluation(work: Workload, effort: TimingBudget, device: torch.device) -> Figures:
    if not effort.seconds:
        return {}
    began = time.perf_counter()
    work.evaluate(min(work.evaluations, WARM_UP + 2 if device.type == "cuda" else 1))
    number = max(1, min(work.evaluations, round(effort.seconds / _EPOCHS / (time.perf_counter() - began))))
    timed = time_interleaved({"": partial(work.evaluate, number)}, warm_up=0, repeats=_EPOCHS, device=device)[""]
    scaled = timed.figures(scale=work.evaluations / number)
    return {"evaluation": {**scaled, "batches": work.evaluations, "batches_timed": number}}


def _step_figures(subject: _Subject, timing: Timing, ceiling: Mapping[str, float], device: torch.device) -> Figures:
    spec, dataset = subject.spec, subject.dataset
    classes, size, batch = dataset.num_classes, dataset.image_size, spec.train.batch_size
    images = min(batch, len(dataset.train))
    flops = images * subject.flops
    least = images * bytes_per_image(spec, classes, size, device)
    compute, copying = flops / ceiling[spec.train.precision], least / ceiling["copy"]
    return {
        "step": timing.figures(),
        "images_per_second": images / timing.median,
        "flops": flops,
        "flops_per_second": flops / timing.median,
        "share_of_ceiling": compute / timing.median,
        "floor": {"compute": compute, "memory": copying},
        "share_of_memory_floor": copying / timing.median,
    }


def _relative_to_reference(figures: Figures, literal: Figures) -> Figures:
    """How many times the reference's speed, and what share of its memory."""
    if "step" not in literal:
        return {}
    ratios: Figures = {"times_literal": literal["step"]["median"] / figures["step"]["median"]}
    if "epoch" in literal and "epoch" in figures:
        ratios["times_literal_epoch"] = literal["epoch"]["median"] / figures["epoch"]["median"]
    if literal["peak_bytes"] and figures["peak_bytes"]:
        ratios["memory_of_literal"] = figures["peak_bytes"] / literal["peak_bytes"]
    return ratios


def _add_ratios_to_baseline(subjects: Iterable[_Subject], by_label: Mapping[str, Figures]) -> None:
    """Add how long a step takes relative to the baseline's, and to that of as many baselines as there are networks."""
    timed = {subject.spec.identity(): by_label[subject.label] for subject in subjects if not subject.literal}
    for subject in subjects:
        figures, baseline = by_label[subject.label], timed.get(subject.spec.baseline().identity(), {})
        if "step" in figures and "step" in baseline and not subject.literal:
            times = figures["step"]["median"] / baseline["step"]["median"]
            figures |= {"times_baseline": times, "times_members": times / figures["networks"]}


def _loader_figures(subject: _Subject, figures: Figures, device: torch.device) -> Figures:
    """`loader` of a stream: its rate alone, and the share of an epoch beyond what the steps alone would take."""
    data = subject.spec.data
    if not (isinstance(data, StreamableSettings) and data.stream) or "epoch" not in figures:
        return {}
    batch = subject.spec.train.batch_size
    rate = loader_rate(data, data.loader_processes, _LOADER_SECONDS, batch_size=batch, device=device)
    epoch = figures["epoch"]
    share = max(0.0, 1 - epoch["steps"] * figures["step"]["median"] / epoch["median"])
    return {
        "loader": {
            "processes": data.loader_processes,
            "images_per_second": rate.images_per_second,
            "share_waiting": share,
            "waits": share > _WAITING,
        }
    }


def best(figures: Iterable[Figures], **wanted: object) -> Figures | None:
    """The fastest setting whose `train` section has the values `wanted`; None where none was measured."""
    fitting = [
        setting
        for setting in figures
        if "step" in setting and not setting["literal"] and wanted.items() <= setting["spec"]["train"].items()
    ]
    return min(fitting, key=lambda setting: setting["step"]["median"], default=None)
