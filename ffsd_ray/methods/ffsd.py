"""Feature fusion and self-distillation (FFSD): Sections III-B and III-C, Algorithm 1, in both formulations.

Common students S_1..S_n teach each other; the attention of each S_i from S_2 on is also shifted to regions that S_{i−1}
does not attend to. The fusion module fuses their last feature maps. The leader S_0 learns from the fused map and from
the fusion classifier, and its earlier stages through a self-distillation module. The leader is deployed.

`published` is the authors' implementation (the paper's figures come from it), `paper` the equations as printed. Where
the paper is silent, both follow the implementation:
- F_e is detached: the fusion module sends no gradient into the students;
- the target of Eq. 14's KL is the fusion classifier, detached; so is every target that comes from another member;
- F̄, the input of the self-distillation module for diversity, is `losses.diversity_target(...).maps`;
- it is student i's own module that turns the target of student i−1 into targets for its earlier stages;
- modules give targets in evaluation mode, and train on the feature maps of the same step;
- S_1 has no diversity term and no self-distillation module (Table VII counts 2 modules for n = 2).

The ablations of Tables IV and VI and of Section IV-C are settings. These choices in them are UNCONFIRMED by the paper:
- without self-distillation for the students, the diversity acts on the last stage alone, the only one that needs no
  module; Eq. 9 sums over all stages, each with the target from the same stage of the student before (`attention_all`);
- the L2 diversity (Eq. 6): maps normalised per sample, since it is unbounded below on raw ones; every pair of students,
  the other one detached; weight λ_div; the distance of the formulation in force;
- `l2_last` with self-distillation: for student i > 1 the module turns student i−1's last map into maps of the earlier
  stages, whose attention student i is driven away from;
- without fusion the leader learns from the mean of the students' logits; having no fused map, it has neither the terms
  of Eq. 5 nor a target for self-distillation.

Every cross-model target is detached, so one backward pass over the sum of all terms gives each parameter the gradient
of Algorithm 1's sequence of updates.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import islice
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.base_settings import NonNegative, Problem
from ffsd_ray.losses import attention, distance, diversity_target, mimic_each, unit
from ffsd_ray.methods.base import Blueprint, Losses, MapShapes, Role
from ffsd_ray.methods.dml import MutualGroup, MutualSettings
from ffsd_ray.methods.shared.leader_module import LeaderForward, LeaderModule, LeaderSettings, warmup_schedule
from ffsd_ray.nets.precision import forward, full_precision
from ffsd_ray.nets.self_distillation import SelfDistillation, check_shapes


class FfsdSettings(LeaderSettings, MutualSettings):
    """Settings of FFSD. The default λs are the paper's: found with ResNet-32 on CIFAR-100, used throughout (IV-A)."""

    name: Literal["ffsd"] = "ffsd"
    lambda_div: NonNegative = Field(1e-5, description="Weight of the diversity enhancement (Eq. 12).")
    lambda_self: NonNegative = Field(
        1000.0,
        description="Weight of the leader's self-distillation (Eq. 14); published: of training the modules instead.",
    )
    alpha: NonNegative = Field(1.0, description="Weight of the feature term in training the modules (Eq. 10).")
    diversity: Literal["attention", "attention_all", "none", "l2", "l2_last"] = Field(
        "attention",
        description="attention: FFSD's own (Eq. 11), without self-distillation of the students its last stage; "
        "attention_all: Eq. 9, every stage without modules; none; l2: Eq. 6 on every stage; l2_last: Eq. 6 on the last "
        "stage.",
    )
    self_distillation: Literal["both", "none", "students", "leader"] = Field(
        "both", description="Whose earlier stages are taught through self-distillation modules."
    )
    fusion: bool = Field(True, description="Fuse the students' maps; false: the leader learns from their logits alone.")

    @property
    def assumptions(self) -> tuple[str, ...]:
        choices = []
        if self.diversity == "attention" and not self.students_distil:
            choices.append("FFSD w/o SD of the students: diversity on the last stage alone, where Eq. 9 sums over all")
        if self.diversity == "attention_all":
            choices.append("FFSD w/o SD of the students: diversity on every stage (Eq. 9), not on the last alone")
        if self.diversity in ("l2", "l2_last"):
            choices.append("FFSD, L2 diversity: maps normalised per sample, every pair of students, weight λ_div")
        if self.diversity == "l2_last" and self.students_distil:
            choices.append("FFSD, L2 with SD: earlier maps are driven from what the module makes of the student before")
        if not self.fusion:
            choices.append("FFSD w/o fusion: the leader learns from the mean of the students' logits alone")
        return tuple(choices)

    @property
    def primary_series(self) -> str:
        return "leader"

    @property
    def schedule(self) -> dict[str, int]:
        return self.mutual_schedule | warmup_schedule(self, self.formulation)

    @property
    def students_distil(self) -> bool:
        """Whether students 2 to n have self-distillation modules."""
        return self.self_distillation in ("both", "students") and self.diversity in ("attention", "l2_last")

    @property
    def leader_distils(self) -> bool:
        """Whether the leader has a self-distillation module."""
        return self.self_distillation in ("both", "leader") and self.fusion

    def problems(self, shapes: MapShapes) -> Iterator[Problem]:
        _, height, width = shapes[-1]
        if self.diversity in ("attention", "attention_all") and height * width < 3:
            yield Problem(
                ("name",),
                self.name,
                f"The diversity threshold needs a last feature map of 3 entries or more; here it is {height}×{width}: "
                "larger images or another backbone",
            )
        if self.students_distil or self.leader_distils:
            try:
                check_shapes(shapes)
            except ValueError as error:
                yield Problem(("name",), self.name, f"Self-distillation modules do not fit this backbone: {error}")

    def label(self) -> str:
        changed = [
            f"{key.replace('_', '-')} {value}"
            for key, value in (("diversity", self.diversity), ("self_distillation", self.self_distillation))
            if value != type(self).model_fields[key].default
        ]
        if not self.fusion:
            changed.append("no fusion")
        return ", ".join([super().label(), *changed])


