"""Encoded images into one uint8 tensor: in parallel where that is faster, and once: the result is kept in a cache."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ffsd_ray.data.base import Dataset, channel_statistics
from ffsd_ray.data.cache import Entry, remembered
from ffsd_ray.data.resident import Images
from ffsd_ray.errors import DataError

_CHUNK = 64  # images a task: the pool's own work must stay small beside decoding
_THREADS_PAY = 128 * 128  # pixels: threads that decode smaller images spend the time in waiting for each other (GIL)


class Span(NamedTuple):
    """`length` bytes of a file from `start` on; -1: all the rest."""

    file: str
    start: int = 0
    length: int = -1

    def read(self) -> bytes:
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
    test: list[Encoded]
    classes: tuple[str, ...]


def decode(data: bytes, size: int | None) -> Tensor:
    """A picture in any format that Pillow reads, as RGB uint8 [3, H, W]; with `size` as a square of that side (`fit`).

    Raises:
        ValueError: the bytes are no picture, or not the whole of one.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            image = upright(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's, by format
        raise ValueError(str(error)) from error
    return image if size is None else fit(image, size)


def upright(picture: Image.Image) -> Tensor:
    """RGB uint8 [3, H, W], turned as the picture's EXIF data says."""
    from torchvision.transforms.v2.functional import pil_to_tensor  # takes seconds; settings are checked without it

    return pil_to_tensor(ImageOps.exif_transpose(picture).convert("RGB"))


def fit(image: Tensor, size: int, scaled: int | None = None) -> Tensor:
    """uint8 [3, H, W] to [3, size, size]: shorter side to `scaled` pixels (bilinear, antialiased), centre cut out.

    `scaled` None: `size`, so that nothing of the shorter side is cut off.
    """
    from torchvision.transforms.v2.functional import center_crop, resize

    return center_crop(resize(image, [scaled or size], antialias=True), [size, size])


def read_decoded(
    listing: Callable[[], Listing],
    train_files: Sequence[str],
    test_files: Sequence[str],
    *,
    size: int | None,
    cache: str | None,
    progress: bool,
) -> Dataset:
    """The images that `listing` finds in the files, from the cache where an earlier call decoded these to this size.

    Raises DataError.
    """

    def make(raw: Path) -> Entry:
        return _decode_listing(listing(), size, progress)

    tensors, about, _ = remembered([size, version("pillow")], [train_files, test_files], cache, make)
    splits = zip(*(tensors[kind].tensor_split([about["train"]]) for kind in ("images", "labels")), strict=True)
    train, test = (Images(images, labels) for images, labels in splits)
    return Dataset(train, None, test, tuple(about["classes"]), tuple(about["mean"]), tuple(about["std"]))


def _decode_listing(listing: Listing, size: int | None, progress: bool) -> Entry:
    """The images and labels of both splits, train first, and what else makes them a data set."""
    items = listing.train + listing.test
    tensors = {"images": _decode_all(items, size, progress), "labels": torch.tensor([item.label for item in items])}
    mean, std = channel_statistics(tensors["images"][: len(listing.train)])
    return Entry(tensors, {"train": len(listing.train), "classes": listing.classes, "mean": mean, "std": std})


def _decode_all(items: Sequence[Encoded], size: int | None, progress: bool) -> Tensor:
    """uint8 [N, 3, S, S]; S is `size`, or the first image's."""
    first = decode_item(items[0], None)
    workers = os.cpu_count() if first[0].numel() >= _THREADS_PAY else 1
    side = size or first.shape[-1]
    images = torch.empty(len(items), 3, side, side, dtype=torch.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(items))):
            image = decode_item(items[index], size)
            if image.shape != images.shape[1:]:
                height, width = image.shape[1:]
                raise DataError(
                    f"{items[index].where}: the image is {height}×{width} pixels, expected {side}×{side}: square, "
                    "and all of one size, which `data.image_size` brings about"
                )
            images[index] = image

    starts = range(0, len(items), _CHUNK)
    shown = progress and Console().is_terminal
    with ThreadPoolExecutor(workers) as pool:
        for _ in track(pool.map(fill, starts), "Decoding images", total=len(starts), disable=not shown, transient=True):
            pass
    return images


def decode_item(item: Encoded, size: int | None) -> Tensor:
    """`decode`; a DataError names the image."""
    try:
        return decode(item.data.read() if isinstance(item.data, Span) else item.data, size)
    except (OSError, ValueError) as error:
        raise DataError(f"{item.where}: expected a whole picture (JPEG, PNG, WebP, ...): {error}") from error
