"""Learning from a teacher that is trained already and stays as it is: what KD and AT have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field
from torch import Tensor, nn

from ffsd_ray.backbone_name import BackboneName
from ffsd_ray.backbones import backbone
from ffsd_ray.errors import RecordsError, TrialError
from ffsd_ray.leader import load_leader
from ffsd_ray.methods.alone import Alone
from ffsd_ray.methods.base import Blueprint, MethodSettings, Teacher


class TaughtSettings(MethodSettings):
    """The teacher: a trial of its own in the job, or a file."""

    teacher: BackboneName | None = Field(None, description="The teacher's backbone; null: the student's own.")
    teacher_weights: str | None = Field(
        None,
        description="A weights file (leader_best.safetensors of a trial) to take the teacher from; null: it is trained "
        "in the job, once for each seed, as a baseline with the same data and optimisation.",
    )

    @property
    def headline(self) -> str:
        return "student"

    def teachers(self, seed: int) -> list[Teacher]:
        return [] if self.teacher_weights else [Teacher(self.teacher, seed)]

    def label(self) -> str:
        return f"{self.name} from {self.teacher}" if self.teacher else self.name


class Taught(Alone):
    """A student beside a teacher whose weights do not change."""

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        build = backbone(settings.teacher) if settings.teacher else blueprint.backbone
        self.teacher = build(blueprint.classes).requires_grad_(False)
        self._classes = blueprint.classes

    @property
    def teachers(self) -> list[nn.Module]:
        return [self.teacher]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.teacher.eval()
        return self

    def load_teachers(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        if self.settings.teacher_weights is None:
            self.teacher.load_state_dict(weights[0])
            return
        try:
            leader = load_leader(self.settings.teacher_weights)
        except RecordsError as error:
            raise TrialError(f"method.teacher_weights: {error}") from error
        try:
            self.teacher.load_state_dict(leader.backbone.state_dict())
        except RuntimeError as error:
            expected = f"{self.settings.teacher or 'the backbone of the trial'} for {self._classes} classes"
            found = f"{leader.card.backbone} for {len(leader.classes)}"
            raise TrialError(
                f"method.teacher_weights: {self.settings.teacher_weights}: expected {expected}, found {found}"
            ) from error
