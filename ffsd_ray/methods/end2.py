"""Ensemble distribution distillation (EnD²; Malinin et al., ICLR 2020): a student that is a prior over predictions.

The ensemble's members are baselines, trained independently beforehand; each seed of the student has its own ensemble.
The student's logits z parametrise a Dirichlet distribution with concentrations α = exp(z / T). It maximises the
likelihood of the members' softened and smoothed predictions, p = softmax(z_member / T), p ← (1 − γ)(p − 1/K) + 1/K:
L = −T² · mean log Dir(p; α).

As in the authors' trainer, T is constant for the first epochs and then falls linearly to 1, and the gradient of L is
clipped at norm 10 in every step. Unlike there, members predict the augmented images that the student sees (the authors
store one prediction for each image), and learning rates and weight decay are those of the `train` section.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ffsd_ray.base_settings import MOST_EPOCHS, Positive
from ffsd_ray.methods.base import Blueprint, Losses, MethodSettings
from ffsd_ray.methods.shared.single_student import SingleStudent


class End2Settings(MethodSettings):
    """Settings of ensemble distribution distillation."""

    name: Literal["end2"] = "end2"
    ensemble: int = Field(10, ge=2, le=100, description="Members m, each trained alone before the student.")
    temperature: Positive = Field(10.0, description="T at first.")
    hold_epochs: int = Field(60, ge=0, le=MOST_EPOCHS, description="Epochs for which T is held.")
    anneal_epochs: int = Field(
        60, ge=1, le=MOST_EPOCHS, description="Epochs after them; in each T falls by the same step, to 1."
    )
    smoothing: float = Field(1e-3, gt=0, lt=1, description="γ of the members' predictions.")
    weight: Positive = Field(1.0, description="Factor of the loss; its gradient is multiplied after the clipping.")
    clip_norm: Positive = Field(
        10.0,
        description="The gradient of the loss without the weight is clipped at this norm in every step, as in the "
        "authors' trainer: where members agree, it grows without bound.",
    )

    @property
    def assumptions(self) -> tuple[str, ...]:
        return (
            f"EnD²: T is held for {self.hold_epochs} epochs and falls over {self.anneal_epochs}, "
            f"γ = {self.smoothing:g}, and it is trained by the SGD of the other methods, its clipped gradient times "
            f"{self.weight:g}",
            "EnD²: members predict the student's augmented images; its authors' store one prediction for each image",
        )

    @property
    def primary_series(self) -> str:
        return "student"

    @property
    def schedule(self) -> dict[str, int]:
        return {"hold_epochs + anneal_epochs": self.hold_epochs + self.anneal_epochs}

    @property
    def teachers(self) -> list[str | None]:
        return [None] * self.ensemble

    def label(self) -> str:
        return f"end2 of {self.ensemble}"


class End2(SingleStudent):
    """EnD²: a student and a frozen ensemble (`teachers`)."""

    Settings = End2Settings
    settings: End2Settings
    temperature: Tensor

    def __init__(self, settings: End2Settings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.teachers = [blueprint.network().requires_grad_(False).eval() for _ in range(settings.ensemble)]
        self.register_buffer("temperature", torch.tensor(settings.temperature), persistent=False)

    @property
    def clip_norm(self) -> float:
        """The norm for the weighted loss: clips exactly when the unweighted gradient exceeds the settings' norm."""
        return self.settings.clip_norm * self.settings.weight

    def begin_epoch(self, epoch: int) -> None:
        settings = self.settings
        annealed = min(max((epoch - 1 - settings.hold_epochs) / settings.anneal_epochs, 0.0), 1.0)
        self.temperature.fill_(settings.temperature + annealed * (1 - settings.temperature))

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        logits = self.features(self.student, views[0]).logits
        with torch.no_grad():
            members = self.features_of_all(self.teachers, views[0])
            predictions = torch.stack([member.logits for member in members])
        loss = dirichlet_nll(logits, predictions, self.temperature, self.settings.smoothing)
        return Losses({"student/dirichlet": self.settings.weight * loss}, {"student": logits.detach()})


def dirichlet_nll(logits: Tensor, members: Tensor, temperature: Tensor, smoothing: float) -> Tensor:
    """−T² · log Dir(p; exp(z / T)), averaged over m members and the batch: a scalar.

    `logits`: z [B, K]; `members`: logits [m, B, K], from which p is made as in the module's docstring; `smoothing`: γ.
    Computed in float64, since the log-gamma terms of large concentrations nearly cancel.
    """
    classes = logits.shape[1]
    alpha = (logits.double() / temperature).exp()
    predictions = (members.double() / temperature).softmax(dim=2)
    smoothed = (1 - smoothing) * (predictions - 1 / classes) + 1 / classes
    log_normaliser = torch.lgamma(alpha.sum(dim=1)) - torch.lgamma(alpha).sum(dim=1)
    log_density = ((alpha - 1) * smoothed.log()).sum(dim=2)
    loss: Tensor = -(log_normaliser + log_density).mean() * temperature**2
    return loss.to(logits.dtype)
