"""Where networks look, as in the paper's Figs. 2 and 7: python -m ffsd_ray.report.maps RUN --out FILE.

A row a test image, a column a network and level, from the last training checkpoint of each trial of a run.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffsd_ray.command import command, parse_positional
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.map_panels import Level, Panels, panels
from ffsd_ray.report.plots.style import check_picture, write_picture
from ffsd_ray.report.tables.show import tell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffsd maps",
        description="Draw where the networks of a run look: their attention maps over test images (Figs. 2 and 7).",
    )
    parser.add_argument("run", metavar="RUN", help="the folder or URI that the run printed")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help=".png, .pdf or .svg")
    parser.add_argument("--images", metavar="N", type=int, default=6, help="test images, a row each (default: 6)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only trials with this setting; repeatable"
    )
    parser.add_argument(
        "--members",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="such as student1 leader; default: all",
    )
    parser.add_argument(
        "--level",
        choices=["top", "mid", "both"],
        default="top",
        help="the last feature map or the one before (default: top)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parse_positional(parser, argv, "run", "members")
    if arguments.images < 1:
        parser.error("--images: should be 1 or more")
    check_picture(arguments.out)
    levels: Sequence[Level] = ("mid", "top") if arguments.level == "both" else (arguments.level,)
    run = RunRecords.open(arguments.run)
    shown = panels(run, arguments.where, arguments.members, levels, arguments.images)
    status = tell(shown.damages)
    write_picture(draw(shown), arguments.out)
    print(arguments.out)
    return status


#: Inches: a picture's side, the room between pictures and between trials, at the edges, and a line of text.
_CELL, _GAP, _BETWEEN, _EDGE, _LINE = 1.0, 0.05, 0.25, 0.12, 0.17
_LETTER = 0.08  # inches that a letter of a title takes; bold ones take less than this on average
_SMALL_LINE = 0.125  # inches of a line of the caption
_HEAT = 0.5  # opacity over the image


def draw(shown: "Panels") -> "Figure":
    """A row an image; the image itself, then a block of columns a trial under its label; the caption below.

    Everything is placed by hand, since pictures are to stand in line whatever the lengths of labels.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    pictures = [image.permute(1, 2, 0).numpy() for image in shown.images]
    names = [textwrap.wrap(name, 12) for name in shown.classes]
    beside = 2 * _EDGE + _LETTER * max((len(line) for lines in names for line in lines), default=0)
    left, blocks = beside + _CELL, []
    for label, columns in shown.trials.items():
        width = len(columns) * (_CELL + _GAP) - _GAP
        blocks.append(
            (left + _BETWEEN, width, textwrap.wrap(label, int(width / _LETTER), break_long_words=False), columns)
        )
        left += _BETWEEN + width
    width = left + _EDGE
    caption = textwrap.wrap(shown.caption, int(width * 16))
    lines = max(len(title) for *_, title, _ in blocks)
    levels = 2  # lines of a column's own title: member, level
    head = _EDGE + (lines + levels) * _LINE + _GAP
    body = len(pictures) * (_CELL + _GAP)
    height = head + body + _EDGE + len(caption) * _SMALL_LINE + _EDGE
    figure = Figure(figsize=(width, height))

    def place(x: float, row: int) -> "Axes":
        axes = figure.add_axes(
            (x / width, 1 - (head + row * (_CELL + _GAP) + _CELL) / height, _CELL / width, _CELL / height)
        )
        axes.set_axis_off()
        return axes

    def write(x: float, y: float, text: str, **style: object) -> None:
        figure.text(x / width, 1 - y / height, text, va="top", **({"fontsize": 8.5} | style))  # type: ignore[arg-type]

    for row, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        place(beside, row).imshow(picture)
        middle = head + row * (_CELL + _GAP) + (_CELL - len(name) * _LINE) / 2
        write(beside - _EDGE, middle, "\n".join(name), ha="right")
    write(beside + _CELL / 2, head - _GAP - _LINE, "image", ha="center")
    for x, block, title, columns in blocks:
        for line, text in enumerate(reversed(title), 1):
            write(x + block / 2, head - (levels + line) * _LINE - _GAP, text, ha="center", weight="bold")
        for index, column in enumerate(columns):
            at = x + index * (_CELL + _GAP)
            write(at + _CELL / 2, head - levels * _LINE - _GAP, f"{column.member}\n{column.level}", ha="center")
            for row, (picture, heat) in enumerate(zip(pictures, column.heat.numpy(), strict=True)):
                # Blended here: what is transparent comes out differently in PNG, PDF and SVG.
                finer = len(heat) // len(picture)
                grey = picture.mean(axis=2, keepdims=True).repeat(finer, 0).repeat(finer, 1) / 255
                place(at, row).imshow((1 - _HEAT) * grey + _HEAT * colormaps["jet"](heat)[..., :3])
    write(_EDGE, head + body + _EDGE, "\n".join(caption), fontsize=7.5, color="#555555")
    return figure


if __name__ == "__main__":
    sys.exit(main())
