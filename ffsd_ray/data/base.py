"""The interface of data sources: their settings, and the data set that they return."""

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ffsd_ray.base_settings import ADDED_LATER, LARGEST_IMAGE, NOT_IDENTITY, Location, Settings
from ffsd_ray.data.counter_rng import random_bits
from ffsd_ray.errors import DataError

#: Of a data set.
_MOST_PER_CLASS = 100_000_000

#: The tensors that a batch is made from, on the device where it is made.
Drawn = tuple[Tensor, ...]


class Augmentation(Protocol):
    """How training batches are made: what must be decided for each, and the making, which a GPU can do by itself."""

    def draw(self, order: Tensor, keys: Tensor, parts: Sequence[slice]) -> Iterator[Drawn]:
        """For each part of `order` (int64 [N], sample indices) what `views` takes.

        `keys`: int64 [N, views], random bits that alone decide a view's augmentation.
        """

    def views(self, drawn: Drawn) -> tuple[list[Tensor], Tensor]:
        """The views, uint8 [b, 3, S, S] each, and labels [b]: operations on the device alone."""


class Split(Protocol):
    """Images of one split, wherever they lie: `Images` in memory, or a `Stream` decoded while training."""

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images."""

    @property
    def device(self) -> torch.device:
        """Where batches appear."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Self: ...

    def select(self, indices: Tensor) -> Self: ...

    def augmentation(self, *, crop_padding: int, flip: bool) -> Augmentation: ...

    def plain(self, parts: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each part of the samples: images, uint8 [b, 3, S, S], unaugmented, and labels [b]."""


_Split = TypeVar("_Split", bound=Split)


@dataclass(frozen=True)
class Dataset:
    """The splits, the class names by label, and each channel's mean and standard deviation, pixels scaled to [0, 1]."""

    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    #: Names and causes of the damaged images that `data.on_error: skip` passed over.
    skipped: tuple[str, ...] = ()
    #: What its user should know of it, a line each: files that were left out, classes without test images.
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "Dataset":
        """With its batches on the device."""
        val = None if self.val is None else self.val.to(device)
        return replace(self, train=self.train.to(device), val=val, test=self.test.to(device))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.image_size


class DataSettings(Settings):
    """The images to train and test on, and how training images are augmented."""

    name: str
    crop_padding: int = Field(
        4,
        ge=0,
        lt=LARGEST_IMAGE,
        description="Pixels of reflect padding before the random crop back to the image's size; 0: no crop.",
    )
    flip: bool = Field(True, description="Mirror a training image left to right with probability 1/2.")
    train_per_class: int | None = Field(
        None,
        ge=1,
        le=_MOST_PER_CLASS,
        json_schema_extra=ADDED_LATER,
        description="Train on at most so many images of each class, for a quick study; `validation` is held out of "
        "these. Of a class with fewer all are kept, and normalisation stays that of all training images. null: all.",
    )
    test_per_class: int | None = Field(
        None,
        ge=1,
        le=_MOST_PER_CLASS,
        json_schema_extra=ADDED_LATER,
        description="Test on at most so many images of each class; null: all.",
    )
    subset_seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        json_schema_extra=ADDED_LATER,
        description="Chooses the images that train_per_class and test_per_class keep: the same ones whatever the "
        "trial's `seed`, so that the spread over seeds is that of training. A smaller choice is part of a larger one.",
    )
    validation: float = Field(
        0.0, ge=0, lt=1, description="Share of the training images held out for validation, stratified by class."
    )
    validation_seed: int = Field(0, ge=0, lt=2**32, description="Chooses which images are held out for validation.")
    cache: Location | None = Field(
        None,
        description="Folder for decoded images (parquet, image_folder); null: ffsd_ray in $XDG_CACHE_HOME or ~/.cache.",
        json_schema_extra=NOT_IDENTITY,
    )

    @property
    @abstractmethod
    def known_classes(self) -> int | None:
        """Number of classes, where it is known before any image is read."""

    @property
    @abstractmethod
    def known_size(self) -> int | None:
        """Side of the images in pixels, where it is known before any image is read."""

    @property
    def known_train_images(self) -> int | None:
        """Number of training images, validation split included, where it is known before any image is read."""
        return None

    def kept_of(self, counts: Iterable[int]) -> int:
        """Number of training images that `train_per_class` keeps of a data set with such counts by class."""
        return sum(count if self.train_per_class is None else min(count, self.train_per_class) for count in counts)

    def without_fetching(self) -> Self:
        """The settings such that `read` fetches nothing from elsewhere.

        Raises:
            DataMissing: the images are elsewhere.
        """
        return self

    @property
    def may_hold_out(self) -> bool:
        """Whether there may be validation images; where there are none it is known once the images are read."""
        return self.validation > 0

    @abstractmethod
    def read(self, progress: bool) -> Dataset:
        """The source's images; `val` is None where it has no validation split of its own. Raises DataError."""

    @model_validator(mode="after")
    def _padding_fits(self) -> Self:
        if self.known_size is not None:
            check_padding(self.crop_padding, self.known_size)
        return self


