"""Backbones by name; a family is one file whose `BUILDERS` names its members."""

from ffsd_ray.backbones import torchvision_models
from ffsd_ray.backbones.base import Builder, Features, UnknownBackbone, map_shapes
from ffsd_ray.registry import by_name, modules

#: The package's own. `backbone` also knows torchvision's.
BACKBONES: dict[str, Builder] = by_name(
    item for module in modules(__name__) for item in getattr(module, "BUILDERS", {}).items()
)


def backbone(name: str) -> Builder:
    """The builder of a name of `BACKBONES` or of `torchvision:NAME` (`ffsd_ray.backbones.torchvision_models`).

    Raises:
        UnknownBackbone: there is none of that name.
        ValueError: it cannot be distilled; the message says why.
    """
    if name.startswith(torchvision_models.PREFIX):
        return torchvision_models.builder(name.removeprefix(torchvision_models.PREFIX))
    if name not in BACKBONES:
        raise UnknownBackbone(
            f"Should be one of {', '.join(BACKBONES)}, or {torchvision_models.PREFIX}NAME for one of torchvision's",
            BACKBONES,
        )
    return BACKBONES[name]


__all__ = ["BACKBONES", "Builder", "Features", "UnknownBackbone", "backbone", "map_shapes"]
