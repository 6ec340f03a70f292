"""Feature fusion learning (FFL; Kim et al., ICPR 2020).

Two branches share all but their last stage; a fusion module classifies their concatenated last maps, which are *not*
detached, so that its loss trains the branches too.
L = CE_1 + CE_2 + CE_f + ramp · [KD_3(1 ← f) + KD_3(2 ← f) + KD_3(f ← mean logits)], targets detached.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.losses import soft_kl
from ffsd_ray.methods.base import Blueprint, Losses, Role
from ffsd_ray.methods.shared.branch_group import BranchGroup, BranchSettings
from ffsd_ray.methods.shared.peers import DeployedStudentSettings
from ffsd_ray.nets.fusion import Fusion
from ffsd_ray.nets.precision import features


class FflSettings(BranchSettings, DeployedStudentSettings):
    """Settings of feature fusion learning."""

    name: Literal["ffl"] = "ffl"

    @property
    def assumptions(self) -> tuple[str, ...]:
        return ("FFL: that its accuracy in the paper is the mean branch's, not the fused classifier's",)

    @property
    def students(self) -> int:
        """The number of branches, which FFL fixes at two."""
        return 2


class Ffl(BranchGroup):
    """FFL: two branches and FFSD's fusion module, which has a separate weight decay (`train.fusion_weight_decay`)."""

    Settings = FflSettings
    settings: FflSettings

    def __init__(self, settings: FflSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint, branches=settings.students)
        self.fusion = Fusion(settings.students, blueprint.shapes[-1][0], blueprint.classes)

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        temperature, ramp = self.settings.temperature, self.ramp.factor
        branches, fused = self._forward_group(views[0])
        mean = torch.stack([branch.logits for branch in branches]).mean(dim=0)
        terms = {
            "fusion/ce": F.cross_entropy(fused.logits, labels),
            "fusion/kd": ramp * soft_kl(fused.logits, mean, temperature),
        }
        for name, branch in zip(self.common, branches, strict=True):
            terms[f"{name}/ce"] = F.cross_entropy(branch.logits, labels)
            terms[f"{name}/kd"] = ramp * soft_kl(branch.logits, fused.logits, temperature)
        return Losses(terms, {name: z.detach() for name, z in self._logits_by_member(branches, fused).items()})

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return self._logits_by_member(*self._forward_group(images))

    def _forward_group(self, images: Tensor) -> tuple[list[Features], Features]:
        """Features of the branches and of the fusion module for images [B, 3, S, S]."""
        branches = self.branch_features(images)
        concatenated = torch.cat([branch.maps[-1] for branch in branches], dim=1)
        return branches, features(self.fusion, concatenated, self._precision)

    def _logits_by_member(self, branches: list[Features], fused: Features) -> dict[str, Tensor]:
        logits = {name: branch.logits for name, branch in zip(self.common, branches, strict=True)}
        return logits | {"fusion": fused.logits}

    def roles(self) -> dict[Role, list[nn.Module]]:
        return super().roles() | {"fusion": [self.fusion]}

    @property
    def members(self) -> list[str]:
        return [*self.common, "fusion"]
