"""Parquet files in Hugging Face's layout: a row an image, encoded, with its label."""

import glob
import json
import os
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from ffsd_ray.data.base import Dataset, DataSettings
from ffsd_ray.data.decode import Encoded, Listing, read_decoded
from ffsd_ray.errors import DataError

_IMAGE = ("img", "image")
_LABEL = ("label", "fine_label")


class Parquet(DataSettings):
    """Encoded images in Parquet files: `img` or `image` (struct of bytes and path), `label` or `fine_label`."""

    name: Literal["parquet"] = "parquet"
    train: str = Field(description="The training images' file, or a pattern such as data/train-*.parquet.")
    test: str = Field(description="The test images' file, or a pattern.")
    image_size: int | None = Field(
        None, ge=8, description="Scale the shorter side to this many pixels and cut out the centre; null: as stored."
    )

    @property
    def known_classes(self) -> None:
        return None

    @property
    def known_size(self) -> int | None:
        return self.image_size

    def read(self, progress: bool) -> Dataset:
        train, test = _find(self.train, "train"), _find(self.test, "test")

        def listing() -> Listing:
            classes = _class_names(train + test)
            train_rows = _rows(train, len(classes) or sum(_open(file).metadata.num_rows for file in train))
            if not classes:
                classes = tuple(str(label) for label in range(max(row.label for row in train_rows) + 1))
            return Listing(train_rows, _rows(test, len(classes)), classes)

        return read_decoded(listing, train, test, size=self.image_size, cache=self.cache, progress=progress)


def _find(pattern: str, key: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    files = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        raise DataError(f"data.{key}: {pattern}: no such file, expected a Parquet file or a pattern that matches some")
    return files


def _open(file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: expected a Parquet file: {error}") from error


def _class_names(files: list[str]) -> tuple[str, ...]:
    """From the features that Hugging Face's `datasets` stores, or `classes` (comma separated); () without either."""
    known: tuple[str, ...] = ()
    for file in files:
        schema = _open(file).schema_arrow
        metadata, names = schema.metadata or {}, ()
        if b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"]).get("info", {}).get("features", {})
            names = tuple(features.get(_column(schema, _LABEL, file), {}).get("names") or ())
        elif b"classes" in metadata:
            names = tuple(metadata[b"classes"].decode().split(","))
        if known and names and names != known:
            raise DataError(f"{file}: its metadata names other classes than {files[0]}: {', '.join(names)}")
        known = known or names
    return known


def _column(schema: pa.Schema, names: tuple[str, ...], file: str) -> str:
    for name in names:
        if name in schema.names:
            return name
    raise DataError(f"{file}: no column {' or '.join(names)}; its columns: {', '.join(schema.names)}")


def _rows(files: list[str], limit: int) -> list[Encoded]:
    """The images of one split, at least one; their labels must lie in [0, limit)."""
    rows = [row for file in files for row in _file_rows(file, limit)]
    if not rows:
        raise DataError(f"{', '.join(files)}: no rows, expected at least one image")
    return rows


def _file_rows(file: str, limit: int) -> list[Encoded]:
    parquet = _open(file)
    schema = parquet.schema_arrow
    image, label = _column(schema, _IMAGE, file), _column(schema, _LABEL, file)
    for column, wanted, fits in (
        (image, "struct<bytes: binary, path: string>", _has_bytes),
        (label, "integers", pa.types.is_integer),
    ):
        if not fits(schema.field(column).type):
            raise DataError(f"{file}: column {column} is {schema.field(column).type}, expected {wanted}")
    rows: list[Encoded] = []
    try:
        for batch in parquet.iter_batches(columns=[image, label]):
            contents = pc.struct_field(batch.column(image), "bytes").to_pylist()
            for data, value in zip(contents, batch.column(label).to_pylist(), strict=True):
                where = f"{file}, row {len(rows)} (from 0)"
                if value is None or not 0 <= value < limit:
                    shown = "null" if value is None else value
                    raise DataError(f"{where}: {label} is {shown}, expected a class number from 0 to {limit - 1}")
                if data is None:
                    raise DataError(f"{where}: {image} holds no bytes, expected an encoded image")
                rows.append(Encoded(data, value, where))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read from row {len(rows)} (from 0) on: {error}") from error
    return rows


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
