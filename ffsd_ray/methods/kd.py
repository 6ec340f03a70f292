"""Knowledge distillation (Hinton et al., 2015), in RepDistiller's setting.

L = w_ce · CE(y, p) + w_kd · KD_T(student ← teacher), with 0.1, 0.9 and T = 4.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ffsd_ray.base_settings import NonNegative, Positive
from ffsd_ray.losses import soft_kl
from ffsd_ray.methods.base import Losses
from ffsd_ray.methods.shared.with_teacher import StudentWithTeacher, TeacherSettings


class KdSettings(TeacherSettings):
    """Settings of knowledge distillation."""

    name: Literal["kd"] = "kd"
    temperature: Positive = Field(4.0, description="T, which softens the predictions.")
    weight_ce: NonNegative = Field(0.1, description="Weight of the cross-entropy.")
    weight_kd: NonNegative = Field(0.9, description="Weight of the teacher's term.")

    @property
    def assumptions(self) -> tuple[str, ...]:
        weights = f"{self.weight_ce:g}·CE + {self.weight_kd:g}·KD, T = {self.temperature:g}"
        return (f"KD: which variant the paper's table used; here {weights}",)


class Kd(StudentWithTeacher):
    """A student that learns from a teacher's softened predictions (KD)."""

    Settings = KdSettings
    settings: KdSettings

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        settings = self.settings
        logits = self.features(self.student, views[0]).logits
        with torch.no_grad():
            target = self.features(self.teachers[0], views[0]).logits
        terms = {
            "student/ce": settings.weight_ce * F.cross_entropy(logits, labels),
            "student/kd": settings.weight_kd * soft_kl(logits, target, settings.temperature),
        }
        return Losses(terms, {"student": logits.detach()})
