"""Where networks look, as in the paper's Figs. 2 and 7: python -m ffsd_ray.report.maps RUN --out FILE.

A row a test image, a column a network and level, from the last training checkpoint of each trial of a run.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ffsd_ray import data
from ffsd_ray.command import command, parse_positional
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data.batches import normalise
from ffsd_ray.errors import DamagedRecords, JobError, RecordsError
from ffsd_ray.losses import attention
from ffsd_ray.records.checkpoint import fits
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.collect import collect, damages
from ffsd_ray.report.filters import where
from ffsd_ray.report.plots.style import check_picture, write_picture
from ffsd_ray.report.tables.captions import images_of
from ffsd_ray.report.tables.show import tell
from ffsd_ray.train.build import build_method, normalised_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Level = Literal["mid", "top"]

#: A level's place among a network's feature maps, shallow to deep.
_STAGES: dict[Level, int] = {"mid": -2, "top": -1}

#: Heat maps have at least this many pixels a side.
_PIXELS = 200


@dataclass(frozen=True)
class Column:
    """One network's attention at one level: float [N, k·S, k·S] in [0, 1], k times as fine as the images."""

    member: str
    level: Level
    heat: Tensor


@dataclass(frozen=True)
class Panels:
    """`images` uint8 [N, 3, S, S] with the names of their classes, and each trial's columns by its label."""

    images: Tensor
    classes: tuple[str, ...]
    trials: dict[str, list[Column]]
    caption: str
    #: What is wrong with the records of trials that are left out, each naming a file.
    damages: tuple[str, ...]


def chosen(labels: Tensor, count: int) -> list[int]:
    """`count` images of [N] labels: the first of each class, the classes evenly spread; if too few, then the second.

    A rule, not a draw: every trial and every run on the same data shows the same images.
    """
    classes = [(labels == label).nonzero().flatten().tolist() for label in labels.unique()]
    spread = min(count, len(classes))
    picked = [classes[index * len(classes) // spread] for index in range(spread)]
    in_turn = (index for turn in zip_longest(*picked) for index in turn if index is not None)
    return list(islice(in_turn, count))


def heat(maps: Tensor, size: int) -> Tensor:
    """Attention (Eq. 7) of feature maps [N, C, H, W], upsampled bilinearly, each scaled to [0, 1]: [N, size, size]."""
    looks = attention(maps).view(len(maps), 1, *maps.shape[2:])
    large = F.interpolate(looks, size=(size, size), mode="bilinear")[:, 0]
    low, high = large.amin(dim=(1, 2), keepdim=True), large.amax(dim=(1, 2), keepdim=True)
    return (large - low) / (high - low).clamp(min=torch.finfo(large.dtype).tiny)


def panels(
    run: RunRecords, conditions: Sequence[str], members: Sequence[str], levels: Sequence[Level], count: int
) -> Panels:
    """Compute the maps of the `members` (none named: all) of the trials that meet `conditions` (`where`).

    Raises:
        JobError, RecordsError: see `where`; no trial has a checkpoint, or one that is not damaged, or such a member;
            their data differ.
        DataError: the images cannot be read.
    """
    collected = {trial.spec.identity(): trial for trial in collect(run)}
    specs = where([trial.spec for trial in collected.values()], conditions)
    names = run.labels(specs)
    left_out = list(damages([collected[spec.identity()] for spec in specs]))
    states: dict[str, dict[str, Any]] = {}
    absent = []
    for spec in [spec for spec in specs if not collected[spec.identity()].damaged]:
        try:
            state = run.trial(spec.identity()).checkpoints.latest()
        except DamagedRecords as error:
            left_out.append(str(error))
            continue
        if state is None:
            absent.append(names[spec.identity()])
        else:
            states[spec.identity()] = state
    if not states:
        raise RecordsError("\n".join([*left_out, f"{run.store.location}: no checkpoint of these trials yet"]))
    specs = [spec for spec in specs if spec.identity() in states]
    if len({spec.data for spec in specs}) > 1:
        raise RecordsError(
            "these trials have different data, so no images in common: choose with --where data.KEY=VALUE"
        )
    dataset = data.load(specs[0].data, progress=True)
    test = dataset.test.select(torch.tensor(chosen(dataset.test.labels, count)))
    [(images, labels)] = test.unaugmented([slice(None)])
    fine = dataset.image_size * -(-_PIXELS // dataset.image_size)
    trials: dict[str, list[Column]] = {}
    there: dict[str, None] = {}
    fitting: list[TrialSpec] = []
    for spec in specs:
        state = states[spec.identity()]
        method = build_method(spec, dataset.num_classes, dataset.image_size)
        if not fits(method, state["method"]):
            left_out.append(str(run.trial(spec.identity()).checkpoints.mismatch_error()))
            continue
        method.load_state_dict(state["method"])
        method.eval()
        fitting.append(spec)
        trained_on = normalised_for(spec, dataset)
        inputs = normalise(images, trained_on.mean, trained_on.std)
        there |= dict.fromkeys(method.networks)
        for member, network in method.networks.items():
            if members and member not in members:
                continue
            with torch.inference_mode():
                maps = method.features(network, inputs).maps
            columns = [Column(member, level, heat(maps[_STAGES[level]], fine)) for level in levels]
            trials.setdefault(names[spec.identity()], []).extend(columns)
    if not fitting:
        raise RecordsError("\n".join(left_out))
    if not trials:
        raise JobError(f"--members {' '.join(members)}: these trials have {', '.join(there)}")
    caption = _caption(fitting, states) + (f" No checkpoint yet: {'; '.join(absent)}." if absent else "")
    return Panels(images, tuple(dataset.classes[label] for label in labels.tolist()), trials, caption, tuple(left_out))


def _caption(specs: Sequence[TrialSpec], states: dict[str, dict[str, Any]]) -> str:
    epochs = _each(str(len(states[spec.identity()]["progress"]["rows"])) for spec in specs)
    return (
        f"Test images of {images_of(specs[0].data)}; {_each(spec.backbone.name for spec in specs)} "
        f"after epoch {epochs}, {_each(spec.seed_label for spec in specs)}. "
        "Attention: mean of the squared feature map over its channels, upsampled bilinearly, "
        "each map scaled from blue (its minimum) to red (its maximum)."
    )


def _each(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


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
