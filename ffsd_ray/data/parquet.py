"""A data source for Parquet files in Hugging Face's layout, in which each row is an encoded image with its label."""

import glob
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from ffsd_ray.base_settings import LARGEST_IMAGE, LOCATION, Location, Problem, refuse
from ffsd_ray.data.base import Dataset
from ffsd_ray.data.cache import Entry, cached, replacing
from ffsd_ray.data.decode import read_decoded
from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.data.parquet_files import class_names, count_rows, matching_files, read_rows, row_name
from ffsd_ray.data.remote import local_copy
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.errors import DataError
from ffsd_ray.storage import is_uri


class Parquet(StreamableSettings):
    """Images in Parquet files with columns `img` or `image` (a struct with `bytes`), and `label` or `fine_label`."""

    name: Literal["parquet"] = "parquet"
    train: Location = Field(
        json_schema_extra=LOCATION,
        description="The training images' file, or a pattern such as data/train-*.parquet; a path or a URI "
        "(s3://bucket/train-*.parquet, gs://...), from which each node copies the files once.",
    )
    val: Location | None = Field(
        None,
        json_schema_extra=LOCATION,
        description="The validation images', which choose the best epoch, likewise; null: see `validation`.",
    )
    test: Location = Field(json_schema_extra=LOCATION, description="The test images' file, or a pattern, likewise.")
    image_size: int | None = Field(
        None,
        ge=8,
        le=LARGEST_IMAGE,
        description="Scale the shorter side to this many pixels and cut out the centre; null: as stored. "
        "A stream needs it, see `stream`.",
    )

    @property
    def known_classes(self) -> None:
        return None

    @property
    def known_size(self) -> int | None:
        return self.image_size

    @property
    def may_have_validation(self) -> bool:
        return self.val is not None or super().may_have_validation

    @contextmanager
    def local_copy(self, progress: bool) -> Iterator[Self]:
        with ExitStack() as copies:
            local = {}
            for key, location in self.locations.items():
                if is_uri(location):
                    files, mark, query = location.partition("?")
                    folder, _, pattern = files.rpartition("/")
                    copy = local_copy(f"{folder}{mark}{query}", pattern, self.cache, key, progress=progress)
                    local[key] = f"{glob.escape(str(copies.enter_context(copy)))}/{pattern}"
            yield self.changed(**local)

    def decoded(self, progress: bool) -> Dataset:
        return read_decoded(
            self._listing,
            list(self._files().values()),
            size=self.image_size,
            cache=self.cache,
            progress=progress,
            on_error=self.damage_policy,
        )

    def named_files(self) -> list[tuple[str, str]]:
        """See `StreamableSettings.named_files`. The name of a file is its split; only the order of files counts."""
        return [(key, file) for key, files in self._files().items() for file in files]

    def encoded(self) -> Listing:
        """The images before decoding, copied one after another to a file in the cache, which allows random access.

        Parquet rows are stored in groups that can only be read as a whole, many times in a shuffled epoch.
        """
        files = list(self._files().values())
        tensors, metadata, raw = cached(["encoded"], files, self.cache, self._unpack)
        starts = tensors["starts"].tolist()
        spans = [Span(str(raw), start, stop - start) for start, stop in pairwise(starts)]
        places = [row_name(file, row) for part in files for file in part for row in range(count_rows(file))]
        items = iter([Encoded(*item) for item in zip(spans, tensors["labels"].tolist(), places, strict=True)])
        train, val, test = (list(islice(items, count)) for count in metadata["counts"])
        return Listing(train, val, test, tuple(metadata["classes"]))

    def _unpack(self, raw: Path) -> Entry:
        """Copy all encoded images to the file `raw`; a cache entry of their positions in it and their labels."""
        starts = [0]
        with replacing(raw) as temporary, temporary.open("wb") as file:

            def move_to_file(row: Encoded) -> Encoded:
                assert isinstance(row.data, bytes)
                starts.append(starts[-1] + file.write(row.data))
                return row._replace(data=b"")

            listing = self._listing(move_to_file)
        labels = torch.tensor([row.label for row in listing.items])
        metadata = {"counts": listing.counts, "classes": listing.classes}
        return Entry({"starts": torch.tensor(starts), "labels": labels}, metadata, raw)

    def _files(self) -> dict[str, list[str]]:
        """The files of each split, in the order of `Listing.splits`."""
        return {
            key: matching_files(self.locations[key], key) if key in self.locations else []
            for key in ("train", "val", "test")
        }

    def _listing(self, convert: Callable[[Encoded], Encoded] = lambda row: row) -> Listing:
        """The rows of all splits; each is passed through `convert` as soon as it is read."""
        files = self._files()
        train = files["train"]
        classes = class_names([file for part in files.values() for file in part])
        train_rows = read_rows(train, len(classes) or sum(count_rows(file) for file in train), convert)
        if not classes:
            classes = tuple(str(label) for label in range(max(row.label for row in train_rows) + 1))
        if len({row.label for row in train_rows}) < 2:
            raise DataError(
                f"data.train: {', '.join(train)}: every image is of class {classes[train_rows[0].label]}; expected two "
                "classes or more, for there is nothing to tell apart"
            )
        val, test = (read_rows(files[key], len(classes), convert) if files[key] else [] for key in ("val", "test"))
        return Listing(train_rows, val, test, classes)

    @model_validator(mode="after")
    def _one_validation_split(self) -> Self:
        if self.val is not None and self.validation:
            expected = "The validation images are those of data.val; leave it out, or that one"
            refuse(self, [Problem(("validation",), self.validation, expected)])
        return self
