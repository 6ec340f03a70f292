"""Online adversarial feature map distillation (AFD; Chung et al., ICML 2020): a reconstruction, without public code.

Peers teach in a cycle: student i learns from j = i + 1, the last one from the first. Each batch is used twice:

1. logit step: L_i = CE(y, p_i) + ramp · KD_3(i ← j);
2. adversarial step on the last feature maps, by separate Adam optimisers, with least-squares GAN losses: the
   discriminator D_i learns to output 1 for student j's map and 0 for student i's, student i to make D_i output 1.

Not to be confused with attention-based feature distillation, which has the same abbreviation.
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
    """Settings of online adversarial feature map distillation."""

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
    """AFD: n peers and a discriminator for each."""

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
            logits, peer_logits = students[index].logits, students[index - len(students) + 1].logits
            terms[f"{name}/ce"] = F.cross_entropy(logits, labels)
            terms[f"{name}/kd"] = self.ramp.factor * soft_kl(logits, peer_logits, self.settings.temperature)
        return Losses(terms, {name: s.logits.detach() for name, s in zip(self.common, students, strict=True)})

    def _adversarial(self, students: list[Features]) -> dict[str, Tensor]:
        """The adversarial step's terms: the GAN losses of every student and of its discriminator."""
        terms = {}
        for index, (name, discriminator) in enumerate(zip(self.common, self.discriminators, strict=True)):
            maps, peer_maps = students[index].maps[-1], students[index - len(students) + 1].maps[-1]
            terms[f"{name}/adversarial"] = generator_loss(discriminator, maps)
            terms[f"discriminator{index + 1}/apart"] = discriminator_loss(discriminator, peer_maps, maps)
        return terms

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.students], "adversary": [self.students], "discriminator": [self.discriminators]}
