"""`python -m ffsd_ray.bench.launch`: what a run takes besides training, by how its trials are launched."""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table

from ffsd_ray.bench.measure.process import timed
from ffsd_ray.bench.record import Record, command_line, default_path
from ffsd_ray.command import command
from ffsd_ray.terminal import Screen

#: Settings of a job by the launcher that they choose.
LAUNCHERS: dict[str, dict[str, Any]] = {
    "local": {"context": "local"},
    "trial": {"context": "ray", "scale": {"launcher": "trial"}},
    "trainer": {"context": "ray", "scale": {"launcher": "trainer"}},
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.bench.launch", description=__doc__)
    parser.add_argument("--trials", type=_numbers, default=[1, 8, 24], metavar="N,N", help="jobs of so many trials")
    parser.add_argument("--out", type=Path, help="the record (default: bench-DATE-TIME.json), which is gone on with")
    arguments = parser.parse_args(argv)
    started_by = command_line("ffsd_ray.bench.launch", argv)
    record = Record(arguments.out or default_path(), "launch", started_by, torch.device("cpu"))
    for trials in arguments.trials:
        for launcher in LAUNCHERS:
            if (name := f"{launcher} {trials}") not in record.points:
                load = round(os.getloadavg()[0], 1)
                with tempfile.TemporaryDirectory() as folder:
                    record.add(name, {"trials": trials, "load": load, **launched(launcher, trials, Path(folder))})
    Screen().print(table(record.points))
    print(f"Record: {record.path}")
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def job(launcher: str, trials: int) -> dict[str, Any]:
    """A job of so many trials of two steps on digits, as many at once as there are cores."""
    return {
        "name": "launch",
        "data": {"name": "digits", "image_size": 8, "test_per_class": 2},
        "backbone": "resnet20",
        "method": "baseline",
        "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8},
        "seed": list(range(trials)),
        **LAUNCHERS[launcher],
    }


def launched(launcher: str, trials: int, folder: Path) -> dict[str, float]:
    """Seconds of a whole run, Ray's start and end among them; CPU seconds and memory of the process that drives it."""
    file = folder / "launch.yaml"
    file.write_text(yaml.safe_dump(job(launcher, trials)))
    return timed("ffsd_ray.run", str(file), "--storage", str(folder))


def rows(points: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A heading, and a row for each launcher: seconds by the number of trials, of those that all launchers have run.

    A further trial: by the smallest and the largest job.
    """
    measured = {launcher: _seconds(points, launcher) for launcher in LAUNCHERS}
    numbers = sorted(set.intersection(*map(set, measured.values())))
    lines = []
    for launcher, seconds in measured.items():
        further = ""
        if len(numbers) > 1:
            fewest, most = numbers[0], numbers[-1]
            further = f"{(seconds[most] - seconds[fewest]) / (most - fewest):.2f}"
        lines.append([launcher, *(f"{seconds[number]:.1f}" for number in numbers), further])
    return ["", *map(str, numbers), "a further trial"], lines


def _seconds(points: Mapping[str, Any], launcher: str) -> dict[int, float]:
    """A launcher's seconds by the number of trials."""
    return {point["trials"]: point["seconds"] for name, point in points.items() if name.split()[0] == launcher}


def table(points: Mapping[str, Any]) -> Table:
    heading, lines = rows(points)
    overview = Table(title="seconds of a run by its trials", title_justify="left")
    for name in heading:
        overview.add_column(name, justify="right")
    for line in lines:
        overview.add_row(*line)
    return overview


if __name__ == "__main__":
    sys.exit(main())
