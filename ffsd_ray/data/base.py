"""What every data source has in common: its settings, and the data set it returns."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ffsd_ray.errors import DataError
from ffsd_ray.settings import NOT_IDENTITY, Settings


@dataclass(frozen=True)
class Images:
    """Small images, whole, on one device: `images` uint8 [N, 3, S, S] contiguous, `labels` int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor) -> "Images":
        return Images(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """The splits, the class names by label, and each channel's mean and standard deviation, pixels scaled to [0, 1]."""

    train: Images
    val: Images | None
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.images.shape[-1]


class DataSettings(Settings):
    """The images to train and test on, and how training images are augmented."""

    name: str
    crop_padding: int = Field(
        4, ge=0, description="Pixels of reflect padding before the random crop back to the image's size; 0: no crop."
    )
    flip: bool = Field(True, description="Mirror a training image left to right with probability 1/2.")
    validation: float = Field(
        0.0, ge=0, lt=1, description="Share of the training images held out for validation, stratified by class."
    )
    validation_seed: int = Field(0, ge=0, lt=2**32, description="Chooses which images are held out for validation.")
    cache: str | None = Field(
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

    @abstractmethod
    def read(self, progress: bool) -> Dataset:
        """The source's train and test images, `val` still None. Raises DataError."""

    @model_validator(mode="after")
    def _padding_fits(self) -> Self:
        if self.known_size is not None:
            check_padding(self.crop_padding, self.known_size)
        return self


def check_padding(padding: int, size: int) -> None:
    """Raise ValueError where images of `size` pixels cannot be reflected by `padding`."""
    if padding >= size:
        raise ValueError(f"crop_padding {padding} must be smaller than the images, which are {size}×{size} pixels")


def split(images: Images, fraction: float, seed: int, key: str) -> tuple[Images, Images]:
    """(kept, held out), stratified by class. `key` is the setting that an error names. Raises DataError."""
    kept, held = split_indices(images.labels.tolist(), fraction, seed, key)
    return images.select(torch.from_numpy(kept)), images.select(torch.from_numpy(held))


def split_indices(labels: Sequence[int], fraction: float, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Ascending int64 indices of the samples kept and of those held out, stratified by class. Raises DataError."""
    from sklearn.model_selection import train_test_split  # takes a second, and settings are checked without it

    try:
        kept, held = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels)
    except ValueError as error:
        raise DataError(f"{key} = {fraction}: cannot hold out this share of {len(labels)} images: {error}") from error
    return np.sort(kept), np.sort(held)


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
