"""Backbones by name. Each family of backbones is one file of this package, with its members in `BUILDERS`."""

from collections.abc import Iterator
from types import ModuleType

from ffsd_ray.backbones import timm_models, torchvision_models
from ffsd_ray.backbones.base import Builder, Features, ModelLibrary, UnfitImages, UnknownBackbone, map_shapes
from ffsd_ray.registry import by_name, modules


def found_in(module: ModuleType) -> Iterator[tuple[str, Builder]]:
    """Yield the name and the builder of every backbone in a module."""
    yield from getattr(module, "BUILDERS", {}).items()


#: Builders of this package's backbones by name; `backbone` also finds the models of `LIBRARIES`.
BACKBONES: dict[str, Builder] = by_name(item for module in modules(__name__) for item in found_in(module))

#: Libraries whose classifiers are backbones too, by the part of their names before the colon.
LIBRARIES = {
    module.NAME: ModelLibrary(module.builder, module.default_weights, module.default_normalisation)
    for module in (torchvision_models, timm_models)
}


def library_model(name: str) -> tuple[str, str] | None:
    """Library and model that a backbone's name stands for, `torchvision:resnet18`; None for this package's own."""
    library, colon, model = name.partition(":")
    return (library, model) if colon and library in LIBRARIES else None


def backbone(name: str) -> Builder:
    """The builder of a backbone: a name in `BACKBONES`, or LIBRARY:NAME for a model of one of `LIBRARIES`.

    Raises:
        UnknownBackbone: no backbone has that name.
        ValueError: the library's model has no feature maps to distil, or the library is missing; the message says so.
    """
    if found := library_model(name):
        library, model = found
        return LIBRARIES[library].builder(model)
    if name not in BACKBONES:
        others = " or ".join(f"{library}:NAME" for library in LIBRARIES)
        raise UnknownBackbone(
            f"Should be one of {', '.join(BACKBONES)}, or {others} for one of these libraries'", BACKBONES
        )
    return BACKBONES[name]


__all__ = [
    "BACKBONES",
    "LIBRARIES",
    "Builder",
    "Features",
    "UnfitImages",
    "UnknownBackbone",
    "backbone",
    "found_in",
    "library_model",
    "map_shapes",
]
