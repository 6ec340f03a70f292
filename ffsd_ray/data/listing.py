"""The images of a data set before decoding, and where the bytes of each are."""

from itertools import accumulate
from typing import NamedTuple

from ffsd_ray.storage import check_regular


class Span(NamedTuple):
    """A range of bytes in a file: `length` bytes from `start` on, or with -1 all to the end."""

    file: str
    start: int = 0
    length: int = -1

    def read(self) -> bytes:
        """Read the bytes. Raises OSError, also for a device or a pipe."""
        check_regular(self.file)
        with open(self.file, "rb") as file:
            file.seek(self.start)
            return file.read(self.length)


class Encoded(NamedTuple):
    """An encoded image and its label."""

    data: bytes | Span
    label: int
    where: str
    """The name of the image in messages, such as its path."""


class Listing(NamedTuple):
    """The images of a data set before decoding."""

    train: list[Encoded]
    #: Empty if the source has no validation split.
    val: list[Encoded]
    test: list[Encoded]
    #: Class names by label.
    classes: tuple[str, ...]
    #: See `Dataset.notes`.
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, list[Encoded]]:
        """The images of each split, in the order of `items`."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def items(self) -> list[Encoded]:
        """The images of all splits, one after another."""
        return self.train + self.val + self.test

    @property
    def counts(self) -> list[int]:
        """Number of images in each split."""
        return [len(part) for part in self.splits.values()]

    @property
    def with_offsets(self) -> list[tuple[str, int, list[Encoded]]]:
        """(name, index of the first image in `items`, images) of each split."""
        firsts = accumulate(self.counts, initial=0)
        return [(split, first, part) for (split, part), first in zip(self.splits.items(), firsts, strict=False)]
