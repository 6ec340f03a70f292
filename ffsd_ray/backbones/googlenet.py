"""GoogLeNet for small images (Szegedy et al., 2015), in the published FFSD implementation's form.

The stem is one 3×3 convolution, inception blocks have the original widths, two 3×3 convolutions replace the 5×5 one,
batch norm and ReLU follow every convolution, and there are no auxiliary classifiers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions


class Inception(nn.Module):
    """Inception block: four branches on the same input, whose outputs are concatenated over channels."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        """`widths`, as in the original paper's Table 1: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection."""
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.branch1 = _convolution(in_channels, one, 1)
        self.branch3 = nn.Sequential(_convolution(in_channels, reduce3, 1), _convolution(reduce3, three, 3))
        self.branch5 = nn.Sequential(
            _convolution(in_channels, reduce5, 1), _convolution(reduce5, five, 3), _convolution(five, five, 3)
        )
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), _convolution(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], dim=1)


class GoogLeNet(nn.Module):
    """GoogLeNet of nine inception blocks in three stages.

    Feature maps: the ends of blocks 3b, 4e and 5b, [480, S, S], [832, S/2, S/2], [1024, S/4, S/4].
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _convolution(3, 192, 3)
        self.stage3 = nn.Sequential(
            Inception(192, (64, 96, 128, 16, 32, 32)),
            Inception(256, (128, 128, 192, 32, 96, 64)),
        )
        self.stage4 = nn.Sequential(
            Inception(480, (192, 96, 208, 16, 48, 64)),
            Inception(512, (160, 112, 224, 24, 64, 64)),
            Inception(512, (128, 128, 256, 24, 64, 64)),
            Inception(512, (112, 144, 288, 32, 64, 64)),
            Inception(528, (256, 160, 320, 32, 128, 128)),
        )
        self.stage5 = nn.Sequential(
            Inception(832, (256, 160, 320, 32, 128, 128)),
            Inception(832, (384, 192, 384, 48, 128, 128)),
        )
        self.fc = nn.Linear(1024, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Features:
        third = self.stage3(self.stem(images))
        fourth = self.stage4(F.max_pool2d(third, 3, 2, 1))
        fifth = self.stage5(F.max_pool2d(fourth, 3, 2, 1))
        return Features(self.fc(fifth.mean(dim=(2, 3))), [third, fourth, fifth])


def _convolution(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    """Convolution with bias, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, 1, kernel // 2), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


BUILDERS = {"googlenet": GoogLeNet}
