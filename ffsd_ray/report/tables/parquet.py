"""A run's table as a Parquet file: typed columns, numbers unrounded, and the settings in which the rows differ."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ffsd_ray.config.load import value_at, varying
from ffsd_ray.config.source.problems import format_value
from ffsd_ray.errors import JobError
from ffsd_ray.report.tables.table import Table


def frame(table: Table) -> pa.Table:
    """A line a row and epoch.

    `configuration`, `epoch`, `n` (trials), `seeds`; each setting in which the rows differ, under its dotted key; each
    column of the table and its standard deviation; `difference`, `p` and `pairs` where the table compares; `ended`, a
    trial each; `notes`; `trials`, their folders under RUN/trials. Title and captions are in the schema's metadata.
    """
    rows, specs = table.rows, [row.spec for row in table.rows]
    text, number, whole = pa.string(), pa.float64(), pa.int64()
    columns: dict[str, pa.Array] = {
        "configuration": pa.array([row.configuration for row in rows], text),
        "epoch": pa.array([row.epoch for row in rows], text),
        "n": pa.array([len(row.seeds) for row in rows], whole),
        "seeds": pa.array([list(row.seeds) for row in rows], pa.list_(whole)),
    }
    for key in varying(specs):
        if key not in table.averaged:
            columns[key] = _settings([value_at(spec, key) for spec in specs])
    for column in table.columns:
        cells = [row.cells.get(column, (None, None)) for row in rows]
        columns[column] = pa.array([cell[0] for cell in cells], number)
        columns[f"{column} std"] = pa.array([cell[1] for cell in cells], number)
    if table.compares:
        found = [row.difference for row in rows if row.difference is not None]
        differences = [one.cell or (None, None) for one in found]
        columns["difference"] = pa.array([cell[0] for cell in differences], number)
        columns["difference std"] = pa.array([cell[1] for cell in differences], number)
        columns["p"] = pa.array([one.p for one in found], number)
        columns["pairs"] = pa.array([one.pairs for one in found], whole)
    columns["ended"] = pa.array([list(row.ended) for row in rows], pa.list_(text))
    columns["notes"] = pa.array([table.notes_on(row) for row in rows], pa.list_(text))
    columns["trials"] = pa.array([list(row.trials) for row in rows], pa.list_(text))
    return pa.table(columns).replace_schema_metadata({"title": table.title, "captions": "\n".join(table.captions)})


def _settings(values: list[Any]) -> pa.Array:
    """A column of one type: integers, numbers, booleans, or else text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({int}, {float}, {bool}):
        return pa.array(values)
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array(
        [value if value is None or isinstance(value, str) else format_value(value) for value in values], pa.string()
    )


def write_frame(table: Table, out: str) -> Path:
    """
    Raises:
        JobError: the file cannot be written.
    """
    path = Path(out)
    try:
        pq.write_table(frame(table), path)
    except OSError as error:
        raise JobError(f"--out {out}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    return path
