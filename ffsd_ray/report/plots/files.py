"""Writing a picture: what every command that draws one asks of its file and of matplotlib."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ffsd_ray.errors import JobError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".pdf", ".svg")


def check_picture(out: Path, endings: Sequence[str] = ENDINGS, flag: str = "--out") -> None:
    """Before the work that pictures take: can they be drawn, and the file written that the user named with `flag`?

    Raises:
        JobError: the file has none of the endings, or its folder is missing.
        UserError: matplotlib is missing.
    """
    if out.suffix not in endings:
        raise JobError(f"{flag} {out}: should end in {', '.join(endings)}")
    if not out.absolute().parent.is_dir():
        raise JobError(f"{flag} {out}: there is no folder {out.parent}")
    if find_spec("matplotlib") is None:
        raise UserError('pictures need matplotlib: pip install "ffsd-ray[plot]"')


def write_picture(figure: "Figure", out: Path) -> None:
    """
    Raises:
        JobError: the file cannot be written.
    """
    try:
        figure.savefig(out, dpi=200)
    except OSError as error:
        raise JobError(f"--out {out}: cannot be written: {error.strerror}") from error
