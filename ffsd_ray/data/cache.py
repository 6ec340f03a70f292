"""A cache on disk of results that are computed from files."""

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ffsd_ray.errors import DataError


class Entry(NamedTuple):
    """Tensors by name, what else is to be known of them, and a file of bytes that belongs to them."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]
    raw: Path | None = None


def cache_folder(cache: str | None) -> Path:
    """The folder that `data.cache` names, or its default."""
    return Path(cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ffsd_ray")).expanduser().absolute()


def cached(
    what: Sequence[Any], files: Sequence[Sequence[str]], cache: str | None, make: Callable[[Path], Entry]
) -> Entry:
    """Return `make`'s result for `what` and the files, from the cache where an earlier call computed it.

    The files count as the same by absolute path, size in bytes, and times of modification and of change (the last no
    copying or unpacking sets back). Only one process at a time makes
    an entry; the others wait for it. A damaged one is made anew. `make` gets the path of the entry's raw file, which
    it may write (`replacing`). Raises DataError.
    """
    key = hashlib.sha256(json.dumps(what).encode())
    for part in files:
        key.update(b"split")
        for file in part:
            key.update(json.dumps(_state(file)).encode())
    name = key.hexdigest()[:32]
    folder = cache_folder(cache)
    path, raw = folder / f"{name}.safetensors", folder / f"{name}.raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            found = _load(path, raw)
            if found is None:
                found = make(raw)
                _save(found, path)
            return found
    except (OSError, SafetensorError) as error:
        raise DataError(f"data.cache: {folder}: cannot be written ({error}); expected a folder with space") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name that becomes `path` once what is written there is whole, and vanishes otherwise."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _state(file: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    return os.path.abspath(file), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _save(entry: Entry, path: Path) -> None:
    raw_bytes = entry.raw and entry.raw.stat().st_size
    about = entry.about | {"checksum": _checksum(entry.tensors), "raw_bytes": raw_bytes}
    with replacing(path) as temporary:
        save_file(entry.tensors, temporary, {"about": json.dumps(about)})


def _load(path: Path, raw: Path) -> Entry | None:
    """Load what `_save` wrote; None where it is missing or damaged. Of the raw file only the size is checked."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(file.metadata()["about"])
        has_raw = about["raw_bytes"] is not None
        whole = about["checksum"] == _checksum(tensors) and (not has_raw or raw.stat().st_size == about["raw_bytes"])
        return Entry(tensors, about, raw if has_raw else None) if whole else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _checksum(tensors: dict[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().data, checksum)
    return checksum
