"""Online knowledge distillation with diverse peers (OKDDip; Chen et al., AAAI 2020).

n peers and a group leader, as branches of one trunk or as separate networks. Each peer i has an attention-weighted
target t_i = Σ_j a_ij z_j over all peers j, i included, with a_ij = softmax_j(q_i · k_j) (unscaled), q = W_q h and
k = W_k h (C to C/8), where h is the average-pooled last map.

L = Σ_i CE_i + CE_leader + ramp · [Σ_i KD_3(i ← t_i) + KD_3(leader ← mean of the peers' logits)]

As in the authors' code no target is detached, which is how W_q and W_k are trained. The leader is deployed. The
authors' weight decay is 5e-4 (`train.weight_decay`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.losses import soft_kl
from ffsd_ray.methods.base import Blueprint, Losses, Method, Role
from ffsd_ray.methods.shared.branch_group import BranchSettings
from ffsd_ray.methods.shared.peers import student_names
from ffsd_ray.methods.shared.rampup import Ramp
from ffsd_ray.nets.branches import Branches
from ffsd_ray.nets.precision import features_of_several


class OkddipSettings(BranchSettings):
    """Settings of online knowledge distillation with diverse peers."""

    name: Literal["okddip"] = "okddip"
    students: int = Field(3, ge=2, le=100, description="Peers; the leader comes on top.")
    form: Literal["branches", "networks"] = Field(
        "branches", description="branches: peers and leader share all but the last stage; networks: nothing."
    )

    @property
    def shares_trunk(self) -> bool:
        return self.form == "branches"

    @property
    def assumptions(self) -> tuple[str, ...]:
        return (f"OKDDip: which form the paper's table used; here {self.form}",)

    @property
    def primary_series(self) -> str:
        return "leader"

    def label(self) -> str:
        return f"okddip {self.form} n={self.students}"


class Okddip(Method):
    """OKDDip: n peers, the leader, and the query and key projections of the attention between peers."""

    Settings = OkddipSettings
    settings: OkddipSettings

    def __init__(self, settings: OkddipSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        networks = [blueprint.network() for _ in range(settings.students + 1)]
        self.group = Branches(networks) if settings.form == "branches" else nn.ModuleList(networks)
        channels = blueprint.shapes[-1][0]
        self.query, self.key = (nn.Linear(channels, max(channels // 8, 1), bias=False) for _ in range(2))
        self.ramp = Ramp(settings.ramp_epochs, first=0)

    def begin_epoch(self, epoch: int) -> None:
        self.ramp.begin(epoch)

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        temperature, ramp = self.settings.temperature, self.ramp.factor
        *peers, leader = self._forward_group(views[0])
        logits = torch.stack([peer.logits for peer in peers], dim=1)
        targets = self._attention(peers) @ logits
        terms = {
            "leader/ce": F.cross_entropy(leader.logits, labels),
            "leader/kd": ramp * soft_kl(leader.logits, logits.mean(dim=1), temperature, detach=False),
        }
        for index, name in enumerate(self.common):
            terms[f"{name}/ce"] = F.cross_entropy(logits[:, index], labels)
            terms[f"{name}/kd"] = ramp * soft_kl(logits[:, index], targets[:, index], temperature, detach=False)
        members = dict(zip(self.common, logits.detach().unbind(dim=1), strict=True))
        return Losses(terms, members | {"leader": leader.logits.detach()})

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {name: features.logits for name, features in zip(self.members, self._forward_group(images), strict=True)}

    def _forward_group(self, images: Tensor) -> list[Features]:
        """Features of the peers, then of the leader, for images [B, 3, S, S]."""
        if not isinstance(self.group, Branches):
            return self.features_of_all(list(self.group), images)
        return features_of_several(self.group, images, self._precision)

    def _attention(self, peers: list[Features]) -> Tensor:
        """Attention weights a_ij [B, n, n] between peers; each row sums to 1."""
        pooled = torch.stack([peer.maps[-1].mean(dim=(2, 3)) for peer in peers], dim=1)
        weights: Tensor = (self.query(pooled) @ self.key(pooled).transpose(1, 2)).softmax(dim=2)
        return weights

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {"student": [self.group, self.query, self.key]}

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return "leader", self.networks["leader"]

    @property
    def networks(self) -> dict[str, nn.Module]:
        networks = self.group.networks if isinstance(self.group, Branches) else self.group
        return dict(zip(self.members, networks, strict=True))

    @property
    def members(self) -> list[str]:
        return [*self.common, "leader"]

    @property
    def common(self) -> list[str]:
        return student_names(self.settings.students)
