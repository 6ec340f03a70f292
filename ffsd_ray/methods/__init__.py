"""Training methods by name; adding one is adding a file with a subclass of `Method`."""

import inspect

from ffsd_ray.methods.base import Blueprint, Losses, MapShapes, Method, MethodSettings, Phase, TrainedOn
from ffsd_ray.registry import by_name, modules

METHODS: dict[str, type[Method]] = by_name(
    (value.Settings.model_fields["name"].default, value)
    for module in modules(__name__)
    for value in vars(module).values()
    if inspect.isclass(value) and issubclass(value, Method) and not inspect.isabstract(value)
)

__all__ = ["METHODS", "Blueprint", "Losses", "MapShapes", "Method", "MethodSettings", "Phase", "TrainedOn"]
