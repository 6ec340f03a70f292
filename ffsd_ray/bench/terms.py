"""`python -m ffsd_ray.bench.terms JOB`: what each loss term amounts to during training, and how hard it pulls.

For every trial of an FFSD job: each weighted term's value, and the L2 norm of the gradient that it alone sends into the
network of its member, every so many steps, as a table (CSV) and a picture.
"""

import argparse
import copy
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ffsd_ray import data
from ffsd_ray.bench.terms_plot import draw
from ffsd_ray.command import command
from ffsd_ray.data.batches import Batch
from ffsd_ray.errors import JobError
from ffsd_ray.methods.ffsd import Ffsd
from ffsd_ray.report.picture import check_picture, write_picture
from ffsd_ray.spec.labels import trial_labels
from ffsd_ray.spec.load import load_job
from ffsd_ray.spec.trial import TrialSpec
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, train_batches
from ffsd_ray.train.step import Step


class Pull(NamedTuple):
    """One term at one step: its weighted value, and the norm of its gradient in its member's network."""

    trial: str
    epoch: int
    step: int
    member: str
    term: str
    value: float
    gradient: float


def pulls(spec: TrialSpec, label: str, every: int) -> Iterator[Pull]:
    """Train a trial and measure before every `every`-th step, the first one included.

    Raises:
        JobError: the trial's method is not ffsd.
    """
    torch.set_num_threads(spec.scale.worker_threads)
    dataset = data.load(spec.data, progress=True)
    method = build_method(spec, dataset.num_classes, dataset.image_size)
    if not isinstance(method, Ffsd):
        raise JobError(f"{label}: terms are measured for ffsd, not for {spec.method.name}")
    method.to(memory_format=torch.channels_last)
    built = optimisers.build(method, spec.train)
    step, batches = Step(method, built), train_batches(spec, dataset, views=method.views)
    done = 0
    for epoch in range(1, spec.train.epochs + 1):
        method.begin_epoch(epoch)
        for index, batch in enumerate(batches.epoch(epoch)):
            if done % every == 0:
                for member, term, value, gradient in _measure(method, batch):
                    yield Pull(label, epoch, done, member, term, value, gradient)
            built.set_learning_rates(optimisers.learning_rate_factor(spec.train, epoch, index, batches.steps))
            step(batch)
            done += 1


def _measure(method: Ffsd, batch: Batch) -> Iterator[tuple[str, str, float, float]]:
    group = copy.deepcopy(method)  # a look must not move the batch-norm statistics
    networks = group.networks
    terms = group(batch.views, batch.labels, "all").terms
    for name, value in terms.items():
        member, term = name.split("/")
        if member not in networks or term.startswith("module_"):  # fusion and the modules are trained apart
            continue
        parameters = list(networks[member].parameters())
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        norms = torch.stack([gradient.norm() for gradient in gradients if gradient is not None])
        yield member, term, value.item(), norms.norm().item()


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.bench.terms", description=__doc__)
    parser.add_argument("job", type=Path, help="a job file whose trials are ffsd")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--every", type=int, default=20, metavar="STEPS", help="steps between two measurements")
    parser.add_argument("--out", type=Path, default=Path("terms"), help="writes OUT.csv and OUT.png (default: terms)")
    arguments = parser.parse_args(argv)
    picture = arguments.out.with_suffix(".png")
    check_picture(picture)
    plan = load_job(arguments.job, arguments.set)
    labels = trial_labels(plan.trials, plan.job.report.rows)
    found = [pull for spec in plan.trials for pull in pulls(spec, labels[spec.identity()], arguments.every)]
    table = arguments.out.with_suffix(".csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Pull._fields)
        writer.writerows(found)
    write_picture(draw(found), picture)
    print(f"{table}\n{picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
