"""The interface of data sources: their settings, and the data set that they return."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ffsd_ray.base_settings import ADDED_LATER, LARGEST_IMAGE, NOT_IDENTITY, Location, Settings

#: Names that a message lists.
MAX_NAMES = 10

#: Largest value of `train_per_class` and `test_per_class`.
_MOST_PER_CLASS = 100_000_000

#: The tensors from which `Augmentation.views` computes a batch on its device, such as image indices and crop positions.
BatchInputs = tuple[Tensor, ...]


class Augmentation(Protocol):
    """Makes augmented training batches in two steps, of which the second can be captured as a CUDA graph."""

    def prepare(self, order: Tensor, keys: Tensor, parts: Sequence[slice]) -> Iterator[BatchInputs]:
        """Yield the inputs of `views` for each of `parts`, slices of an epoch's order.

        `order`: int64 [N], image indices; `keys`: int64 [N, views], random bits that determine the augmentations.
        """

    def views(self, inputs: BatchInputs) -> tuple[list[Tensor], Tensor]:
        """Compute a batch: its views, uint8 [b, 3, S, S] each, and labels int64 [b]. Never waits for the device."""


class Split(Protocol):
    """The labelled images of one split: `Images` in memory, or a `Stream` that is decoded during training."""

    @property
    def labels(self) -> Tensor:
        """Class of each image, int64 [N]."""

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""

    @property
    def device(self) -> torch.device:
        """The device on which batches are returned."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Self:
        """The same split with batches on `device`."""

    def select(self, indices: Tensor) -> Self:
        """The images at these indices, int64 [n]."""

    def augmentation(self, *, crop_padding: int, flip: bool) -> Augmentation:
        """The augmentation of training images, with the settings `data.crop_padding` and `data.flip`."""

    def unaugmented(self, parts: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 [b, 3, S, S], and labels, int64 [b], for each slice of the split; not augmented."""


@dataclass(frozen=True)
class Dataset:
    """A data set: its splits, its classes, and the statistics that normalise its images."""

    train: Split
    val: Split | None
    test: Split
    #: Class names by label.
    classes: tuple[str, ...]
    #: Mean and standard deviation of the red, green and blue pixels, scaled to [0, 1].
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    #: The damaged images that `data.on_error: skip` left out, each with its cause.
    skipped: tuple[str, ...] = ()
    #: Messages for the user, a line each, such as files that were left out or classes without test images.
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with batches on `device`."""
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
    """The `data` section of a job file: the images to train and test on, and the augmentation of training images."""

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
        """Number of classes; None if it is only known once images are read."""

    @property
    @abstractmethod
    def known_size(self) -> int | None:
        """Side of the images in pixels; None if it is only known once images are read."""

    @property
    def known_train_images(self) -> int | None:
        """Number of training images, validation split included; None if it is only known once images are read."""
        return None

    def kept_of(self, counts: Iterable[int]) -> int:
        """Number of training images that `train_per_class` keeps of a data set with such counts by class."""
        return sum(count if self.train_per_class is None else min(count, self.train_per_class) for count in counts)

    def without_fetching(self) -> Self:
        """These settings, changed so that `read` neither downloads images nor copies them from an object store.

        Raises:
            DataMissing: the images are in an object store.
        """
        return self

    @property
    def may_have_validation(self) -> bool:
        """Whether there may be validation images; false only if it is certain that there are none."""
        return self.validation > 0

    @abstractmethod
    def read(self, progress: bool) -> Dataset:
        """Read the source's images; `val` is None if the source has no validation split.

        `progress`: show progress bars.

        Raises:
            DataError: the images cannot be read.
        """

    @model_validator(mode="after")
    def _padding_fits(self) -> Self:
        if self.known_size is not None:
            check_padding(self.crop_padding, self.known_size)
        return self


def check_padding(padding: int, size: int) -> None:
    """Check that images with sides of `size` pixels can be reflected by `padding` pixels.

    Raises:
        ValueError: they cannot.
    """
    if padding >= size:
        raise ValueError(f"crop_padding {padding} must be smaller than the images, which are {size}×{size} pixels")


def list_names(names: Sequence[str]) -> str:
    """The first names, and how many are left out: "cat, dog and 3 more"."""
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}"


def channel_statistics(images: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(mean, std) of each channel of images uint8 [N, 3, S, S], pixels scaled to [0, 1]; from integer histograms."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        frequencies = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        average = (frequencies * values).sum()
        mean.append(average.item())
        std.append((frequencies * (values - average).square()).sum().sqrt().item())
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
