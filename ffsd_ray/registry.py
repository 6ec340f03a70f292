"""Finding the parts that one new file adds."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType


def modules(package: str) -> Iterator[ModuleType]:
    """Import and yield every module of `package`, in alphabetical order."""
    root = importlib.import_module(package)
    for found in pkgutil.iter_modules(root.__path__):
        yield importlib.import_module(f"{package}.{found.name}")
