"""Which configuration is the best, and the rows of a table in another order (--sort leader, --sort train.lr)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ffsd_ray.config.keys import TRIAL_KEYS, did_you_mean
from ffsd_ray.config.varying import value_at
from ffsd_ray.errors import JobError, RecordsError
from ffsd_ray.report.filters import trial_key
from ffsd_ray.report.tables.captions import Caption
from ffsd_ray.report.tables.rows import Cell, Row
from ffsd_ray.report.tables.table import Table

IMAGES = {"val": "the held-out validation images", "test": "the test images"}


def best(rows: Sequence[Row], *, by_test: bool = False) -> Row | None:
    """The completed row with the highest primary accuracy on the split that chose the epochs, the first of equals.

    `by_test`: on the test images. None where there is none, or where some rows' epochs were chosen on one split and
    some on another.
    """
    completed = [(row, row.primary) for row in rows if row.primary is not None]
    if not by_test and len({row.selection for row, _ in completed}) != 1:
        return None
    means = [primary.on(test=by_test).mean for _, primary in completed]
    return completed[means.index(max(means))][0] if completed else None


def split_of(rows: Sequence[Row], option: str, *, by_test: bool) -> str:
    """The split that `rows` can be ranked by: the one that chose their epochs, or with `by_test` the test images.

    Raises:
        RecordsError: it is not the same for all; the message begins with `option`.
    """
    splits = {row.selection for row in rows}
    if by_test or splits == {"test"}:
        return "test"
    if splits != {"val"}:
        raise RecordsError(
            f"{option}: some epochs were chosen on held-out validation images and some on the test images, which do "
            "not compare; choose trials with --where data.validation=VALUE, or rank by the test images: --by-test"
        )
    return "val"


def ranked_by(row: Row) -> str:
    """`highest accuracy on the test images, best epoch`."""
    return f"highest mean accuracy on {IMAGES[row.selection]}, {row.epoch} epoch"


#: In place of a column: of each row the one that stands for its method.
PRIMARY = "accuracy"


def in_order(table: Table, by: str, *, reverse: bool = False, by_test: bool = False) -> Table:
    """Rows from the highest value of a column, or from the lowest value of a key; rows without one come last.

    Columns of accuracies are compared on the split that chose the epochs, and the title says so where that, or
    `by_test`, makes it the test images.

    Raises:
        JobError: there is no such column and no such key, or it differs within rows.
        RecordsError: no row has a value, or some rows' epochs were chosen on one split and some on another.
    """
    columns = {_plain(column): column for column in (PRIMARY, *table.columns)}
    if _plain(by) in columns:
        return _by_column(table, columns[_plain(by)], reverse=reverse, by_test=by_test)
    names = [column.lower() for column in (PRIMARY, *table.columns)]
    if f"{by}.name" not in TRIAL_KEYS and by not in TRIAL_KEYS:
        hint = did_you_mean(by.lower(), [*names, *TRIAL_KEYS], TRIAL_KEYS)
        raise JobError(
            f"--sort {by}: neither a column of this table nor a key of trials.{hint} Columns: {', '.join(names)}."
        )
    key = trial_key(by, f"--sort {by}")
    if key in table.averaged:
        raise JobError(f"--sort {by}: trials of the same row differ in it; rows of their own: --by {key}")
    return _ordered(
        _captioned(table, f"rows by {key}, {'descending' if reverse else 'ascending'}"),
        lambda row: _comparable(value_at(row.spec, key)),
        descending=reverse,
    )


def _by_column(table: Table, column: str, *, reverse: bool, by_test: bool) -> Table:
    having = [row for row in table.rows if _cell(row, column, "test") is not None]
    if not having:
        raise RecordsError(f"--sort {column.lower()}: no completed trial has it yet")
    split = split_of(having, f"--sort {column.lower()}", by_test=by_test)
    end = "lowest" if reverse else "highest"
    said = f"rows by {'primary accuracy' if column == PRIMARY else column} on {IMAGES[split]}, {end} first"
    title = f"{table.title}, ranked by test accuracy" if split == "test" else table.title
    return _ordered(
        replace(_captioned(table, said), title=title),
        lambda row: None if (cell := _cell(row, column, split)) is None else cell.mean,
        descending=not reverse,
    )


def _captioned(table: Table, text: str) -> Table:
    return replace(table, all_captions=(*table.all_captions, Caption("rows", text)))


def _cell(row: Row, column: str, split: str) -> Cell | None:
    if column == PRIMARY:
        return row.primary and row.primary.on(test=split == "test")
    return (row.cells if split == "test" else row.selected).get(column)


def _ordered(table: Table, value: Callable[[Row], Any], *, descending: bool) -> Table:
    having = [row for row in table.rows if value(row) is not None]
    others = [row for row in table.rows if value(row) is None]
    return replace(table, rows=(*sorted(having, key=value, reverse=descending), *others))


def _plain(name: str) -> str:
    """`Ens (any)` and `ens-any` alike."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _comparable(value: Any) -> tuple[int, Any] | None:
    """Numbers before text; None for what is not set."""
    if value is None:
        return None
    return (0, float(value)) if isinstance(value, int | float) else (1, str(value))
