"""Copying images from an object store to the node that trains on them, once."""

import fnmatch
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from pyarrow import fs

from ffsd_ray.data.cache import cache_folder, replacing
from ffsd_ray.errors import DataAway, DataError
from ffsd_ray.storage import open_location, shown
from ffsd_ray.terminal import tracked

#: Many, since the copy of a small file is mostly waiting.
_PARALLEL_COPIES = 16


@contextmanager
def local_copy(location: str, pattern: str | None, cache: str | None, key: str, *, progress: bool) -> Iterator[Path]:
    """Copy files from an object store to the cache folder; yield the folder of the copies.

    `location`: URI of a folder; `pattern`: glob pattern of file names directly in it, or None for all files, including
    those in subfolders; `key`: the setting that errors name. Files that were copied before and have not changed are not
    copied again; only one process at a time copies. A DataError that the block raises has URIs in place of paths.

    Raises:
        DataAway: the object store does not answer, after all retries of its client.
        DataError: the URI cannot be read, or the cache folder cannot be written.
    """
    name = hashlib.sha256(f"{location} {pattern}".encode()).hexdigest()[:32]
    copy = cache_folder(cache) / "copies" / name
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.with_suffix(".lock")):
            _synchronise(location, pattern, copy, progress)
    except Exception as error:  # filesystem packages raise any; an invalid URI is a ValueError
        # Errors of an object store's client have no errno; FileNotFoundError means that the store has answered.
        unreachable = isinstance(error, OSError) and error.errno is None and not isinstance(error, FileNotFoundError)
        raise (DataAway if unreachable else DataError)(
            f"data.{key}: {shown(location)}: cannot be copied to {copy.parent}: {error}"
        ) from error
    try:
        yield copy
    except DataError as error:
        raise DataError(str(error).replace(str(copy), shown(location).rstrip("/"))) from error


def _synchronise(location: str, pattern: str | None, copy: Path, progress: bool) -> None:
    """Make the folder `copy` contain exactly the files of `location` that match `pattern`; see `local_copy`."""
    source, root = open_location(location)
    listed = source.get_file_info(fs.FileSelector(root, recursive=pattern is None, allow_not_found=True))
    files = {
        _path_inside(copy, info.path.removeprefix(f"{root}/")): info
        for info in listed
        if info.type == fs.FileType.File and (pattern is None or fnmatch.fnmatchcase(info.base_name, pattern))
    }
    for old in [path for path in copy.rglob("*") if path.is_file() and path not in files]:
        old.unlink()
        with suppress(OSError):  # the folder is not empty
            old.parent.rmdir()
    missing = [(path, info) for path, info in files.items() if not _is_current(path, info)]

    def copy_file(item: tuple[Path, fs.FileInfo]) -> None:
        path, info = item
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            fs.copy_files(info.path, str(temporary), source, fs.LocalFileSystem())
            os.utime(temporary, ns=(info.mtime_ns, info.mtime_ns))

    with ThreadPoolExecutor(_PARALLEL_COPIES) as pool:
        copied = pool.map(copy_file, missing)
        for _ in tracked(copied, "Copying images", len(missing), show=progress):
            pass


def _path_inside(folder: Path, name: str) -> Path:
    """The path of an object's copy in `folder`. Raises ValueError if its name leads out of the folder."""
    path = folder / name
    if ".." in Path(name).parts or not path.is_relative_to(folder):
        raise ValueError(f"it holds an object named {name!r}")
    return path


def _is_current(path: Path, info: fs.FileInfo) -> bool:
    """Whether a copy exists with the size and modification time of the object."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns) == (info.size, info.mtime_ns)
