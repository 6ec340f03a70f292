"""Base of methods whose students are separate networks, trained side by side."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.methods.base import Blueprint, Method, MethodSettings, Role


def student_names(students: int) -> list[str]:
    """Names of the common students: student1, student2, ..."""
    return [f"student{index + 1}" for index in range(students)]


class PeersSettings(MethodSettings):
    """Settings of peers without a leader."""

    students: int = Field(
        2, ge=2, le=100, description="Peers n; each learns from the next one, the last from the first."
    )

    @property
    def assumptions(self) -> tuple[str, ...]:
        return (f"{self.name.upper()}: that its accuracy in the paper is the mean peer's",)

    @property
    def primary_series(self) -> str:
        return "students_mean"

    def label(self) -> str:
        return f"{self.name} n={self.students}"


class Peers(Method):
    """n students with the same backbone. The first one is deployed, independently of test accuracies."""

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.students = nn.ModuleList(blueprint.network() for _ in range(settings.students))

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        group = self.features_of_all(list(self.students), images)
        return {name: features.logits for name, features in zip(self.common, group, strict=True)}

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.students]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return self.common[0], self.students[0]

    @property
    def members(self) -> list[str]:
        return self.common

    @property
    def networks(self) -> dict[str, nn.Module]:
        return dict(zip(self.common, self.students, strict=True))

    @property
    def common(self) -> list[str]:
        return student_names(self.settings.students)
