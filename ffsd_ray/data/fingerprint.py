"""Fingerprints of data sets: a hash of the files' contents, the same wherever they lie."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ffsd_ray.data.cache import Entry, cached
from ffsd_ray.errors import DataError
from ffsd_ray.storage import check_regular
from ffsd_ray.terminal import tracked

_CHUNK = 256  # files a task


def content_fingerprint(files: Sequence[tuple[str, str]], cache: str | None, *, progress: bool) -> str:
    """SHA-256, as 64 hexadecimal digits, of the files' names and of all that they hold, in this order.

    `files`: the name that counts, which says nothing of where the data set lies, and the path. Every byte is read once;
    the cache remembers the result as long as no file's size, modification or change time is another.

    Raises:
        DataError: a file cannot be read.
    """
    names, paths = [name for name, _ in files], [path for _, path in files]

    def make(raw: Path) -> Entry:
        digest, starts = hashlib.sha256(), range(0, len(paths), _CHUNK)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chunks = pool.map(lambda start: [_sha256(path) for path in paths[start : start + _CHUNK]], starts)
            contents = tracked(chunks, "Reading images", len(starts), show=progress)
            for start, chunk in zip(starts, contents, strict=True):
                for name, content in zip(names[start : start + _CHUNK], chunk, strict=True):
                    digest.update(json.dumps([name, content]).encode())
        return Entry({}, {"fingerprint": digest.hexdigest()})

    found: str = cached(["fingerprint", names], [paths], cache, make).about["fingerprint"]
    return found


def file_sha256(path: str) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits. Raises OSError, of a device or a pipe too."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(path: str) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
