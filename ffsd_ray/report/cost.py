"""Costs of a run's groups, as in the paper's Table VII: python -m ffsd_ray.report.cost RUN."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ffsd_ray.command import command
from ffsd_ray.config.inspection.flops import Component, components, flops_per_image
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import collect, environments
from ffsd_ray.report.tables.frame import INTEGER, INTEGERS, TEXT, column, mean_and_std
from ffsd_ray.report.tables.rows import Row
from ffsd_ray.report.tables.show import check_format, parser_of_run, show
from ffsd_ray.report.tables.table import table_of
from ffsd_ray.report.tables.text import Section, TableText

_HEAD = ("Configuration", "Component", "MACs (M)", "Number", "Total (M)")
#: Kinds of parameters.
SIZES = ("trained", "deployed")
_MEASURED = ("Hours", "Parameters trained", "Parameters deployed", "Device")


@dataclass(frozen=True)
class Cost:
    """One configuration's. `images` and `parts` are None where only the images, not yet read, say what they are."""

    row: Row
    #: Number of classes, and side in pixels.
    images: tuple[int, int] | None
    parts: tuple[Component, ...] | None
    #: {"trained": …, "deployed": …}; None where no trial has completed.
    parameters: dict[str, int] | None
    devices: tuple[str, ...]

    @property
    def macs(self) -> int | None:
        return None if self.parts is None else sum(part.macs * part.number for part in self.parts)

    @property
    def step(self) -> float | None:
        """FLOP of one image's share of a training step: all phases, forward and backward; None where not known."""
        spec = self.row.spec
        return None if self.images is None else flops_per_image(spec.method, spec.backbone.name, *self.images)


@dataclass(frozen=True)
class CostTable:
    """A run's configurations."""

    title: str
    costs: tuple[Cost, ...]
    #: See `Printable`.
    damages: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        return (
            "MACs: multiplications, each with its addition, of convolutions and matrix products in one image's forward "
            "pass, as torch's FlopCounterMode counts",
            "Hours: of training, without evaluation; mean ± sample standard deviation over seeds",
        )

    def text(self) -> TableText:
        """A row a component, then one for the group."""
        rows = tuple(line for cost in self.costs for line in _lines(cost))
        unfinished = tuple(
            f"{cost.row.configuration}: no trial has completed" for cost in self.costs if not cost.devices
        )
        return TableText(self.title, self.captions, (*_HEAD, *_MEASURED), (Section("", rows),), unfinished, words=2)

    def frame(self) -> pd.DataFrame:
        """A line a component, then one named `group`, which alone has what was measured."""
        lines: list[tuple[Cost, Component | None]] = []
        for cost in self.costs:
            lines += [(cost, part) for part in cost.parts or ()]
            lines.append((cost, None))
        # What is measured, of the lines that have it.
        groups = [cost if part is None else None for cost, part in lines]
        return pd.DataFrame(
            {
                "configuration": column((cost.row.configuration for cost, _ in lines), TEXT),
                "component": column((part.name if part else "group" for _, part in lines), TEXT),
                "macs": column((part and part.macs for _, part in lines), INTEGER),
                "number": column((part and part.number for _, part in lines), INTEGER),
                "total macs": column((part.macs * part.number if part else cost.macs for cost, part in lines), INTEGER),
                "seeds": column((cost and list(cost.row.seeds) for cost in groups), INTEGERS),
                **mean_and_std("hours", [cost.row.hours if cost else None for cost in groups]),
                **{
                    f"parameters {which}": column(
                        (cost and cost.parameters and cost.parameters[which] for cost in groups), INTEGER
                    )
                    for which in SIZES
                },
                "device": column((cost and " / ".join(cost.devices) for cost in groups), TEXT),
            }
        )


def _lines(cost: Cost) -> Iterable[tuple[str, ...]]:
    name, hours, sizes = cost.row.configuration, cost.row.hours, cost.parameters
    for part in cost.parts or ():
        yield name, part.name, _millions(part.macs), str(part.number), _millions(part.macs * part.number), *[""] * 4
    yield (
        name,
        "group",
        "",
        "",
        "unknown" if cost.macs is None else _millions(cost.macs),
        hours.text() if hours is not None else "",
        *(f"{sizes[key]:,}" if sizes is not None else "" for key in SIZES),
        " / ".join(cost.devices),
    )


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.2f}"


def cost_table(run: RunRecords) -> CostTable:
    """Operations by component and what training took, configuration by configuration.

    Raises:
        RecordsError: the records are of another version.
    """
    table = table_of(run.job(), collect(run, environments), ["last"])
    return CostTable(table.title, tuple(cost_of(run, row) for row in table.rows), table.damages)


def cost_of(run: RunRecords, row: Row) -> Cost:
    """Costs of the trials behind a row of the run's table."""
    spec = row.spec
    trials = [run.trial(spec.changed(seed=seed).identity()) for seed in row.seeds]
    result = trials[0].result() if trials else {}
    classes, size = result.get("classes", spec.data.known_classes), result.get("image_size", spec.data.known_size)
    images = None if classes is None or size is None else (classes, size)
    return Cost(
        row,
        images,
        components(spec.method, spec.backbone.name, *images) if images else None,
        result.get("parameters"),
        tuple(dict.fromkeys(_device(trial.environment()["device"]) for trial in trials)),
    )


def _device(device: dict[str, Any]) -> str:
    workers = device["workers"]
    threads = f"{device['threads']} thread{'s' * (device['threads'] > 1)}"
    each = device["name"] if device["type"] == "cuda" else f"{device['name']} ({threads})"
    return each if workers == 1 else f"{workers} × {each}"


def build_parser() -> argparse.ArgumentParser:
    return parser_of_run(
        "ffsd cost", "Print each configuration's operations by component, training time and parameters (Table VII)."
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    check_format(parser, arguments)
    return show(cost_table(RunRecords.open(arguments.run)), arguments.format, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
