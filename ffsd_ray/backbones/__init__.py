"""Backbones by name; a family is one file whose `BUILDERS` names its members."""

from ffsd_ray.backbones.base import Builder, Features, map_shapes
from ffsd_ray.registry import modules

BACKBONES: dict[str, Builder] = {
    name: build for module in modules(__name__) for name, build in getattr(module, "BUILDERS", {}).items()
}

__all__ = ["BACKBONES", "Builder", "Features", "map_shapes"]