class _MapTerm(NamedTuple):
    """A term on feature maps: the weighted sum over stages of the distances between what `of` makes of both."""

    weight: Tensor | float
    pairs: list[tuple[Tensor, Tensor]]
    """A stage's maps [B, C, H, W] and their targets, which are detached."""
    of: Callable[[Tensor], Tensor] | None = attention


class Ffsd(MutualGroup):
    """FFSD: n common students, the leader, the fusion module and the self-distillation modules."""

    Settings = FfsdSettings
    settings: FfsdSettings
    leader_module: LeaderModule

    def __init__(self, settings: FfsdSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint, leader=True, fuse=settings.fusion)
        # For students 2 to n, in order; the first student has none.
        number = settings.students - 1 if settings.students_distil else 0
        self.student_self_distillation = nn.ModuleList(SelfDistillation(blueprint.shapes) for _ in range(number))
        self.leader_self_distillation = SelfDistillation(blueprint.shapes) if settings.leader_distils else None

    def weights(self) -> dict[str, float]:
        names = ("lambda_div", "lambda_fea", "lambda_self")
        in_force = {name: getattr(self.settings, name) * self.warmup.value for name in names}
        return in_force | {"alpha": self.settings.alpha}

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        settings = self.settings
        students, leader_forward = self.forward_group(views)
        assert leader_forward is not None
        terms: dict[str, Tensor | _MapTerm] = {**self.mutual_terms(students, labels)}
        terms |= self._diversity(students)
        fea = settings.lambda_fea * self.warmup.factor
        terms |= self.leader_module.terms(leader_forward, labels, settings.temperature, fea, settings.formulation)
        terms |= self._leader_self_distillation_term(leader_forward, fea)
        # Last, since training updates batch-norm statistics: targets use those from before this step.
        distil = settings.lambda_self * self.warmup.factor if settings.formulation == "published" else 1.0
        for name, features, module in self._self_distilling_members(students, leader_forward.leader):
            terms |= self._train_module(name, features, module, distil)
        logits = {name: z.detach() for name, z in self.logits(students, leader_forward).items()}
        return Losses(self._computed(terms), logits)

    def _computed(self, terms: dict[str, Tensor | _MapTerm]) -> dict[str, Tensor]:
        """The terms, in the same order, once those on maps are computed: all together, which takes fewer operations."""
        computed = {name: term for name, term in terms.items() if isinstance(term, Tensor)}
        for of in (attention, None):
            chosen = {name: term for name, term in terms.items() if isinstance(term, _MapTerm) and term.of is of}
            pairs = [pair for term in chosen.values() for pair in term.pairs]
            distances = iter(mimic_each(pairs, self.settings.formulation, of))
            for name, term in chosen.items():
                computed[name] = term.weight * reduce(torch.add, islice(distances, len(term.pairs)))
        return {name: computed[name] for name in terms}

    def _diversity(self, students: list[Features]) -> dict[str, Tensor | _MapTerm]:
        """Diversity terms by name: λ_div times Eq. 11, or times the distance that an ablation replaces it by."""
        if self.settings.diversity == "none":
            return {}
        weight = self.settings.lambda_div * self.warmup.factor
        terms: dict[str, Tensor | _MapTerm] = {}
        for index, name in enumerate(self.common):
            if self.settings.diversity in ("attention", "attention_all"):
                pieces = self._shifted_attention(index, students, weight) if index else {}
            else:
                pieces = self._away_from_others(index, students, weight)
            terms |= {f"{name}/{piece}": term for piece, term in pieces.items()}
        return terms

    def _shifted_attention(self, index: int, students: list[Features], weight: Tensor) -> dict[str, Tensor | _MapTerm]:
        """Diversity of the student at `index` ≥ 1 from the one before it: Eq. 11, or Eq. 9 (ablation)."""
        formulation, maps = self.settings.formulation, students[index].maps
        target = diversity_target(students[index - 1].maps[-1], formulation)
        last = distance(unit(attention(maps[-1])), target.attention, formulation)
        pieces: dict[str, Tensor | _MapTerm] = {"diversity_last": weight * last}
        if self.settings.diversity == "attention_all":
            pairs = zip(maps[:-1], students[index - 1].maps[:-1], strict=True)
            distances = [
                distance(unit(attention(m)), diversity_target(previous, formulation).attention, formulation)
                for m, previous in pairs
            ]
            pieces["diversity_earlier"] = weight * torch.stack(distances).sum()
        if self.settings.students_distil:
            earlier = self._targets(self.student_self_distillation[index - 1], target.maps)
            pieces["diversity_earlier"] = _MapTerm(weight, _stages(maps, earlier))
        return pieces

    def _away_from_others(self, index: int, students: list[Features], weight: Tensor) -> dict[str, Tensor | _MapTerm]:
        """L2 diversity (Eq. 6) of the student at `index`, on every stage or on the last alone."""
        stages = range(len(students[index].maps))[-1 if self.settings.diversity == "l2_last" else 0 :]
        pairs = [
            (students[index].maps[stage], other.maps[stage])
            for position, other in enumerate(students)
            if position != index
            for stage in stages
        ]
        distances = torch.stack(mimic_each(pairs, self.settings.formulation))
        pieces: dict[str, Tensor | _MapTerm] = {"diversity_l2": weight * (-distances.sum() / len(stages))}
        if self.settings.students_distil and index:
            earlier = self._targets(self.student_self_distillation[index - 1], students[index - 1].maps[-1])
            pieces["diversity_earlier"] = _MapTerm(-weight, _stages(students[index].maps, earlier))
        return pieces

    def _leader_self_distillation_term(self, leader_forward: LeaderForward, fea: Tensor) -> dict[str, _MapTerm]:
        """Eq. 13, weighted: on attention maps with `fea` (published), or on feature maps with λ_self (paper)."""
        if self.leader_self_distillation is None or leader_forward.fused is None:
            return {}
        earlier = self._targets(self.leader_self_distillation, leader_forward.fused.maps[-1])
        stages = _stages(leader_forward.leader.maps, earlier)
        if self.settings.formulation == "published":
            return {"leader/self_distillation": _MapTerm(fea, stages)}
        return {"leader/self_distillation": _MapTerm(self.settings.lambda_self * self.warmup.factor, stages, None)}

    def _train_module(
        self, name: str, features: Features, module: nn.Module, weight: Tensor | float
    ) -> dict[str, _MapTerm]:
        """Eq. 10: the terms that train a self-distillation module to predict a member's detached earlier maps."""
        last = features.maps[-1].detach()
        maps = full_precision(forward(module, last, self._precision))
        pairs = list(zip(maps, features.maps[:-1], strict=True))
        return {
            f"{name}/module_attention": _MapTerm(weight, pairs),
            f"{name}/module_feature": _MapTerm(weight * self.settings.alpha, pairs, None),
        }

    def _targets(self, module: nn.Module, last: Tensor) -> list[Tensor]:
        """A module's target maps for stages 1 to M − 1, from a last map [B, C_M, H_M, W_M]."""
        assert isinstance(module, SelfDistillation)
        with module.for_targets():
            return full_precision(forward(module, last.detach(), self._precision))

    def _self_distilling_members(
        self, students: list[Features], leader: Features
    ) -> Iterator[tuple[str, Features, nn.Module]]:
        """Yield name, features and module of each member that has a self-distillation module."""
        yield from zip(self.common[1:], students[1:], self.student_self_distillation, strict=False)
        if self.leader_self_distillation is not None:
            yield "leader", leader, self.leader_self_distillation

    def roles(self) -> dict[Role, list[nn.Module]]:
        modules = [
            *self.student_self_distillation,
            *([self.leader_self_distillation] if self.leader_self_distillation is not None else []),
        ]
        distilling: dict[Role, list[nn.Module]] = {"self_distillation": modules} if modules else {}
        return super().roles() | distilling


def _stages(maps: list[Tensor], earlier: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """A member's maps of all stages but the last, each with its target."""
    return list(zip(maps[:-1], earlier, strict=True))
