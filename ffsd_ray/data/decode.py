"""Decoding a data set's images into one uint8 tensor, with several threads and with an on-disk cache."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from ffsd_ray.data.base import Dataset, channel_statistics
from ffsd_ray.data.cache import Entry, cached
from ffsd_ray.data.damage import DamagedImage, DamagePolicy, check_skipped, damage_error
from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.data.picture import PictureError, PictureMemoryError, decode
from ffsd_ray.data.resident import Images
from ffsd_ray.errors import DataError
from ffsd_ray.memory import as_bytes, machine_memory
from ffsd_ray.terminal import tracked

#: So many that the thread pool's overhead is small beside decoding.
_IMAGES_PER_TASK = 64

#: Smaller images are decoded by one thread: several would mostly wait for the GIL.
_MIN_PIXELS_FOR_THREADS = 128 * 128

#: Part of the cache's key: increase it when `picture.decode` returns other pixels for a file, or refuses other files.
_DECODER_VERSION = 2


def read_decoded(
    listing: Callable[[], Listing],
    files: Sequence[Sequence[str]],
    *,
    size: int | None,
    cache: str | None,
    progress: bool,
    on_error: DamagePolicy,
) -> Dataset:
    """Decode the images that `listing` returns, or load them from the cache if an earlier call has decoded them.

    `files`: the files that they are read from, by split in the order of `Listing.splits`; `size`: side in pixels to
    which images are scaled and cropped, None for as stored; `cache`: see `cache_folder`.

    Raises:
        DataError: an image cannot be read, too many are damaged, or the images differ in shape.
    """

    def make(raw: Path) -> Entry:
        return _decode_listing(listing(), size, progress, on_error)

    key_parts = [size, version("pillow"), _DECODER_VERSION, on_error.action]
    tensors, metadata, _ = cached(key_parts, files, cache, make)
    skipped = tuple(metadata["skipped"])
    on_error.check_share(skipped, len(tensors["labels"]) + len(skipped))  # another limit may have held when it was made
    splits = zip(*(tensors[kind].split(metadata["counts"]) for kind in ("images", "labels")), strict=True)
    train, val, test = (Images(images, labels) for images, labels in splits)
    classes, mean, std, notes = (tuple(metadata[key]) for key in ("classes", "mean", "std", "notes"))
    return Dataset(train, val if len(val) else None, test, classes, mean, std, skipped, notes)


def without_damaged(
    listing: Listing, *, cache: str | None, progress: bool, on_error: DamagePolicy
) -> tuple[Listing, tuple[str, ...]]:
    """The listing without damaged images, and the names of those, each with its cause. For images that are in files.

    Decodes every image once; the cache keeps which are damaged.

    Raises:
        DataError: an image cannot be read, or too many are damaged.
    """

    def make(raw: Path) -> Entry:
        causes = _decode_each(listing.items, None, _first_undamaged(listing.items), progress, lambda index, image: None)
        return Entry({"damaged": torch.tensor(sorted(causes))}, {"causes": [causes[index] for index in sorted(causes)]})

    files = [[item.data.file for item in part if isinstance(item.data, Span)] for part in listing.splits.values()]
    distinct = [list(dict.fromkeys(part)) for part in files]
    key_parts = ["damaged", version("pillow"), _DECODER_VERSION]
    tensors, metadata, _ = cached(key_parts, distinct, cache, make)
    causes = dict(zip(tensors["damaged"].tolist(), metadata["causes"], strict=True))
    skipped = check_skipped(listing, causes, on_error)
    train, val, test = (
        [item for index, item in enumerate(part, first) if index not in causes]
        for _, first, part in listing.with_offsets
    )
    return listing._replace(train=train, val=val, test=test), skipped


def _decode_listing(listing: Listing, size: int | None, progress: bool, on_error: DamagePolicy) -> Entry:
    """Decode all images: a cache entry with images and labels of all splits, and the rest of a `Dataset`."""
    items = listing.items
    images, causes = _decode_all(items, size, progress)
    if causes and on_error.action == "fail":
        raise damage_error(items, causes)
    skipped = check_skipped(listing, causes, on_error)
    undamaged = [index for index in range(len(items)) if index not in causes]
    for place, index in enumerate(undamaged if causes else ()):
        images[place] = images[index]  # one by one: a second tensor could be more than the memory holds
    counts = [sum(first <= index < first + len(part) for index in undamaged) for _, first, part in listing.with_offsets]
    tensors = {"images": images[: len(undamaged)], "labels": torch.tensor([items[index].label for index in undamaged])}
    mean, std = channel_statistics(tensors["images"][: counts[0]])
    metadata = {
        "counts": counts,
        "classes": listing.classes,
        "mean": mean,
        "std": std,
        "skipped": skipped,
        "notes": listing.notes,
    }
    return Entry(tensors, metadata)


def _decode_all(items: Sequence[Encoded], size: int | None, progress: bool) -> tuple[Tensor, dict[int, str]]:
    """Images uint8 [N, 3, S, S] and, by index, the causes of those that could not be decoded, whose rows are undefined.

    S is `size`, or else the side of the first undamaged image.

    Raises:
        DataError: the images need more memory than the machine has, are not square, or differ in size.
    """
    first = _first_undamaged(items)
    side = size or (0 if first is None else first.shape[-1])
    if (required := len(items) * 3 * side**2) > machine_memory():
        raise DataError(
            f"data.image_size: {len(items):,} images of {side}×{side} need {as_bytes(required)}; this machine has "
            f"{as_bytes(machine_memory())}: smaller ones, or data.stream: true"
        )
    images = torch.empty(len(items), 3, side, side, dtype=torch.uint8)

    def store(index: int, image: Tensor) -> None:
        if image.shape != images.shape[1:]:
            height, width = image.shape[1:]
            raise DataError(
                f"{items[index].where}: the image is {height}×{width} pixels, expected {side}×{side}: square, "
                "and all of one size, which `data.image_size` brings about"
            )
        images[index] = image

    return images, _decode_each(items, size, first, progress, store)


def _first_undamaged(items: Sequence[Encoded]) -> Tensor | None:
    """The first image that can be decoded, uint8 [3, H, W]; None if there is none."""
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
    store: Callable[[int, Tensor], None],
) -> dict[int, str]:
    """Decode all images and pass each with its index to `store`; return the causes of damaged ones by index.

    Uses several threads if `first`, an image that is representative of all, is large; then `store` is called by them.
    """
    workers = os.cpu_count() if first is not None and first[0].numel() >= _MIN_PIXELS_FOR_THREADS else 1
    causes: dict[int, str] = {}

    def decode_chunk(start: int) -> None:
        for index in range(start, min(start + _IMAGES_PER_TASK, len(items))):
            try:
                image = decode_item(items[index], size)
            except DamagedImage as error:
                causes[index] = error.cause
                continue
            store(index, image)

    starts = range(0, len(items), _IMAGES_PER_TASK)
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(decode_chunk, starts)
        for _ in tracked(done, "Decoding images", len(starts), show=progress):
            pass
    return causes


def decode_item(item: Encoded, size: int | None) -> Tensor:
    """Read and decode an image as `picture.decode` does: uint8 [3, H, W].

    Raises:
        DamagedImage: the bytes are no complete picture.
        DataError: the file cannot be read, or there is too little memory. Both name the image.
    """
    return decode_named(item.data, item.where, size)


def decode_named(data: bytes | Span, where: str, size: int | None) -> Tensor:
    """Decode an image without a label, see `decode_item`; `where`: its name in messages."""
    try:
        return decode(data.read() if isinstance(data, Span) else data, size)
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
    except PictureMemoryError as error:
        raise DataError(f"{where}: {error}") from error
    except PictureError as error:
        raise DamagedImage(where, str(error)) from error
