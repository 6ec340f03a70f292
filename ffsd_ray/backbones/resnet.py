"""ResNet for ImageNet (He et al., CVPR 2016), built of basic blocks; also for smaller images, such as 64×64."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones.base import Features, initialise_convolutions
from ffsd_ray.backbones.cifar_resnet import stage


class ResNet(nn.Module):
    """ResNet with a 7×7 stem with stride 2, 3×3 max pooling with stride 2, and four stages of basic blocks.

    Feature maps: the ends of the stages, [64, S/4, S/4], [128, S/8, S/8], [256, S/16, S/16], [512, S/32, S/32].
    Parameters are named as torchvision's are.
    """

    def __init__(self, classes: int, *, blocks: tuple[int, int, int, int]) -> None:
        """`blocks`: number of basic blocks in each stage."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(64, 64, blocks[0], stride=1)
        self.layer2 = stage(64, 128, blocks[1], stride=2)
        self.layer3 = stage(128, 256, blocks[2], stride=2)
        self.layer4 = stage(256, 512, blocks[3], stride=2)
        self.fc = nn.Linear(512, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Features:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images)), inplace=True), 3, 2, 1)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return Features(self.fc(x.mean(dim=(2, 3))), maps)


BUILDERS = {
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
}
