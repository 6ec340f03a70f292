"""Which of a run's numbers stands beside which of the paper's."""

from collections.abc import Iterator
from typing import NamedTuple

from ffsd_ray.config.inspection.flops import components
from ffsd_ray.report.paper.values import PaperRow, PaperTable, Printed, printed_baseline
from ffsd_ray.report.tables.rows import Cell, Row

#: Columns of the paper whose gain over the baseline follows from what it prints.
_ACCURACIES = ("Common 1", "Common 2", "Mean of common", "Ens (any)", "Fusion", "Leader", "Accuracy")
#: Of those, the ones that its Gain is of.
_PRIMARY = ("Leader", "Accuracy")
_DERIVED = "difference of two means that the paper prints"
#: Table VII's columns for the parts of a group besides its networks.
_PARTS = {
    "self-distillation": ("Self-distillation FLOPs (M)", "Self-distillation modules"),
    "fusion": ("Fusion FLOPs (M)", "Fusion modules"),
    "teacher": ("Teacher FLOPs (M)", "Teachers"),
}


class Pair(NamedTuple):
    """A number of the paper, ours (None where there is none), and what is to be said of the paper's."""

    measure: str
    paper: Printed
    ours: Cell | None
    notes: tuple[str, ...]
    is_gain: bool
    #: The difference that the paper claims with its number, see `claimed`.
    claim: float | None


def numbers(paper: PaperTable, wanted: PaperRow, row: Row | None) -> Iterator[Pair]:
    """Every number that the paper prints; `row`: the run's, None where it has none."""
    for column, number in wanted.printed.items():
        notes = (wanted.notes[column],) if column in wanted.notes else ()
        yield Pair(column, number, _ours(column, row), notes, column == "Gain", claimed(paper, wanted, column))


def gains(paper: PaperTable, wanted: PaperRow, row: Row | None) -> Iterator[Pair]:
    """The gains that the paper prints, and those over its baseline that follow from the accuracies it prints."""
    yield from (pair for pair in numbers(paper, wanted, row) if pair.is_gain)
    baseline = printed_baseline(wanted.model)
    if baseline is None or wanted.method == "Baseline":
        return
    for column, number in wanted.printed.items():
        if column in _ACCURACIES and not (column in _PRIMARY and "Gain" in wanted.printed):
            gain = Cell(number.cell.mean - baseline.cell.mean, None)
            ours = None if row is None else row.gains.get(_own(column, row))
            yield Pair(f"{column}, gain", Printed(gain, number.decimals), ours, (_DERIVED,), True, abs(gain.mean))


def claimed(paper: PaperTable, wanted: PaperRow, column: str) -> float | None:
    """The difference that a number stands for in the paper: what a spread must be small beside to judge ours.

    A gain itself; of an accuracy its gain over the baseline; of a baseline the least gain over it in the table. Where
    there is no baseline, the least difference from the same network's other numbers in the column. None: there is none.
    """
    number, alike = wanted.printed[column].cell.mean, [row for row in paper.rows if row.model == wanted.model]
    if column == "Gain":
        return abs(number)
    if column == "Baseline" or wanted.method == "Baseline":
        return min((row.printed["Gain"].cell.mean for row in alike if "Gain" in row.printed), default=None)
    baseline = printed_baseline(wanted.model)
    if column in _ACCURACIES and baseline is not None:
        return abs(number - baseline.cell.mean)
    others = [row.printed[column].cell.mean for row in alike if column in row.printed]
    return min((abs(number - other) for other in others if other != number), default=None)


def _ours(column: str, row: Row | None) -> Cell | None:
    if row is None or not row.seeds:
        return None
    if column == "Cosine":
        return row.cosine
    if column == "Training time (h)":
        return row.hours
    if "FLOPs" in column or column == "Students" or column.endswith("modules"):
        return _costs(row).get(column)
    return row.cells.get(_own(column, row))


def _own(column: str, row: Row) -> str:
    """The run's name of a column."""
    return row.primary_column if column == "Accuracy" else column


def _costs(row: Row) -> dict[str, Cell]:
    """Table VII's counts, in millions; the decoder, of which it says nothing, left out."""
    data = row.spec.data
    assert data.known_classes is not None
    assert data.known_size is not None
    network, *parts = components(row.spec.method, row.spec.backbone.name, data.known_classes, data.known_size)
    counted = {"Student FLOPs (M)": network.macs / 1e6, "Students": float(network.number)}
    total = network.macs * network.number
    for part in parts:
        if part.name in _PARTS:
            flops, number = _PARTS[part.name]
            counted |= {flops: part.macs / 1e6, number: float(part.number)}
            total += part.macs * part.number
    counted["Total FLOPs (M)"] = total / 1e6
    return {column: Cell(value, None) for column, value in counted.items()}
