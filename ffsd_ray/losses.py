"""Losses as pure tensor functions, in both formulations.

Notation of the paper: F feature maps [B, C, H, W], A attention maps [B, H·W], z logits [B, K], T temperature. The
target of every function is detached inside it, but for `soft_kl` where it is told not to. `published` names the
authors' implementation, which differs from the paper's equations; both are given, and `Formulation` is the choice
between them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Formulation = Literal["published", "paper"]

#: Norms below this are taken as this when a map is normalised (published implementation).
EPSILON = 1e-12


class _Attention(torch.autograd.Function):
    """The mean of squares over dimension 1, with a gradient of two operations in place of four, the same bits."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(maps)
        return maps.square().mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        maps: Tensor
        (maps,) = ctx.saved_tensors
        return maps * (gradient / (maps.shape[1] / 2)).unsqueeze(1)


def attention(maps: Tensor) -> Tensor:
    """Attention map [B, H·W] of feature maps [B, C, H, W] (Eq. 7).

    The mean over channels as in the published implementation; the paper's sum differs by the factor C, which every use
    removes again by normalisation.
    """
    means: Tensor = _Attention.apply(maps)
    return means.flatten(1)


class _Unit(torch.autograd.Function):
    """`F.normalize` of batches of one shape, each sample flattened: all of them together, and with a short gradient.

    Takes a number, that of the batches which may have a gradient, and the batches, with those first.
    """

    @staticmethod
    def forward(ctx: Any, trained: int, *batches: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        vectors = _joined(batches).flatten(1)
        norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min(EPSILON)
        directions = vectors / norms
        ctx.shapes, ctx.targets = [batch.shape for batch in batches[:trained]], len(batches) - trained
        rows = sum(shape[0] for shape in ctx.shapes)
        ctx.save_for_backward(directions[:rows], norms[:rows])
        pieces: tuple[Tensor, ...] = directions.split([len(batch) for batch in batches])
        return pieces

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        directions, norms = ctx.saved_tensors
        pieces = directions.split([shape[0] for shape in ctx.shapes])
        given = gradients[: len(pieces)]
        # One is missing where a term's gradient is taken by itself.
        gradient = _joined([torch.zeros_like(p) if g is None else g for p, g in zip(pieces, given, strict=True)])
        along = (gradient * directions).sum(dim=1, keepdim=True) * (norms > EPSILON)
        results = (torch.addcmul(gradient, directions, along, value=-1) / norms).split([len(p) for p in pieces])
        shaped = [
            None if g is None else result.view(shape)
            for g, result, shape in zip(given, results, ctx.shapes, strict=True)
        ]
        return None, *shaped, *[None] * ctx.targets


def _joined(batches: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(batches)) if len(batches) > 1 else batches[0]


def unit(maps: Tensor) -> Tensor:
    """Each sample flattened and divided by its L2 norm: [B, ...] → [B, D]."""
    directions: Tensor
    (directions,) = _Unit.apply(1, maps)
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


def mimic_each(
    pairs: Sequence[tuple[Tensor, Tensor]], formulation: Formulation, of: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """`mimic` of every pair (batch, target), or of what `of` makes of both, such as `attention`; the same bits.

    In fewer operations: those of one shape are normalised together, and one that is in several pairs only once.
    """
    trained = dict.fromkeys(a for a, _ in pairs)
    targets = [b for b in dict.fromkeys(b for _, b in pairs) if b not in trained]
    batches = {a: a for a in trained} | {b: b.detach() for b in targets}
    if of is not None:
        batches = {key: of(batch) for key, batch in batches.items()}
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for key, batch in batches.items():
        by_shape.setdefault(batch.shape[1:], []).append(key)
    directions: dict[Tensor, Tensor] = {}
    for keys in by_shape.values():
        number = sum(key in trained for key in keys)
        directions |= zip(keys, _Unit.apply(number, *(batches[key] for key in keys)), strict=True)
    return [distance(directions[a], directions[b], formulation) for a, b in pairs]


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
    return F.kl_div(student, teacher, reduction="sum", log_target=True) / (len(logits) / temperature**2)


def mutual_kl(logits: list[Tensor], student: int, temperature: float, formulation: Formulation) -> Tensor:
    """The mutual KL term of student `student` towards every other one (Eq. 2, second term).

    paper: the sum over the others. published: their average.
    """
    terms = [soft_kl(logits[student], peer, temperature) for index, peer in enumerate(logits) if index != student]
    if len(terms) == 1:
        return terms[0]
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
