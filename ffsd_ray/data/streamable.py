"""The settings of a source whose images are files: where these are, how they are decoded, whether they are streamed."""

import os
from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ffsd_ray.base_settings import NOT_IDENTITY, Deviation, Problem, Sha256, Share, refuse
from ffsd_ray.data.base import Dataset, DataSettings
from ffsd_ray.data.damage import DamagePolicy, check_not_empty
from ffsd_ray.data.decode import without_damaged
from ffsd_ray.data.fingerprint import content_fingerprint
from ffsd_ray.data.listing import Listing
from ffsd_ray.data.streaming import IMAGENET_MEAN, IMAGENET_STD, Decoder, Stream
from ffsd_ray.errors import DataError, DataMissing
from ffsd_ray.storage import is_uri, shown


def _check_channels(value: Any) -> Any:
    """Check that a value is three numbers in [0, 1], one for each channel. Raises PydanticCustomError."""
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        expected = "Should be 3 numbers, one each for red, green and blue, with pixels scaled to [0, 1]"
    elif all(0 <= number <= 1 for number in numbers):
        return value
    else:
        expected = "Should be of pixels scaled to [0, 1]"
        if all(0 <= number <= 255 for number in numbers):
            expected += f", so divide by 255: [{', '.join(f'{number / 255:.4g}' for number in numbers)}]"
    raise PydanticCustomError("channels", "{expected}", {"expected": expected})


