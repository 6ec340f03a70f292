"""The interface of training methods: a group of networks, and the loss terms that they learn from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from ffsd_ray.backbones import Builder, Features, backbone
from ffsd_ray.base_settings import Problem, Settings
from ffsd_ray.nets.precision import Precision, features, features_of_networks

#: A parameter's role decides its optimiser (`ffsd_ray.train.optimisers`).
Role = Literal["student", "fusion", "self_distillation", "adversary", "discriminator"]

#: The shapes (C, H, W) of a backbone's feature maps, shallow to deep.
MapShapes = tuple[tuple[int, int, int], ...]


class MethodSettings(Settings):
    """The `method` section of a job file. Every method has its own subclass, which `name` selects."""

    name: str

    @property
    @abstractmethod
    def primary_series(self) -> str:
        """The series whose accuracy represents the method in comparisons."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Assumptions of this configuration that no paper or published code confirms; printed below tables."""
        return ()

    @property
    def schedule(self) -> dict[str, int]:
        """Lengths in epochs of everything that changes over training, by settings key."""
        return {}

    @property
    def requires_validation(self) -> bool:
        """Whether held-out images are learned from (`Method.fit_on_validation`), or choose what is deployed."""
        return False

    @property
    def teachers(self) -> list[str | None]:
        """Backbones of the teachers to train before the trial, at most 128; None stands for the trial's own backbone.

        Each teacher is a `baseline` trial with the same data and optimisation, and with a seed that no other trial has.
        """
        return []

    @property
    def student_backbones(self) -> tuple[str, ...]:
        """Each student's backbone, where they differ; the first is the trial's. Else none."""
        return ()

    @property
    def other_backbones(self) -> tuple[str, ...]:
        """Backbones of students that do not have the trial's."""
        return tuple(name for name in self.student_backbones if name != self.student_backbones[0])

    @property
    def shares_trunk(self) -> bool:
        """Whether the students are branches of one trunk, into which the backbone must be cut."""
        return False

    @property
    def deploys_best(self) -> bool:
        """Whether the best of several students is deployed, by the validation images."""
        return False

    def problems(self, shapes: MapShapes) -> Iterator[Problem]:
        """Yield the reasons why this method cannot train a backbone with feature maps of these shapes."""
        yield from ()

    def label(self) -> str:
        """A short name of this configuration for tables."""
        return self.name


class Losses(NamedTuple):
    """Results of one phase of a step.

    terms: weighted scalar losses by name, `member/term`; their sum is minimised.
    logits: [B, K] of every member, detached; the training accuracy is measured on them.
    """

    terms: dict[str, Tensor]
    logits: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


class Phase(NamedTuple):
    """One forward and backward pass of a training step, and the roles whose parameters it updates."""

    name: str
    roles: tuple[Role, ...]


class TrainedOn(NamedTuple):
    """The training images' classes and normalisation, which a teacher loaded from a file must match."""

    source: str
    """The data source (`data.name`)."""
    classes: tuple[str, ...]
    """Class names by label."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Blueprint:
    """The arguments, besides a method's settings, that its group of networks is built from."""

    backbone: Builder
    shapes: MapShapes
    classes: int
    precision: Precision = "fp32"
    #: None when the group is only inspected or measured, not trained.
    data: TrainedOn | None = None

    def network(self, name: str | None = None) -> nn.Module:
        """A new backbone, the trial's or the one named, initialised from torch's global random state."""
        return (self.backbone if name is None else backbone(name))(self.classes)


class Method(nn.Module, ABC):
    """A training method: a group of networks and their losses, as one module for one DDP wrapper.

    Every subclass in a file of this package is a method of job files, under the `name` of its `Settings`. It is
    constructed from those settings and a `Blueprint`.
    """

    Settings: ClassVar[type[MethodSettings]]
    #: Number of differently augmented views of each image that `forward` takes.
    views: int = 1

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__()
        self.settings = settings
        self._precision = blueprint.precision
        #: Frozen teacher networks, all with the same backbone, in evaluation mode. A plain list keeps them out of the
        #: state dictionary; `load_teachers` loads their weights from where they were trained.
        self.teachers: list[nn.Module] = []
        #: Parameters that began with weights trained before (`backbone.weights`), for their own learning rates.
        self.pretrained: list[nn.Parameter] = []

    @abstractmethod
    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        """Compute the losses of one phase.

        `views`: `self.views` tensors [B, 3, S, S], normalised; `labels`: int64 [B], or probabilities of the classes,
        float32 [B, K] (`train.mixup` and the like), of which `F.cross_entropy` takes either; `phase`: a name from
        `phases`.
        """

    @abstractmethod
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [B, K] of every member for images [B, 3, S, S]; called in evaluation mode."""

    @abstractmethod
    def roles(self) -> dict[Role, list[nn.Module]]:
        """The modules of each role; together they hold every trained parameter.

        Two roles may share a module only if no phase updates it with both roles' optimisers (as in AFD).
        """

    @property
    @abstractmethod
    def deployed(self) -> tuple[str, nn.Module]:
        """Name and network of the member that is kept for use after training, unless another is chosen (`deploy`)."""

    @property
    @abstractmethod
    def members(self) -> list[str]:
        """Names of all members whose logits `forward` and `predict` return, in the order of the tables."""

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks of all members that are backbones, which the fusion module is not, in the order of `members`."""

    @property
    def common(self) -> list[str]:
        """Names of the common students. Their mean accuracy and their ensembles are reported."""
        return []

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The forward and backward passes of one training step, in order."""
        return (Phase("all", tuple(self.roles())),)

    @property
    def adam_rates(self) -> dict[Role, float]:
        """Learning rates of the roles that are trained by a separate Adam optimiser, without weight decay."""
        return {}

    @property
    def clip_norm(self) -> float | None:
        """Maximum L2 norm of a phase's gradients, over all parameters of its roles; None: no clipping."""
        return None

    def load_teachers(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        """Load the state dictionaries of the settings' `teachers`, in that order; called once, before training."""
        for teacher, state in zip(self.teachers, weights, strict=True):
            teacher.load_state_dict(state)

    def fit_on_validation(self, batches: Iterable[tuple[Tensor, Tensor]], total: Callable[[Tensor], Tensor]) -> None:
        """Learn from the validation images after an epoch, in evaluation mode.

        `batches`: this worker's share of the images, normalised [B, 3, S, S], with labels [B]; `total`: sums a tensor
        over the workers, in place.
        """

    def begin_epoch(self, epoch: int) -> None:
        """Set everything that depends on the epoch, which is counted from 1."""

    def weights(self) -> dict[str, float]:
        """Loss weights of the current epoch after warm-up, by settings key; recorded in the history."""
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn` to the teachers' tensors too: `Module.to` and the like go through here."""
        for teacher in self.teachers:
            teacher._apply(fn, recurse)
        moved: Self = super()._apply(fn, recurse)
        return moved

    def features(self, net: nn.Module, x: Tensor) -> Features:
        """A network's forward pass on x [B, ...] at the trial's precision, with results in float32 for the losses."""
        return features(net, x, self._precision)

    def features_of_all(self, networks: Sequence[nn.Module], images: Tensor | Sequence[Tensor]) -> list[Features]:
        """Forward passes of several networks, see `features`, which on a GPU may overlap.

        `images`: [B, 3, S, S], the same for all, or a tensor for each.
        """
        inputs = [images] * len(networks) if isinstance(images, Tensor) else images
        return features_of_networks(networks, inputs, self._precision)
