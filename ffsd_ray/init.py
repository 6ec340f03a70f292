"""A job file for a folder of pictures: ffsd init PICTURES."""

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image

from ffsd_ray import schema
from ffsd_ray.base_settings import LONGEST_NAME
from ffsd_ray.command import command
from ffsd_ray.data.image_folder import ImageFolder
from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.data.picture import FORMATS
from ffsd_ray.errors import JobError
from ffsd_ray.terminal import plain

#: Pictures that are looked at for their size.
_LOOKED_AT = 500

#: Sides of training images to choose from, with and without a GPU.
_SIDES = {True: (32, 64, 128, 224), False: (32,)}

#: From this side on, networks that reduce images early, as ImageNet's do, are the faster ones by far.
_LARGE = 64

#: Training images below which batches are small, that an epoch may have enough steps.
_FEW = 2000

#: Training images, and those of the smallest class, from which a tenth is held out to choose the best epoch by. Where
#: there are fewer, chance would choose: the accuracy on 300 images has a standard error of 2 points.
_ENOUGH_TO_HOLD_OUT, _ENOUGH_OF_A_CLASS = 3000, 20

#: Epochs of training.
_EPOCHS = 100

#: Classes that the comment counts.
_COUNTED = 12

_JOB = """\
{editors_line}
# {heading}
#
#   ffsd run {file} --dry-run      # what would be trained, and what it costs
#   ffsd run {file}
#   ffsd report runs/{name} --html {name}.html
#   ffsd classify runs/{name}/best.safetensors PICTURE
name: {name}
data:
  name: image_folder
  root: {root}
  image_size: {side}          # pixels; twice as many take four times as long
{validation}{backbone}
train:
  recipe: modern            # for own images; paper: the FFSD paper's settings
  epochs: {epochs}
{evaluations}  batch_size: {batch}
# scale: {{gpus_per_worker: 0}}   # train on the CPU even where there is a GPU
seed: 0                     # [0, 1, 2]: three seeds, and a spread to judge differences by
search:
  grid:
    method: [baseline, ffsd]  # the network alone, which the gain is measured against, and FFSD
"""

_LAST_EPOCH_ALONE = (
    "  evaluate_every: {epochs}       # the test images are looked at once, at the end: too few pictures to choose an "
    "epoch by\n"
)

_LARGE_BACKBONE = """\
backbone:
  name: torchvision:resnet18
  # weights: default      # begin with ImageNet's (a download)
  # lr_factor: 0.1        # and train them at a tenth of the rates"""


def job_text(pictures: Path, name: str, file: str, *, gpu: bool) -> str:
    """The text of a job file that trains on the pictures in a folder's class folders.

    Args:
        pictures: the folder, see `ImageFolder.root`.
        name: of the job.
        file: what the file will be called, for its comments.
        gpu: whether it is to be trained on a GPU, which is fast enough for larger images.

    Raises:
        DataError: there are no such class folders, or no picture in one.
    """
    listing = ImageFolder(root=str(pictures)).encoded()
    side = _side(listing.train, gpu=gpu)
    smallest = min(_counts(listing).values())
    held_out = not listing.val and len(listing.train) >= _ENOUGH_TO_HOLD_OUT and smallest >= _ENOUGH_OF_A_CLASS
    return _JOB.format(
        editors_line=schema.EDITORS_LINE,
        heading="\n# ".join(_described(listing)),
        file=file,
        name=name,
        root=json.dumps(str(pictures), ensure_ascii=False),
        side=side,
        validation="  validation: 0.1         # share of the training images that chooses the best epoch\n" * held_out,
        epochs=_EPOCHS,
        evaluations=_LAST_EPOCH_ALONE.format(epochs=_EPOCHS) * (not held_out and not listing.val),
        backbone=_LARGE_BACKBONE if side >= _LARGE else "backbone: resnet20",
        batch=32 if len(listing.train) < _FEW else 128,
    )


def _described(listing: Listing) -> list[str]:
    """Lines on what there is."""
    counts = _counts(listing)
    shown = [f"{_word(name)} {count:,}" for name, count in list(counts.items())[:_COUNTED]]
    more = [f"{len(counts) - _COUNTED} more"] * (len(counts) > _COUNTED)
    lines = [
        f"{len(listing.items):,} pictures in {len(counts)} classes; to train on: {', '.join([*shown, *more])}.",
        f"Held out for testing: {len(listing.test):,}"
        + (f"; for validation: {len(listing.val):,}." if listing.val else "."),
    ]
    fewest, most = min(counts.values()), max(counts.values())
    if most > 3 * fewest:
        rare, frequent = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        lines.append(
            f"Unequal classes: {_word(frequent)} has {most:,}, {_word(rare)} {fewest:,}; look at the balanced accuracy "
            "of `ffsd evaluate`."
        )
    return lines + [_word(note) for note in listing.notes]


def _counts(listing: Listing) -> dict[str, int]:
    """Training images by class."""
    counts = Counter(item.label for item in listing.train)
    return {name: counts[label] for label, name in enumerate(listing.classes)}


def _side(items: Sequence[Encoded], *, gpu: bool) -> int:
    """The largest side to train with that half of the pictures have; of those that can be opened."""
    shorter = []
    for item in items[:: max(1, len(items) // _LOOKED_AT)]:
        assert isinstance(item.data, Span)
        with (
            suppress(OSError, ValueError, Image.DecompressionBombError),
            Image.open(item.data.file, formats=FORMATS) as picture,
        ):
            shorter.append(min(picture.size))
    middle = statistics.median_low(shorter) if shorter else 0
    return max((side for side in _SIDES[gpu] if side <= middle), default=_SIDES[gpu][0])


def _word(text: str) -> str:
    """Text from file names on one line of a comment."""
    return plain(text, keep="")


def _name(folder: Path) -> str:
    """A job's name after a folder's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[: LONGEST_NAME - len(".yaml")]
    return name or "pictures"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffsd init", description="Write a job file that trains on pictures in one folder for each class."
    )
    parser.add_argument(
        "pictures", metavar="PICTURES", type=Path, help="a folder with train/ and test/, or with the class folders"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="default: the folder's name with .yaml, here")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    name = _name(arguments.pictures)
    out = arguments.out or Path(f"{name}.yaml")
    text = job_text(arguments.pictures, name, str(out), gpu=torch.cuda.is_available())
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise JobError(f"{out}: is there already; give another --out, or move it away") from None
    out.with_name(schema.FILE).write_text(schema.schema_text(), encoding="utf-8")
    print(text)
    print(f"Written to {out}, and {schema.FILE} beside it, by which editors check it. Train on it: ffsd run {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
