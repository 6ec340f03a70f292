"""Classify pictures with a deployed model: ffsd classify model_best.safetensors PICTURE|FOLDER ..."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ffsd_ray.command import command
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import DataError
from ffsd_ray.terminal import Screen

#: Classes that are shown of a picture.
_SHOWN = 3

#: Columns, more than a path has letters.
_UNFOLDED = 10_000


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ffsd classify", description="Name what a trained network sees in pictures, a row each."
    )
    parser.add_argument("file", metavar="FILE", help="a trial's model_best.safetensors")
    parser.add_argument(
        "images", metavar="PICTURE", nargs="+", help="pictures (JPEG, PNG, WebP, ...), or folders with pictures"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    networks = [image for image in arguments.images if Path(image).suffix == ".safetensors"]
    if networks:
        raise DataError(
            f"{', '.join([arguments.file, *networks])}: {1 + len(networks)} networks, expected one, then pictures; "
            "each trial of a run has its own"
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Picture", overflow="fold")
    table.add_column("Class", style="bold")
    table.add_column("Probability", justify="right")
    table.add_column("Then", style="dim")
    for found in load_model(arguments.file).predict(arguments.images):
        others = [f"{label} {probability:.1%}" for label, probability in list(found.probabilities.items())[1:_SHOWN]]
        table.add_row(found.picture, found.label, f"{found.probability:.1%}", ", ".join(others))
    terminal = Screen()
    # What a file or a program receives is not folded: a line a picture.
    (terminal if terminal.is_terminal else Screen(width=_UNFOLDED)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
