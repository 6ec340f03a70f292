"""Backbones by name. Each family of backbones is one file of this package, with its members in `BUILDERS`."""

from collections.abc import Iterator
from types import ModuleType

from ffsd_ray.backbones import torchvision_models
from ffsd_ray.backbones.base import Builder, Features, UnknownBackbone, map_shapes
from ffsd_ray.registry import by_name, modules


def found_in(module: ModuleType) -> Iterator[tuple[str, Builder]]:
    """Yield the name and the builder of every backbone in a module."""
    yield from getattr(module, "BUILDERS", {}).items()


#: Builders of this package's backbones by name; `backbone` also finds torchvision's models.
BACKBONES: dict[str, Builder] = by_name(item for module in modules(__name__) for item in found_in(module))


def backbone(name: str) -> Builder:
    """The builder of a backbone: a name in `BACKBONES`, or `torchvision:NAME` (see `torchvision_models`).

    Raises:
        UnknownBackbone: no backbone has that name.
        ValueError: torchvision's model has no feature maps to distil; the message says why.
    """
    if name.startswith(torchvision_models.PREFIX):
        return torchvision_models.builder(name.removeprefix(torchvision_models.PREFIX))
    if name not in BACKBONES:
        raise UnknownBackbone(
            f"Should be one of {', '.join(BACKBONES)}, or {torchvision_models.PREFIX}NAME for one of torchvision's",
            BACKBONES,
        )
    return BACKBONES[name]


__all__ = ["BACKBONES", "Builder", "Features", "UnknownBackbone", "backbone", "found_in", "map_shapes"]
