"""Deep mutual learning (Zhang et al., CVPR 2018), as FFSD's Eq. 2 has it.

L_i = CE(y, p_i) + T² · KL(p̂_j ‖ p̂_i), averaged over the peers j ≠ i (`published`) or summed over them (`paper`:
Eq. 2 as printed). DML's own paper uses T = 1; FFSD compares at T = 2.
"""

from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import Positive
from ffsd_ray.losses import Formulation, mutual_kl
from ffsd_ray.methods.base import Blueprint, Losses, MethodSettings, Role
from ffsd_ray.methods.shared.leader_module import LeaderForward, LeaderModule, LeaderSettings, warmup, warmup_schedule
from ffsd_ray.methods.shared.peers import Peers, student_names


class MutualSettings(MethodSettings):
    """Settings of every method with mutually teaching students."""

    students: int = Field(2, ge=2, le=100, description="Common students n, which teach each other.")
    temperature: Positive = Field(2.0, description="T of Eq. 1, which softens the predictions.")
    formulation: Formulation = Field(
        "published",
        description="published: the losses as the authors' implementation computes them; paper: as the equations say.",
    )

    def label(self) -> str:
        suffix = " (paper)" if self.formulation == "paper" else ""
        return f"{self.name} n={self.students}{suffix}"


class DmlSettings(LeaderSettings, MutualSettings):
    """Settings of deep mutual learning. Those of a leader have an effect only with `leader: true`."""

    name: Literal["dml"] = "dml"
    leader: bool = Field(
        False,
        description="Add FFSD's leader and fusion module, without diversity and self-distillation (Table V, +SL).",
    )

    @property
    def assumptions(self) -> tuple[str, ...]:
        return ("DML + leader: that the leader has no self-distillation",) if self.leader else ()

    @property
    def primary_series(self) -> str:
        return "leader" if self.leader else "students_mean"

    @property
    def schedule(self) -> dict[str, int]:
        return warmup_schedule(self, self.formulation) if self.leader else {}

    def label(self) -> str:
        return super().label().replace("dml", "dml+leader") if self.leader else super().label()


def mutual_terms(logits: list[Tensor], labels: Tensor, settings: MutualSettings) -> dict[str, Tensor]:
    """The two terms of Eq. 2 for every student i, `student<i>/ce` and `student<i>/mutual_kl`; logits [B, K] each."""
    terms = {}
    for index, name in enumerate(student_names(len(logits))):
        terms[f"{name}/ce"] = F.cross_entropy(logits[index], labels)
        terms[f"{name}/mutual_kl"] = mutual_kl(logits, index, settings.temperature, settings.formulation)
    return terms


class MutualGroup(Peers):
    """n students that teach each other and an optional leader: the common base of DML and FFSD."""

    def __init__(self, settings: Any, blueprint: Blueprint, *, leader: bool, fuse: bool = True) -> None:
        super().__init__(settings, blueprint)
        self.leader_module = LeaderModule(settings.students, blueprint, fuse=fuse) if leader else None
        self.warmup = warmup(settings, settings.formulation)

    def begin_epoch(self, epoch: int) -> None:
        self.warmup.begin(epoch)

    def forward_group(self, images: Tensor) -> tuple[list[Features], LeaderForward | None]:
        """Features of the students for images [B, 3, S, S], and the leader's results; None without a leader."""
        students = self.features_of_all(list(self.networks.values()), images)
        if self.leader_module is None:
            return students, None
        leader = students.pop()
        return students, self.leader_module(leader, students)

    def logits(self, students: list[Features], leader_forward: LeaderForward | None) -> dict[str, Tensor]:
        """Logits [B, K] by member, from the results of `forward_group`."""
        logits = {name: student.logits for name, student in zip(self.common, students, strict=True)}
        if self.leader_module is not None and leader_forward is not None:
            logits |= self.leader_module.logits(leader_forward)
        return logits

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return self.logits(*self.forward_group(images))

    def roles(self) -> dict[Role, list[nn.Module]]:
        added = self.leader_module.roles() if self.leader_module is not None else {}
        return added | {"student": [self.students, *added.get("student", [])]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return ("leader", self.leader_module.leader) if self.leader_module is not None else super().deployed

    @property
    def members(self) -> list[str]:
        return [*self.common, *(self.leader_module.members if self.leader_module is not None else [])]

    @property
    def networks(self) -> dict[str, nn.Module]:
        return super().networks | ({"leader": self.leader_module.leader} if self.leader_module is not None else {})


class Dml(MutualGroup):
    """DML. Deploys the leader if there is one, else the first student."""

    Settings = DmlSettings
    settings: DmlSettings

    def __init__(self, settings: DmlSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint, leader=settings.leader)

    def weights(self) -> dict[str, float]:
        return {"lambda_fea": self.settings.lambda_fea * self.warmup.value} if self.settings.leader else {}

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        settings = self.settings
        students, leader_forward = self.forward_group(views[0])
        terms = mutual_terms([student.logits for student in students], labels, settings)
        if self.leader_module is not None and leader_forward is not None:
            weight = settings.lambda_fea * self.warmup.factor
            terms |= self.leader_module.terms(
                leader_forward, labels, settings.temperature, weight, settings.formulation
            )
        return Losses(terms, {name: z.detach() for name, z in self.logits(students, leader_forward).items()})
