"""One network trained on the labels alone: what every gain is measured against."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ffsd_ray.methods.base import Blueprint, Losses, Method, MethodSettings, Role


class BaselineSettings(MethodSettings):
    """Cross-entropy, nothing to set."""

    name: Literal["baseline"] = "baseline"

    @property
    def headline(self) -> str:
        return "student"


class Baseline(Method):
    """L = CE(y, p)."""

    Settings = BaselineSettings

    def __init__(self, settings: BaselineSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.student = blueprint.network()

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        logits = self.features(self.student, views[0]).logits
        return Losses({"student/ce": F.cross_entropy(logits, labels)}, {"student": logits.detach()})

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {"student": self.features(self.student, images).logits}

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.student]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return "student", self.student

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"student": self.student}

    @property
    def members(self) -> list[str]:
        return ["student"]
