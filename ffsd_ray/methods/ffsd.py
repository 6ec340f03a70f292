"""Feature fusion and self-distillation (FFSD): Sections III-B and III-C, Algorithm 1, in both formulations.

Common students S_1..S_n teach each other; each from S_2 on is also drawn to where the one before it does not look. The
fusion module fuses their last feature maps; the leader S_0 learns from the fused map, from the fusion classifier, and
through its self-distillation module in its earlier stages. The leader is deployed.

`published` is the authors' implementation (the paper's figures come from it), `paper` the equations as printed. Where
the paper is silent, `paper` does as `published`:
- F_e is detached: the fusion module sends no gradient into the students;
- the target of Eq. 14's KL is the fusion classifier, detached; so is every target that comes from another member;
- F̄, the input of the self-distillation module for diversity, is `losses.diversity_target(...).maps`;
- it is student i's own module that turns the target of student i−1 into targets for its earlier stages;
- modules give targets in evaluation mode, and train on the feature maps of the same step;
- S_1 has no diversity term and no self-distillation module (Table VII counts 2 modules for n = 2).

Every cross-model target is detached, so one backward pass over the sum of all terms gives each parameter the gradient
of Algorithm 1's sequence of updates.
"""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbones import Features
from ffsd_ray.losses import attention, distance, diversity_target, mimic, soft_kl, unit
from ffsd_ray.methods.base import Blueprint, Losses, MapShapes, Method, Role, full
from ffsd_ray.methods.dml import MutualSettings, mutual_terms, student_names
from ffsd_ray.nets.fusion import Decoder, Fusion
from ffsd_ray.nets.self_distillation import SelfDistillation
from ffsd_ray.settings import NonNegative, Problem


class FfsdSettings(MutualSettings):
    """FFSD. The λs are those the paper found for ResNet-32 on CIFAR-100 and used everywhere (Section IV-A)."""

    name: Literal["ffsd"] = "ffsd"
    headline: ClassVar[str] = "leader"
    lambda_div: NonNegative = Field(1e-5, description="Weight of the diversity enhancement (Eq. 12).")
    lambda_fea: NonNegative = Field(
        10.0, description="Weight of the fused map (Eq. 14); published: also of the leader's self-distillation."
    )
    lambda_self: NonNegative = Field(
        1000.0,
        description="Weight of the leader's self-distillation (Eq. 14); published: of training the modules instead.",
    )
    alpha: NonNegative = Field(1.0, description="Weight of the feature term in training the modules (Eq. 10).")
    warmup_epochs: int | None = Field(
        None,
        ge=0,
        description="Epochs E over which the λs rise as exp(−5 (1 − e/E)²). null: 5 as published, 0 in the paper.",
    )

    def problems(self, shapes: MapShapes) -> Iterator[Problem]:
        _, height, width = shapes[-1]
        if height * width < 3:
            yield Problem(
                ("name",),
                self.name,
                f"The diversity threshold needs a last feature map of 3 entries or more; here it is {height}×{width}: "
                "larger images or another backbone",
            )

    def warmup_factor(self, epoch: int) -> float:
        """What every λ is multiplied by in an epoch (from 1)."""
        rise = self.warmup_epochs
        if rise is None:
            rise = 5 if self.formulation == "published" else 0
        return 1.0 if epoch > rise else math.exp(-5 * (1 - epoch / rise) ** 2)


