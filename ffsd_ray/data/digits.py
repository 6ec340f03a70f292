"""scikit-learn's handwritten digits: 1,797 grey 8×8 images that need no download."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from ffsd_ray.base_settings import LARGEST_IMAGE
from ffsd_ray.data.base import Dataset, DataSettings, channel_statistics, split
from ffsd_ray.data.resident import Images

#: Training images by class, 1,437 of 1,797: one fifth, rounded up, is the test split.
_TRAIN_IMAGES = (142, 146, 142, 146, 145, 145, 145, 143, 139, 144)


class Digits(DataSettings):
    """scikit-learn's digits (UCI optical recognition of handwritten digits), enlarged to `image_size`."""

    name: Literal["digits"] = "digits"
    image_size: int = Field(
        16, ge=8, le=512, description="Side in pixels that the 8×8 images are enlarged to (bilinear)."
    )
    crop_padding: int = Field(
        2, ge=0, lt=LARGEST_IMAGE, description=DataSettings.model_fields["crop_padding"].description
    )
    flip: bool = Field(False, description=DataSettings.model_fields["flip"].description)

    @property
    def known_classes(self) -> int:
        return 10

    @property
    def known_size(self) -> int:
        return self.image_size

    @property
    def known_train_images(self) -> int:
        return self.kept_of(_TRAIN_IMAGES)

    def read(self, progress: bool) -> Dataset:
        """Read the images; one fifth of each class is the test split, the same in every run."""
        from sklearn.datasets import load_digits  # takes a second, and settings are checked without it

        digits = load_digits()
        grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 17 grey levels, 0..16
        side = (self.image_size, self.image_size)
        grey = F.interpolate(grey, size=side, mode="bilinear", align_corners=False).round().to(torch.uint8)
        images = Images(grey.repeat(1, 3, 1, 1), torch.from_numpy(digits.target).long())
        classes = tuple(str(digit) for digit in range(10))
        train, test = split(images, fraction=0.2, seed=0, key="digits", classes=classes)
        mean, std = channel_statistics(train.images)
        return Dataset(train, None, test, classes, mean, std)
