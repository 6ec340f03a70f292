"""Online adversarial feature map distillation (AFD; Chung et al., ICML 2020): a reconstruction, without public code.

Peers teach in a cycle: i learns from i + 1. In every batch first the logit step, L_i = CE + ramp · KD_3(i ← j); then
an adversarial step on the last feature maps, with optimisers of its own: discriminator D_i wants 1 for the peer's map
and 0 for its own network's, the network wants 1 for its own (least squares). Not to be confused with attention-based
feature distillation.
"""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import MOST_EPOCHS, Positive, Rate
from ffsd_ray.losses import soft_kl
from ffsd_ray.methods.base import Blueprint, Losses, Phase, Role
from ffsd_ray.methods.shared.discriminator import Discriminator, discriminator_loss, generator_loss
from ffsd_ray.methods.shared.peers import Peers, PeersSettings
from ffsd_ray.methods.shared.rampup import Ramp


class AfdSettings(PeersSettings):
    """Peers whose last feature maps a discriminator cannot tell from each other's."""

    name: Literal["afd"] = "afd"
    temperature: Positive = Field(3.0, description="Temperature of the logit step's distillation.")
    ramp_epochs: int = Field(
        80, ge=0, le=MOST_EPOCHS, description="Epochs over which that term rises as exp(−5 (1 − e/R)²), e from 0."
    )
    adversarial_lr: Rate = Field(2e-5, description="Learning rate of Adam in the adversarial step.")

    @property
    def assumptions(self) -> tuple[str, ...]:
        ramp = f"the ramp of {self.ramp_epochs} epochs on the logit term"
        return (
            *super().assumptions,
            f"AFD: its discriminators, Adam's learning rate of {self.adversarial_lr:g}, {ramp}; no layer transfers the "
            "maps, which are of one shape",
        )

    @property
    def schedule(self) -> dict[str, int]:
        return {"ramp_epochs": self.ramp_epochs}


class Afd(Peers):
    """The peers and a discriminator for each."""

    Settings = AfdSettings
    settings: AfdSettings

    def __init__(self, settings: AfdSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        channels = blueprint.shapes[-1][0]
        self.discriminators = nn.ModuleList(Discriminator(channels) for _ in range(settings.students))
        self.ramp = Ramp(settings.ramp_epochs, first=0)

    def begin_epoch(self, epoch: int) -> None:
        self.ramp.begin(epoch)

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("logit", ("student",)), Phase("feature", ("adversary", "discriminator")))

    @property
    def adam_rates(self) -> dict[Role, float]:
        return {"adversary": self.settings.adversarial_lr, "discriminator": self.settings.adversarial_lr}

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        students = self.features_of_all(list(self.students), views[0])
        if phase == "feature":
            return Losses(self._adversarial(students), {})
        terms = {}
        for index, name in enumerate(self.common):
            own, peer = students[index].logits, students[index - len(students) + 1].logits
            terms[f"{name}/ce"] = F.cross_entropy(own, labels)
            terms[f"{name}/kd"] = self.ramp.factor * soft_kl(own, peer, self.settings.temperature)
        return Losses(terms, {name: s.logits.detach() for name, s in zip(self.common, students, strict=True)})

    def _adversarial(self, students: list[Features]) -> dict[str, Tensor]:
        terms = {}
        for index, (name, judge) in enumerate(zip(self.common, self.discriminators, strict=True)):
            own, peer = students[index].maps[-1], students[index - len(students) + 1].maps[-1]
            terms[f"{name}/adversarial"] = generator_loss(judge, own)
            terms[f"discriminator{index + 1}/apart"] = discriminator_loss(judge, peer, own)
        return terms

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.students], "adversary": [self.students], "discriminator": [self.discriminators]}
