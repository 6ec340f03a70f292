"""A trial: everything that decides what one training run computes, and what it runs on."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, model_validator
from pydantic.fields import FieldInfo

from ffsd_ray import plugins
from ffsd_ray.backbones import UnfitImages, backbone, map_shapes
from ffsd_ray.base_settings import ADDED_LATER, NOT_IDENTITY, Name, Problem, Settings, refuse
from ffsd_ray.config.backbone import BackboneSettings
from ffsd_ray.config.optimisation import TrainSettings, can_capture, resolve_execution
from ffsd_ray.config.scale import ScaleSettings
from ffsd_ray.config.searchers import SCHEDULERS, SEARCHERS
from ffsd_ray.config.union import by_name, short_form
from ffsd_ray.data import SOURCES, DataSettings
from ffsd_ray.data.streamable import StreamableSettings
from ffsd_ray.methods import METHODS, MethodSettings
from ffsd_ray.methods.shared.with_teacher import TeacherSettings
from ffsd_ray.nets.branches import can_branch

#: A job's seeds are below it.
SEEDS = 2**31
#: More trials than this no trial learns from.
MOST_TEACHERS = 128


def teacher_seed(seed: int, number: int) -> int:
    """The seed of a trial's teacher or ensemble member, numbered from 1; `seed`: the trial's.

    No job has it as a seed, so that no teacher is a baseline of the job's own, and trials of different seeds have no
    teacher in common: their results stay independent.
    """
    return SEEDS + MOST_TEACHERS * seed + number - 1


# Before the kinds are what they are.
plugins.load()

#: The sections that come in kinds, told apart by their `name`: those of trials, and two of the `search` section.
KINDS: dict[str, Mapping[str, type[Settings]]] = {
    "data": SOURCES,
    "method": {name: method.Settings for name, method in METHODS.items()},
    "scheduler": SCHEDULERS,
    "searcher": SEARCHERS,
}
if TYPE_CHECKING:
    DataSection = DataSettings
    MethodSection = MethodSettings
    BackboneSection = BackboneSettings
else:
    DataSection = by_name(KINDS["data"])
    MethodSection = by_name(KINDS["method"])
    BackboneSection = short_form(BackboneSettings)


class TrialSpec(Settings):
    """One training run. Training is a pure function of it."""

    variant: Name | None = Field(
        None, json_schema_extra=NOT_IDENTITY, description="Which of `search.variants` it is; tables show it."
    )
    data: DataSection
    backbone: BackboneSection
    method: MethodSection
    train: TrainSettings = TrainSettings()
    scale: ScaleSettings = ScaleSettings()
    seed: int = Field(
        0,
        ge=0,
        le=teacher_seed(SEEDS - 1, MOST_TEACHERS),
        description="Of the initial weights, the order of the images and their augmentation. "
        f"A job's are below {SEEDS}; the others are those of teachers.",
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        refuse(self, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.data.known_size is not None:
            yield from self._size_problems(self.data.known_size)
        if self.is_teacher and self.method.teachers:
            yield Problem(("seed",), self.seed, f"Should be less than {SEEDS}")
        first, *_ = self.method.student_backbones or [self.backbone.name]
        if first != self.backbone.name:
            expected = f"The first should be the trial's, {self.backbone.name} (backbone.name)"
            yield Problem(("method", "backbones"), first, expected)
        if self.method.other_backbones and self.backbone.weights is not None and self.backbone.weights_for == "all":
            expected = "They do not fit other backbones (method.backbones): deployed"
            yield Problem(("backbone", "weights_for"), "all", expected)
        if self.method.shares_trunk and not can_branch(backbone(self.backbone.name)):
            expected = f"torch.fx cannot trace it, which {self.method.name} needs to make branches of one trunk of it"
            yield Problem(("backbone", "name"), self.backbone.name, expected)
        if self.train.batch_size < 2 * self.scale.most_workers:
            yield Problem(
                ("train", "batch_size"),
                self.train.batch_size,
                f"Batch norm needs 2 images a worker or more, so {2 * self.scale.most_workers} "
                f"for {self.scale.most_workers} workers",
            )
        if self.method.requires_validation and not self.data.may_have_validation:
            yield Problem(("data", "validation"), 0, f"{self.method.label()} needs held-out images: above 0, e.g. 0.1")
        if self.scale.elastic and getattr(self.data, "stream", False):
            yield Problem(
                ("scale", "workers"), None, "A stream is decoded for a fixed number of workers: give one number"
            )
        if self.scale.elastic and self.train.batch_norm == "sync":
            yield Problem(
                ("train", "batch_norm"), "sync", "With elastic workers each part of a batch has its own: local"
            )
        if self.train.precision == "tf32" and not self.scale.uses_gpu:
            yield Problem(("train", "precision"), "tf32", "TF32 needs GPUs (scale.gpus_per_worker); use fp32")
        if self.train.batch_norm == "sync" and not self.scale.uses_gpu:
            yield Problem(
                ("train", "batch_norm"), "sync", "Synchronised batch norm needs GPUs (scale.gpus_per_worker); use local"
            )

        one_gpu = can_capture(cuda=self.scale.uses_gpu, one_worker=self.scale.one_worker)
        several_gpus = self.scale.whole_gpus and self.train.batch_norm == "local"
        if self.train.execution == "graph" and not (one_gpu or several_gpus):
            expected = (
                "A CUDA graph needs a GPU and one worker, or scale.gpus_per_worker of 1 or more for each of several, "
                "without for_networks and with batch_norm: local; use auto or eager"
            )
            yield Problem(("train", "execution"), "graph", expected)

    def _size_problems(self, size: int) -> Iterator[Problem]:
        """Problems of the settings with images of this side length."""
        try:
            shapes = map_shapes(backbone(self.backbone.name), size)
        except UnfitImages as error:
            yield Problem(("backbone", "name"), self.backbone.name, str(error))
        else:
            for key, value, expected in self.method.problems(shapes):
                yield Problem(("method", *key), value, expected)
        # Of all prerequisites no other has a backbone of its own; a teacher from a file has it too.
        others = [("backbones", name) for name in self.method.other_backbones]
        if isinstance(self.method, TeacherSettings) and self.method.teacher is not None:
            others.append(("teacher", self.method.teacher))
        for setting, name in others:
            try:
                map_shapes(backbone(name), size)
            except UnfitImages as error:
                yield Problem(("method", setting), name, str(error))

    def schedule_warnings(self) -> list[str]:
        """Parts of the method's schedule that do not end before the last epoch.

        Nothing where `train.steps_per_epoch` cuts the epochs, as in a smoke form: that is for trying things out.
        """
        epochs = self.train.epochs
        return [
            f"{self.method.label()}: {keys} ({length}) does not end before the last of {epochs} epochs"
            for keys, length in self.method.schedule.items()
            if length >= epochs and self.train.steps_per_epoch is None
        ]

    @property
    def is_teacher(self) -> bool:
        """Whether only other trials need it: it is no baseline of theirs."""
        return self.seed >= SEEDS

    @property
    def seed_label(self) -> str:
        """The seed in words: `seed 3`, or of the second teacher of that trial `seed 3, teacher 2`."""
        if not self.is_teacher:
            return f"seed {self.seed}"
        seed, number = divmod(self.seed - SEEDS, MOST_TEACHERS)
        return f"seed {seed}, teacher {number + 1}"

    def prerequisites(self) -> tuple["TrialSpec", ...]:
        """The trials that must have completed before this one, in the order of its method's teachers."""
        alone = self.baseline()
        return tuple(
            alone.changed(
                variant=None,
                seed=teacher_seed(self.seed, number),
                backbone=BackboneSettings(name=name) if name else self.backbone,
            )
            for number, name in enumerate(self.method.teachers, 1)
        )

    def baseline(self) -> "TrialSpec":
        """The trial that trains the backbone alone, all else being the same: what gains and costs are against."""
        return self.changed(method=METHODS["baseline"].Settings(name="baseline"))

    def with_data(self, data: DataSettings) -> "TrialSpec":
        """The trial on the same images, of which more is known."""
        return self.changed(data=data)

    def configuration(self) -> "TrialSpec":
        """The trial without its seed: trials that differ in nothing else are one row of a table."""
        return self.changed(seed=0)

    def identity(self) -> str:
        """16 hexadecimal digits, the same for two trials exactly if they compute the same."""
        return self._identity

    def planned_identity(self) -> tuple[str, frozenset[str]]:
        """The identity, and which keys a run is still to choose: trials that leave others open may come to differ."""
        return self.identity(), self.scale.left_open

    @cached_property
    def _identity(self) -> str:
        content = identifying(self)
        if isinstance(self.data, StreamableSettings) and self.data.fingerprint is not None:
            for key in self.data.location_keys():
                del content["data"][key]
            content["data"]["fingerprint"] = self.data.fingerprint
        content["train"]["milestones"] = self.train.decay_epochs
        content["train"]["execution"] = resolve_execution(
            self.train.execution, cuda=self.scale.uses_gpu, one_worker=self.scale.one_worker
        )
        content["scale"]["device"] = "cuda" if self.scale.uses_gpu else "cpu"
        content["scale"]["threads"] = self.scale.worker_threads
        if self.backbone.weights_sha256 is not None:
            content["backbone"]["weights"] = self.backbone.weights_sha256
        if isinstance(self.method, TeacherSettings):
            content["method"]["teacher_weights"] = self.method.teacher_sha256
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def identifying(model: BaseModel) -> dict[str, Any]:
    """Every field of a model and the models in it, by name.

    Left out are those marked `NOT_IDENTITY`, and those marked `ADDED_LATER` that have their default.
    """
    content = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if identifies(field) and not (field.json_schema_extra == ADDED_LATER and value == field.default):
            content[name] = identifying(value) if isinstance(value, BaseModel) else value
    return content


def identifies(field: FieldInfo) -> bool:
    """Whether a setting is part of a trial's identity, not marked `NOT_IDENTITY`."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("identity") is False)
