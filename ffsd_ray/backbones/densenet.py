"""DenseNet for small images (Huang et al., CVPR 2017): no bottleneck, no compression, a stem of 24 channels."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions

STEM_CHANNELS = 24


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3×3 convolution, whose output [B, growth, H, W] is appended to the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.bn(x), inplace=True))], dim=1)


class Transition(nn.Module):
    """Batch norm, ReLU, a 1×1 convolution that keeps the channels, and 2×2 average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x), inplace=True)), 2)


class DenseNet(nn.Module):
    """DenseNet-(3·layers + 4), with `layers` dense layers in each block.

    Feature maps: the ends of the three blocks, the last one after batch norm and ReLU. A block adds layers · growth
    channels: with 12 layers and growth 12 the maps are [168, S, S], [312, S/2, S/2] and [456, S/4, S/4].
    """

    def __init__(self, classes: int, *, layers: int, growth: int) -> None:
        super().__init__()
        channels = [STEM_CHANNELS + block * layers * growth for block in range(4)]
        self.conv1 = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.block1 = _block(channels[0], layers, growth)
        self.transition1 = Transition(channels[1])
        self.block2 = _block(channels[1], layers, growth)
        self.transition2 = Transition(channels[2])
        self.block3 = _block(channels[2], layers, growth)
        self.bn = nn.BatchNorm2d(channels[3])
        self.fc = nn.Linear(channels[3], classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Features:
        first = self.block1(self.conv1(images))
        second = self.block2(self.transition1(first))
        last = F.relu(self.bn(self.block3(self.transition2(second))), inplace=True)
        return Features(self.fc(last.mean(dim=(2, 3))), [first, second, last])


def _block(in_channels: int, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(in_channels + index * growth, growth) for index in range(layers)))


BUILDERS = {"densenet-40-12": partial(DenseNet, layers=12, growth=12)}
