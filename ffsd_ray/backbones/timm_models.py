"""Any classifier of timm whose stages have spatial feature maps, under the name `timm:NAME` or `timm:NAME.TAG`.

Feature maps are those of timm's `forward_intermediates` that `chosen_maps` takes; for timm:resnet18 they are the ends
of its four stages. A tag names one of timm's sets of weights for a model, with which `backbone.weights: default` then
begins.

Weights are initialised as by timm. timm is an extra, and imported when a name is first looked up.
"""

from functools import lru_cache, partial
from types import ModuleType

import torch
from torch import Tensor, nn

from ffsd_ray.backbones.base import Builder, Channels, Features, UnknownBackbone
from ffsd_ray.backbones.probing import NO_MAPS, ONE_SIZE, PROBE_CLASSES, PROBE_SIZES, chosen_maps, on_default_device
from ffsd_ray.meta_device import meta_device

NAME = "timm"


@lru_cache
def builder(name: str) -> Builder:
    """The builder of timm's classifier `name`.

    Raises:
        UnknownBackbone: timm has no such model.
        ValueError: timm is not installed, or the model has no feature maps to distil; the message says why.
    """
    timm = _timm()
    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    if name not in known:
        raise UnknownBackbone(
            f"Should be one of timm's models, such as {NAME}:resnet18", [f"{NAME}:{n}" for n in sorted(known)]
        )
    maps = _find_maps(name)
    if isinstance(maps, str):
        raise ValueError(f"timm's {name} {maps}")
    return partial(TimmBackbone, name=name, maps=maps)


class TimmBackbone(nn.Module):
    """A timm classifier whose forward returns `Features`; `maps`: indices of its intermediate feature maps."""

    def __init__(self, classes: int, *, name: str, maps: tuple[int, ...]) -> None:
        super().__init__()
        self.maps = list(maps)
        self.net = _classifier(name, classes)

    def forward(self, images: Tensor) -> Features:
        last, maps = self.net.forward_intermediates(images, indices=self.maps)  # type: ignore[operator]
        return Features(self.net.forward_head(last), maps)  # type: ignore[operator]


def default_weights(name: str) -> dict[str, Tensor]:
    """The weights that timm has for its model `name`, which timm downloads once. Raises what timm does."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        weights: dict[str, Tensor] = _timm().create_model(name, pretrained=True).state_dict()
    return weights


def default_normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the images that these weights were trained on."""
    configuration = _timm().get_pretrained_cfg(name)
    return Channels(*configuration.mean), Channels(*configuration.std)


def _timm() -> ModuleType:
    """Raises ValueError."""
    try:
        import timm  # takes seconds, and most trials have no need of it
    except ImportError as error:
        raise ValueError('Needs the package timm: pip install "ffsd-ray[timm]"') from error
    return timm


def _classifier(name: str, classes: int) -> nn.Module:
    """Build timm's model `name` with random weights, on the default device."""
    return on_default_device(partial(_timm().create_model, name, num_classes=classes))


@lru_cache
def _find_maps(name: str) -> tuple[int, ...] | str:
    """Find the feature maps of timm's model `name` by probing it on the meta device.

    Returns the end of an error message, which says why, if the model has no suitable feature maps.
    """
    with meta_device():
        net = _classifier(name, PROBE_CLASSES).eval()
        if not hasattr(net, "forward_intermediates"):
            return "has no forward_intermediates, by which timm's models return their feature maps"
        small = _sides(net, PROBE_SIZES[0])
        if len(set(small)) < 2:
            return NO_MAPS
        try:
            large = _sides(net, PROBE_SIZES[1])
        except (AssertionError, RuntimeError):
            return ONE_SIZE
    return tuple(chosen_maps(small, large))


def _sides(net: nn.Module, size: int) -> list[int]:
    """Sides in pixels of a model's feature maps, by depth, for square images of `size` pixels."""
    maps = net.forward_intermediates(torch.empty(2, 3, size, size), intermediates_only=True)  # type: ignore[operator]
    return [each.shape[-1] for each in maps]
