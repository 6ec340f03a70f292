"""Which configuration is the best, and by what."""

from collections.abc import Sequence

from ffsd_ray.errors import RecordsError
from ffsd_ray.report.tables.row import Row

IMAGES = {"val": "the held-out validation images", "test": "the test images"}


def best(rows: Sequence[Row], *, by_test: bool = False) -> Row | None:
    """The completed row with the highest primary accuracy on the split that chose the epochs, the first of equals.

    `by_test`: on the test images. None where there is none, or where some rows' epochs were chosen on one split and
    some on another.
    """
    completed = [row for row in rows if row.ranking is not None]
    if not by_test and len({row.selection for row in completed}) != 1:
        return None
    means = [cell.mean for row in completed if (cell := row.accuracy if by_test else row.ranking) is not None]
    return completed[means.index(max(means))] if completed else None


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
