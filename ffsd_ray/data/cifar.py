"""CIFAR-10 and CIFAR-100, read from torchvision's files."""

from abc import abstractmethod
from http.client import IncompleteRead
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.error import URLError

import numpy as np
import torch
from filelock import FileLock
from pydantic import Field
from torch import Tensor

from ffsd_ray.base_settings import ADDED_LATER, NOT_IDENTITY, Location
from ffsd_ray.data.base import Dataset, DataSettings
from ffsd_ray.data.picture import fit
from ffsd_ray.data.resident import Images
from ffsd_ray.errors import DataAway, DataMissing

_STORED_SIZE = 32

#: Images that are scaled at once.
_CHUNK = 1024

_Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


class _Cifar(DataSettings):
    """Settings that both data sets share. `name` is that of torchvision's class in lower case."""

    root: Location = Field(
        "data", description="Folder that holds (or receives) torchvision's files.", json_schema_extra=NOT_IDENTITY
    )
    download: bool = Field(False, description="Fetch the files where they are missing.", json_schema_extra=NOT_IDENTITY)
    image_size: int = Field(
        _STORED_SIZE,
        ge=8,
        le=_STORED_SIZE,
        json_schema_extra=ADDED_LATER,
        description="Side in pixels that the 32×32 images are scaled down to (bilinear, antialiased), for a quick "
        "study. Normalisation stays that of 32×32.",
    )
    statistics: ClassVar[_Statistics]
    images_per_class: ClassVar[int]

    @property
    def known_size(self) -> int:
        return self.image_size

    @property
    @abstractmethod
    def known_classes(self) -> int: ...

    @property
    def known_train_images(self) -> int:
        return self.kept_of([self.images_per_class] * self.known_classes)

    def without_fetching(self) -> Self:
        return self.changed(download=False)

    def read(self, progress: bool) -> Dataset:
        from torchvision import datasets  # takes seconds, and settings are checked without it

        source = getattr(datasets, self.name.upper())
        root = Path(self.root).expanduser()
        try:
            if self.download:
                root.mkdir(parents=True, exist_ok=True)
                with FileLock(root / f"{self.name}.lock"):  # the workers of one node fetch once
                    source(root, download=True)
            train, test = (source(root, train=part) for part in (True, False))
        except (URLError, ConnectionError, TimeoutError, IncompleteRead) as error:
            raise DataAway(f"data.download: {self.name} cannot be fetched: {error}") from error
        except (RuntimeError, OSError) as error:
            raise DataMissing(
                f"data.root: {root}: no {self.name} there ({error}); expected torchvision's folder "
                f"{source.base_folder}, which `data.download: true` fetches"
            ) from error
        images = [Images(self._scaled(part.data), torch.tensor(part.targets)) for part in (train, test)]
        return Dataset(images[0], None, images[1], tuple(train.classes), *self.statistics)

    def _scaled(self, stored: np.ndarray) -> Tensor:
        """uint8 [N, 32, 32, 3] to [N, 3, S, S], as other sources scale (`picture.fit`)."""
        images = torch.from_numpy(stored).permute(0, 3, 1, 2).contiguous()
        if self.image_size == _STORED_SIZE:
            return images
        return torch.cat([fit(part, self.image_size) for part in images.split(_CHUNK)])


class Cifar10(_Cifar):
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, 32×32."""

    name: Literal["cifar10"] = "cifar10"
    images_per_class: ClassVar[int] = 5_000
    statistics: ClassVar[_Statistics] = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    @property
    def known_classes(self) -> int:
        return 10


class Cifar100(_Cifar):
    """CIFAR-100: 50,000 training and 10,000 test images of 100 classes, 32×32; the published code's normalisation."""

    name: Literal["cifar100"] = "cifar100"
    images_per_class: ClassVar[int] = 500
    statistics: ClassVar[_Statistics] = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

    @property
    def known_classes(self) -> int:
        return 100
