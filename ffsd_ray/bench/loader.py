"""The decoding of a stream by itself: python -m ffsd_ray.bench.loader --data "{name: image_folder, ...}"."""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich.table import Table

from ffsd_ray import data
from ffsd_ray.base_settings import Settings
from ffsd_ray.command import command
from ffsd_ray.config.source.problems import Place, Problems
from ffsd_ray.config.source.wording import validate
from ffsd_ray.config.source.yaml_file import parse
from ffsd_ray.config.trial import DataSection
from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.terminal import Screen
from ffsd_ray.train.environment import processor


class _Section(Settings):
    data: DataSection


class Rate(NamedTuple):
    """By the clock, and by this process's CPU time: what decoding costs it, or what others' decoding leaves to do."""

    images_per_second: float
    images_per_cpu_second: float


def loader_rate(
    settings: StreamableSettings,
    processes: int,
    seconds: float,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Rate:
    """Training images that `processes` decode (0: this process does), over `seconds` or a little more.

    The clock starts with the first batch, so the start of the processes is not counted. Raises DataError.
    """
    dataset = data.load(settings.changed(stream=True, loader_processes=processes))
    batches = TrainBatches(
        dataset.train.to(device), dataset.mean, dataset.std, crop_padding=0, flip=True, batch_size=batch_size, seed=0
    )
    stream = (batch for epoch in itertools.count(1) for batch in batches.epoch(epoch))
    next(stream)
    images, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - began) < seconds:
        images += len(next(stream).labels)
    return Rate(images / elapsed, images / (time.process_time() - cpu_began))


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ffsd_ray.bench.loader", description="Time the decoding of a stream, without training."
    )
    parser.add_argument("--data", required=True, metavar="YAML", help="the data section of a job")
    parser.add_argument("--processes", action="extend", type=int, nargs="+", help="default: 0 1 2")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10, help="for each number of processes (default: 10)")
    arguments = parser.parse_args(argv)
    settings = stream_settings(arguments.data)
    table = Table(title=f"decoding {settings.name} to {settings.known_size}×{settings.known_size} for training")
    for heading in ("processes", "images/s", "a process", "images a CPU second of this process"):
        table.add_column(heading, justify="right")
    torch.set_num_threads(1)
    for processes in arguments.processes or (0, 1, 2):
        rate, per_cpu_second = loader_rate(settings, processes, arguments.seconds, batch_size=arguments.batch_size)
        name = str(processes) if processes else "0: this one"
        table.add_row(name, f"{rate:.0f}", f"{rate / max(processes, 1):.0f}", f"{per_cpu_second:.0f}")
    console = Screen()
    console.print(table)
    console.print(f"{processor()}, torch {torch.__version__}, batch {arguments.batch_size}")
    return 0


def stream_settings(text: str) -> StreamableSettings:
    """The data section of `--data`, which streams. Raises JobError."""
    problems = Problems()
    place = Place("--data")
    section = parse(f"data: {text}", lambda line, column: place, problems)
    valid = validate(_Section, section, problems) if section is not None else None
    if valid is not None and not (isinstance(valid.data, StreamableSettings) and valid.data.stream):
        problems.add(place, "data.stream", "Should be true, and the data image_folder or parquet: only those stream.")
    problems.check()
    assert valid is not None
    assert isinstance(valid.data, StreamableSettings)
    return valid.data


if __name__ == "__main__":
    sys.exit(main())
