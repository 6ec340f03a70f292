"""Base of methods that distil a frozen, pretrained teacher into one student (KD, AT)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator
from torch import Tensor

from ffsd_ray.backbone_name import BackboneName
from ffsd_ray.backbones import backbone
from ffsd_ray.base_settings import NOT_IDENTITY, Location, Problem, Sha256, refuse
from ffsd_ray.card import Card
from ffsd_ray.data.fingerprint import file_sha256
from ffsd_ray.deployed import load_model
from ffsd_ray.errors import RecordsError, TrialError
from ffsd_ray.methods.base import Blueprint, MethodSettings, TrainedOn
from ffsd_ray.methods.shared.single_student import SingleStudent

#: Largest difference of a channel's mean or standard deviation, between teacher and student, that is not warned of.
_STATISTICS_TOLERANCE = 1e-3

_log = logging.getLogger(__name__)


class TeacherSettings(MethodSettings):
    """Settings of methods with a teacher: a trial of the same job, or a weights file."""

    teacher: BackboneName | None = Field(None, description="The teacher's backbone; null: the student's own.")
    teacher_weights: Location | None = Field(
        None,
        description="A weights file (model_last.safetensors of a trial) to take the teacher from; null: it is trained "
        "in the job, as a baseline with the same data and optimisation to its last epoch, for each seed another one.",
    )
    teacher_sha256: Sha256 | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="SHA-256 of that file, which tells trials apart in place of its path, and which it must still have "
        "when a trial begins; null: as the file is when the job is read.",
    )

    @model_validator(mode="after")
    def _hash_teacher_file(self) -> Self:
        if self.teacher_weights is None and self.teacher_sha256 is not None:
            refuse(self, [Problem(("teacher_sha256",), self.teacher_sha256, "Needs teacher_weights: of which file")])
        if self.teacher_weights is not None and self.teacher_sha256 is None:
            try:
                object.__setattr__(self, "teacher_sha256", file_sha256(self.teacher_weights))
            except OSError as error:
                expected = f"Should be a weights file that can be read here: {(error.strerror or str(error)).lower()}"
                refuse(self, [Problem(("teacher_weights",), self.teacher_weights, expected)])
        return self

    @property
    def primary_series(self) -> str:
        return "student"

    @property
    def teachers(self) -> list[str | None]:
        return [] if self.teacher_weights else [self.teacher]

    def label(self) -> str:
        return f"{self.name} from {self.teacher}" if self.teacher else self.name


class StudentWithTeacher(SingleStudent):
    """One student and one frozen teacher, `teachers[0]`."""

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__(settings, blueprint)
        build = backbone(settings.teacher) if settings.teacher else blueprint.backbone
        self.teachers = [build(blueprint.classes).requires_grad_(False).eval()]
        self._classes, self._data = blueprint.classes, blueprint.data

    def load_teachers(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        path, expected_hash = self.settings.teacher_weights, self.settings.teacher_sha256
        if path is None:
            super().load_teachers(weights)
            return
        try:
            model = load_model(path)
        except RecordsError as error:
            raise TrialError(f"method.teacher_weights: {error}") from error
        if (file_hash := file_sha256(path)) != expected_hash:
            mismatch = f"expected the file with the SHA-256 {expected_hash}, found one with {file_hash}"
            raise TrialError(f"method.teacher_weights: {path}: {mismatch}")
        try:
            super().load_teachers([model.backbone.state_dict()])
        except RuntimeError as error:
            expected = f"{self.settings.teacher or 'the backbone of the trial'} for {self._classes} classes"
            in_file = f"{model.card.backbone} for {len(model.classes)}"
            raise TrialError(f"method.teacher_weights: {path}: expected {expected}, found {in_file}") from error
        if self._data is not None:
            _check_data(path, model.card, self._data)


def _check_data(path: str, card: Card, data: TrainedOn) -> None:
    """Compare the data that a teacher from a file was trained on with the trial's.

    Warns where the images are normalised differently.

    Raises:
        TrialError: the classes, or their order, differ.
    """
    both_named = [
        _has_class_names(card.spec["data"]["name"], card.classes),
        _has_class_names(data.source, data.classes),
    ]
    if all(both_named) and card.classes != data.classes:
        index, theirs, ours = next(
            (i, a, b) for i, (a, b) in enumerate(zip(card.classes, data.classes, strict=True)) if a != b
        )
        expected, in_file = (
            f"{', '.join(names[:10])}{', …' * (len(names) > 10)}" for names in (data.classes, card.classes)
        )
        raise TrialError(
            f"method.teacher_weights: {path}: expected the classes of the data set in its order ({expected}), "
            f"found {in_file}: class {index} is {theirs} to the teacher and {ours} in the data set"
        )
    pairs = zip((*card.mean, *card.std), (*data.mean, *data.std), strict=True)
    if any(abs(a - b) > _STATISTICS_TOLERANCE for a, b in pairs):
        _log.warning(
            "%s: the teacher was trained on images normalised with mean %s, std %s, and now sees them with mean %s, "
            "std %s",
            path,
            *(", ".join(f"{value:.4f}" for value in three) for three in (card.mean, card.std, data.mean, data.std)),
        )


def _has_class_names(source: str, classes: tuple[str, ...]) -> bool:
    """Whether `classes` are names: Parquet files without class names give numbers instead."""
    return source != "parquet" or classes != tuple(map(str, range(len(classes))))
