"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017).

L = CE(y, p) + β · Σ_stages mean((at(F_s) − at(F_t))²), at(F): the unit-norm flattening of the channel mean of F².
The means over H·W and the batch make the weight that acts on the sum of squares about 0.1, as in its paper. Stages are
compared from the deepest on; where their sizes differ the larger map is averaged down to the smaller (as RepDistiller,
Tian et al., does).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ffsd_ray.base_settings import NonNegative
from ffsd_ray.losses import attention, mimic_each
from ffsd_ray.methods.base import Losses
from ffsd_ray.methods.shared.with_teacher import StudentWithTeacher, TeacherSettings


class AtSettings(TeacherSettings):
    """Settings of attention transfer."""

    name: Literal["at"] = "at"
    beta: NonNegative = Field(1000.0, description="β, weight of the attention term.")


class At(StudentWithTeacher):
    """A student that learns from a teacher's attention maps (AT)."""

    Settings = AtSettings
    settings: AtSettings

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        student = self.features(self.student, views[0])
        with torch.no_grad():
            teacher = self.features(self.teachers[0], views[0])
        pairs = zip(reversed(student.maps), reversed(teacher.maps), strict=False)
        stages = mimic_each([_same_size(*pair) for pair in pairs], "published", attention)
        terms = {
            "student/ce": F.cross_entropy(student.logits, labels),
            "student/attention": self.settings.beta * torch.stack(stages).sum(),
        }
        return Losses(terms, {"student": student.logits.detach()})


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pool two batches of feature maps to the smaller height and width of the two (adaptive average pooling)."""
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return F.adaptive_avg_pool2d(a, size), F.adaptive_avg_pool2d(b, size)
