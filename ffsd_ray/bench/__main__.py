"""`python -m ffsd_ray.bench [JOB]`: time the step and the epoch of a job's trial, or of FFSD beside its reference."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ffsd_ray import data
from ffsd_ray.bench.compare import TimingBudget, compare
from ffsd_ray.bench.loader import stream_settings
from ffsd_ray.bench.record import Record, command_line, default_path
from ffsd_ray.bench.run_suite import run_suite
from ffsd_ray.bench.suites import SUMMARIES, Scope, cpu_points, gpu_points
from ffsd_ray.bench.summary import slower_than, summary_table
from ffsd_ray.bench.tables import baseline_table, epoch_table, merge_settings, other_table, remarks, step_table
from ffsd_ray.bench.variations import configurations, variations
from ffsd_ray.command import command
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, DataSettings
from ffsd_ray.errors import JobError
from ffsd_ray.terminal import Screen

#: Seconds that the GPU's suite takes, and that one of its points may take: compiling takes most of it.
_GPU_BUDGET, _GPU_LIMIT = 500.0, 200.0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all is well, 1 a setting failed or is slower than --require, 2 a wrong job file or argument."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    started_by = command_line("ffsd_ray.bench", argv)
    console = Screen(width=None if Screen().is_terminal else 120)
    if arguments.all and (arguments.vary or arguments.trial):
        parser.error("--all is of every trial as it is; --vary and --trial do not go with it")
    if arguments.job is not None:
        return _job(arguments, started_by, console)
    return _suite(arguments, started_by, console)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffsd bench",
        description="Time the training step and the epoch of a job's trial; without a job, measure FFSD beside "
        "Algorithm 1 taken literally.",
    )
    parser.add_argument("job", nargs="?", type=Path, help="a job file (YAML)")
    parser.add_argument("--out", type=Path, help="the record (default: bench-DATE-TIME.json); a suite goes on with it")
    of_job = parser.add_argument_group("with a job")
    of_job.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; repeatable")
    of_job.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=V,V,...",
        help="values to compare, e.g. train.precision=fp32,bf16; repeatable: every combination",
    )
    of_job.add_argument("--trial", metavar="IDENTITY", help="which trial (default: the first); see run --dry-run")
    of_job.add_argument("--all", action="store_true", help="every configuration of the job, one against the other")
    of_job.add_argument("--repeats", type=int, default=10, help="steps timed of each setting (default: 10)")
    of_job.add_argument(
        "--seconds", type=float, default=15.0, help="for the epochs of each setting, likewise evaluations; 0: neither"
    )
    of_suite = parser.add_argument_group("without a job")
    of_suite.add_argument("--suite", choices=list(SUMMARIES), help="default: the one for the device")
    of_suite.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU where there is one")
    of_suite.add_argument("--quick", action="store_true", help="without compiled settings, which take minutes")
    of_suite.add_argument("--smoke", action="store_true", help="few tiny images: shows that it runs, measures nothing")
    of_suite.add_argument("--data", metavar="YAML", help="a job's data section that streams, for the GPU's suite")
    of_suite.add_argument(
        "--budget", type=float, metavar="SECONDS", help=f"begin no point after it (default: GPU {_GPU_BUDGET:.0f})"
    )
    of_suite.add_argument(
        "--require",
        type=float,
        metavar="RATIO",
        help="exit with 1 where FFSD is not so many times the reference's speed",
    )
    return parser


def _job(arguments: argparse.Namespace, started_by: str, console: Console) -> int:
    if arguments.all:
        settings = configurations(arguments.job, arguments.set)
    else:
        settings = variations(arguments.job, arguments.set, arguments.vary, arguments.trial)
    device = _device_of(list(settings.values()))
    record = Record(arguments.out or default_path(), "job", started_by, device)

    @cache
    def read(settings: DataSettings) -> Dataset:
        return data.load(settings, progress=True)

    effort = TimingBudget(repeats=arguments.repeats, seconds=arguments.seconds)
    figures = compare(settings, lambda spec: read(spec.data), device, effort)
    record.add(started_by, figures)
    _show(arguments.job.stem, figures, console)
    _sign(record, console)
    return 1 if "error" in figures else 0


def _device_of(specs: Sequence[TrialSpec]) -> torch.device:
    """Raises JobError."""
    if any(spec.scale.most_workers > 1 for spec in specs):
        raise JobError("scale.workers: one worker is timed; add --set scale.workers=1")
    kinds = {"cuda" if spec.scale.uses_gpu else "cpu" for spec in specs}
    if len(kinds) > 1:
        raise JobError("scale.gpus_per_worker: settings are compared on one device; do not vary it between 0 and more")
    device = torch.device(kinds.pop())
    if device.type == "cuda" and not torch.cuda.is_available():
        raise JobError("scale.gpus_per_worker: there is no GPU here; add --set scale.gpus_per_worker=0 for the CPU")
    return device


def _suite(arguments: argparse.Namespace, started_by: str, console: Console) -> int:
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    suite = arguments.suite or ("gpu" if device.type == "cuda" else "cpu")
    scope = Scope(device, arguments.smoke)
    torch.set_num_threads(scope.spec().scale.worker_threads)
    if suite == "gpu":
        stream = stream_settings(arguments.data) if arguments.data else None
        points = gpu_points(scope, compiled=not arguments.quick, stream=stream)
        budget, limit = arguments.budget or _GPU_BUDGET, _GPU_LIMIT
    else:
        points = cpu_points(scope, compiled=not arguments.quick)
        budget, limit = arguments.budget, None
    record = Record(
        arguments.out or default_path(), f"{suite} suite{', smoke' if scope.smoke else ''}", started_by, device
    )
    unmeasured = run_suite(
        points,
        record,
        budget=budget,
        limit=limit,
        say=lambda name, outcome: console.print(f"{name}: {outcome}", markup=False, highlight=False),
    )
    _show(f"{suite} suite", merge_settings(record.points), console)
    for name, figures in record.points.items():
        if "settings" in figures:
            _remark(name, figures, console)
        elif "error" not in figures:
            _show(name, figures, console)
    summary = SUMMARIES[suite](record.points)
    record.content |= {"summary": [entry._asdict() for entry in summary], "unmeasured": unmeasured}
    record.write()
    if unmeasured:
        console.print(f"Not measured: {', '.join(unmeasured)}. The same command with this --out goes on.")
    console.print(summary_table(summary))
    slow = slower_than(arguments.require, summary) if arguments.require is not None else []
    for name in slow:
        console.print(f"Below --require {arguments.require:g}: {name}", markup=False, highlight=False)
    _sign(record, console)
    return int(bool(slow or unmeasured or any("error" in figures for figures in record.points.values())))


def _show(title: str, figures: Mapping[str, Any], console: Console) -> None:
    if "settings" in figures:
        console.print(step_table(title, figures))
        if any("times_baseline" in setting for setting in figures["settings"].values()):
            console.print(baseline_table(title, figures))
        if any("epoch" in setting for setting in figures["settings"].values()):
            console.print(epoch_table(title, figures))
    else:
        console.print(other_table(title, figures))
    _remark(title, figures, console)


def _remark(title: str, figures: Mapping[str, Any], console: Console) -> None:
    for line in remarks(figures):
        console.print(f"{title}: {line}", markup=False, highlight=False)


def _sign(record: Record, console: Console) -> None:
    device, versions = record.content["device"], record.content["versions"]
    line = f"{device['name']}, {device['threads']} threads, torch {versions['torch']}"
    console.print(f"{line}; {record.content['date']}", markup=False, highlight=False)
    console.print(f"Record: {record.path}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
