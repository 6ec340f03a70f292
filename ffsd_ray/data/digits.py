"""scikit-learn's handwritten digits: 1,797 grey 8×8 images that need no download."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from ffsd_ray.base_settings import ADDED_LATER, LARGEST_IMAGE
from ffsd_ray.data.base import Dataset, DataSettings, channel_statistics
from ffsd_ray.data.resident import Images
from ffsd_ray.data.subsets import held_out_of, split

_IMAGES, _FEWEST_OF_A_CLASS = 1797, 174
_TEST_SHARE = 0.2
#: Training images by class with that test share.
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
    test_share: float = Field(
        _TEST_SHARE,
        ge=0.05,
        le=0.95,
        json_schema_extra=ADDED_LATER,
        description="Share of the images that are tested on, the same ones in every run.",
    )

    @property
    def known_classes(self) -> int:
        return 10

    @property
    def known_size(self) -> int:
        return self.image_size

    @property
    def known_train_images(self) -> int | None:
        if self.test_share == _TEST_SHARE:
            return self.kept_of(_TRAIN_IMAGES)
        images = _IMAGES - held_out_of(_IMAGES, self.test_share)
        if self.train_per_class is None:
            return images
        every_class_has = _FEWEST_OF_A_CLASS * images // _IMAGES
        return 10 * self.train_per_class if self.train_per_class <= every_class_has else None

    def read(self, progress: bool) -> Dataset:
        """Read the images and split them by class."""
        from sklearn.datasets import load_digits  # takes a second, and settings are checked without it

        digits = load_digits()
        grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 17 grey levels, 0..16
        side = (self.image_size, self.image_size)
        grey = F.interpolate(grey, size=side, mode="bilinear", align_corners=False).round().to(torch.uint8)
        images = Images(grey.repeat(1, 3, 1, 1), torch.from_numpy(digits.target).long())
        classes = tuple(str(digit) for digit in range(10))
        train, test = split(images, fraction=self.test_share, seed=0, key="data.test_share", classes=classes)
        mean, std = channel_statistics(train.images)
        return Dataset(train, None, test, classes, mean, std)
