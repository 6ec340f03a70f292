"""Parquet files in Hugging Face's layout: a row an image, encoded, with its label."""

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
from ffsd_ray.data.decode import Encoded, Listing, Span, read_decoded
from ffsd_ray.data.remote import local_copy
from ffsd_ray.data.streaming import StreamableSettings
from ffsd_ray.errors import DataError, DataMissing
from ffsd_ray.storage import is_uri

_IMAGE = ("img", "image")
_LABEL = ("label", "fine_label")


class _Info(TypedDict):
    features: dict[str, Any]


class _HuggingFace(TypedDict):
    """The part of Hugging Face's own metadata that is used."""

    info: _Info


class _ClassLabel(TypedDict):
    names: list[str]


_HUGGING_FACE, _LABEL_FEATURE = TypeAdapter(_HuggingFace), TypeAdapter(_ClassLabel)

_ROWS_AT_ONCE = 1024  # large images must not fill the memory


class Parquet(StreamableSettings):
    """Encoded images in Parquet files: `img` or `image` (struct of bytes and path), `label` or `fine_label`."""

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
    def may_hold_out(self) -> bool:
        return self.val is not None or super().may_hold_out

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
            on_error=self.damaged,
        )

    def named_files(self) -> list[tuple[str, str]]:
        """A file's name does not count, only which split it is of, and in which order."""
        return [(key, file) for key, files in self._files().items() for file in files]

    def encoded(self) -> Listing:
        """The images in a file of the cache, one behind another.

        Parquet holds rows in groups that can only be read whole: a shuffled epoch would read each many times.
        """
        files = list(self._files().values())
        tensors, about, raw = cached(["encoded"], files, self.cache, self._unpack)
        starts = tensors["starts"].tolist()
        spans = [Span(str(raw), start, stop - start) for start, stop in pairwise(starts)]
        places = [_where(file, row) for part in files for file in part for row in range(_open(file).metadata.num_rows)]
        items = iter([Encoded(*item) for item in zip(spans, tensors["labels"].tolist(), places, strict=True)])
        train, val, test = (list(islice(items, count)) for count in about["counts"])
        return Listing(train, val, test, tuple(about["classes"]))

    def _unpack(self, raw: Path) -> Entry:
        starts = [0]
        with replacing(raw) as temporary, temporary.open("wb") as file:

            def move(row: Encoded) -> Encoded:
                assert isinstance(row.data, bytes)
                starts.append(starts[-1] + file.write(row.data))
                return row._replace(data=b"")

            listing = self._listing(move)
        labels = torch.tensor([row.label for row in listing.items])
        about = {"counts": listing.counts, "classes": listing.classes}
        return Entry({"starts": torch.tensor(starts), "labels": labels}, about, raw)

    def _files(self) -> dict[str, list[str]]:
        """The files of each split, in the order of `Listing.splits`."""
        return {
            key: _find(self.locations[key], key) if key in self.locations else [] for key in ("train", "val", "test")
        }

    def _listing(self, keep: Callable[[Encoded], Encoded] = lambda row: row) -> Listing:
        """Every row, as `keep` returns it when it is met."""
        files = self._files()
        train = files["train"]
        classes = _class_names([file for part in files.values() for file in part])
        train_rows = _rows(train, len(classes) or sum(_open(file).metadata.num_rows for file in train), keep)
        if not classes:
            classes = tuple(str(label) for label in range(max(row.label for row in train_rows) + 1))
        if len({row.label for row in train_rows}) < 2:
            raise DataError(
                f"data.train: {', '.join(train)}: every image is of class {classes[train_rows[0].label]}; expected two "
                "classes or more, for there is nothing to tell apart"
            )
        val, test = (_rows(files[key], len(classes), keep) if files[key] else [] for key in ("val", "test"))
        return Listing(train_rows, val, test, classes)

    @model_validator(mode="after")
    def _one_validation_split(self) -> Self:
        if self.val is not None and self.validation:
            expected = "The validation images are those of data.val; leave it out, or that one"
            refuse(self, [Problem(("validation",), self.validation, expected)])
        return self


def _find(pattern: str, key: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    files = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        raise DataMissing(
            f"data.{key}: {pattern}: no such file, expected a Parquet file or a pattern that matches some"
        )
    return files


def _open(file: str) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(file)
        parquet.schema_arrow  # noqa: B018 (made here: a foreign file's may be one that cannot be)
        return parquet
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: expected a Parquet file: {error}") from error


def _class_names(files: list[str]) -> tuple[str, ...]:
    """From the features that Hugging Face's `datasets` stores, or `classes` (comma separated); () without either."""
    known: tuple[str, ...] = ()
    for file in files:
        names = _names_in(file)
        if known and names and names != known:
            raise DataError(f"{file}: its metadata names other classes than {files[0]}: {', '.join(names)}")
        known = known or names
    return known


def _names_in(file: str) -> tuple[str, ...]:
    """The class names in a file's metadata; () where there are none in a form that is known."""
    schema = _open(file).schema_arrow
    metadata = schema.metadata or {}
    if b"huggingface" not in metadata:
        names = metadata.get(b"classes", b"").decode(errors="replace")
        return tuple(names.split(",")) if names else ()
    try:
        found = _HUGGING_FACE.validate_json(metadata[b"huggingface"])["info"]["features"]
        label = _LABEL_FEATURE.validate_python(found[_column(schema, _LABEL, file)])
    except (ValidationError, KeyError):  # other software's, of another form, or no class labels
        return ()
    return tuple(label["names"])


def _column(schema: pa.Schema, names: tuple[str, ...], file: str) -> str:
    for name in names:
        if name in schema.names:
            return name
    raise DataError(f"{file}: no column {' or '.join(names)}; its columns: {', '.join(schema.names)}")


def _rows(files: list[str], limit: int, keep: Callable[[Encoded], Encoded]) -> list[Encoded]:
    """The images of one split, at least one; their labels must lie in [0, limit)."""
    rows = [keep(row) for file in files for row in _file_rows(file, limit)]
    if not rows:
        raise DataError(f"{', '.join(files)}: no rows, expected at least one image")
    return rows


def _file_rows(file: str, limit: int) -> Iterator[Encoded]:
    parquet = _open(file)
    schema = parquet.schema_arrow
    image, label = _column(schema, _IMAGE, file), _column(schema, _LABEL, file)
    for column, wanted, fits in (
        (image, "struct<bytes: binary, path: string>", _has_bytes),
        (label, "integers", pa.types.is_integer),
    ):
        if not fits(schema.field(column).type):
            raise DataError(f"{file}: column {column} is {schema.field(column).type}, expected {wanted}")
    row = 0
    try:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=[image, label]):
            contents = pc.struct_field(batch.column(image), "bytes").to_pylist()
            for data, value in zip(contents, batch.column(label).to_pylist(), strict=True):
                where = _where(file, row)
                if value is None or not 0 <= value < limit:
                    shown = "null" if value is None else value
                    raise DataError(f"{where}: {label} is {shown}, expected a class number from 0 to {limit - 1}")
                yield Encoded(data or b"", value, where)  # null, too, is an image that cannot be decoded
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{_where(file, row)}: cannot be read from here on: {error}") from error


def _where(file: str, row: int) -> str:
    return f"{file}, row {row} (from 0)"


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
