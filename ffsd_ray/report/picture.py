"""Writing a picture: what every command that draws one asks of its file and of matplotlib."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ffsd_ray.errors import JobError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".pdf", ".svg")


def check_picture(out: Path) -> None:
    """Before the work that a picture takes: can it be drawn and written?

    Raises:
        JobError: the file has another ending than `ENDINGS`, or its folder is missing.
        UserError: matplotlib is missing.
    """
    if out.suffix not in ENDINGS:
        raise JobError(f"--out {out}: should end in {', '.join(ENDINGS)}")
    if not out.absolute().parent.is_dir():
        raise JobError(f"--out {out}: there is no folder {out.parent}")
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
