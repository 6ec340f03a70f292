"""Encoded images into one uint8 tensor: in parallel where that is faster, and once: the result is kept in a cache."""

import hashlib
import io
import json
import os
import uuid
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ffsd_ray.data.base import Dataset, Images, channel_statistics
from ffsd_ray.errors import DataError

_CHUNK = 64  # images a task: the pool's own work must stay small beside decoding
_THREADS_PAY = 128 * 128  # pixels: threads that decode smaller images spend the time in waiting for each other (GIL)


class Encoded(NamedTuple):
    """An image file or its content, its label, and the name that an error gives it."""

    data: bytes | Path
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


def fit(image: Tensor, size: int) -> Tensor:
    """uint8 [3, H, W] to [3, size, size]: shorter side scaled (bilinear, antialiased), centre square cut out."""
    from torchvision.transforms.v2.functional import center_crop, resize

    return center_crop(resize(image, [size], antialias=True), [size, size])


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

    The files count as the same by absolute path, size in bytes and modification time. Only one process at a time
    decodes a data set; the others wait for its result. A damaged cache file is made anew. Raises DataError.
    """
    files = [[_fingerprint(file) for file in part] for part in (train_files, test_files)]
    key = hashlib.sha256(json.dumps([size, version("pillow"), files]).encode()).hexdigest()[:32]
    folder = Path(cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ffsd_ray")).expanduser()
    path = folder / f"{key}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            found = _load(path)
            if found is None:
                found = _decode_listing(listing(), size, progress)
                _save(*found, path)
            return _dataset(*found)
    except (OSError, SafetensorError) as error:
        raise DataError(f"data.cache: {folder}: cannot be written ({error}); expected a folder with space") from error


def _fingerprint(file: str) -> tuple[str, int, int]:
    try:
        found = os.stat(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    return os.path.abspath(file), found.st_size, found.st_mtime_ns


def _decode_listing(listing: Listing, size: int | None, progress: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the cache holds: the images and labels of both splits, train first, and what else makes them a data set."""
    items = listing.train + listing.test
    tensors = {"images": _decode_all(items, size, progress), "labels": torch.tensor([item.label for item in items])}
    mean, std = channel_statistics(tensors["images"][: len(listing.train)])
    return tensors, {"train": len(listing.train), "classes": listing.classes, "mean": mean, "std": std}


def _dataset(tensors: dict[str, Tensor], about: dict[str, Any]) -> Dataset:
    splits = zip(*(tensors[kind].tensor_split([about["train"]]) for kind in ("images", "labels")), strict=True)
    train, test = (Images(images, labels) for images, labels in splits)
    return Dataset(train, None, test, tuple(about["classes"]), tuple(about["mean"]), tuple(about["std"]))


def _decode_all(items: Sequence[Encoded], size: int | None, progress: bool) -> Tensor:
    """uint8 [N, 3, S, S]; S is `size`, or the first image's."""
    first = _decode_one(items[0], None)
    workers = os.cpu_count() if first[0].numel() >= _THREADS_PAY else 1
    side = size or first.shape[-1]
    images = torch.empty(len(items), 3, side, side, dtype=torch.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(items))):
            image = _decode_one(items[index], size)
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


def _decode_one(item: Encoded, size: int | None) -> Tensor:
    try:
        return decode(item.data.read_bytes() if isinstance(item.data, Path) else item.data, size)
    except (OSError, ValueError) as error:
        raise DataError(f"{item.where}: expected a whole picture (JPEG, PNG, WebP, ...): {error}") from error


def _save(tensors: dict[str, Tensor], about: dict[str, Any], path: Path) -> None:
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        save_file(tensors, temporary, {"about": json.dumps(about | {"checksum": _checksum(tensors)})})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `_save` wrote, or None where the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {kind: file.get_tensor(kind) for kind in ("images", "labels")}
            about = json.loads(file.metadata()["about"])
            return (tensors, about) if about["checksum"] == _checksum(tensors) else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _checksum(tensors: dict[str, Tensor]) -> int:
    return zlib.crc32(tensors["labels"].numpy().data, zlib.crc32(tensors["images"].numpy().data))
