"""How pictures look and are written: one palette, one head and foot, one way to write the values on an axis."""

import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffsd_ray.errors import JobError, UserError
from ffsd_ray.report.plots.axes import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The columns of a run's table that are drawn.
SERIES = ("Ens (any)", "Ens (logits)", "Fusion", "Leader", "Student", "Mean of common", "Baseline")
#: The primary series' accuracy on the images that it is trained on, beside the table's columns.
TRAINING = "Training images"
#: Text and axes, what stands back, grids, and what is under text: colours of nothing else, so that a page can put its
#: own in their place.
INK, MUTED, GRID, PAPER = "#1f2328", "#656d76", "#e4e7eb", "#fffffe"
#: Colours that the colour-blind can tell apart (Okabe and Ito's six, and two more), on white and on dark ground.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8F7EE6", "#A0785A")
#: Markers for prints without colour.
STYLES: dict[str, dict[str, Any]] = {
    "Leader": {"color": PALETTE[0], "marker": "o", "linewidth": 2.4},
    "Fusion": {"color": PALETTE[1], "marker": "s"},
    "Student": {"color": PALETTE[0], "marker": "X"},
    "Mean of common": {"color": PALETTE[2], "marker": "^"},
    "Ens (logits)": {"color": PALETTE[3], "marker": "D", "linestyle": "--"},
    "Ens (any)": {"color": PALETTE[4], "marker": "v", "linestyle": "--"},
    "Baseline": {"color": MUTED, "marker": "P", "linestyle": ":"},
    TRAINING: {"color": PALETTE[5], "marker": ".", "linestyle": "-.", "linewidth": 1.2},
}
#: Its lightness rises with the value, and the colour-blind see it rise.
COLOURS = "viridis"
LOOK: dict[Any, Any] = {
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
ACCURACY = "Top-1 accuracy (%)"
#: From this ratio of the largest to the smallest value on, an axis is logarithmic.
_LOGARITHMIC = 50


def far_apart(values: Sequence[Value]) -> bool:
    """Whether these are numbers that span decades; the smallest may be 0, for which a logarithm has no place."""
    numbers = [value for value in values if not isinstance(value, str)]
    return len(numbers) == len(values) and max(numbers) >= _LOGARITHMIC * min(numbers) >= 0


def tick(value: Value) -> str:
    if isinstance(value, str):
        return value
    short = f"{value:.4g}"
    return (short if float(short) == value else f"{value:g}").replace("e-0", "e-").replace("e+0", "e")


def panels(
    figure: "Figure", count: int, across: int, *, x_label: str, y_label: str, share_x: bool = False
) -> "list[Axes]":
    """Places for `count` panels, `across` in a row, all with one vertical scale; labels at the outer ones."""
    grid = figure.subplots(-(-count // across), across, sharex=share_x, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    for index, each in enumerate(axes[:count]):
        if index % across == 0:
            each.set_ylabel(y_label)
        if index + across >= count:
            each.set_xlabel(x_label)
            each.tick_params(labelbottom=True)
    return axes[:count]


def legend(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """One for all panels, beside them and clear of a long title."""
    handles = {label: handle for each in axes for handle, label in zip(*each.get_legend_handles_labels(), strict=True)}
    labels = [label for label in (*SERIES, TRAINING) if label in handles]
    figure.legend([handles[label] for label in labels], labels, loc="outside right center", frameon=False)


def dress(figure: "Figure", title: str, captions: Sequence[str]) -> None:
    """Title above, captions below."""
    width = figure.get_figwidth()
    wrapped = [line for caption in captions for line in textwrap.wrap(caption, int(14.5 * width))]
    head = textwrap.fill(title, int(8.5 * width))
    figure.suptitle(head, x=0.01, ha="left", weight="bold", fontsize=13)
    figure.supxlabel("\n".join(wrapped), x=0.01, ha="left", fontsize=8.5, color=MUTED)


#: What installs the packages with which pictures are drawn.
INSTALL = 'pip install "ffsd-ray[plot]"'

#: Of a picture's file.
ENDINGS = (".png", ".pdf", ".svg")


def check_picture(out: Path) -> None:
    """Before the work that pictures take: can they be drawn, and the file of --out written?

    Raises:
        JobError: see `check_file`.
        UserError: matplotlib is missing.
    """
    check_file(out, ENDINGS, "--out")
    check_installed("matplotlib")


def check_file(out: Path, endings: Sequence[str], flag: str) -> None:
    """
    Raises:
        JobError: the file that the user named with `flag` has none of the endings, or its folder is missing.
    """
    if out.suffix not in endings:
        raise JobError(f"{flag} {out}: should end in {', '.join(endings)}")
    if not out.absolute().parent.is_dir():
        raise JobError(f"{flag} {out}: there is no folder {out.parent}")


def check_installed(package: str) -> None:
    """
    Raises:
        UserError: the package, with which pictures are drawn, is missing.
    """
    if missing(package):
        raise UserError(f"pictures need {package}: {INSTALL}")


def missing(package: str) -> bool:
    """Whether a package of those with which pictures are drawn is not installed."""
    return find_spec(package) is None


def write_picture(figure: "Figure", out: Path) -> None:
    """
    Raises:
        JobError: the file cannot be written.
    """
    try:
        figure.savefig(out, dpi=200)
    except OSError as error:
        raise JobError(f"--out {out}: cannot be written: {error.strerror}") from error
