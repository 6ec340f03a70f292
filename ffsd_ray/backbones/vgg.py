"""VGG for small images (Simonyan & Zisserman, 2015) with batch norm and one linear layer.

The published FFSD implementation has no VGG and the paper does not describe its own; this is the usual form for CIFAR.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions


class Vgg(nn.Module):
    """VGG of five stages of 3×3 convolutions with bias, batch norm and ReLU, each followed by 2×2 max pooling.

    Feature maps: the ends of the stages before pooling, [64, S, S], [128, S/2, S/2], [256, S/4, S/4], [512, S/8, S/8],
    [512, S/16, S/16].
    """

    def __init__(self, classes: int, *, convolutions: tuple[int, int, int, int, int]) -> None:
        """`convolutions`: number of convolutions in each stage."""
        super().__init__()
        channels = (3, 64, 128, 256, 512, 512)
        self.stages = nn.ModuleList(
            _stage(channels[index], channels[index + 1], number) for index, number in enumerate(convolutions)
        )
        self.fc = nn.Linear(512, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Features:
        x, maps = images, []
        for stage in self.stages:
            maps.append(stage(x))
            x = F.max_pool2d(maps[-1], 2)
        return Features(self.fc(x.mean(dim=(2, 3))), maps)


def _stage(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(in_channels, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        in_channels = channels
    return nn.Sequential(*layers)


BUILDERS = {"vgg-16": partial(Vgg, convolutions=(2, 2, 3, 3, 3))}
