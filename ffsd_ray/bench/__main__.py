"""`python -m ffsd_ray.bench`: the training step of FFSD, fused and literal, in one process."""

import argparse
import platform
import sys
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table

from ffsd_ray.backbones import BACKBONES, map_shapes
from ffsd_ray.bench.literal import LiteralAlgorithm1
from ffsd_ray.bench.timing import time_interleaved
from ffsd_ray.command import command
from ffsd_ray.data.batches import Batch
from ffsd_ray.methods import Blueprint
from ffsd_ray.methods.base import Precision
from ffsd_ray.methods.ffsd import Ffsd, FfsdSettings
from ffsd_ray.train import optimisers
from ffsd_ray.train.settings import TrainSettings
from ffsd_ray.train.step import Step

CLASSES, IMAGE_SIZE = 100, 32


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.bench", description="Time the training step of FFSD.")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="resnet32")
    parser.add_argument("--students", type=int, default=2, help="common students n (default: 2)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(arguments.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    labels = torch.randint(CLASSES, (arguments.batch_size,), device=device)

    def group(precision: Precision) -> Ffsd:
        backbone = BACKBONES[arguments.backbone]
        blueprint = Blueprint(backbone, map_shapes(backbone, IMAGE_SIZE), CLASSES, precision)
        return Ffsd(FfsdSettings(students=arguments.students), blueprint).to(device)

    def fused(precision: Precision) -> Callable[[], object]:
        method = group(precision).to(memory_format=torch.channels_last)
        step = Step(method, optimisers.build(method, TrainSettings()))
        return lambda: step(Batch([images], labels, 1.0))

    literal = LiteralAlgorithm1(group("fp32"), TrainSettings())
    runs = {
        "literal Algorithm 1, fp32": lambda: literal.step(images, labels, epoch=6),
        "fused step, fp32": fused("fp32"),
        "fused step, bf16": fused("bf16"),
    }
    timings = time_interleaved(runs, warm_up=2, repeats=arguments.repeats, device=device)
    yardstick = next(iter(timings.values())).median
    table = Table(
        title=f"{arguments.backbone}, ffsd n={arguments.students}, batch {arguments.batch_size}: a training step"
    )
    for heading in ("", "median ms", "quartiles ms", "images/s", "× literal"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, timing in timings.items():
        table.add_row(
            name,
            f"{1e3 * timing.median:.1f}",
            f"{1e3 * timing.low:.1f} to {1e3 * timing.high:.1f}",
            f"{arguments.batch_size / timing.median:.0f}",
            f"{yardstick / timing.median:.2f}",
        )
    console = Console()
    console.print(table)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    console.print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {arguments.repeats} repeats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
