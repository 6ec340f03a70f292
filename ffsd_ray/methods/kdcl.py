"""Knowledge distillation via collaborative learning (KDCL; Guo et al., CVPR 2020).

n students, each on its own augmentation of the same images: L = Σ_i CE(y, p_i) + KD_2(i ← t), t detached and one of

- naive: the logits of the student with the lowest cross-entropy, image by image;
- linear: Σ w_i z_i, w the convex weights that minimise the cross-entropy of the mixture over the batch;
- min_logit: t_k = min_i (z_i,k − z_i,y): the smallest lead of any class over the true one;
- general: Σ w_i z_i with w = C⁻¹1 / 1ᵀC⁻¹1, C the covariance of the students' errors (p_i − onehot(y)) on held-out
  images, measured anew after every epoch; equal weights in the first. Needs data.validation. C's diagonal is raised by
  a thousandth, without which alike students would have weights of any size.

Which of them FFSD's Tables II and III used is not stated. Table II prints 74.3 (ResNet-32) and 75.5 (WRN-16-2), which
are the figures of KDCL's own paper for CIFAR-100 with `general`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ffsd_ray.base_settings import Positive
from ffsd_ray.losses import soft_kl
from ffsd_ray.methods.base import Blueprint, Losses
from ffsd_ray.methods.shared.peers import Peers, PeersSettings

#: Steps of exponentiated gradient towards the convex weights of `linear`.
_STEPS = 30

#: Added to the diagonal of the covariance, relative to its mean, so that it can be inverted.
_RIDGE = 1e-3


_TARGET = (
    "KDCL: which target FFSD's tables used; here {}. Table II prints 74.3 and 75.5, KDCL's own figures for general on "
    "CIFAR-100"
)


class KdclSettings(PeersSettings):
    """Students that learn from a target made of all their logits."""

    name: Literal["kdcl"] = "kdcl"
    students: int = Field(2, ge=2, le=100, description="Students n.")
    temperature: Positive = Field(2.0, description="Temperature of the distillation term.")
    target: Literal["min_logit", "naive", "linear", "general"] = Field(
        "min_logit", description="How the target is made of the students' logits."
    )

    @property
    def assumptions(self) -> tuple[str, ...]:
        choices = [*super().assumptions, _TARGET.format(self.target)]
        if self.target == "linear":
            choices.append("KDCL: one set of weights a batch (a worker's share of it), by exponentiated gradient")
        if self.target == "general":
            choices.append(f"KDCL: the covariance's diagonal is raised by {_RIDGE:g} of its mean before it is inverted")
            choices.append("KDCL: its weights are fitted on the validation images that also choose the best epoch")
        return tuple(choices)

    @property
    def requires_validation(self) -> bool:
        return self.target == "general"

    def label(self) -> str:
        return f"kdcl {self.target} n={self.students}"


class Kdcl(Peers):
    """The students; one augmented view of an image for each."""

    Settings = KdclSettings
    settings: KdclSettings
    mixture: Tensor

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        self.views = settings.students
        self.register_buffer("mixture", torch.full((settings.students,), 1 / settings.students))

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        students = [self.features(student, view) for student, view in zip(self.students, views, strict=True)]
        logits = torch.stack([student.logits for student in students])
        target = self._target(logits.detach(), labels)
        terms = {}
        for name, own in zip(self.common, logits, strict=True):
            terms[f"{name}/ce"] = F.cross_entropy(own, labels)
            terms[f"{name}/kd"] = soft_kl(own, target, self.settings.temperature)
        return Losses(terms, dict(zip(self.common, logits.detach(), strict=True)))

    def _target(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B, K] from the students' [n, B, K]."""
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
        if not self.settings.requires_validation:
            return
        n = self.settings.students
        #: The sum of products of the students' errors, and in the corner after it the number of images.
        sums = torch.zeros(n + 1, n + 1, dtype=torch.float64, device=self.mixture.device)
        for images, labels in batches:
            logits = torch.stack(list(self.predict(images).values())).double()
            errors = (logits.softmax(dim=2) - F.one_hot(labels, logits.shape[2])).flatten(1)
            sums[:n, :n] += errors @ errors.T
            sums[n, n] += len(labels)
        total(sums)
        self.mixture.copy_(general_weights(sums[:n, :n] / sums[n, n]))


def naive(logits: Tensor, labels: Tensor) -> Tensor:
    """Select from [n, B, K], image by image, the logits with the lowest cross-entropy: [B, K]."""
    losses = torch.stack([F.cross_entropy(own, labels, reduction="none") for own in logits])
    return logits[losses.argmin(dim=0), torch.arange(len(labels), device=labels.device)]


def min_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """t_k = min_i (z_i,k − z_i,y): [n, B, K] to [B, K]."""
    true = labels[None, :, None].expand(len(logits), -1, 1)
    return (logits - logits.gather(2, true)).amin(dim=0)


def convex_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """Weights [n] ≥ 0 with sum 1 that about minimise CE(y, softmax(Σ w_i z_i)) over the batch [n, B, K]."""
    weights = logits.new_full((len(logits),), 1 / len(logits))
    length, lowest = logits.new_ones(()), logits.new_full((), torch.inf)
    proposed, slope, onehot = weights, torch.zeros_like(weights), F.one_hot(labels, logits.shape[2])
    for _ in range(_STEPS):
        # A step that leads uphill is taken back and tried shorter; without asking, so that the host need not wait.
        mixture = torch.einsum("n,nbk->bk", proposed, logits)
        loss = F.cross_entropy(mixture, labels)
        lower = loss < lowest
        gradient = torch.einsum("bk,nbk->n", mixture.softmax(dim=1) - onehot, logits) / len(labels)
        weights, slope = torch.where(lower, proposed, weights), torch.where(lower, gradient, slope)
        lowest = torch.minimum(loss, lowest)
        length = torch.where(lower, 2 * length, length / 4)
        proposed = (weights.log() - length * slope).softmax(dim=0)
    return weights


def general_weights(covariance: Tensor) -> Tensor:
    """C⁻¹1 / 1ᵀC⁻¹1 of [n, n], which minimises the mixture's squared error."""
    n = len(covariance)
    ridge = _RIDGE * covariance.trace() / n * torch.eye(n, dtype=covariance.dtype, device=covariance.device)
    found: Tensor = torch.linalg.solve(covariance + ridge, covariance.new_ones(n))
    return found / found.sum()
