"""Images in an object store, copied once to the node that trains on them."""

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

_AT_ONCE = 16  # copies; most of a small one is waiting


@contextmanager
def local_copy(location: str, pattern: str | None, cache: str | None, key: str, *, progress: bool) -> Iterator[Path]:
    """The copy, in the cache folder, of the files in a URI's folder whose names match; without a pattern of all.

    A file that was copied before and has not changed since is left alone; only one process at a time copies. A
    DataError of the block names files as the URI does. `key`: the setting that an error names.

    Raises:
        DataAway: the object store does not answer, after all of its client's tries.
        DataError: the URI cannot be read, or the cache folder not be written.
    """
    name = hashlib.sha256(f"{location} {pattern}".encode()).hexdigest()[:32]
    copy = cache_folder(cache) / "copies" / name
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.with_suffix(".lock")):
            _bring(location, pattern, copy, progress)
    except Exception as error:  # whatever a filesystem's package raises; ValueError: a URI that cannot be
        # What an object store's client raises has no number; where something is not there, it has its own kind.
        away = isinstance(error, OSError) and error.errno is None and not isinstance(error, FileNotFoundError)
        raise (DataAway if away else DataError)(
            f"data.{key}: {shown(location)}: cannot be copied to {copy.parent}: {error}"
        ) from error
    try:
        yield copy
    except DataError as error:
        raise DataError(str(error).replace(str(copy), shown(location).rstrip("/"))) from error


def _bring(location: str, pattern: str | None, copy: Path, progress: bool) -> None:
    """Make `copy` hold the files of the location, and no others."""
    source, root = open_location(location)
    found = source.get_file_info(fs.FileSelector(root, recursive=pattern is None, allow_not_found=True))
    files = {
        _inside(copy, info.path.removeprefix(f"{root}/")): info
        for info in found
        if info.type == fs.FileType.File and (pattern is None or fnmatch.fnmatchcase(info.base_name, pattern))
    }
    for old in [path for path in copy.rglob("*") if path.is_file() and path not in files]:
        old.unlink()
        with suppress(OSError):  # others are in the folder
            old.parent.rmdir()
    missing = [(path, info) for path, info in files.items() if not _same(path, info)]

    def bring(item: tuple[Path, fs.FileInfo]) -> None:
        path, info = item
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            fs.copy_files(info.path, str(temporary), source, fs.LocalFileSystem())
            os.utime(temporary, ns=(info.mtime_ns, info.mtime_ns))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        copied = pool.map(bring, missing)
        for _ in tracked(copied, "Copying images", len(missing), show=progress):
            pass


def _inside(folder: Path, name: str) -> Path:
    """An object's name may be any text, but not a way out of the folder."""
    path = folder / name
    if ".." in Path(name).parts or not path.is_relative_to(folder):
        raise ValueError(f"it holds an object named {name!r}")
    return path


def _same(path: Path, info: fs.FileInfo) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns) == (info.size, info.mtime_ns)
