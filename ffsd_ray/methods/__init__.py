"""Training methods by name; adding one is adding a file with a subclass of `Method`."""

import inspect

from ffsd_ray.methods.base import Blueprint, Losses, MapShapes, Method, MethodSettings, Phase, TrainedOn
from ffsd_ray.registry import by_name, modules

METHODS: dict[str, type[Method]] = by_name(
    (found.Settings.model_fields["name"].default, found)
    for module in modules(__name__)
    for found in vars(module).values()
    if inspect.isclass(found) and issubclass(found, Method) and not inspect.isabstract(found)
)

__all__ = ["METHODS", "Blueprint", "Losses", "MapShapes", "Method", "MethodSettings", "Phase", "TrainedOn"]
