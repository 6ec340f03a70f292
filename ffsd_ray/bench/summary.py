"""The main figures of a benchmark suite."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table


class Figure(NamedTuple):
    """A measured number, None where it was not measured."""

    name: str
    value: float | None
    unit: str = ""
    #: Whether it is a speed relative to the reference implementation, which `--require` asks for.
    speedup: bool = False


def summary_table(figures: Sequence[Figure]) -> Table:
    table = Table(title="summary")
    table.add_column("")
    table.add_column("measured", justify="right")
    for figure in figures:
        table.add_row(figure.name, "not measured" if figure.value is None else f"{figure.value:.3g}{figure.unit}")
    return table


def slower_than(required: float, figures: Sequence[Figure]) -> list[str]:
    """Names of the speedups that are below `required`, or were not measured."""
    return [figure.name for figure in figures if figure.speedup and not (figure.value or 0) >= required]
