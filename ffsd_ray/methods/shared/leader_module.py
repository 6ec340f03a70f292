"""FFSD's leader student and fusion module (Section III-B), which can be added to any group of common students.

FFSD has them always, DML and ONE optionally ("+SL" in Table V). All inputs from the students are detached, so a leader
does not change how they are trained.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import ADDED_LATER, MOST_EPOCHS, NonNegative, Settings
from ffsd_ray.losses import Formulation, attention, mimic_each, soft_kl
from ffsd_ray.methods.base import Blueprint, Role
from ffsd_ray.methods.shared.rampup import Ramp
from ffsd_ray.nets.fusion import Decoder, Fusion
from ffsd_ray.nets.precision import feature_maps, features


class LeaderSettings(Settings):
    """Settings of methods that have, or may have, a leader."""

    lambda_fea: NonNegative = Field(
        10.0, description="Weight of the fused map (Eq. 14); published: also of the leader's self-distillation."
    )
    warmup_epochs: int | None = Field(
        None,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs E over which the λs rise as exp(−5 (1 − e/E)²). null: 5 as published, 0 in the paper.",
    )
    leader_kl: NonNegative = Field(
        1.0,
        json_schema_extra=ADDED_LATER,
        description="Weight of the leader's KL (Eq. 14's second term); the paper's: 1.",
    )
    leader_teacher: Literal["fusion", "ensemble", "both"] = Field(
        "fusion",
        json_schema_extra=ADDED_LATER,
        description="Whose predictions this KL is to: the fusion classifier's (the paper's), those of the students' "
        "mean logits, or each with half the weight. Without fusion it is always the students'.",
    )


def warmup_schedule(settings: LeaderSettings, formulation: Formulation) -> dict[str, int]:
    """Length of the warm-up of the λs in epochs, as an entry of `MethodSettings.schedule`."""
    published = 5 if formulation == "published" else 0
    return {"warmup_epochs": published if settings.warmup_epochs is None else settings.warmup_epochs}


def warmup(settings: LeaderSettings, formulation: Formulation) -> Ramp:
    """The warm-up factor that multiplies every λ."""
    return Ramp(warmup_schedule(settings, formulation)["warmup_epochs"])


class LeaderForward(NamedTuple):
    """Results of the leader's and the fusion module's forward passes, and their targets from the students.

    leader: features of the leader.
    fused: features of the fusion module; None without fusion.
    concatenated: the students' last maps F_e [B, n·C, H, W], detached; None without fusion.
    ensemble: mean of the students' logits [B, K], detached.
    """

    leader: Features
    fused: Features | None
    concatenated: Tensor | None
    ensemble: Tensor


class LeaderModule(nn.Module):
    """The leader S_0, the fusion module, and the decoder σ that maps the leader's last map to F_e's shape."""

    def __init__(self, settings: LeaderSettings, students: int, blueprint: Blueprint, *, fuse: bool = True) -> None:
        """`fuse` false: no fusion module; the leader learns from the mean of the students' logits alone (ablation)."""
        super().__init__()
        self._settings = settings
        channels = blueprint.shapes[-1][0]
        self._precision = blueprint.precision
        self.leader = blueprint.network()
        self.decoder = Decoder(students, channels) if fuse else None
        self.fusion = Fusion(students, channels, blueprint.classes) if fuse else None

    def forward(self, leader: Features, students: list[Features]) -> LeaderForward:
        """Run the fusion module on the students' last maps; collect its and the leader's results."""
        ensemble = torch.stack([student.logits.detach() for student in students]).mean(dim=0)
        if self.fusion is None:
            return LeaderForward(leader, None, None, ensemble)
        concatenated = torch.cat([student.maps[-1].detach() for student in students], dim=1)
        return LeaderForward(leader, features(self.fusion, concatenated, self._precision), concatenated, ensemble)

    def terms(
        self, results: LeaderForward, labels: Tensor, temperature: float, lambda_fea: Tensor, formulation: Formulation
    ) -> dict[str, Tensor]:
        """Weighted terms by name: Eq. 4 for the fusion module; for the leader Eq. 14 without Eq. 13.

        `lambda_fea`: weight of the fused-map terms (Eq. 5), a scalar tensor that includes the warm-up.
        """
        leader, fused = results.leader, results.fused
        terms = {"leader/ce": F.cross_entropy(leader.logits, labels)}
        if fused is None or results.concatenated is None or self.decoder is None:
            return terms | {"leader/kl": self._kl(results, temperature)}
        decoded = feature_maps(self.decoder, leader.maps[-1], self._precision)
        pairs = [(leader.maps[-1], fused.maps[-1]), (decoded, results.concatenated)]
        of = attention if formulation == "published" else None
        fused_map, decoded_map = mimic_each(pairs, formulation, of)
        return terms | {
            "leader/kl": self._kl(results, temperature),
            "leader/fused_map": lambda_fea * fused_map,
            "leader/decoded_map": lambda_fea * decoded_map,
            "fusion/ce": F.cross_entropy(fused.logits, labels),
            "fusion/kl": soft_kl(fused.logits, results.ensemble, temperature),
        }

    def _kl(self, results: LeaderForward, temperature: float) -> Tensor:
        """The leader's weighted KL: the mean over the members that it is to learn the predictions of."""
        targets = {"ensemble": results.ensemble}
        if results.fused is not None:
            targets["fusion"] = results.fused.logits
        teacher = self._settings.leader_teacher
        if results.fused is not None and teacher != "both":
            targets = {teacher: targets[teacher]}
        kls = [soft_kl(results.leader.logits, target, temperature) for target in targets.values()]
        kl = kls[0] if len(kls) == 1 else torch.stack(kls).mean()
        return kl if self._settings.leader_kl == 1 else self._settings.leader_kl * kl

    def logits(self, results: LeaderForward) -> dict[str, Tensor]:
        """Logits [B, K] by member."""
        fused = {"fusion": results.fused.logits} if results.fused is not None else {}
        return {"leader": results.leader.logits} | fused

    @property
    def members(self) -> list[str]:
        return ["leader", "fusion"] if self.fusion is not None else ["leader"]

    def roles(self) -> dict[Role, list[nn.Module]]:
        """The modules of each role, see `Method.roles`; the decoder is trained with the leader."""
        if self.fusion is None or self.decoder is None:
            return {"student": [self.leader]}
        return {"student": [self.leader, self.decoder], "fusion": [self.fusion]}