def check_padding(padding: int, size: int) -> None:
    """Raise ValueError where images of `size` pixels cannot be reflected by `padding`."""
    if padding >= size:
        raise ValueError(f"crop_padding {padding} must be smaller than the images, which are {size}×{size} pixels")


def at_most_per_class(images: _Split, count: int, seed: int) -> _Split:
    """At most `count` images of each class, in their order.

    The images of a class are ranked by random bits of (seed, index in the split) and the first ones kept: a smaller
    `count` keeps a part of what a larger one does, and nothing depends on a library's random generator.
    """
    labels = images.labels
    ranked = random_bits(torch.arange(len(labels)), seed).argsort(stable=True)
    ranked = ranked[labels[ranked].argsort(stable=True)]  # class by class
    sizes = labels.bincount()
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[ranked]]
    return images.select(ranked[rank < count].sort().values)


def split(images: _Split, fraction: float, seed: int, key: str, classes: Sequence[str]) -> tuple[_Split, _Split]:
    """(kept, held out), stratified by class. `key` is the setting that an error names. Raises DataError."""
    kept, held = split_indices(images.labels.tolist(), fraction, seed, key, classes)
    return images.select(torch.from_numpy(kept)), images.select(torch.from_numpy(held))


def split_indices(
    labels: Sequence[int], fraction: float, seed: int, key: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending int64 indices of the samples kept and of those held out, stratified by class. Raises DataError."""
    from sklearn.model_selection import train_test_split  # takes a second, and settings are checked without it

    _check_share(labels, fraction, key, classes)
    kept, held = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels)
    return np.sort(kept), np.sort(held)


def _check_share(labels: Sequence[int], fraction: float, key: str, classes: Sequence[str]) -> None:
    """Raise DataError where this share cannot be held out of each class: scikit-learn's own words name numbers."""
    counts = Counter(labels)
    images, held = len(labels), math.ceil(fraction * len(labels))
    few = [f"{classes[label]} ({count})" for label, count in sorted(counts.items()) if count < 2]
    problem = f"{key} = {fraction:g}: cannot hold out this share of {images} images of {len(counts)} classes"
    if few:
        raise DataError(
            f"{problem}: expected 2 images of each class or more, to keep one and hold one out; fewer has "
            f"{', '.join(few[:10])}{' ...' if len(few) > 10 else ''}"
        )
    if not len(counts) <= held <= images - len(counts):
        low, high = len(counts) / images, 1 - len(counts) / images
        raise DataError(
            f"{problem}: it is {held} of them, expected one of each class or more on both sides: "
            + (f"a share from {low:.2g} to {high:.2g}" if low <= high else "more images")
        )


def channel_statistics(images: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Each channel's mean and standard deviation in [0, 1] over uint8 [N, 3, S, S]; exact, from integer histograms."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        average = (share * values).sum()
        mean.append(average.item())
        std.append((share * (values - average).square()).sum().sqrt().item())
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
