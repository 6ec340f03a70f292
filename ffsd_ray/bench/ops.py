"""`python -m ffsd_ray.bench.ops JOB`: the operations of a training step, and the bytes that they read and write.

Counted as a GPU runs them, each operation about one kernel: with fused optimisers, without views and allocations, from
torch's dispatch of steps on two and four images on the CPU. The bytes are extrapolated to the trial's batch; each
operation is taken to read all its inputs and to write its results, and nothing to stay in a cache.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ffsd_ray import data
from ffsd_ray.bench.record import Record, command_line
from ffsd_ray.bench.synthetic import synthetic_data
from ffsd_ray.bench.variations import configurations
from ffsd_ray.command import command
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.terminal import Screen
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.meters import AccuracyMeter, Meters, TermMeter
from ffsd_ray.train.step import Step
from ffsd_ray.train.weight_average import WeightAverage

#: Operations that run no kernel, besides views.
_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "set_"}

#: Parts of a step. The batch: cut out of the images and augmented; the update: optimisers, and the weight average.
PARTS = ("batch", "forward and backward", "update", "meters")


class Operations(NamedTuple):
    """How many operations there are of each kind, and the bytes that they read and write."""

    number: Counter[str]
    bytes: Counter[str]


def operations(spec: TrialSpec, classes: int, size: int) -> dict[str, Operations]:
    """Operations of each of `PARTS` of a trial's step, for images of this side length."""
    few, many = (_counted(spec, classes, size, images) for images in (2, 4))
    share = (spec.train.batch_size - 2) / 2

    def extrapolated(part: str) -> Counter[str]:
        of_few, of_many = few[part].bytes, many[part].bytes
        return Counter({kind: round(of_few[kind] + share * (of_many[kind] - of_few[kind])) for kind in of_many})

    return {part: Operations(many[part].number, extrapolated(part)) for part in PARTS}


def _counted(spec: TrialSpec, classes: int, size: int, images: int) -> dict[str, Operations]:
    method = build_method(spec, classes, size).to(memory_format=torch.channels_last)
    built = optimisers.build(method, spec.train, fused=True)
    average = WeightAverage(method, spec.train.ema) if spec.train.ema is not None else None
    small = spec.changed(train=spec.train.changed(batch_size=images, steps_per_epoch=None))
    batches = train_batches(small, synthetic_data(classes, size, train=images, test=1), views=method.views)
    step = Step(method, built)
    device = torch.device("cpu")
    meters = Meters(TermMeter(device), AccuracyMeter(method.members, method.common, classes, device))
    method.begin_epoch(1)
    [(inputs, _)] = batches.inputs(1)
    batch = batches.batch(inputs)
    losses = step(batch)  # optimisers make their state
    whole = recorded(lambda: step(batch))
    by_optimisers = recorded(lambda: [built.step(phase.roles) for phase in method.phases])
    averaging = recorded(average.update) if average is not None else Operations(Counter(), Counter())
    return {
        "batch": recorded(lambda: batches.batch(inputs)),
        "forward and backward": Operations(whole.number - by_optimisers.number, whole.bytes - by_optimisers.bytes),
        "update": Operations(by_optimisers.number + averaging.number, by_optimisers.bytes + averaging.bytes),
        "meters": recorded(lambda: meters.update(losses, batch.labels, 0)),
    }


def recorded(run: Callable[[], object]) -> Operations:
    """The operations of a run."""
    counting = _Counting()
    with counting:
        run()
    return counting.counted


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counted = Operations(Counter(), Counter())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        library, kind = func._schema.name.split("::")
        if library == "aten" and not func.is_view and kind not in _NO_KERNEL:
            storages = {
                leaf.untyped_storage().data_ptr(): leaf
                for leaf in tree_leaves((args, kwargs))
                if isinstance(leaf, Tensor)
            }
            written = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
            self.counted.number[kind] += 1
            self.counted.bytes[kind] += sum(t.numel() * t.element_size() for t in [*storages.values(), *written])
        return results


def figures(found: Mapping[str, Operations], *, rows: int) -> dict[str, Any]:
    """For a record: numbers and bytes of the `parts` of a step, and of the most frequent `kinds` in all of them."""
    number, moved = _together(found)
    return {
        "parts": {part: [sum(of.number.values()), sum(of.bytes.values())] for part, of in found.items()},
        "kinds": {kind: [count, moved[kind]] for kind, count in number.most_common(rows)},
    }


def _together(found: Mapping[str, Operations]) -> Operations:
    """Those of all parts."""
    return Operations(
        sum((part.number for part in found.values()), Counter[str]()),
        sum((part.bytes for part in found.values()), Counter[str]()),
    )


def table(title: str, found: Mapping[str, Operations], *, rows: int) -> Table:
    """The parts of a step, then the most frequent kinds of operations in all of them."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    shown.add_column("")
    for heading in ("operations", "GB"):
        shown.add_column(heading, justify="right")
    number, moved = _together(found)
    counted = figures(found, rows=rows)
    lines = [(part, *numbers) for part, numbers in counted["parts"].items()]
    lines += [("together", sum(number.values()), sum(moved.values()))]
    lines += [(f"  {kind}", *numbers) for kind, numbers in counted["kinds"].items()]
    for name, count, read_and_written in lines:
        shown.add_row(name, f"{count:,}", f"{read_and_written / 1e9:.3f}")
    return shown


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.bench.ops", description=__doc__)
    parser.add_argument("job", type=Path, help="a job file, of which every configuration is counted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; repeatable")
    parser.add_argument("--rows", type=int, default=20, help="kinds of operations shown of each (default: 20)")
    parser.add_argument("--out", type=Path, help="a record of it all, which is gone on with")
    arguments = parser.parse_args(argv)
    started_by = command_line("ffsd_ray.bench.ops", argv)
    record = Record(arguments.out, "operations", started_by, torch.device("cpu")) if arguments.out else None
    for label, spec in configurations(arguments.job, arguments.set).items():
        classes, size = spec.data.known_classes, spec.data.known_size
        if classes is None or size is None:
            dataset = data.load(spec.data, progress=True)
            classes, size = dataset.num_classes, dataset.image_size
        title = f"{label}: a step of {spec.train.batch_size} images, {spec.train.precision}"
        found = operations(spec, classes, size)
        Screen().print(table(title, found, rows=arguments.rows))
        if record is not None:
            record.add(title, figures(found, rows=arguments.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
