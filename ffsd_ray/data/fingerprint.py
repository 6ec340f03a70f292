"""Fingerprints of data sets: a hash of the files' contents that does not depend on where the files are."""

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

_FILES_PER_TASK = 256


def content_fingerprint(files: Sequence[tuple[str, str]], cache: str | None, *, progress: bool) -> str:
    """SHA-256 of the names and contents of files in the given order, as 64 hexadecimal digits.

    `files`: (name, path) each, where the name does not depend on the data set's location. Every byte is read once; the
    result is cached until a file's size, modification time or change time is different.

    Raises:
        DataError: a file cannot be read.
    """
    names, paths = [name for name, _ in files], [path for _, path in files]

    def make(raw: Path) -> Entry:
        digest, starts = hashlib.sha256(), range(0, len(paths), _FILES_PER_TASK)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chunks = pool.map(lambda start: [_sha256(path) for path in paths[start : start + _FILES_PER_TASK]], starts)
            contents = tracked(chunks, "Reading images", len(starts), show=progress)
            for start, chunk in zip(starts, contents, strict=True):
                for name, content in zip(names[start : start + _FILES_PER_TASK], chunk, strict=True):
                    digest.update(json.dumps([name, content]).encode())
        return Entry({}, {"fingerprint": digest.hexdigest()})

    fingerprint: str = cached(["fingerprint", names], [paths], cache, make).metadata["fingerprint"]
    return fingerprint


def file_sha256(path: str) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits. Raises OSError, also for a device or a pipe."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(path: str) -> str:
    """`file_sha256`, with DataError in place of OSError."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
