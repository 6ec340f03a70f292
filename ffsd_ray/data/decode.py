"""Encoded images into one uint8 tensor: in parallel where that is faster, and once: the result is kept in a cache."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ffsd_ray.data.base import Dataset, channel_statistics
from ffsd_ray.data.cache import Entry, cached
from ffsd_ray.data.picture import EMPTY, PictureError, PictureMemoryError, decode
from ffsd_ray.data.resident import Images
from ffsd_ray.errors import DataError
from ffsd_ray.memory import as_bytes, machine_memory
from ffsd_ray.storage import check_regular
from ffsd_ray.terminal import tracked

_CHUNK = 64  # images a task: the pool's own work must stay small beside decoding
_THREADS_PAY = 128 * 128  # pixels: threads that decode smaller images spend the time in waiting for each other (GIL)

#: Counts up where `picture.decode` makes other pixels of a file, or refuses others: what is cached is then made anew.
_DECODER = 2

_LISTED = 20  # images that an error names


class Span(NamedTuple):
    """`length` bytes of a file from `start` on; -1: all the rest."""

    file: str
    start: int = 0
    length: int = -1

    def read(self) -> bytes:
        check_regular(self.file)
        with open(self.file, "rb") as file:
            file.seek(self.start)
            return file.read(self.length)


class Encoded(NamedTuple):
    """An encoded image or where it lies, its label, and the name that an error gives it."""

    data: bytes | Span
    label: int
    where: str


class Listing(NamedTuple):
    """The images of a data set before decoding."""

    train: list[Encoded]
    #: Empty where the source has no validation split of its own.
    val: list[Encoded]
    test: list[Encoded]
    classes: tuple[str, ...]
    #: What is to be told of them (`Dataset.notes`).
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, list[Encoded]]:
        """The images by split, in the order of `items`."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def items(self) -> list[Encoded]:
        """The images of all splits."""
        return self.train + self.val + self.test

    @property
    def counts(self) -> list[int]:
        """How many images each split has."""
        return [len(part) for part in self.splits.values()]


@dataclass(frozen=True)
class OnError:
    """The policy for damaged images: `fail`, or `skip` up to `max_skipped` of them, a share of all."""

    action: Literal["fail", "skip"]
    max_skipped: float

    def check_share(self, skipped: Sequence[str], images: int) -> None:
        """Raise DataError where more images are damaged than may be passed over."""
        if len(skipped) > self.max_skipped * images:
            raise DataError(
                f"{len(skipped)} of {images} images are damaged, more than data.max_skipped = {self.max_skipped:g} of "
                f"them:\n{_some(skipped)}"
            )


class DamagedImage(DataError):
    """An image whose bytes could be read, but not be decoded, here or on any other machine."""

    def __init__(self, where: str, cause: str) -> None:
        super().__init__(where, cause)  # its arguments, with which a decoding process passes it on
        self.where, self.cause = where, cause

    def __str__(self) -> str:
        return f"{self.where}: expected a whole picture (JPEG, PNG, WebP, ...): {self.cause}"


def read_decoded(
    listing: Callable[[], Listing],
    files: Sequence[Sequence[str]],
    *,
    size: int | None,
    cache: str | None,
    progress: bool,
    on_error: OnError,
) -> Dataset:
    """The images that `listing` finds in the files, from the cache where an earlier call decoded these to this size.

    `files`: of each split in the order of `Listing.splits`. Raises DataError.
    """

    def make(raw: Path) -> Entry:
        return _decode_listing(listing(), size, progress, on_error)

    what = [size, version("pillow"), _DECODER, on_error.action]
    tensors, about, _ = cached(what, files, cache, make)
    skipped = tuple(about["skipped"])
    on_error.check_share(skipped, len(tensors["labels"]) + len(skipped))  # another limit may have held when it was made
    splits = zip(*(tensors[kind].split(about["counts"]) for kind in ("images", "labels")), strict=True)
    train, val, test = (Images(images, labels) for images, labels in splits)
    classes, mean, std, notes = (tuple(about[key]) for key in ("classes", "mean", "std", "notes"))
    return Dataset(train, val if len(val) else None, test, classes, mean, std, skipped, notes)


def without_damaged(
    listing: Listing, *, cache: str | None, progress: bool, on_error: OnError
) -> tuple[Listing, tuple[str, ...]]:
    """The images, all in files, that can be decoded; and the others' names, each with its cause.

    All are decoded for it once, and the cache remembers which are damaged. Raises DataError.
    """

    def make(raw: Path) -> Entry:
        causes = _decode_each(listing.items, None, _first_sound(listing.items), progress, lambda index, image: None)
        return Entry({"damaged": torch.tensor(sorted(causes))}, {"causes": [causes[index] for index in sorted(causes)]})

    files = [[item.data.file for item in part if isinstance(item.data, Span)] for part in listing.splits.values()]
    distinct = [list(dict.fromkeys(part)) for part in files]
    what = ["damaged", version("pillow"), _DECODER]
    tensors, about, _ = cached(what, distinct, cache, make)
    causes = dict(zip(tensors["damaged"].tolist(), about["causes"], strict=True))
    skipped = _skipped(listing, causes, on_error)
    train, val, test = (
        [item for index, item in enumerate(part, first) if index not in causes] for _, first, part in _numbered(listing)
    )
    return listing._replace(train=train, val=val, test=test), skipped


def check_not_empty(listing: Listing) -> None:
    """Raise DataError where images are known, before any is read, to hold no bytes."""
    spans = enumerate(item.data for item in listing.items)
    causes = {index: EMPTY for index, span in spans if isinstance(span, Span) and not span.length}
    if causes:
        raise _damaged(listing.items, causes)


