"""One network trained on the labels alone: the reference of every reported gain."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ffsd_ray.methods.base import Losses, MethodSettings
from ffsd_ray.methods.shared.single_student import SingleStudent


class BaselineSettings(MethodSettings):
    """Settings of the baseline: none besides its name."""

    name: Literal["baseline"] = "baseline"

    @property
    def primary_series(self) -> str:
        return "student"


class Baseline(SingleStudent):
    """One network trained with cross-entropy, L = CE(y, p)."""

    Settings = BaselineSettings

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        logits = self.features(self.student, views[0]).logits
        return Losses({"student/ce": F.cross_entropy(logits, labels)}, {"student": logits.detach()})
