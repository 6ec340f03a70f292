"""A data source for Parquet files in Hugging Face's layout, in which each row is an encoded image with its label."""

import glob
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from typing_extensions import TypedDict

from ffsd_ray.base_settings import LARGEST_IMAGE, LOCATION, Location, Problem, refuse
from ffsd_ray.data.base import Dataset
from ffsd_ray.data.cache import Entry, cached, replacing
from ffsd_ray.data.decode import read_decoded
from ffsd_ray.data.listing import Encoded, Listing, Span
from ffsd_ray.data.remote import local_copy
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.errors import DataError, DataMissing
from ffsd_ray.storage import is_uri

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label")


class _Info(TypedDict):
    """Descriptions of the columns, by name."""

    features: dict[str, Any]


class _HuggingFace(TypedDict):
    """The part of Hugging Face's metadata in a Parquet schema that is used here."""

    info: _Info


class _ClassLabel(TypedDict):
    """The description of a column of class labels: class names by label."""

    names: list[str]


_HUGGING_FACE_METADATA, _LABEL_FEATURE = TypeAdapter(_HuggingFace), TypeAdapter(_ClassLabel)

#: Rows that are read at once, few enough for large images to fit in memory.
_ROWS_PER_BATCH = 1024


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
        places = [
            _row_name(file, row) for part in files for file in part for row in range(_open(file).metadata.num_rows)
        ]
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
            key: _matching_files(self.locations[key], key) if key in self.locations else []
            for key in ("train", "val", "test")
        }

    def _listing(self, convert: Callable[[Encoded], Encoded] = lambda row: row) -> Listing:
        """The rows of all splits; each is passed through `convert` as soon as it is read."""
        files = self._files()
        train = files["train"]
        classes = _class_names([file for part in files.values() for file in part])
        train_rows = _rows(train, len(classes) or sum(_open(file).metadata.num_rows for file in train), convert)
        if not classes:
            classes = tuple(str(label) for label in range(max(row.label for row in train_rows) + 1))
        if len({row.label for row in train_rows}) < 2:
            raise DataError(
                f"data.train: {', '.join(train)}: every image is of class {classes[train_rows[0].label]}; expected two "
                "classes or more, for there is nothing to tell apart"
            )
        val, test = (_rows(files[key], len(classes), convert) if files[key] else [] for key in ("val", "test"))
        return Listing(train_rows, val, test, classes)

    @model_validator(mode="after")
    def _one_validation_split(self) -> Self:
        if self.val is not None and self.validation:
            expected = "The validation images are those of data.val; leave it out, or that one"
            refuse(self, [Problem(("validation",), self.validation, expected)])
        return self


def _matching_files(pattern: str, key: str) -> list[str]:
    """The files that match a path or glob pattern, sorted. `key`: the setting that an error names.

    Raises:
        DataMissing: no file matches.
    """
    pattern = os.path.expanduser(pattern)
    files = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        raise DataMissing(
            f"data.{key}: {pattern}: no such file, expected a Parquet file or a pattern that matches some"
        )
    return files


def _open(file: str) -> pq.ParquetFile:
    """Open a Parquet file and read its schema. Raises DataError."""
    try:
        parquet = pq.ParquetFile(file)
        parquet.schema_arrow  # noqa: B018 (computed on access, and may fail)
        return parquet
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: expected a Parquet file: {error}") from error


def _class_names(files: list[str]) -> tuple[str, ...]:
    """Class names by label from the metadata of the files, or () if no file has any.

    They are in the features that Hugging Face's `datasets` stores, or in an entry `classes`, separated by commas.

    Raises:
        DataError: two files name different classes.
    """
    known: tuple[str, ...] = ()
    for file in files:
        names = _class_names_in(file)
        if known and names and names != known:
            raise DataError(f"{file}: its metadata names other classes than {files[0]}: {', '.join(names)}")
        known = known or names
    return known


def _class_names_in(file: str) -> tuple[str, ...]:
    """The class names in a file's metadata; () if there are none in a known form."""
    schema = _open(file).schema_arrow
    metadata = schema.metadata or {}
    if b"huggingface" not in metadata:
        names = metadata.get(b"classes", b"").decode(errors="replace")
        return tuple(names.split(",")) if names else ()
    try:
        features = _HUGGING_FACE_METADATA.validate_json(metadata[b"huggingface"])["info"]["features"]
        label = _LABEL_FEATURE.validate_python(features[_column(schema, _LABEL_COLUMNS, file)])
    except (ValidationError, KeyError):  # metadata of another form, or a label column without class names
        return ()
    return tuple(label["names"])


def _column(schema: pa.Schema, names: tuple[str, ...], file: str) -> str:
    """The first of `names` that is a column. Raises DataError if none is."""
    for name in names:
        if name in schema.names:
            return name
    raise DataError(f"{file}: no column {' or '.join(names)}; its columns: {', '.join(schema.names)}")


def _rows(files: list[str], limit: int, convert: Callable[[Encoded], Encoded]) -> list[Encoded]:
    """Read the images of one split; each is passed through `convert`.

    Raises:
        DataError: there is no row, a column is missing or of another type, or a label is not in [0, limit).
    """
    rows = [convert(row) for file in files for row in _file_rows(file, limit)]
    if not rows:
        raise DataError(f"{', '.join(files)}: no rows, expected at least one image")
    return rows


def _file_rows(file: str, limit: int) -> Iterator[Encoded]:
    """Yield the images of one file. Raises DataError as `_rows` does."""
    parquet = _open(file)
    schema = parquet.schema_arrow
    image, label = _column(schema, _IMAGE_COLUMNS, file), _column(schema, _LABEL_COLUMNS, file)
    for column, wanted, fits in (
        (image, "struct<bytes: binary, path: string>", _has_bytes),
        (label, "integers", pa.types.is_integer),
    ):
        if not fits(schema.field(column).type):
            raise DataError(f"{file}: column {column} is {schema.field(column).type}, expected {wanted}")
    row = 0
    try:
        for batch in parquet.iter_batches(_ROWS_PER_BATCH, columns=[image, label]):
            contents = pc.struct_field(batch.column(image), "bytes").to_pylist()
            for data, value in zip(contents, batch.column(label).to_pylist(), strict=True):
                where = _row_name(file, row)
                if value is None or not 0 <= value < limit:
                    label_value = "null" if value is None else value
                    raise DataError(f"{where}: {label} is {label_value}, expected a class number from 0 to {limit - 1}")
                yield Encoded(data or b"", value, where)  # null is treated as a damaged image
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{_row_name(file, row)}: cannot be read from here on: {error}") from error


def _row_name(file: str, row: int) -> str:
    """The name of a row's image in messages."""
    return f"{file}, row {row} (from 0)"


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether a column's type is a struct with a field `bytes`."""
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
