"""The interface of backbones."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ffsd_ray.meta_device import meta_device


class Features(NamedTuple):
    """A forward pass: class scores [B, K] and the feature maps [B, C, H, W] that distillation uses, shallow to deep."""

    logits: Tensor
    maps: list[Tensor]


#: Builds a backbone for a number of classes; its forward maps images [B, 3, S, S] to `Features`.
Builder = Callable[[int], nn.Module]


class UnknownBackbone(ValueError):
    """There is no backbone of that name. `names`: those it may have been meant to be."""

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = list(names)


def initialise_convolutions(module: nn.Module) -> None:
    """Draw convolution weights from N(0, sqrt(2 / (k² · C_out))) and set batch norm to 1 and 0, as published.

    Biases of convolutions, where a backbone has them, and linear layers keep torch's own initialisation, as there.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


@lru_cache
def map_shapes(build: Builder, image_size: int) -> tuple[tuple[int, int, int], ...]:
    """Shapes (C, H, W) of a backbone's feature maps for square images; on the meta device, so nothing is allocated.

    Raises:
        RuntimeError: the images are too small for the backbone.
    """
    with meta_device():
        features = build(10).eval()(torch.empty(1, 3, image_size, image_size))
    return tuple((m.shape[1], m.shape[2], m.shape[3]) for m in features.maps)
