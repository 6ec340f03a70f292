"""Deep mutual learning (Zhang et al., CVPR 2018), as FFSD's Eq. 2 has it.

L_i = CE(y, p_i) + T² · KL(p̂_j ‖ p̂_i), averaged over the peers j ≠ i (`published`) or summed over them (`paper`:
Eq. 2 as printed). DML's own paper uses T = 1; FFSD compares at T = 2.
"""

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.losses import Formulation, mutual_kl
from ffsd_ray.methods.base import Blueprint, Losses, Method, MethodSettings, Role
from ffsd_ray.settings import Positive


class MutualSettings(MethodSettings):
    """What every method with mutually teaching students is given."""

    students: int = Field(2, ge=2, description="Common students n, which teach each other.")
    temperature: Positive = Field(2.0, description="T of Eq. 1, which softens the predictions.")
    formulation: Formulation = Field(
        "published",
        description="published: the losses as the authors' implementation computes them; paper: as the equations say.",
    )

    def label(self) -> str:
        suffix = " (paper)" if self.formulation == "paper" else ""
        return f"{self.name} n={self.students}{suffix}"


class DmlSettings(MutualSettings):
    """Deep mutual learning."""

    name: Literal["dml"] = "dml"
    headline: ClassVar[str] = "students_mean"


def student_names(students: int) -> list[str]:
    """student1 … studentN."""
    return [f"student{index + 1}" for index in range(students)]


def mutual_terms(logits: list[Tensor], labels: Tensor, settings: MutualSettings) -> dict[str, Tensor]:
    """Eq. 2 for every student: `studentI/ce` and `studentI/mutual_kl`."""
    terms = {}
    for index, name in enumerate(student_names(len(logits))):
        terms[f"{name}/ce"] = F.cross_entropy(logits[index], labels)
        terms[f"{name}/mutual_kl"] = mutual_kl(logits, index, settings.temperature, settings.formulation)
    return terms


class Dml(Method):
    """n students that teach each other; the first one is deployed, which no test accuracy has chosen."""

    Settings = DmlSettings

    def __init__(self, settings: DmlSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.students = nn.ModuleList(blueprint.network() for _ in range(settings.students))

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        logits = [self.features(student, views[0]).logits for student in self.students]
        named = {name: z.detach() for name, z in zip(self.common, logits, strict=True)}
        return Losses(mutual_terms(logits, labels, self.settings), named)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {
            name: self.features(student, images).logits
            for name, student in zip(self.common, self.students, strict=True)
        }

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.students]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return self.common[0], self.students[0]

    @property
    def members(self) -> list[str]:
        return self.common

    @property
    def common(self) -> list[str]:
        return student_names(self.settings.students)
