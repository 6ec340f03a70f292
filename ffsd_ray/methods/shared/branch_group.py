"""Base of methods whose students are branches of one network: they share all but their last stage."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import MOST_EPOCHS, Positive
from ffsd_ray.methods.base import Blueprint, Method, MethodSettings, Role
from ffsd_ray.methods.shared.peers import student_names
from ffsd_ray.methods.shared.rampup import Ramp
from ffsd_ray.nets.branches import Branches
from ffsd_ray.nets.precision import features_of_several


class BranchSettings(MethodSettings):
    """Settings that methods with branches share."""

    temperature: Positive = Field(3.0, description="Temperature of the distillation terms.")
    ramp_epochs: int = Field(
        80, ge=0, le=MOST_EPOCHS, description="Epochs R over which they rise as exp(−5 (1 − e/R)²), e from 0."
    )

    @property
    def shares_trunk(self) -> bool:
        return True

    @property
    def primary_series(self) -> str:
        return "students_mean"

    @property
    def schedule(self) -> dict[str, int]:
        return {"ramp_epochs": self.ramp_epochs}


class BranchGroup(Method):
    """Students that share a trunk. A branch with the trunk is deployed, independently of test accuracies."""

    def __init__(self, settings: Any, blueprint: Blueprint, *, branches: int) -> None:
        super().__init__(settings, blueprint)
        self.branches = Branches([blueprint.network() for _ in range(branches)])
        self.ramp = Ramp(settings.ramp_epochs, first=0)

    def begin_epoch(self, epoch: int) -> None:
        self.ramp.begin(epoch)

    def branch_features(self, images: Tensor) -> list[Features]:
        """Features of every branch for images [B, 3, S, S], in float32; all maps but the last come from the trunk."""
        return features_of_several(self.branches, images, self._precision)

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.branches]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return self.common[0], self.branches.networks[0]

    @property
    def networks(self) -> dict[str, nn.Module]:
        return dict(zip(self.common, self.branches.networks, strict=False))

    @property
    def common(self) -> list[str]:
        return student_names(self.settings.students)
