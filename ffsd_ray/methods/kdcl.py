"""Knowledge distillation via collaborative learning (KDCL; Guo et al., CVPR 2020).

n students, each trained on a different augmentation of the same images: L = Σ_i CE(y, p_i) + KD_2(i ← t). The target
logits t are detached, and are one of

- naive: for each image, the logits of the student with the lowest cross-entropy;
- linear: Σ w_i z_i, where w are the convex weights that minimise the cross-entropy of the mixture over the batch;
- min_logit: t_k = min_i (z_i,k − z_i,y), the smallest margin of class k over the true class y;
- general: Σ w_i z_i with w = C⁻¹1 / 1ᵀC⁻¹1, where C is the covariance of the students' errors (p_i − onehot(y)) on
  held-out images, estimated after every epoch; equal weights in the first epoch. Needs data.validation. C's diagonal
  is raised by a thousandth of its mean, since C is nearly singular where students make the same errors.

FFSD's paper does not state which of them its Tables II and III used. Table II prints 74.3 (ResNet-32) and 75.5
(WRN-16-2), which are the figures of KDCL's paper for CIFAR-100 with `general`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ffsd_ray.base_settings import Positive
from ffsd_ray.losses import label_classes, label_probabilities, soft_kl
from ffsd_ray.methods.base import Blueprint, Losses
from ffsd_ray.methods.shared.peers import MixedSettings, Peers, PeersSettings

#: Exponentiated-gradient steps that approximate the convex weights of `linear`.
_GRADIENT_STEPS = 30

#: Added to the covariance's diagonal, as a fraction of the diagonal's mean, so that the matrix can be inverted.
_RIDGE = 1e-3


_TARGET_ASSUMPTION = (
    "KDCL: which target FFSD's tables used; here {}. Table II prints 74.3 and 75.5, KDCL's own figures for general on "
    "CIFAR-100"
)


class KdclSettings(PeersSettings, MixedSettings):
    """Settings of collaborative learning."""

    name: Literal["kdcl"] = "kdcl"
    students: int = Field(2, ge=2, le=100, description="Students n.")
    temperature: Positive = Field(2.0, description="Temperature of the distillation term.")
    target: Literal["min_logit", "naive", "linear", "general"] = Field(
        "min_logit", description="How the target is made of the students' logits."
    )

    @property
    def assumptions(self) -> tuple[str, ...]:
        choices = [*super().assumptions, _TARGET_ASSUMPTION.format(self.target)]
        if self.target == "linear":
            choices.append("KDCL: one set of weights a batch (a worker's share of it), by exponentiated gradient")
        if self.target == "general":
            choices.append(f"KDCL: the covariance's diagonal is raised by {_RIDGE:g} of its mean before it is inverted")
            choices.append("KDCL: its weights are fitted on the validation images that also choose the best epoch")
        return tuple(choices)

    @property
    def requires_validation(self) -> bool:
        return self.target == "general" or super().requires_validation

    def label(self) -> str:
        return f"kdcl {self.target} {self.group_label}"

    @property
    def primary_series(self) -> str:
        return "student1" if self.backbones else super().primary_series


class Kdcl(Peers):
    """KDCL: n students, each of which gets its own augmented view of an image."""

    Settings = KdclSettings
    settings: KdclSettings
    mixture: Tensor

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.views = settings.students
        self.register_buffer("mixture", torch.full((settings.students,), 1 / settings.students))

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        students = self.features_of_all(list(self.students), views)
        logits = torch.stack([network.logits for network in students])
        target = self._target(logits.detach(), labels)
        terms = {}
        for name, student_logits in zip(self.common, logits, strict=True):
            terms[f"{name}/ce"] = F.cross_entropy(student_logits, labels)
            terms[f"{name}/kd"] = soft_kl(student_logits, target, self.settings.temperature)
        return Losses(terms, dict(zip(self.common, logits.detach(), strict=True)))

    def _target(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Target logits [B, K] from the students' logits [n, B, K] and labels [B]."""
        match self.settings.target:
            case "naive":
                return naive(logits, labels)
            case "linear":
                return torch.einsum("n,nbk->bk", convex_weights(logits, labels), logits)
            case "min_logit":
                return min_logit(logits, labels)
            case "general":
                return torch.einsum("n,nbk->bk", self.mixture, logits)

    def fit_on_validation(self, batches: Iterable[tuple[Tensor, Tensor]], total: Callable[[Tensor], Tensor]) -> None:
        if self.settings.target != "general":
            return
        n = self.settings.students
        # [:n, :n]: sums of products of the students' errors; [n, n]: the number of images
        sums = torch.zeros(n + 1, n + 1, dtype=torch.float64, device=self.mixture.device)
        for images, labels in batches:
            logits = torch.stack(list(self.predict(images).values())).double()
            errors = (logits.softmax(dim=2) - F.one_hot(labels, logits.shape[2])).flatten(1)
            sums[:n, :n] += errors @ errors.T
            sums[n, n] += len(labels)
        total(sums)
        self.mixture.copy_(general_weights(sums[:n, :n] / sums[n, n]))


def naive(logits: Tensor, labels: Tensor) -> Tensor:
    """For each image, the logits with the lowest cross-entropy: [n, B, K] to [B, K]."""
    losses = torch.stack([F.cross_entropy(student_logits, labels, reduction="none") for student_logits in logits])
    return logits[losses.argmin(dim=0), torch.arange(len(labels), device=labels.device)]


def min_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """The smallest margin of each class over the true one, t_k = min_i (z_i,k − z_i,y): [n, B, K] to [B, K]."""
    target_class = label_classes(labels)[None, :, None].expand(len(logits), -1, 1)
    return (logits - logits.gather(2, target_class)).amin(dim=0)


def convex_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """Convex weights [n] that approximately minimise CE(y, softmax(Σ w_i z_i)) over the batch [n, B, K].

    Exponentiated gradient with a step size that doubles after a step that improves the loss, and is quartered after one
    that does not, which is undone. There are no data-dependent branches, so the host never waits for the device.
    """
    weights = logits.new_full((len(logits),), 1 / len(logits))
    step_size, lowest_loss = logits.new_ones(()), logits.new_full((), torch.inf)
    proposed, gradient_there = weights, torch.zeros_like(weights)
    onehot = label_probabilities(labels, logits.shape[2])
    for _ in range(_GRADIENT_STEPS):
        mixture = torch.einsum("n,nbk->bk", proposed, logits)
        loss = F.cross_entropy(mixture, labels)
        improved = loss < lowest_loss
        gradient = torch.einsum("bk,nbk->n", mixture.softmax(dim=1) - onehot, logits) / len(labels)
        weights, gradient_there = (
            torch.where(improved, proposed, weights),
            torch.where(improved, gradient, gradient_there),
        )
        lowest_loss = torch.minimum(loss, lowest_loss)
        step_size = torch.where(improved, 2 * step_size, step_size / 4)
        proposed = (weights.log() - step_size * gradient_there).softmax(dim=0)
    return weights


def general_weights(covariance: Tensor) -> Tensor:
    """Weights [n] that minimise the mixture's squared error, C⁻¹1 / 1ᵀC⁻¹1, from the errors' covariance C [n, n]."""
    n = len(covariance)
    ridge = _RIDGE * covariance.trace() / n * torch.eye(n, dtype=covariance.dtype, device=covariance.device)
    unscaled: Tensor = torch.linalg.solve(covariance + ridge, covariance.new_ones(n))
    return unscaled / unscaled.sum()
