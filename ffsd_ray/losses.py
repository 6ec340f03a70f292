"""Losses as pure tensor functions, in both formulations.

Notation of the paper: F feature maps [B, C, H, W], A attention maps [B, H·W], z logits [B, K], T temperature. The
target of every function is detached inside it, but for `soft_kl` where it is told not to. `published` names the
authors' implementation, which differs from the paper's equations; both are given, and `Formulation` is the choice
between them.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Formulation = Literal["published", "paper"]

#: Norms below this are taken as this when a map is normalised (published implementation).
EPSILON = 1e-12


def attention(maps: Tensor) -> Tensor:
    """Attention map [B, H·W] of feature maps [B, C, H, W] (Eq. 7).

    The mean over channels as in the published implementation; the paper's sum differs by the factor C, which every use
    removes again by normalisation.
    """
    return maps.square().mean(dim=1).flatten(1)


class _Unit(torch.autograd.Function):
    """`F.normalize` over dimension 1, with a gradient of a third as many operations; losses normalise often."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min(EPSILON)
        directions: Tensor = vectors / norms
        ctx.save_for_backward(directions, norms)
        return directions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        directions: Tensor
        norms: Tensor
        directions, norms = ctx.saved_tensors
        along = (gradient * directions).sum(dim=1, keepdim=True) * (norms > EPSILON)
        return torch.addcmul(gradient, directions, along, value=-1) / norms


def unit(maps: Tensor) -> Tensor:
    """Each sample flattened and divided by its L2 norm: [B, ...] → [B, D]."""
    directions: Tensor = _Unit.apply(maps.flatten(1))
    return directions


def distance(a: Tensor, b: Tensor, formulation: Formulation) -> Tensor:
    """Distance between two batches [B, D] of normalised vectors; `b` is the target.

    published: the mean over all entries, batch included, of the squared difference.
    paper: the L2 norm of each sample's difference, averaged over the batch (Eqs. 5, 9, 10, 11, 13). The square root is
    guarded at 0: torch gives the norm a zero gradient there.
    """
    if formulation == "published":
        return F.mse_loss(a, b.detach())
    distances: Tensor = torch.linalg.vector_norm(a - b.detach(), dim=1)
    return distances.mean()


def mimic(a: Tensor, b: Tensor, formulation: Formulation) -> Tensor:
    """Distance between two batches [B, ...], each sample flattened and normalised; `b` is the target."""
    return distance(unit(a), unit(b), formulation)


def label_probabilities(labels: Tensor, classes: int) -> Tensor:
    """Probabilities of the classes [B, K] from labels [B]; those that are given as such [B, K] as they are."""
    return labels if labels.is_floating_point() else F.one_hot(labels, classes)


def label_classes(labels: Tensor) -> Tensor:
    """Labels [B], of probabilities [B, K] the most likely class."""
    return labels.argmax(dim=1) if labels.is_floating_point() else labels


def soft_kl(logits: Tensor, target: Tensor, temperature: float, *, detach: bool = True) -> Tensor:
    """T² · KL(softmax(target / T) ‖ softmax(logits / T)), averaged over the batch (Eqs. 2 to 4); [B, K] each.

    With `detach` false the target is trained too (OKDDip).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax((target.detach() if detach else target) / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def mutual_kl(logits: list[Tensor], student: int, temperature: float, formulation: Formulation) -> Tensor:
    """The mutual KL term of student `student` towards every other one (Eq. 2, second term).

    paper: the sum over the others. published: their average.
    """
    terms = [soft_kl(logits[student], peer, temperature) for index, peer in enumerate(logits) if index != student]
    total = torch.stack(terms).sum()
    return total if formulation == "paper" else total / len(terms)


class DiversityTarget(NamedTuple):
    """The diversity target of a student, made of the student before it."""

    attention: Tensor  #: [B, H·W], in the units of `unit(attention(...))`
    maps: Tensor  #: F̄ [B, C, H, W], the input of the self-distillation module


def diversity_target(previous: Tensor, formulation: Formulation) -> DiversityTarget:
    """Attention shifted away from where the previous student looks (Eq. 8), from its last maps [B, C, H, W].

    With a = attention(previous), â = unit(a), N = ‖a‖₂, and τ the ⌊HW/3⌋-th smallest entry of â:

    published: t = (N/2 − â) · sign(â − τ) + N/2, not normalised again; it mixes â with N. sign(0) = 0.
    paper: Ā = (N/2 − a) · sign(a − N·τ) + N/2, then normalised.

    The paper gives no formula for F̄; under both formulations it is the published one, previous + (t − â) · N / C, the
    same for every channel, with the published t.

    Raises:
        ValueError: the map has fewer than 3 entries, so there is no threshold.
    """
    a = attention(previous.detach())
    third = a.shape[1] // 3
    if third < 1:
        height, width = previous.shape[2:]
        raise ValueError(f"the diversity threshold needs a last feature map of 3 entries or more, got {height}×{width}")
    norm = torch.linalg.vector_norm(a, dim=1, keepdim=True)
    looks = unit(a)
    above = torch.sign(looks - looks.kthvalue(third, dim=1, keepdim=True).values)
    target = (norm / 2 - looks) * above + norm / 2
    shift = ((target - looks) * norm / previous.shape[1]).view(-1, 1, *previous.shape[2:])
    maps = previous.detach() + shift
    if formulation == "paper":
        target = unit((norm / 2 - a) * above + norm / 2)
    return DiversityTarget(target, maps)
