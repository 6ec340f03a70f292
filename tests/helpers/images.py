"""Writing images in the formats that users have, and comparing data sets."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from ffsd_ray.data import SOURCES, Dataset, DataSettings, Images, Split

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def data_settings(name: str, /, **settings: Any) -> DataSettings:
    """The settings of a data source, given as in a job file."""
    return SOURCES[name](**settings)


def images_of(split: Split | None) -> Tensor:
    """The images of a split that lies in memory, uint8 [N, 3, S, S]."""
    assert isinstance(split, Images)
    return split.images


def png(image: Tensor) -> bytes:
    content = io.BytesIO()
    to_pil_image(image).save(content, "PNG")
    return content.getvalue()


def write_parquet(
    file: Path,
    contents: Sequence[bytes | None],
    labels: Sequence[Any],
    *,
    columns: tuple[str, str] = ("img", "label"),
    metadata: dict[str, str] | None = None,
) -> Path:
    images = pa.array([{"bytes": content, "path": None} for content in contents], IMAGE_TYPE)
    table = pa.table(dict(zip(columns, (images, pa.array(labels)), strict=True)))
    pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=7)
    return file


def assert_same(one: Dataset, other: Dataset) -> None:
    for part in ("train", "test"):
        assert torch.equal(images_of(getattr(one, part)), images_of(getattr(other, part)))
        assert torch.equal(getattr(one, part).labels, getattr(other, part).labels)
    assert (one.classes, one.mean, one.std) == (other.classes, other.mean, other.std)