def _decode_listing(listing: Listing, size: int | None, progress: bool, on_error: OnError) -> Entry:
    """The images and labels of all splits, and what else makes them a data set."""
    items = listing.items
    images, causes = _decode_all(items, size, progress)
    if causes and on_error.action == "fail":
        raise _damaged(items, causes)
    skipped = _skipped(listing, causes, on_error)
    kept = [index for index in range(len(items)) if index not in causes]
    for place, index in enumerate(kept if causes else ()):
        images[place] = images[index]  # one by one: a second tensor could be more than the memory holds
    counts = [sum(first <= index < first + len(part) for index in kept) for _, first, part in _numbered(listing)]
    tensors = {"images": images[: len(kept)], "labels": torch.tensor([items[index].label for index in kept])}
    mean, std = channel_statistics(tensors["images"][: counts[0]])
    about = {
        "counts": counts,
        "classes": listing.classes,
        "mean": mean,
        "std": std,
        "skipped": skipped,
        "notes": listing.notes,
    }
    return Entry(tensors, about)


def _numbered(listing: Listing) -> list[tuple[str, int, list[Encoded]]]:
    """Each split: its name, the index of its first image in `Listing.items`, its images."""
    firsts = accumulate(listing.counts, initial=0)
    return [(split, first, part) for (split, part), first in zip(listing.splits.items(), firsts, strict=False)]


def _skipped(listing: Listing, causes: dict[int, str], on_error: OnError) -> tuple[str, ...]:
    """The damaged images' names, each with its cause. Raises DataError where too many are, or all of a class."""
    skipped = tuple(_named(listing.items, causes))
    on_error.check_share(skipped, len(listing.items))
    for split, first, part in _numbered(listing):
        kept = {item.label for index, item in enumerate(part, first) if index not in causes}
        if lost := sorted({item.label for item in part} - kept):
            classes = ", ".join(listing.classes[label] for label in lost[:_LISTED])
            raise DataError(f"data.on_error: skip would leave no {split} image of {classes}:\n{_some(skipped)}")
    return skipped


def _damaged(items: Sequence[Encoded], causes: dict[int, str]) -> DataError:
    """The error for images, given by index, that cannot be decoded."""
    if len(causes) == 1:
        [(index, cause)] = causes.items()
        return DamagedImage(items[index].where, cause)
    return DataError(
        f"{len(causes)} of {len(items)} images are damaged, expected whole pictures (JPEG, PNG, WebP, ...); "
        f"data.on_error: skip leaves such out:\n{_some(_named(items, causes))}"
    )


def _named(items: Sequence[Encoded], causes: dict[int, str]) -> list[str]:
    return [f"{items[index].where}: {causes[index]}" for index in sorted(causes)]


def _some(named: Sequence[str]) -> str:
    """The first of them, a line each, and how many more there are."""
    more = [f"and {len(named) - _LISTED:,} more"] if len(named) > _LISTED else []
    return "\n".join(f"  {line}" for line in [*named[:_LISTED], *more])


def _decode_all(items: Sequence[Encoded], size: int | None, progress: bool) -> tuple[Tensor, dict[int, str]]:
    """uint8 [N, 3, S, S], and by index why others could not be decoded; S is `size`, or the first sound image's."""
    first = _first_sound(items)
    side = size or (0 if first is None else first.shape[-1])
    if (asked := len(items) * 3 * side**2) > machine_memory():
        raise DataError(
            f"data.image_size: {len(items):,} images of {side}×{side} need {as_bytes(asked)}; this machine has "
            f"{as_bytes(machine_memory())}: smaller ones, or data.stream: true"
        )
    images = torch.empty(len(items), 3, side, side, dtype=torch.uint8)

    def put(index: int, image: Tensor) -> None:
        if image.shape != images.shape[1:]:
            height, width = image.shape[1:]
            raise DataError(
                f"{items[index].where}: the image is {height}×{width} pixels, expected {side}×{side}: square, "
                "and all of one size, which `data.image_size` brings about"
            )
        images[index] = image

    return images, _decode_each(items, size, first, progress, put)


def _first_sound(items: Sequence[Encoded]) -> Tensor | None:
    for item in items:
        try:
            return decode_item(item, None)
        except DamagedImage:
            continue
    return None


def _decode_each(
    items: Sequence[Encoded],
    size: int | None,
    first: Tensor | None,
    progress: bool,
    put: Callable[[int, Tensor], None],
) -> dict[int, str]:
    """Hand `put` each image that can be decoded; by index why others could not.

    By several threads at once where `first`, which stands for all, is large.
    """
    workers = os.cpu_count() if first is not None and first[0].numel() >= _THREADS_PAY else 1
    causes: dict[int, str] = {}

    def decode_chunk(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(items))):
            try:
                image = decode_item(items[index], size)
            except DamagedImage as error:
                causes[index] = error.cause
                continue
            put(index, image)

    starts = range(0, len(items), _CHUNK)
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(decode_chunk, starts)
        for _ in tracked(done, "Decoding images", len(starts), show=progress):
            pass
    return causes


def decode_item(item: Encoded, size: int | None) -> Tensor:
    """`decode`; errors name the image.

    Raises:
        DamagedImage: its bytes are no whole picture.
        DataError: they cannot be read, or the memory does not suffice for it.
    """
    return decode_named(item.data, item.where, size)


def decode_named(data: bytes | Span, where: str, size: int | None) -> Tensor:
    """Decode as `decode_item` does, an image that has no label."""
    try:
        return decode(data.read() if isinstance(data, Span) else data, size)
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
    except PictureMemoryError as error:
        raise DataError(f"{where}: {error}") from error
    except PictureError as error:
        raise DamagedImage(where, str(error)) from error
