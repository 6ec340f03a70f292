"""Methods, backbones and data sources of the user's own, from modules outside of this package.

A module is named in the environment (`VARIABLE`), where `ffsd --plugin MODULE` puts it and Ray's workers find it, or by
an installed package's entry points in the group `GROUP`. It is like a file of `methods/`, `backbones/` or `data/`: a
`Method`, a dictionary `BUILDERS` or a `DataSettings` in it can be named in job files. No job file names a module.
"""

import os
import sys
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from ffsd_ray import backbones, data, methods
from ffsd_ray.errors import UserError, summary
from ffsd_ray.registry import by_name

#: Environment variable: names of modules, with commas between them.
VARIABLE = "FFSD_RAY_PLUGINS"
#: Of entry points.
GROUP = "ffsd_ray.plugins"

T = TypeVar("T")


@cache
def load() -> dict[str, str]:
    """Import the modules and add what is in them; the first 16 digits of each file's SHA-256, by module.

    Raises:
        UserError: a module cannot be imported, or two parts have the same name.
    """
    named = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
    installed = [point.module for point in entry_points(group=GROUP)]
    found = {name: _imported(name) for name in dict.fromkeys([*named, *installed])}
    for name, module in found.items():
        try:
            _add(backbones.BACKBONES, dict(backbones.found_in(module)))
            _add(methods.METHODS, dict(methods.found_in(module)))
            _add(data.SOURCES, dict(data.found_in(module)))
        except ValueError as error:
            raise UserError(f"plugin {name}: {error}") from error
    return {name: _hash(module) for name, module in found.items()}


def _imported(name: str) -> ModuleType:
    """The module, also from the folder that the command was started in. Raises UserError."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return import_module(name)
    except Exception as error:  # whatever the user's own code raises
        raise UserError(f"plugin {name}: cannot be imported: {summary(error)}") from error


def _add(known: dict[str, T], found: dict[str, T]) -> None:
    """Raises ValueError: a name is taken."""
    known.update(by_name([*known.items(), *found.items()]))


def _hash(module: ModuleType) -> str:
    return sha256(Path(module.__file__).read_bytes()).hexdigest()[:16] if module.__file__ else ""
