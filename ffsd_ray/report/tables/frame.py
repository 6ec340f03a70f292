"""Typed columns of the frames that tables are exported from (CSV, Parquet)."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from ffsd_ray.config.source.problems import format_value
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.config.varying import value_at, varying
from ffsd_ray.report.tables.rows import Cell

#: Types of columns, any of which may have missing values; the plural ones hold a list a line.
TEXT, INTEGER, NUMBER, BOOLEAN = map(pd.ArrowDtype, (pa.string(), pa.int64(), pa.float64(), pa.bool_()))
TEXTS, INTEGERS = pd.ArrowDtype(pa.list_(pa.string())), pd.ArrowDtype(pa.list_(pa.int64()))


def column(values: Iterable[Any], dtype: pd.ArrowDtype) -> "pd.Series[Any]":
    return pd.Series(list(values), dtype=dtype)


def mean_and_std(name: str, cells: Sequence[Cell | None]) -> dict[str, "pd.Series[Any]"]:
    """The columns `name` and `name std`."""
    return {
        name: column((cell and cell.mean for cell in cells), NUMBER),
        f"{name} std": column((cell and cell.std for cell in cells), NUMBER),
    }


def settings(specs: Sequence[TrialSpec], without: Sequence[str] = ()) -> dict[str, "pd.Series[Any]"]:
    """A column for each dotted key in which the specs differ, of integers, numbers, booleans, or else text."""
    keys = [key for key in varying(specs) if key not in without]
    return {key: _setting([value_at(spec, key) for spec in specs]) for key in keys}


def _setting(values: Sequence[Any]) -> "pd.Series[Any]":
    kinds = {type(value) for value in values if value is not None}
    for kind, dtype in ((bool, BOOLEAN), (int, INTEGER), (float, NUMBER)):
        if kinds == {kind} or (kind is float and kinds == {int, float}):
            return column(values, dtype)
    texts = (value if value is None or isinstance(value, str) else format_value(value) for value in values)
    return column(texts, TEXT)
