"""The stamp of a file: whose records it belongs to, and the SHA-256 of the file itself.

A stamp is one line of text that stands in the file wherever its format has room for text: under a key of a JSON object,
in the metadata of Parquet and safetensors files, in the comment of a ZIP archive. The digest is of every byte of the
file, its own 64 digits taken as zeros. So a file and its digest cannot be parted by a kill between two writes, no
flipped bit goes unnoticed, and other programs read the file as if there were no stamp.

It tells of damage and mix-ups. It is no signature: whoever means to can stamp a changed file anew.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ffsd_ray.file_schema import Schema, SchemaError

#: The stamp's key, in JSON objects and in metadata.
KEY = "stamp"

_PREFIX, _ZEROS = "ffsd_ray ", "0" * 64
_STAMP = re.compile(rb"ffsd_ray (.{1,300}?) sha256 ([0-9a-f]{64})")


def trial_owner(identity: str) -> str:
    """The owner of a trial's files, as their stamps name it."""
    return f"trial {identity}"


def blank(owner: str) -> str:
    """A stamp without its digest, to be put into a file's content before `stamped`."""
    return f"{_PREFIX}{owner} sha256 {_ZEROS}"


def stamped(content: bytes | bytearray | memoryview) -> bytearray:
    """The content of a file with the digest in its stamp; the first one counts where several are in it."""
    whole = bytearray(content)
    _, start, _ = _find(whole)
    whole[start : start + len(_ZEROS)] = _digest(whole, start).encode()
    return whole


def check_stamp(content: bytes | bytearray, owner: str | None = None) -> None:
    """Do nothing where a file is as it was written, and the owner's; without `owner` it may be anybody's.

    Raises:
        SchemaError: it is not.
    """
    found, start, digest = _find(content)
    if _digest(content, start) != digest:
        raise SchemaError("its content is not what its SHA-256 was taken of")
    if owner not in (None, found):
        raise SchemaError(f"expected a file of {owner}, found one of {found}")


def stamped_json(content: Mapping[str, Any], owner: str) -> bytearray:
    """A JSON file of this object and a stamp."""
    return stamped(json.dumps({KEY: blank(owner), **content}, indent=1, ensure_ascii=False).encode())


def unstamped_json(content: bytes, shape: Schema) -> Any:
    """The object in such a file, less the stamp.

    Raises:
        ValueError: it is no JSON; SchemaError: it is not of this shape.
    """
    found = json.loads(content)
    if isinstance(found, dict):
        found.pop(KEY, None)
    return shape.checked(found)


def _find(content: bytes | bytearray) -> tuple[str, int, str]:
    """The first stamp's owner, where its digest begins, and the digest."""
    start = content.find(_PREFIX.encode())  # much faster than the expression, which would look at every byte
    match = _STAMP.match(content, start) if start >= 0 else None
    if match is None:
        raise SchemaError("expected a stamp in it (whose it is, and its SHA-256), as this version writes it")
    return match[1].decode(errors="replace"), match.start(2), match[2].decode()


def _digest(content: bytes | bytearray, start: int) -> str:
    """SHA-256 of a file whose own digest begins at `start`."""
    whole = memoryview(content)
    digest = hashlib.sha256(whole[:start])
    digest.update(_ZEROS.encode())
    digest.update(whole[start + len(_ZEROS) :])
    return digest.hexdigest()
