"""A folder of records on any filesystem that pyarrow reaches: local, S3, GCS."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import IO, Any, Self

import pyarrow as pa
from pyarrow import fs

from ffsd_ray.errors import RecordsError


class Store:
    """Whole files in one folder, each written so that a reader, or a kill at any instant, never meets half of one."""

    def __init__(self, location: str) -> None:
        """`location`: a folder's path or a URI (s3://bucket/folder, gs://...).

        Raises:
            RecordsError: pyarrow knows no filesystem for the URI.
        """
        if "://" not in location:
            location = os.path.abspath(os.path.expanduser(location))
        self.location = location.rstrip("/")
        try:
            self._filesystem, self._path = fs.FileSystem.from_uri(self.location)
        except pa.ArrowInvalid as error:
            raise RecordsError(
                f"{location}: expected a folder, or a URI such as s3://bucket/folder: {error}"
            ) from error

    @property
    def name(self) -> str:
        return self.location.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder that this one is in."""
        return type(self)(self.location.rpartition("/")[0] or "/")

    def child(self, name: str) -> Self:
        """The folder `name` in this one; need not exist."""
        return type(self)(f"{self.location}/{name}")

    def exists(self, name: str) -> bool:
        return self._info(name).type == fs.FileType.File

    def names(self) -> list[str]:
        """Names of the files and folders here, sorted; none where the folder does not exist."""
        selector = fs.FileSelector(self._path, allow_not_found=True)
        return sorted(info.base_name for info in self._filesystem.get_file_info(selector))

    def read(self, name: str) -> bytes:
        """
        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._filesystem.open_input_stream(self._at(name)) as stream:
            return stream.readall()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream whose content stands under `name` once the block ends without error; the old file until then."""
        self._filesystem.create_dir(self._path, recursive=True)
        # An object store shows an object when its upload completes; a local file is written aside and renamed.
        local = isinstance(self._filesystem, fs.LocalFileSystem)
        target = self._at(f".{name}.{os.getpid()}.part" if local else name)
        try:
            with self._filesystem.open_output_stream(target) as stream:
                yield stream
        except BaseException:
            if local:
                with contextlib.suppress(OSError):
                    self._filesystem.delete_file(target)
            raise
        if local:
            os.replace(target, self._at(name))

    def write(self, name: str, content: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def copy(self, name: str, source: "Store") -> None:
        """Write what stands under `name` in another folder, on whatever filesystem."""
        self.write(name, source.read(name))

    def delete(self, name: str) -> None:
        self._filesystem.delete_file(self._at(name))

    def read_json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def write_json(self, name: str, content: object) -> None:
        self.write(name, json.dumps(content, indent=1, ensure_ascii=False).encode())

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _info(self, name: str) -> fs.FileInfo:
        return self._filesystem.get_file_info(self._at(name))
