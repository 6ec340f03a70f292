"""A folder of records on any filesystem that pyarrow reaches: local, S3, GCS."""

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import pyarrow as pa
from filelock import FileLock
from pyarrow import fs

from ffsd_ray.errors import DamagedRecords, MissingRecords, RecordsError, StorageError, StorageFull
from ffsd_ray.file_schema import SchemaError
from ffsd_ray.storage import is_uri, open_location, patiently, shown

S = TypeVar("S")
T = TypeVar("T")

#: Requests to a storage at the same time.
_THREADS = 16

#: A file that is not whole yet, by its name and the process that writes it.
_PART = re.compile(r"\..+\.\d+\.part")


def is_unfinished(name: str) -> bool:
    """Whether a file name is that of a file being written, or left by a process that was killed."""
    return _PART.fullmatch(name) is not None


def parallel_map(read: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Apply `read` to the items in several threads, for object stores are slow to answer; the results in order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read, items))


class Store:
    """Whole files in one folder, each written so that a reader, or a kill at any instant, never meets half of one.

    Every method may raise StorageError: the storage refuses, or has not answered for about a minute.
    """

    def __init__(self, location: str) -> None:
        """`location`: a folder's path or a URI (s3://bucket/folder, gs://...), see `open_location`.

        Raises:
            RecordsError: pyarrow knows no filesystem for the URI, or it holds credentials.
        """
        try:
            self._filesystem, self._path = open_location(location)
        except ValueError as error:
            raise RecordsError(str(error)) from error
        self._local = isinstance(self._filesystem, fs.LocalFileSystem)
        self._base, mark, query = location.partition("?") if is_uri(location) else (self._path, "", "")
        self._base, self._query = self._base.rstrip("/"), mark + query

    @property
    def location(self) -> str:
        """The absolute path, or the URI."""
        return (self._base or "/") + self._query

    @property
    def name(self) -> str:
        return self._base.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder that this one is in; a bucket, as `/`, is in itself."""
        if not is_uri(self._base):
            return type(self)(os.path.dirname(self._path))
        above = self._base.rpartition("/")[0]
        return type(self)((self._base if above.endswith("/") else above) + self._query)

    def child(self, name: str) -> Self:
        """The folder `name` in this one; need not exist."""
        return type(self)(f"{self._base}/{name}{self._query}")

    def exists(self, name: str) -> bool:
        info = self._try(name, "be looked for", lambda: self._filesystem.get_file_info(self._at(name)))
        return bool(info.type == fs.FileType.File)

    def names(self) -> list[str]:
        """Names of the files and folders here, sorted; none where the folder does not exist."""
        here = fs.FileSelector(self._path, allow_not_found=True)
        entries = self._try("", "be listed", lambda: self._filesystem.get_file_info(here))
        return sorted(info.base_name for info in entries)

    def written(self) -> dict[str, int]:
        """When each file here and in the folders below was written (ns), by its path from here; one listing."""
        everything = fs.FileSelector(self._path, allow_not_found=True, recursive=True)
        entries = self._try("", "be listed", lambda: self._filesystem.get_file_info(everything))
        return {
            info.path.removeprefix(self._path).lstrip("/"): info.mtime_ns
            for info in entries
            if info.type == fs.FileType.File
        }

    def read(self, name: str) -> bytes:
        """
        Raises:
            MissingRecords: there is no such file.
        """

        def act() -> bytes:
            # As a file, not as a stream: that one asks an object store for each MB by itself.
            with self._filesystem.open_input_file(self._at(name)) as file:
                return bytes(file.read())

        return self._try(name, "be read", act)

    def write(self, name: str, content: bytes | bytearray) -> None:
        """
        Raises:
            StorageFull: the local filesystem has no space for it; the old file is intact.
        """

        def act() -> None:
            if self._local:
                self._replace(Path(self._at(name)), content)
                return
            with self._filesystem.open_output_stream(self._at(name)) as stream:
                stream.write(content)  # an object store shows an object when its upload completes

        self._try(name, "be written", act, len(content))

    def delete(self, name: str) -> None:
        """Does nothing where there is no such file: a server may have deleted it and not said so."""
        with contextlib.suppress(FileNotFoundError):
            self._try(name, "be deleted", lambda: self._filesystem.delete_file(self._at(name)))

    def parsed(self, name: str, parse: Callable[[bytes], T], what: str) -> T:
        """Read a file and return `parse(content)`; `parse` must not execute anything that it finds there.

        Raises:
            DamagedRecords: it is not `what`, or `parse` finds it `SchemaError` what a run writes.
            MissingRecords: there is no such file.
        """
        content = self.read(name)
        try:
            return parse(content)
        except SchemaError as error:
            raise self.damaged(name, str(error)) from error
        except Exception as error:  # whatever a parser meets in bytes from somewhere else
            raise self.damaged(name, f"expected {what}, as a run writes it", f" ({type(error).__name__})") from error

    def damaged(self, name: str, problem: str, cause: str = "") -> DamagedRecords:
        """The error for a file that is not as it was written; `problem`: what was expected in it."""
        return DamagedRecords(f"{shown(f'{self._base}/{name}')}: {problem}; it is damaged, or from elsewhere{cause}")

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[bool]:
        """Exclude other processes from such a block; yields False where the storage has no locks.

        A process that dies lets go of its lock. `name`: the file that is locked; it stays.
        """
        lock = FileLock(self._at(name))

        def act() -> None:
            Path(self._at(name)).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()

        exclusive = self._local
        if exclusive:
            try:
                self._try(name, "be locked", act)
            except NotImplementedError:  # a filesystem without locks
                exclusive = False
        try:
            yield exclusive
        finally:
            lock.release()

    def check_writable(self) -> None:
        """Check that the folder can be created and written, on a disk; leaves nothing behind.

        Raises:
            RecordsError: it cannot.
        """
        if not self._local:
            return
        folder, new_folders = Path(self._path), []
        try:
            for part in [*reversed(folder.parents), folder]:
                if not part.exists():
                    part.mkdir()
                    new_folders.append(part)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (OSError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise RecordsError(
                f"{self.location!r}: no folder can be made and written there: {cause}; choose another: --storage DIR"
            ) from error
        finally:
            for part in reversed(new_folders):
                with contextlib.suppress(OSError):  # another process uses it already
                    part.rmdir()

    def write_json(self, name: str, content: object) -> None:
        self.write(name, json.dumps(content, indent=1, ensure_ascii=False).encode())

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @staticmethod
    def _replace(file: Path, content: bytes | bytearray) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as stream:  # follows no link that others may have put there
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # else the new name may outlive a power failure and the content not
            temporary.replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _try(self, name: str, what: str, act: Callable[[], T], size: int = 0) -> T:
        """Call `act`, with retries, and return its result; its errors become one message that names the file."""
        file = shown(f"{self._base}/{name}".rstrip("/"))
        try:
            return patiently(act)
        except FileNotFoundError as error:
            raise MissingRecords(f"{file}: cannot {what}: there is no such file") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"{file}: cannot {what}: {error.strerror}: {_space(self._path, size)}") from error
            raise StorageError(f"{file}: cannot {what}: {error.strerror or error}") from error
        except (pa.ArrowException, ValueError) as error:  # ValueError: a NUL in a path
            raise StorageError(f"{file}: cannot {what}: {error}") from error


def _space(folder: str, size: int) -> str:
    """Describe a full filesystem: free space and what was to be written."""
    mount = Path(folder).resolve()
    while not mount.is_mount():
        mount = mount.parent
    free = shutil.disk_usage(mount).free
    return f"{size / 1e6:.3f} MB to be written, {free / 1e6:.3f} MB free on the filesystem at {mount}"
