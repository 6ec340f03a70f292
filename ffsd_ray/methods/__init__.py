"""Training methods by name; adding one is adding a file with a subclass of `Method`."""

import inspect
from collections.abc import Iterator
from types import ModuleType

from ffsd_ray.methods.base import Blueprint, Losses, MapShapes, Method, MethodSettings, Phase, TrainedOn
from ffsd_ray.registry import by_name, modules


def found_in(module: ModuleType) -> Iterator[tuple[str, type[Method]]]:
    """Yield the name and the class of every method in a module."""
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Method) and not inspect.isabstract(value):
            yield value.Settings.model_fields["name"].default, value


METHODS: dict[str, type[Method]] = by_name(item for module in modules(__name__) for item in found_in(module))

__all__ = ["METHODS", "Blueprint", "Losses", "MapShapes", "Method", "MethodSettings", "Phase", "TrainedOn", "found_in"]
