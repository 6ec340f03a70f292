"""The interface of backbones, their initialisation and the shapes of their feature maps."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ffsd_ray.errors import summary
from ffsd_ray.meta_device import meta_device


class Features(NamedTuple):
    """Results of a backbone's forward pass."""

    logits: Tensor
    """Class scores [B, K]."""
    maps: list[Tensor]
    """The feature maps [B, C, H, W] that distillation uses, one for each stage, shallow to deep."""


#: A function of the number of classes that returns a backbone; its forward maps images [B, 3, S, S] to `Features`.
Builder = Callable[[int], nn.Module]


class Channels(NamedTuple):
    """A number for each channel of an image."""

    red: float
    green: float
    blue: float


class ModelLibrary(NamedTuple):
    """A library whose classifiers are backbones under the names LIBRARY:NAME."""

    builder: Callable[[str], Builder]
    """The builder of the model NAME. Raises UnknownBackbone, or ValueError where it has no maps to distil."""
    default_weights: Callable[[str], dict[str, Tensor]]
    """The library's own weights of the model NAME, downloaded once: a state dictionary. Raises what it does."""
    default_normalisation: Callable[[str], tuple[Channels, Channels]]
    """Mean and standard deviation of pixels in [0, 1] by which the images were normalised that these weights saw."""


class UnknownBackbone(ValueError):
    """No backbone has the given name. `names`: the names that exist, from which suggestions are made."""

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = list(names)


def initialise_convolutions(module: nn.Module) -> None:
    """Initialise a backbone as the published FFSD implementation does.

    Convolution weights are drawn from N(0, σ²) with σ = sqrt(2 / (k² · C_out)); batch norm's weights are set to 1 and
    its biases to 0. Biases of convolutions, and linear layers, keep torch's default initialisation.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


class UnfitImages(ValueError):
    """A backbone does not take images of a size."""


@lru_cache
def map_shapes(build: Builder, image_size: int) -> tuple[tuple[int, int, int], ...]:
    """Shapes (C, H, W) of a backbone's feature maps, shallow to deep, for square images of `image_size` pixels.

    Computed on the meta device, so nothing is allocated.

    Raises:
        UnfitImages: the images are too small for the backbone, or it does not run there, see the message.
    """
    with meta_device():
        network = build(10).eval()
        try:
            features = network(torch.empty(1, 3, image_size, image_size))
        except Exception as error:  # of any kind: the backbone may be a user's own
            size = f"Images of {image_size}×{image_size}"
            if isinstance(error, RuntimeError) and "meta tensor" not in str(error):
                raise UnfitImages(f"{size} are too small for this backbone") from error
            raise UnfitImages(
                f"{size} do not pass through this backbone where only shapes are computed, on torch's meta device: "
                f"{summary(error)}"
            ) from error
    return tuple((m.shape[1], m.shape[2], m.shape[3]) for m in features.maps)
