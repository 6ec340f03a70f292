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
from typing import TYPE_CHECKING, NamedTuple

import torch

from ffsd_ray.command import command
from ffsd_ray.config.labels import trial_labels
from ffsd_ray.config.load import load_job
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import Batch
from ffsd_ray.errors import JobError
from ffsd_ray.methods.ffsd import Ffsd
from ffsd_ray.report.plots.style import check_picture, write_picture
from ffsd_ray.train import optimisers
from ffsd_ray.train.build import build_method, load_images, train_batches
from ffsd_ray.train.step import Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TermGradient(NamedTuple):
    """One term at one step: its weighted value, and the norm of its gradient in its member's network."""

    trial: str
    epoch: int
    step: int
    member: str
    term: str
    value: float
    gradient: float


def term_gradients(spec: TrialSpec, label: str, every: int) -> Iterator[TermGradient]:
    """Train a trial and measure before every `every`-th step, the first one included.

    Raises:
        JobError: the trial's method is not ffsd.
    """
    torch.set_num_threads(spec.scale.worker_threads)
    dataset = load_images(spec, progress=True)
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
                    yield TermGradient(label, epoch, done, member, term, value, gradient)
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
    gradients = [
        gradient for spec in plan.trials for gradient in term_gradients(spec, labels[spec.identity()], arguments.every)
    ]
    table = arguments.out.with_suffix(".csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TermGradient._fields)
        writer.writerows(gradients)
    write_picture(draw(gradients), picture)
    print(f"{table}\n{picture}")
    return 0


#: A colour a term, the same in every panel (Okabe and Ito).
_COLOURS = {
    "ce": "#000000",
    "kl": "#0072B2",
    "mutual_kl": "#0072B2",
    "fused_map": "#D55E00",
    "decoded_map": "#E69F00",
    "self_distillation": "#CC79A7",
    "diversity_last": "#009E73",
    "diversity_earlier": "#56B4E9",
}


def draw(gradients: Sequence["TermGradient"]) -> "Figure":
    """Rows: members; columns: trials. The axis is logarithmic: terms differ by many orders of magnitude."""
    from matplotlib.figure import Figure

    trials = list(dict.fromkeys(entry.trial for entry in gradients))
    members = sorted({entry.member for entry in gradients})
    figure = Figure(figsize=(1.8 + 4.2 * len(trials), 1 + 2.6 * len(members)), layout="constrained")
    grid = figure.subplots(len(members), len(trials), sharex=True, sharey=True, squeeze=False)
    for row, member in zip(grid, members, strict=True):
        for axes, trial in zip(row, trials, strict=True):
            of_panel = [entry for entry in gradients if entry.trial == trial and entry.member == member]
            for term in dict.fromkeys(entry.term for entry in of_panel):
                points = [
                    (entry.step, entry.gradient) for entry in of_panel if entry.term == term and entry.gradient > 0
                ]
                if points:
                    colour = _COLOURS.get(term, "#999999")
                    axes.plot(*zip(*points, strict=True), label=term, color=colour, linewidth=1.6)
            axes.set_yscale("log")
            axes.set_title(f"{trial}: {member}", fontsize=10, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#e6e6e6")
        row[0].set_ylabel("gradient norm")
        legends = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in row]
        handles = {label: handle for legend in legends for handle, label in legend}
        row[-1].legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return figure


if __name__ == "__main__":
    sys.exit(main())
