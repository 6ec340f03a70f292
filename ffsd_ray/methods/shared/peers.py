"""Base of methods whose students are separate networks, trained side by side."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from ffsd_ray.backbone_name import BackboneName
from ffsd_ray.base_settings import ADDED_LATER, Problem, refuse
from ffsd_ray.methods.base import Blueprint, Method, MethodSettings, Role
from ffsd_ray.methods.shared.leader_module import LeaderSettings


def student_names(students: int) -> list[str]:
    """Names of the common students: student1, student2, ..."""
    return [f"student{index + 1}" for index in range(students)]


class DeployedStudentSettings(MethodSettings):
    """Settings of methods that deploy one of several students that are trained alike."""

    deploy: Literal["first", "best"] = Field(
        "first",
        json_schema_extra=ADDED_LATER,
        description="Which student is deployed: the first; or the one with the highest accuracy on the validation "
        "images at its best epoch (needs data.validation). What stands for the method in tables stays the same.",
    )

    @property
    def deploys_best(self) -> bool:
        return self.deploy == "best"

    @property
    def requires_validation(self) -> bool:
        return self.deploys_best or super().requires_validation


class OptionalLeaderSettings(LeaderSettings, DeployedStudentSettings):
    """Settings of methods to which FFSD's leader can be added."""

    leader: bool = Field(
        False,
        description="Add FFSD's leader and fusion module, without diversity and self-distillation (Table V, +SL).",
    )

    @model_validator(mode="after")
    def _no_leader_to_deploy(self) -> Self:
        if self.deploys_best and self.leader:
            refuse(self, [Problem(("deploy",), self.deploy, "The leader is deployed (method.leader): leave it out")])
        return self


class PeersSettings(DeployedStudentSettings):
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


class MixedSettings(MethodSettings):
    """Settings of methods whose students meet in their logits alone, so that their backbones may differ."""

    students: int
    backbones: Annotated[tuple[BackboneName, ...], Field(min_length=2, max_length=100, strict=False)] | None = Field(
        None,
        json_schema_extra=ADDED_LATER,
        description="Each student's backbone, where they differ. The first is the trial's; its student stands for the "
        "method, is compared with the baseline, and is deployed (but see deploy). null: all have the trial's.",
    )

    @property
    def student_backbones(self) -> tuple[str, ...]:
        return self.backbones or ()

    @property
    def group_label(self) -> str:
        """`n=2`, or the students' backbones."""
        return "+".join(self.backbones) if self.backbones else f"n={self.students}"

    @model_validator(mode="after")
    def _a_backbone_each(self) -> Self:
        if self.backbones is not None and len(self.backbones) != self.students:
            expected = f"Should name one for each of the {self.students} students (method.students)"
            refuse(self, [Problem(("backbones",), self.backbones, expected)])
        return self


class Peers(Method):
    """n students, mostly with the same backbone. Which is deployed does not depend on test accuracies."""

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        names = settings.student_backbones or [None] * settings.students
        self.students = nn.ModuleList(map(blueprint.network, names))

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