class Ffsd(Method):
    """The group of n + 1 students with its modules."""

    Settings = FfsdSettings
    settings: FfsdSettings
    warmup: Tensor

    def __init__(self, settings: FfsdSettings, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        channels = blueprint.shapes[-1][0]
        self.students = nn.ModuleList(blueprint.network() for _ in range(settings.students))
        self.leader = blueprint.network()
        self.decoder = Decoder(settings.students, channels)
        self.fusion = Fusion(settings.students, channels, blueprint.classes)
        # Of students 2 to n, in order; the first student has none.
        self.student_modules = nn.ModuleList(SelfDistillation(blueprint.shapes) for _ in range(settings.students - 1))
        self.leader_module = SelfDistillation(blueprint.shapes)
        # A tensor, so that a captured step sees the new value.
        self.register_buffer("warmup", torch.ones(()), persistent=False)
        self._factor = 1.0

    def begin_epoch(self, epoch: int) -> None:
        self._factor = self.settings.warmup_factor(epoch)
        self.warmup.fill_(self._factor)

    def weights(self) -> dict[str, float]:
        names = ("lambda_div", "lambda_fea", "lambda_self")
        return {name: getattr(self.settings, name) * self._factor for name in names} | {"alpha": self.settings.alpha}

    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        images = views[0]
        leader = self.features(self.leader, images)
        students = [self.features(student, images) for student in self.students]
        concatenated = torch.cat([student.maps[-1].detach() for student in students], dim=1)
        fused = self.features(self.fusion, concatenated)

        terms = mutual_terms([student.logits for student in students], labels, self.settings)
        for index in range(1, len(students)):
            terms |= self._diversity(index, students)
        terms |= self._fusion(fused, students, labels)
        terms |= self._leader(leader, fused, concatenated, labels)
        # After every use of the modules for targets, which take the statistics from before this step.
        for name, features, module in self._self_distilled(students, leader):
            terms |= self._train_module(name, features, module)

        logits = {name: student.logits for name, student in zip(self.common, students, strict=True)}
        logits |= {"leader": leader.logits, "fusion": fused.logits}
        return Losses(terms, {name: z.detach() for name, z in logits.items()})

    def _diversity(self, index: int, students: list[Features]) -> dict[str, Tensor]:
        """λ_div times Eq. 11 for the student at `index` ≥ 1 of `students`."""
        formulation, weight = self.settings.formulation, self.settings.lambda_div * self.warmup
        maps, name = students[index].maps, self.common[index]
        target = diversity_target(students[index - 1].maps[-1], formulation)
        earlier = self._targets(self.student_modules[index - 1], target.maps)
        return {
            f"{name}/diversity_last": weight * distance(unit(attention(maps[-1])), target.attention, formulation),
            f"{name}/diversity_earlier": weight * self._mimic_attention(maps[:-1], earlier),
        }

    def _fusion(self, fused: Features, students: list[Features], labels: Tensor) -> dict[str, Tensor]:
        """Eq. 4."""
        ensemble = torch.stack([student.logits for student in students]).mean(dim=0)
        return {
            "fusion/ce": F.cross_entropy(fused.logits, labels),
            "fusion/kl": soft_kl(fused.logits, ensemble, self.settings.temperature),
        }

    def _leader(self, leader: Features, fused: Features, concatenated: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Eq. 14 with Eqs. 5 and 13."""
        settings = self.settings
        fea = settings.lambda_fea * self.warmup
        with self.mixed(concatenated):
            decoded = full(self.decoder(leader.maps[-1]))
        earlier = self._targets(self.leader_module, fused.maps[-1])
        if settings.formulation == "published":
            fused_map = mimic(attention(leader.maps[-1]), attention(fused.maps[-1]), "published")
            decoded_map = mimic(attention(decoded), attention(concatenated), "published")
            self_distillation = fea * self._mimic_attention(leader.maps[:-1], earlier)
        else:
            fused_map = mimic(leader.maps[-1], fused.maps[-1], "paper")
            decoded_map = mimic(decoded, concatenated, "paper")
            self_distillation = settings.lambda_self * self.warmup * self._mimic_maps(leader.maps[:-1], earlier)
        return {
            "leader/ce": F.cross_entropy(leader.logits, labels),
            "leader/kl": soft_kl(leader.logits, fused.logits, settings.temperature),
            "leader/fused_map": fea * fused_map,
            "leader/decoded_map": fea * decoded_map,
            "leader/self_distillation": self_distillation,
        }

    def _train_module(self, name: str, features: Features, module: nn.Module) -> dict[str, Tensor]:
        """Eq. 10, on the detached feature maps of this step."""
        settings = self.settings
        last = features.maps[-1].detach()
        with self.mixed(last):
            maps = [full(m) for m in module(last)]
        weight = settings.lambda_self * self.warmup if settings.formulation == "published" else 1.0
        return {
            f"{name}/module_attention": weight * self._mimic_attention(maps, features.maps[:-1]),
            f"{name}/module_feature": weight * settings.alpha * self._mimic_maps(maps, features.maps[:-1]),
        }

    def _targets(self, module: nn.Module, last: Tensor) -> list[Tensor]:
        assert isinstance(module, SelfDistillation)
        with self.mixed(last):
            return [full(m) for m in module.targets(last.detach())]

    def _mimic_maps(self, maps: list[Tensor], targets: list[Tensor]) -> Tensor:
        pairs = zip(maps, targets, strict=True)
        return torch.stack([mimic(m, target, self.settings.formulation) for m, target in pairs]).sum()

    def _mimic_attention(self, maps: list[Tensor], targets: list[Tensor]) -> Tensor:
        return self._mimic_maps([attention(m) for m in maps], [attention(target) for target in targets])

    def _self_distilled(self, students: list[Features], leader: Features) -> Iterator[tuple[str, Features, nn.Module]]:
        """Name, features and module of everyone that has a self-distillation module."""
        yield from zip(self.common[1:], students[1:], self.student_modules, strict=True)
        yield "leader", leader, self.leader_module

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        students = [self.features(student, images) for student in self.students]
        fused = self.features(self.fusion, torch.cat([student.maps[-1] for student in students], dim=1))
        logits = {name: student.logits for name, student in zip(self.common, students, strict=True)}
        return logits | {"leader": self.features(self.leader, images).logits, "fusion": fused.logits}

    def roles(self) -> dict[Role, list[nn.Module]]:
        return {
            "student": [self.students, self.leader, self.decoder],
            "fusion": [self.fusion],
            "self_distillation": [self.student_modules, self.leader_module],
        }

    @property
    def deployed(self) -> tuple[str, nn.Module]:
        return "leader", self.leader

    @property
    def members(self) -> list[str]:
        return [*self.common, "leader", "fusion"]

    @property
    def common(self) -> list[str]:
        return student_names(self.settings.students)
