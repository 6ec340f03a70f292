"""Backbones of which no other is built alike."""

from ffsd_ray.backbones import BACKBONES

#: Like ResNet-8 and ResNet-20, with more blocks or fewer.
ALIKE = {"resnet14", *(f"resnet{depth}" for depth in range(26, 111, 6))}
DIFFERENT = sorted(BACKBONES.keys() - ALIKE)
