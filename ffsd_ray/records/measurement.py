"""Reading what `python -m ffsd_ray.bench` has measured, which reports show beside accuracies."""

import json
from pathlib import Path
from typing import Any

from ffsd_ray.errors import RecordsError


def read(path: Path) -> dict[str, Any]:
    """A record's content.

    Raises:
        RecordsError: the file is none, or cannot be read.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise RecordsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecordsError(f"{path}: is no record of a measurement: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("points"), dict):
        raise RecordsError(f"{path}: is no record of a measurement")
    return content
