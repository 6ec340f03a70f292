"""An on-disk cache of results that are computed from files."""

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
    """A cached result."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    """JSON values."""
    raw: Path | None = None
    """A file of bytes beside the tensors."""


def cache_folder(cache: str | None) -> Path:
    """The cache folder: `cache` (the setting `data.cache`), or by default ffsd_ray in $XDG_CACHE_HOME or ~/.cache."""
    return Path(cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ffsd_ray")).expanduser().absolute()


def cached(
    key_parts: Sequence[Any], files: Sequence[Sequence[str]], cache: str | None, make: Callable[[Path], Entry]
) -> Entry:
    """Return the result of `make` for the given files, from the cache if an earlier call computed it.

    `key_parts`: JSON values that the result depends on besides the files; `files`: paths by split; `make`: computes the
    entry, and is given the path of its raw file, which it may write with `replacing`.

    Files are identified by absolute path, size, modification time and change time (which copying or unpacking does not
    set back). Only one process at a time makes an entry; others wait for it. A damaged entry is made again.

    Raises:
        DataError: a file cannot be read, or the cache folder cannot be written.
    """
    digest = hashlib.sha256(json.dumps(key_parts).encode())
    for part in files:
        digest.update(b"split")
        for file in part:
            digest.update(json.dumps(_file_state(file)).encode())
    name = digest.hexdigest()[:32]
    folder = cache_folder(cache)
    path, raw = folder / f"{name}.safetensors", folder / f"{name}.raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            entry = _load(path, raw)
            if entry is None:
                entry = make(raw)
                _save(entry, path)
            return entry
    except (OSError, SafetensorError) as error:
        raise DataError(f"data.cache: {folder}: cannot be written ({error}); expected a folder with space") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file atomically: yield a temporary path, renamed to `path` if the block succeeds and deleted if not."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _file_state(file: str) -> tuple[str, int, int, int]:
    """Absolute path, size in bytes, modification and change time in ns. Raises DataError if it cannot be read."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    return os.path.abspath(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _save(entry: Entry, path: Path) -> None:
    raw_bytes = entry.raw and entry.raw.stat().st_size
    metadata = entry.metadata | {"checksum": _checksum(entry.tensors), "raw_bytes": raw_bytes}
    with replacing(path) as temporary:
        save_file(entry.tensors, temporary, {"about": json.dumps(metadata)})


def _load(path: Path, raw: Path) -> Entry | None:
    """Load an entry; None if it is missing or damaged. Only the size of the raw file is checked."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = json.loads(file.metadata()["about"])
        has_raw = metadata["raw_bytes"] is not None
        undamaged = metadata["checksum"] == _checksum(tensors) and (
            not has_raw or raw.stat().st_size == metadata["raw_bytes"]
        )
        return Entry(tensors, metadata, raw if has_raw else None) if undamaged else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 of the tensors' bytes, in the order of their names."""
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().data, checksum)
    return checksum
