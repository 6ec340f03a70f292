"""The paper's own numbers (values.yaml)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at
from ffsd_ray.report.tables.rows import Cell

_NUMBER = re.compile(r"(?P<mean>\d+(\.(?P<decimals>\d+))?)%?( ± (?P<std>\d+\.\d+))?")


class Printed(NamedTuple):
    """A number as the paper prints it."""

    cell: Cell
    decimals: int

    @classmethod
    def parse(cls, text: str) -> "Printed":
        found = _NUMBER.fullmatch(text)
        assert found is not None, text
        std = found["std"]
        return cls(Cell(float(found["mean"]), float(std) if std else None), len(found["decimals"] or ""))


@dataclass(frozen=True)
class PaperRow:
    """One network trained by one method."""

    model: str
    method: str
    #: The settings that make a trial one of this row, by dotted key; of a list any one.
    match: dict[str, Any]
    printed: dict[str, Printed]
    #: On a number, by column.
    notes: dict[str, str]

    @property
    def label(self) -> str:
        return f"{self.model}, {self.method}"


class PaperData(NamedTuple):
    """A data set: how a trial's data section names it."""

    name: str
    match: dict[str, Any]
    classes: int


@dataclass(frozen=True)
class PaperTable:
    """A table, a figure or a passage of the text."""

    title: str
    data: PaperData
    #: How its trials are trained, by section of a trial; `method` by the method's name. See `report.protocol`.
    protocol: dict[str, dict[str, Any]]
    captions: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    #: Why its numbers and ours are only shown beside each other; None where there is a verdict on them.
    no_verdict: str | None
    #: Of how many runs a printed ± is the population's standard deviation; None where none is printed.
    runs: int | None = None


@cache
def paper_tables() -> dict[str, PaperTable]:
    """Every table of values.yaml by its name there: table1 … table7, ablations, vgg16, fig6."""
    content = yaml.safe_load((files(__package__) / "values.yaml").read_text(encoding="utf-8"))
    return {
        name: PaperTable(
            title=table["title"],
            data=PaperData(table["data"], **content["data"][table["data"]]),
            protocol=content["protocols"][table["data"]],
            captions=tuple(table.get("captions", ())),
            rows=tuple(_rows(table, content["models"], content["methods"])),
            no_verdict=table.get("no_verdict"),
            runs=table.get("runs"),
        )
        for name, table in content["tables"].items()
    }


def matches(spec: TrialSpec, wanted: Mapping[str, Any]) -> bool:
    """Whether a trial has these settings, by dotted key; of a list any one."""
    return all(value_at(spec, key) in (value if isinstance(value, list) else [value]) for key, value in wanted.items())


def printed_baseline(model: str) -> Printed | None:
    """The accuracy that the paper prints for a network trained alone; None where it prints none."""
    for table in paper_tables().values():
        for row in table.rows:
            column = "Accuracy" if row.method == "Baseline" else "Baseline"
            if row.model == model and column in row.printed:
                return row.printed[column]
    return None


def _rows(table: dict[str, Any], models: dict[str, str], methods: dict[str, dict[str, Any]]) -> Iterator[PaperRow]:
    for row in table["rows"]:
        cells = zip(table["columns"], row["printed"], strict=True)
        yield PaperRow(
            model=row["model"],
            method=row["method"],
            match={"backbone.name": models[row["model"]], **methods[row["method"]]},
            printed={column: Printed.parse(text) for column, text in cells if text is not None},
            notes=row.get("notes", {}),
        )
