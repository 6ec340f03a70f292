"""The leader student with its fusion module: what FFSD adds to a group of common students (Section III-B).

Usable with any group whose students have feature maps: FFSD's own, and as the "+SL" rows of Table V another method's.
Everything that comes from the students is detached, so adding a leader changes nothing for them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import MOST_EPOCHS, NonNegative, Settings
from ffsd_ray.losses import Formulation, attention, mimic, soft_kl
from ffsd_ray.methods.base import Blueprint, Role
from ffsd_ray.methods.shared.rampup import Ramp
from ffsd_ray.nets.fusion import Decoder, Fusion
from ffsd_ray.nets.precision import features, maps


class LeaderSettings(Settings):
    """Settings of a leader, whoever the students are."""

    lambda_fea: NonNegative = Field(
        10.0, description="Weight of the fused map (Eq. 14); published: also of the leader's self-distillation."
    )
    warmup_epochs: int | None = Field(
        None,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs E over which the λs rise as exp(−5 (1 − e/E)²). null: 5 as published, 0 in the paper.",
    )


def warmup_schedule(settings: LeaderSettings, formulation: Formulation) -> dict[str, int]:
    """The warm-up's entry in `MethodSettings.schedule`."""
    published = 5 if formulation == "published" else 0
    return {"warmup_epochs": published if settings.warmup_epochs is None else settings.warmup_epochs}


def warmup(settings: LeaderSettings, formulation: Formulation) -> Ramp:
    """The warm-up factor of every λ."""
    return Ramp(warmup_schedule(settings, formulation)["warmup_epochs"])


class LeaderForward(NamedTuple):
    """A forward pass of the leader's side.

    fused: of the fusion module; concatenated: F_e [B, n·C, H, W]. Both None without fusion.
    ensemble: the mean of the students' logits [B, K]. Everything but `leader` and `fused` is detached.
    """

    leader: Features
    fused: Features | None
    concatenated: Tensor | None
    ensemble: Tensor


class LeaderModule(nn.Module):
    """The leader S_0, the fusion module that fuses the students' maps for it, and its decoder σ."""

    def __init__(self, students: int, blueprint: Blueprint, *, fuse: bool = True) -> None:
        """Without `fuse` the leader learns from the mean of the students' logits alone (an ablation)."""
        super().__init__()
        channels = blueprint.shapes[-1][0]
        self._precision = blueprint.precision
        self.leader = blueprint.network()
        self.decoder = Decoder(students, channels) if fuse else None
        self.fusion = Fusion(students, channels, blueprint.classes) if fuse else None

    def forward(self, leader: Features, students: list[Features]) -> LeaderForward:
        """Results of the leader's and the fusion module's forward passes."""
        ensemble = torch.stack([student.logits.detach() for student in students]).mean(dim=0)
        if self.fusion is None:
            return LeaderForward(leader, None, None, ensemble)
        concatenated = torch.cat([student.maps[-1].detach() for student in students], dim=1)
        return LeaderForward(leader, features(self.fusion, concatenated, self._precision), concatenated, ensemble)

    def terms(
        self, seen: LeaderForward, labels: Tensor, temperature: float, lambda_fea: Tensor, formulation: Formulation
    ) -> dict[str, Tensor]:
        """Eq. 4 for the fusion module; Eq. 14 for the leader, with Eq. 5 and without Eq. 13."""
        leader, fused = seen.leader, seen.fused
        terms = {"leader/ce": F.cross_entropy(leader.logits, labels)}
        if fused is None or seen.concatenated is None or self.decoder is None:
            return terms | {"leader/kl": soft_kl(leader.logits, seen.ensemble, temperature)}
        decoded = maps(self.decoder, leader.maps[-1], self._precision)
        pairs = [(leader.maps[-1], fused.maps[-1]), (decoded, seen.concatenated)]
        if formulation == "published":
            pairs = [(attention(a), attention(b)) for a, b in pairs]
        fused_map, decoded_map = (mimic(a, b, formulation) for a, b in pairs)
        return terms | {
            "leader/kl": soft_kl(leader.logits, fused.logits, temperature),
            "leader/fused_map": lambda_fea * fused_map,
            "leader/decoded_map": lambda_fea * decoded_map,
            "fusion/ce": F.cross_entropy(fused.logits, labels),
            "fusion/kl": soft_kl(fused.logits, seen.ensemble, temperature),
        }

    def logits(self, seen: LeaderForward) -> dict[str, Tensor]:
        """Logits by member."""
        fused = {"fusion": seen.fused.logits} if seen.fused is not None else {}
        return {"leader": seen.leader.logits} | fused

    @property
    def members(self) -> list[str]:
        return ["leader", "fusion"] if self.fusion is not None else ["leader"]

    def roles(self) -> dict[Role, list[nn.Module]]:
        """The decoder is trained with the leader."""
        if self.fusion is None or self.decoder is None:
            return {"student": [self.leader]}
        return {"student": [self.leader, self.decoder], "fusion": [self.fusion]}
