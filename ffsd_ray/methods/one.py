"""On-the-fly native ensemble (ONE; Lan et al., NeurIPS 2018).

Branches share all but their last stage. Their ensemble m has the logits z_m = Σ_i g_i z_i, where the gate computes g
from the pooled map of the last shared stage (linear, batch norm, ReLU, softmax).

L = Σ_i CE(y, p_i) + CE(y, p_m) + ramp · Σ_i KD_3(i ← m), the target of KD detached

The authors use no Nesterov momentum (`train.nesterov`) and report the first branch. The primary series here is the mean
over branches, as for peers.

With `leader`, this is "+SL" of FFSD's Table V: a separate network, the leader, is trained beside the branches with
FFSD's feature fusion of their last maps, without diversity and self-distillation.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.losses import Formulation, soft_kl
from ffsd_ray.methods.base import Blueprint, Losses, Role
from ffsd_ray.methods.shared.branch_group import BranchGroup, BranchSettings
from ffsd_ray.methods.shared.leader_module import LeaderForward, LeaderModule, warmup, warmup_schedule
from ffsd_ray.methods.shared.peers import OptionalLeaderSettings


class OneSettings(OptionalLeaderSettings, BranchSettings):
    """Settings of the on-the-fly native ensemble. Those of a leader have an effect only with `leader: true`."""

    name: Literal["one"] = "one"
    students: int = Field(3, ge=2, le=100, description="Branches.")
    formulation: Formulation = Field("published", description="Of the leader's losses, as in ffsd.")

    @property
    def assumptions(self) -> tuple[str, ...]:
        choices = [
            "ONE: that its accuracy in the paper is the mean branch's; its authors select branch 1, here Common 1"
        ]
        if self.leader:
            choices.append(
                "ONE + leader: the leader is a whole network, at ONE's temperature, without self-distillation"
            )
        return tuple(choices)

    @property
    def primary_series(self) -> str:
        return "leader" if self.leader else super().primary_series

    @property
    def schedule(self) -> dict[str, int]:
        return super().schedule | (warmup_schedule(self, self.formulation) if self.leader else {})

    def label(self) -> str:
        return f"one{'+leader' if self.leader else ''} n={self.students}"


class Gate(nn.Module):
    """The gate: computes the branches' weights [B, n], each row with sum 1, from the trunk's last map [B, C, H, W]."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(channels, branches), nn.BatchNorm1d(branches), nn.ReLU(), nn.Softmax(dim=1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        weights: Tensor = self.weigh(maps.mean(dim=(2, 3)))
        return weights


class One(BranchGroup):
    """ONE: branches, their gate, and optionally a leader with a fusion module."""

    Settings = OneSettings
    settings: OneSettings

    def __init__(self, settings: OneSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint, branches=settings.students)
        self.gate = Gate(blueprint.shapes[-2][0], settings.students)
        self.leader_module = LeaderModule(settings, settings.students, blueprint) if settings.leader else None
        self.warmup = warmup(settings, settings.formulation)

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self.warmup.begin(epoch)

    def weights(self) -> dict[str, float]:
        return {"lambda_fea": self.settings.lambda_fea * self.warmup.value} if self.settings.leader else {}

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        settings, temperature = self.settings, self.settings.temperature
        branches, ensemble, leader_forward = self._forward_group(views[0])
        terms = {"ensemble/ce": F.cross_entropy(ensemble, labels)}
        for name, branch in zip(self.common, branches, strict=True):
            terms[f"{name}/ce"] = F.cross_entropy(branch.logits, labels)
            terms[f"{name}/kd"] = self.ramp.factor * soft_kl(branch.logits, ensemble, temperature)
        if self.leader_module is not None and leader_forward is not None:
            weight = settings.lambda_fea * self.warmup.factor
            terms |= self.leader_module.terms(leader_forward, labels, temperature, weight, settings.formulation)
        return Losses(
            terms, {name: z.detach() for name, z in self._logits_by_member(branches, ensemble, leader_forward).items()}
        )

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return self._logits_by_member(*self._forward_group(images))

    def _forward_group(self, images: Tensor) -> tuple[list[Features], Tensor, LeaderForward | None]:
        """Features of the branches, ensemble logits [B, K], and the leader's results; None without a leader."""
        branches = self.branch_features(images)
        weights = self.gate(branches[0].maps[-2])
        ensemble = (torch.stack([branch.logits for branch in branches], dim=2) * weights[:, None]).sum(dim=2)
        if self.leader_module is None:
            return branches, ensemble, None
        return branches, ensemble, self.leader_module(self.features(self.leader_module.leader, images), branches)

    def _logits_by_member(
        self, branches: list[Features], ensemble: Tensor, leader_forward: LeaderForward | None
    ) -> dict[str, Tensor]:
        logits = {name: branch.logits for name, branch in zip(self.common, branches, strict=True)}
        added = (
            self.leader_module.logits(leader_forward)
            if self.leader_module is not None and leader_forward is not None
            else {}
        )
        return logits | {"ensemble": ensemble} | added

    def roles(self) -> dict[Role, list[nn.Module]]:
        added = self.leader_module.roles() if self.leader_module is not None else {}
        return added | {"student": [self.branches, self.gate, *added.get("student", [])]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return ("leader", self.leader_module.leader) if self.leader_module is not None else super().deployed

    @property
    def members(self) -> list[str]:
        return [*self.common, "ensemble", *(self.leader_module.members if self.leader_module is not None else [])]

    @property
    def networks(self) -> dict[str, nn.Module]:
        return super().networks | ({"leader": self.leader_module.leader} if self.leader_module is not None else {})
