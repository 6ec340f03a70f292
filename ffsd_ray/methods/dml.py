"""Deep mutual learning (Zhang et al., CVPR 2018), as FFSD's Eq. 2 has it.

L_i = CE(y, p_i) + T² · KL(p̂_j ‖ p̂_i), averaged over the peers j ≠ i (`published`) or summed over them (`paper`:
Eq. 2 as printed). DML's own paper uses T = 1; FFSD compares at T = 2.
"""

from typing import Any, Literal, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import ADDED_LATER, MOST_EPOCHS, Positive, Problem, refuse
from ffsd_ray.losses import Formulation, mutual_kl
from ffsd_ray.methods.base import Blueprint, Losses, MethodSettings, Role
from ffsd_ray.methods.shared.leader_module import LeaderForward, LeaderModule, warmup, warmup_schedule
from ffsd_ray.methods.shared.peers import MixedSettings, OptionalLeaderSettings, Peers
from ffsd_ray.methods.shared.rampup import Ramp


class MutualSettings(MethodSettings):
    """Settings of every method with mutually teaching students."""

    students: int = Field(2, ge=2, le=100, description="Common students n, which teach each other.")
    temperature: Positive = Field(2.0, description="T of Eq. 1, which softens the predictions.")
    mutual_ramp_epochs: int = Field(
        0,
        ge=0,
        le=MOST_EPOCHS,
        json_schema_extra=ADDED_LATER,
        description="Epochs E over which the students' KL to each other rises as exp(−5 (1 − e/E)²), as ONE's does; "
        "0: at full weight from the start, as in DML and FFSD.",
    )
    views: Literal["shared", "own"] = Field(
        "shared",
        json_schema_extra=ADDED_LATER,
        description="shared: all networks are given the same augmented image, as in DML and FFSD; own: each, the "
        "leader too, crops and flips of its own, as in KDCL.",
    )
    formulation: Formulation = Field(
        "published",
        description="published: the losses as the authors' implementation computes them; paper: as the equations say.",
    )

    @property
    def mutual_schedule(self) -> dict[str, int]:
        """The ramp of the students' KL, as an entry of `schedule`; none without it."""
        return {"mutual_ramp_epochs": self.mutual_ramp_epochs} if self.mutual_ramp_epochs else {}

    def label(self) -> str:
        suffix = " (paper)" if self.formulation == "paper" else ""
        return f"{self.name} n={self.students}{suffix}{', own views' if self.views == 'own' else ''}"


class DmlSettings(OptionalLeaderSettings, MutualSettings, MixedSettings):
    """Settings of deep mutual learning. Those of a leader have an effect only with `leader: true`."""

    name: Literal["dml"] = "dml"

    @property
    def assumptions(self) -> tuple[str, ...]:
        return ("DML + leader: that the leader has no self-distillation",) if self.leader else ()

    @property
    def primary_series(self) -> str:
        return "leader" if self.leader else "student1" if self.backbones else "students_mean"

    @property
    def schedule(self) -> dict[str, int]:
        return self.mutual_schedule | (warmup_schedule(self, self.formulation) if self.leader else {})

    def label(self) -> str:
        label = super().label().replace(f"n={self.students}", self.group_label)
        return label.replace("dml", "dml+leader") if self.leader else label

    @model_validator(mode="after")
    def _leader_has_one_backbone(self) -> Self:
        if self.leader and self.backbones is not None:
            expected = "A leader learns from fused feature maps, which students with one backbone have: leave it out"
            refuse(self, [Problem(("backbones",), self.backbones, expected)])
        return self


class MutualGroup(Peers):
    """n students that teach each other and an optional leader: the common base of DML and FFSD."""

    def __init__(self, settings: Any, blueprint: Blueprint, *, leader: bool, fuse: bool = True) -> None:
        super().__init__(settings, blueprint)
        self.leader_module = LeaderModule(settings, settings.students, blueprint, fuse=fuse) if leader else None
        self.warmup = warmup(settings, settings.formulation)
        self.mutual_ramp = Ramp(settings.mutual_ramp_epochs)
        if settings.views == "own":
            self.views = len(self.networks)

    def begin_epoch(self, epoch: int) -> None:
        self.warmup.begin(epoch)
        self.mutual_ramp.begin(epoch)

    def mutual_terms(self, students: list[Features], labels: Tensor) -> dict[str, Tensor]:
        """The two terms of Eq. 2 for every student i, `student<i>/ce` and `student<i>/mutual_kl`."""
        settings, logits = self.settings, [student.logits for student in students]
        terms = {}
        for index, name in enumerate(self.common):
            terms[f"{name}/ce"] = F.cross_entropy(logits[index], labels)
            kl = mutual_kl(logits, index, settings.temperature, settings.formulation)
            terms[f"{name}/mutual_kl"] = self.mutual_ramp.factor * kl if settings.mutual_ramp_epochs else kl
        return terms

    def forward_group(self, views: list[Tensor]) -> tuple[list[Features], LeaderForward | None]:
        """Features of the students for images [B, 3, S, S], and the leader's results; None without a leader.

        `views`: one for all networks, or one for each, the leader's last.
        """
        students = self.features_of_all(list(self.networks.values()), views[0] if len(views) == 1 else views)
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
        return self.logits(*self.forward_group([images]))

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
        students, leader_forward = self.forward_group(views)
        terms = self.mutual_terms(students, labels)
        if self.leader_module is not None and leader_forward is not None:
            weight = settings.lambda_fea * self.warmup.factor
            terms |= self.leader_module.terms(
                leader_forward, labels, settings.temperature, weight, settings.formulation
            )
        return Losses(terms, {name: z.detach() for name, z in self.logits(students, leader_forward).items()})
