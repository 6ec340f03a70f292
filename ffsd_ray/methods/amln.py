"""Adversarial-based mutual learning network (AMLN; Zhang et al., ECCV 2020), a reconstruction.

Networks are cut into blocks, at their feature maps. After each block a discriminator aligns the block's map with the
peer's (least squares); after each but the last an alignment container (average pooling, 1×1 convolution, batch norm)
maps it to the peer's final map (mean squared difference). At the end CE + KD. Peers teach in a cycle: i learns from
i + 1. The structure is the paper's; the weights and the schedule are UNCONFIRMED.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import NonNegative, Positive, Rate
from ffsd_ray.losses import soft_kl
from ffsd_ray.methods.base import Blueprint, Losses, Role
from ffsd_ray.methods.shared.discriminator import Discriminator, discriminator_loss, generator_loss
from ffsd_ray.methods.shared.peers import Peers, PeersSettings


class AmlnSettings(PeersSettings):
    """Peers that are aligned block by block."""

    name: Literal["amln"] = "amln"
    temperature: Positive = Field(3.0, description="Temperature of the distillation at the end.")
    weight_adversarial: NonNegative = Field(0.1, description="Weight of a network's adversarial terms.")
    weight_container: NonNegative = Field(0.1, description="Weight of the alignment containers' terms.")
    discriminator_lr: Rate = Field(2e-5, description="Learning rate of the discriminators' Adam.")

    @property
    def assumptions(self) -> tuple[str, ...]:
        weights = f"the weights {self.weight_adversarial:g} (adversarial) and {self.weight_container:g} (containers)"
        return (
            *super().assumptions,
            f"AMLN: a reconstruction; {weights}, T = {self.temperature:g}, its discriminators, its containers and how "
            "they are trained",
        )


class Amln(Peers):
    """The peers, and for each a discriminator a block and a container a block but the last."""

    Settings = AmlnSettings
    settings: AmlnSettings

    def __init__(self, settings: AmlnSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        shapes, n = blueprint.shapes, settings.students
        self.containers = nn.ModuleList(
            nn.ModuleList(Container(shape[0], shapes[-1]) for shape in shapes[:-1]) for _ in range(n)
        )
        self.discriminators = nn.ModuleList(
            nn.ModuleList(Discriminator(shape[0]) for shape in shapes) for _ in range(n)
        )

    @property
    def adam_rates(self) -> dict[Role, float]:
        return {"discriminator": self.settings.discriminator_lr}

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        students = self.features_of_all(list(self.students), views[0])
        terms: dict[str, Tensor] = {}
        for index, name in enumerate(self.common):
            own, peer = students[index], students[index - len(students) + 1]
            terms[f"{name}/ce"] = F.cross_entropy(own.logits, labels)
            terms[f"{name}/kd"] = soft_kl(own.logits, peer.logits, self.settings.temperature)
            terms |= self._alignment(index, name, own, peer)
        return Losses(terms, {name: s.logits.detach() for name, s in zip(self.common, students, strict=True)})

    def _alignment(self, index: int, name: str, own: Features, peer: Features) -> dict[str, Tensor]:
        settings, judges, containers = self.settings, self.discriminators[index], self.containers[index]
        assert isinstance(judges, nn.ModuleList)
        assert isinstance(containers, nn.ModuleList)
        fooled = [generator_loss(judge, m) for judge, m in zip(judges, own.maps, strict=True)]
        apart = [discriminator_loss(judge, p, m) for judge, p, m in zip(judges, peer.maps, own.maps, strict=True)]
        final = peer.maps[-1].detach()
        aligned = [F.mse_loss(contain(m), final) for contain, m in zip(containers, own.maps[:-1], strict=True)]
        return {
            f"{name}/adversarial": settings.weight_adversarial * torch.stack(fooled).sum(),
            f"{name}/container": settings.weight_container * torch.stack(aligned).sum(),
            f"discriminator{index + 1}/apart": torch.stack(apart).sum(),
        }

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.students, self.containers], "discriminator": [self.discriminators]}


class Container(nn.Module):
    """A block's map [B, C, h, w] to the shape of a final one [B, C_M, H_M, W_M]."""

    def __init__(self, channels: int, final: tuple[int, int, int]) -> None:
        super().__init__()
        self.fit = nn.Sequential(
            nn.AdaptiveAvgPool2d(final[1:]), nn.Conv2d(channels, final[0], 1, bias=False), nn.BatchNorm2d(final[0])
        )

    def forward(self, maps: Tensor) -> Tensor:
        fitted: Tensor = self.fit(maps)
        return fitted
