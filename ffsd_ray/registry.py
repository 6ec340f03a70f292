"""Finding the parts that one new file adds."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules(package: str) -> Iterator[ModuleType]:
    """Import and yield every module of `package`, in alphabetical order."""
    root = importlib.import_module(package)
    for found in pkgutil.iter_modules(root.__path__):
        yield importlib.import_module(f"{package}.{found.name}")


def by_name(found: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Parts by their names. A part may come several times: modules import from each other.

    Raises:
        ValueError: two parts have one name, of which one would hide the other.
    """
    parts: dict[str, T] = {}
    for name, part in found:
        if parts.setdefault(name, part) is not part:
            raise ValueError(f"two parts are named {name}: {parts[name]} and {part}")
    return parts
