"""`python -m ffsd_ray.bench.driver`: what the process that drives a job takes for 100, 300 or 1,000 trials."""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table

from ffsd_ray.bench.measure.process import Ended, Sample, observe, timed
from ffsd_ray.bench.record import Record, command_line, default_path
from ffsd_ray.command import command
from ffsd_ray.errors import UserError
from ffsd_ray.terminal import Screen

#: Seeds of a configuration.
_SEEDS = 10
#: Trials that end before a run is interrupted of which only the beginning is measured.
_ENDED = 20
#: A line of a run's progress: how many trials have ended, and what this one does.
_PROGRESS = re.compile(r"[\d:]{8} \[(\d+)/\d+\] .*: (starts|completed|failed)\b")


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.bench.driver", description=__doc__)
    parser.add_argument("--trials", type=_sizes, default=[], metavar="N,N", help="jobs of so many, to their end")
    parser.add_argument("--planned", type=_sizes, default=[], metavar="N,N", help="jobs of which the first few run")
    parser.add_argument("--out", type=Path, help="the record (default: bench-DATE-TIME.json), which is gone on with")
    arguments = parser.parse_args(argv)
    started_by = command_line("ffsd_ray.bench.driver", argv)
    record = Record(arguments.out or default_path(), "driver", started_by, torch.device("cpu"))
    points = {f"trained {trials}": partial(trained, trials, arguments.trials) for trials in arguments.trials}
    points |= {f"planned {trials}": partial(planned, trials) for trials in arguments.planned}
    for name, measure in points.items():
        if name not in record.points:
            with tempfile.TemporaryDirectory() as folder:
                # The load of the last five minutes, most of which the measurement took.
                record.add(name, measure(Path(folder)) | {"load": round(os.getloadavg()[1], 1)})
    Screen().print(table(record.points))
    print(f"Record: {record.path}")
    return 0


def _sizes(text: str) -> list[int]:
    """Numbers of trials, in tens."""
    sizes = [int(size) for size in text.split(",")]
    if not all(size > _ENDED and size % _SEEDS == 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected multiples of {_SEEDS} above {_ENDED}, as 100,300,1000")
    return sizes


def table(points: Mapping[str, Any]) -> Table:
    """A row for each job."""
    shown = Table(title="the driver", title_justify="left")
    shown.add_column("")
    for heading in ("s until the first trial", "CPU s until it", "CPU ms a trial", "s a trial", "peak MiB"):
        shown.add_column(heading, justify="right")
    for name, figures in points.items():
        first, last = figures["first_trial"], list(figures["ended"].values())[-1]
        shown.add_row(
            name,
            f"{first['seconds']:.1f}",
            f"{first['cpu_seconds']:.1f}",
            f"{1e3 * figures['cpu_seconds_a_trial']:.0f}",
            f"{figures['seconds_a_trial']:.2f}",
            f"{last['peak_mib']:.0f}",
        )
    return shown


def job(trials: int) -> str:
    """A job of so many trials of two steps, ten seeds a configuration; a process trains one after the other."""
    return yaml.safe_dump(
        {
            "name": "driver",
            "data": {"name": "digits", "image_size": 8, "test_per_class": 2},
            "backbone": "resnet8",
            "method": "baseline",
            "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8},
            "scale": {"launcher": "trial", "cpus_per_worker": 1, "gpus_per_worker": 0},
            "seed": list(range(_SEEDS)),
            "search": {"grid": {"train.lr": [round(1e-4 * (1 + index), 4) for index in range(trials // _SEEDS)]}},
        }
    )


def trained(trials: int, marks: Sequence[int], folder: Path) -> dict[str, Any]:
    """Train a job of so many trials to its end, and report it; what its driver had taken when so many had ended."""
    first, samples, ended = _run(trials, folder, marks, trials)
    records = [file for file in (folder / "driver").rglob("*") if file.is_file()]
    page = folder / "page.html"
    last = samples[trials]
    return {
        "trials": trials,
        "seconds": round(ended.seconds, 1),
        "first_trial": first.figures(),
        "ended": {str(count): sample.figures() for count, sample in samples.items()},
        "cpu_seconds_a_trial": round((last.cpu_seconds - first.cpu_seconds) / trials, 4),
        "seconds_a_trial": round((last.seconds - first.seconds) / trials, 4),
        "records": {"files": len(records), "bytes": sum(file.stat().st_size for file in records)},
        "report": timed("ffsd_ray.report", str(folder / "driver")),
        "page": timed("ffsd_ray.report", str(folder / "driver"), "--html", str(page)) | {"bytes": page.stat().st_size},
    }


def planned(trials: int, folder: Path) -> dict[str, Any]:
    """Plan a job of so many trials, and run it until a few have ended."""
    file = _job_file(trials, folder)
    dry_run = timed("ffsd_ray.run", str(file), "--dry-run")
    first, samples, _ = _run(trials, folder, [], _ENDED)
    last = samples[_ENDED]
    return {
        "trials": trials,
        "dry_run": dry_run,
        "first_trial": first.figures(),
        "ended": {str(_ENDED): last.figures()},
        "cpu_seconds_a_trial": round((last.cpu_seconds - first.cpu_seconds) / _ENDED, 4),
        "seconds_a_trial": round((last.seconds - first.seconds) / _ENDED, 4),
    }


def _run(trials: int, folder: Path, marks: Sequence[int], until: int) -> tuple[Sample, dict[int, Sample], Ended]:
    """The driver when the first trial starts, and when as many as each of the marks, and `until`, have ended."""
    starts: list[Sample] = []
    samples: dict[int, Sample] = {}

    def told(line: str, sample: Sample) -> bool:
        if (match := _PROGRESS.match(line)) is None:
            return True
        count = int(match[1])
        if match[2] == "failed":
            return False
        if match[2] == "starts":
            starts.append(sample)
        elif count in (*marks, until):
            samples[count] = sample
        return count < until or until == trials

    ended = observe(
        [sys.executable, "-m", "ffsd_ray.run", str(_job_file(trials, folder)), "--storage", str(folder)], told
    )
    if until not in samples:
        raise UserError(f"the run of {trials} trials ended with status {ended.status}:\n{ended.output[-2000:]}")
    return starts[0], samples, ended


def _job_file(trials: int, folder: Path) -> Path:
    file = folder / "driver.yaml"
    file.write_text(job(trials))
    return file


if __name__ == "__main__":
    sys.exit(main())