class StreamableSettings(DataSettings):
    """Settings of a source whose images are files, possibly in an object store, and can be streamed."""

    stream: bool = Field(
        False,
        description="Decode while training instead of once before it; for images that do not fit in memory. As on "
        "ImageNet, training images are then random crops scaled to image_size (RandomResizedCrop), and of test images, "
        "the shorter side scaled to 256/224 of image_size, the centre is cut out.",
    )
    loader_processes: int = Field(
        2,
        ge=0,
        le=256,
        json_schema_extra=NOT_IDENTITY,
        description="Processes of a worker that decode a stream; 0: the worker itself does.",
    )
    mean: Annotated[tuple[Share, Share, Share], Field(strict=False), BeforeValidator(_check_channels)] | None = Field(
        None,
        description="Mean of the red, green and blue pixels, scaled to [0, 1], for their normalisation; null: that of "
        "the training images, of a stream ImageNet's.",
    )
    std: (
        Annotated[tuple[Deviation, Deviation, Deviation], Field(strict=False), BeforeValidator(_check_channels)] | None
    ) = Field(None, description="Their standard deviation, likewise.")
    fingerprint: Sha256 | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="SHA-256 of the images' content and of their names below `root`. It tells trials apart in place of "
        "where the images lie, and they must still have it when a trial begins; null: as they are when the job is run.",
    )
    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description="What is done about damaged images: the run fails, or they are left out and listed in each trial's "
        "skipped.json. A stream finds them before training, for which all images are decoded once.",
    )
    max_skipped: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of all images above which on_error: skip fails too. It fails as well where no image of a "
        "class would be left.",
        json_schema_extra=NOT_IDENTITY,
    )

    @abstractmethod
    def local_copy(self, progress: bool) -> AbstractContextManager[Self]:
        """Copy the files that URIs name to this node; yield these settings with local paths in their place.

        Raises:
            DataError: see `remote.local_copy`.
        """

    @abstractmethod
    def named_files(self) -> list[tuple[str, str]]:
        """(name, path) of each file that is read, on this node; the name does not depend on the data set's location.

        Raises:
            DataError: the files cannot be found.
        """

    @abstractmethod
    def encoded(self) -> Listing:
        """The images before decoding, all in files of this node.

        Raises:
            DataError: they cannot be listed.
        """

    @abstractmethod
    def decoded(self, progress: bool) -> Dataset:
        """The decoded images in memory.

        Raises:
            DataError: see `decode.read_decoded`.
        """

    @classmethod
    def location_keys(cls) -> list[str]:
        """The settings keys whose values are locations of images."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("location")]

    @property
    def locations(self) -> dict[str, str]:
        """Locations of the images (paths, patterns or URIs) by settings key, without those that are null."""
        return {key: location for key in self.location_keys() if (location := getattr(self, key)) is not None}

    def without_fetching(self) -> Self:
        if remote := list(filter(is_uri, self.locations.values())):
            raise DataMissing(f"{shown(remote[0])}: the images are not copied here for this")
        return self

    def with_fingerprint(self, progress: bool) -> Self:
        """These settings with the `fingerprint` of the images.

        Raises:
            DataError: the images cannot be read, or do not have the fingerprint that the settings already name.
        """
        with self.local_copy(progress) as local:
            return self.changed(fingerprint=local._checked_fingerprint(progress))

    def _checked_fingerprint(self, progress: bool) -> str:
        """The fingerprint of the images, which are on this node. Raises DataError if the settings name another one."""
        fingerprint = content_fingerprint(self.named_files(), self.cache, progress=progress)
        if self.fingerprint not in (None, fingerprint):
            places = ", ".join(self.locations.values())
            raise DataError(
                f"data.fingerprint: {places}: the images have changed, or this node has others: expected "
                f"{self.fingerprint}, found {fingerprint}"
            )
        return fingerprint

    def read(self, progress: bool) -> Dataset:
        with self.local_copy(progress) as local:
            if self.fingerprint is not None:
                local._checked_fingerprint(progress)
            dataset = local._streamed(progress) if self.stream else local.decoded(progress)
        skipped, notes = (
            tuple(self._with_given_locations(local, text) for text in texts)
            for texts in (dataset.skipped, dataset.notes)
        )
        if skipped:
            notes += (f"{len(skipped):,} damaged images are left out; each trial's skipped.json lists them.",)
        mean, std = self.mean or dataset.mean, self.std or dataset.std
        return replace(dataset, mean=mean, std=std, skipped=skipped, notes=notes)

    def _with_given_locations(self, local: Self, text: str) -> str:
        """Replace paths of copies (those in `local`) in a message by the locations in these settings."""
        for key, location in self:
            if (copy := getattr(local, key)) != location:
                local_location, given_location = copy, shown(location).rstrip("/")
                if (pattern := os.path.basename(given_location)) == os.path.basename(local_location):
                    local_location, given_location = (
                        local_location.removesuffix(f"/{pattern}"),
                        given_location.removesuffix(f"/{pattern}"),
                    )
                text = text.replace(local_location, given_location)
        return text

    @property
    def damage_policy(self) -> DamagePolicy:
        """What to do about damaged images, by `on_error` and `max_skipped`."""
        return DamagePolicy(self.on_error, self.max_skipped)

    def _streamed(self, progress: bool) -> Dataset:
        """The data set as streams; with `on_error: skip` without the images that prove to be damaged."""
        assert self.known_size is not None
        listing, skipped = self.encoded(), tuple[str, ...]()
        if self.on_error == "skip":
            listing, skipped = without_damaged(
                listing, cache=self.cache, progress=progress, on_error=self.damage_policy
            )
        check_not_empty(listing)
        decoder = Decoder(self.known_size, self.loader_processes)
        train, val, test = (Stream(part, self.known_size, decoder) for part in listing.splits.values())
        held_out = val if len(val) else None
        return Dataset(train, held_out, test, listing.classes, IMAGENET_MEAN, IMAGENET_STD, skipped, listing.notes)

    @model_validator(mode="after")
    def _stream_settings_agree(self) -> Self:
        if self.stream and self.known_size is None:
            refuse(self, [Problem(("image_size",), None, "A stream needs the size in pixels that its crops have")])
        if self.stream and self.crop_padding != type(self).model_fields["crop_padding"].default:
            expected = "A stream's random crops have no padding; leave it out"
            refuse(self, [Problem(("crop_padding",), self.crop_padding, expected)])
        return self
