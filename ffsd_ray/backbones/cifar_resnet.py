"""ResNet for small images (He et al., 2016), in the published FFSD implementation's form.

A 3×3 stem of 16 channels and three stages of basic blocks with 16, 32 and 64 channels. A stage that changes shape has a
1×1 convolution with batch norm as its shortcut (not the parameter-free shortcut of the original CIFAR networks).
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions


class BasicBlock(nn.Module):
    """Residual block of two 3×3 convolutions; the first one has the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + shortcut, inplace=True)


class CifarResNet(nn.Module):
    """ResNet-(6·blocks + 2), with `blocks` basic blocks in each stage.

    Feature maps: the ends of the three stages, [16, S, S], [32, S/2, S/2], [64, S/4, S/4].
    """

    def __init__(self, classes: int, *, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, blocks, stride=1)
        self.layer2 = stage(16, 32, blocks, stride=2)
        self.layer3 = stage(32, 64, blocks, stride=2)
        self.fc = nn.Linear(64, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        return Features(self.fc(x.mean(dim=(2, 3))), maps)


def stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    """A stage of `blocks` basic blocks; the first one changes the channels and has the stride."""
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


#: ResNet-8 to ResNet-110, but for 50, which everybody takes for ImageNet's.
BUILDERS = {f"resnet{6 * blocks + 2}": partial(CifarResNet, blocks=blocks) for blocks in range(1, 19) if blocks != 8}
