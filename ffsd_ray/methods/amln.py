"""Adversarial-based mutual learning network (AMLN; Zhang et al., ECCV 2020), a reconstruction.

Peers teach in a cycle: student i learns from i + 1, the last one from the first. A network is cut into blocks at its
feature maps. The loss of a student is CE + KD_T on its logits, and for its blocks

- an adversarial term each (least-squares GAN): the block's map should pass for the peer's map of the same block;
- all but the last, a container term: an alignment container (average pooling, 1×1 convolution, batch norm) maps the
  block's map to the peer's final map (mean squared error).

The structure is the paper's; the weights and the schedule are UNCONFIRMED.
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
    """Settings of adversarial-based mutual learning."""

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
    """AMLN: n peers; each has one discriminator per block, and one alignment container per block except the last."""

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
            student, peer = students[index], students[index - len(students) + 1]
            terms[f"{name}/ce"] = F.cross_entropy(student.logits, labels)
            terms[f"{name}/kd"] = soft_kl(student.logits, peer.logits, self.settings.temperature)
            terms |= self._alignment(index, name, student, peer)
        return Losses(terms, {name: s.logits.detach() for name, s in zip(self.common, students, strict=True)})

    def _alignment(self, index: int, name: str, student: Features, peer: Features) -> dict[str, Tensor]:
        """The adversarial and container terms of the student at `index`, and its discriminators' term."""
        settings, discriminators, containers = self.settings, self.discriminators[index], self.containers[index]
        assert isinstance(discriminators, nn.ModuleList)
        assert isinstance(containers, nn.ModuleList)
        generator_losses = [
            generator_loss(discriminator, feature_map)
            for discriminator, feature_map in zip(discriminators, student.maps, strict=True)
        ]
        discriminator_losses = [
            discriminator_loss(discriminator, peer_map, feature_map)
            for discriminator, peer_map, feature_map in zip(discriminators, peer.maps, student.maps, strict=True)
        ]
        peer_final = peer.maps[-1].detach()
        container_losses = [
            F.mse_loss(container(feature_map), peer_final)
            for container, feature_map in zip(containers, student.maps[:-1], strict=True)
        ]
        return {
            f"{name}/adversarial": settings.weight_adversarial * torch.stack(generator_losses).sum(),
            f"{name}/container": settings.weight_container * torch.stack(container_losses).sum(),
            f"discriminator{index + 1}/apart": torch.stack(discriminator_losses).sum(),
        }

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.students, self.containers], "discriminator": [self.discriminators]}


class Container(nn.Module):
    """Alignment container: maps a block's feature map [B, C, h, w] to the last one's shape [B, C_M, H_M, W_M]."""

    def __init__(self, channels: int, final: tuple[int, int, int]) -> None:
        super().__init__()
        self.fit = nn.Sequential(
            nn.AdaptiveAvgPool2d(final[1:]), nn.Conv2d(channels, final[0], 1, bias=False), nn.BatchNorm2d(final[0])
        )

    def forward(self, maps: Tensor) -> Tensor:
        fitted: Tensor = self.fit(maps)
        return fitted
