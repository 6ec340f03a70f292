"""Reading Parquet files of encoded images with labels."""

import glob
import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ffsd_ray.data.listing import Encoded
from ffsd_ray.errors import DataError, DataMissing

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


def matching_files(pattern: str, key: str) -> list[str]:
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


def count_rows(file: str) -> int:
    """Number of images in a file. Raises DataError."""
    return int(_open(file).metadata.num_rows)


def class_names(files: list[str]) -> tuple[str, ...]:
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


def read_rows(files: list[str], limit: int, convert: Callable[[Encoded], Encoded]) -> list[Encoded]:
    """Read the images of one split; each is passed through `convert`.

    Raises:
        DataError: there is no row, a column is missing or of another type, or a label is not in [0, limit).
    """
    rows = [convert(row) for file in files for row in _file_rows(file, limit)]
    if not rows:
        raise DataError(f"{', '.join(files)}: no rows, expected at least one image")
    return rows


def _file_rows(file: str, limit: int) -> Iterator[Encoded]:
    """Yield the images of one file. Raises DataError as `read_rows` does."""
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
                where = row_name(file, row)
                if value is None or not 0 <= value < limit:
                    label_value = "null" if value is None else value
                    raise DataError(f"{where}: {label} is {label_value}, expected a class number from 0 to {limit - 1}")
                yield Encoded(data or b"", value, where)  # null is treated as a damaged image
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{row_name(file, row)}: cannot be read from here on: {error}") from error


def row_name(file: str, row: int) -> str:
    """The name of a row's image in messages."""
    return f"{file}, row {row} (from 0)"


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether a column's type is a struct with a field `bytes`."""
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
