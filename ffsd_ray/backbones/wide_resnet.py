"""Wide ResNet for small images (Zagoruyko & Komodakis, BMVC 2016), in the published FFSD implementation's form.

Unlike in the original, the second 3×3 convolution of a block has the stride, the shortcut is a 1×1 convolution of the
block's input before batch norm and ReLU, every convolution has a bias, and there is no dropout.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions


class PreActivationBlock(nn.Module):
    """Residual block of two 3×3 convolutions, each after batch norm and ReLU; the second one has the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x), inplace=True))
        out: Tensor = self.conv2(F.relu(self.bn2(first), inplace=True))
        shortcut: Tensor = self.shortcut(x)
        return out + shortcut


class WideResNet(nn.Module):
    """WRN-(6·blocks + 4)-width, with `blocks` residual blocks in each stage.

    Feature maps: the ends of the three stages, the last one after batch norm and ReLU; for width k
    [16k, S, S], [32k, S/2, S/2], [64k, S/4, S/4].
    """

    def __init__(self, classes: int, *, blocks: int, width: int) -> None:
        super().__init__()
        channels = [16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.layer1 = _stage(16, channels[0], blocks, stride=1)
        self.layer2 = _stage(channels[0], channels[1], blocks, stride=2)
        self.layer3 = _stage(channels[1], channels[2], blocks, stride=2)
        self.bn = nn.BatchNorm2d(channels[2], momentum=0.9)
        self.fc = nn.Linear(channels[2], classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Features:
        first = self.layer1(self.conv1(images))
        second = self.layer2(first)
        last = F.relu(self.bn(self.layer3(second)), inplace=True)
        return Features(self.fc(last.mean(dim=(2, 3))), [first, second, last])


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(channels, channels, 1) for _ in range(blocks - 1)))


BUILDERS = {
    "wrn-16-2": partial(WideResNet, blocks=2, width=2),
    "wrn-40-2": partial(WideResNet, blocks=6, width=2),
}
