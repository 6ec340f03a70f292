"""The interface of training methods: a group of networks, and the loss terms that they learn from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

from ffsd_ray.backbones import Builder, Features
from ffsd_ray.base_settings import Problem, Settings
from ffsd_ray.nets.precision import Precision, features

#: A parameter's role decides its optimiser (`ffsd_ray.train.optimisers`).
Role = Literal["student", "fusion", "self_distillation", "adversary", "discriminator"]

#: The shapes (C, H, W) of a backbone's feature maps, shallow to deep.
MapShapes = tuple[tuple[int, int, int], ...]


class MethodSettings(Settings):
    """The `method` section of a job file; every method has its own class, told apart by `name`."""

    name: str

    @property
    @abstractmethod
    def primary_series(self) -> str:
        """The series whose accuracy stands for the method in a comparison."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Assumptions of this configuration that no source confirms: printed below tables that have it."""
        return ()

    @property
    def schedule(self) -> dict[str, int]:
        """Lengths in epochs of everything that changes over training, by settings key."""
        return {}

    @property
    def requires_validation(self) -> bool:
        """Whether it learns from images that are held out (`Method.fit_on_validation`)."""
        return False

    @property
    def teachers(self) -> list[str | None]:
        """The backbones of the networks that must have been trained before a trial, at most 128; None: the trial's own.

        Each is a baseline with the trial's data and optimisation and a seed that no other trial has.
        """
        return []

    def problems(self, shapes: MapShapes) -> Iterator[Problem]:
        """Reasons why this method cannot work on a backbone with such feature maps."""
        yield from ()

    def label(self) -> str:
        """A short name for tables."""
        return self.name


class Losses(NamedTuple):
    """Results of one phase of a step.

    terms: weighted scalars named `member/term`; their sum is what is minimised, so they can be logged part by part.
    logits: [B, K] of every member, detached, for the training accuracy.
    """

    terms: dict[str, Tensor]
    logits: dict[str, Tensor]


class Phase(NamedTuple):
    """One forward and backward pass of a step: the roles whose parameters it updates."""

    name: str
    roles: tuple[Role, ...]


class TrainedOn(NamedTuple):
    """Facts about the training images that a teacher from a file must match."""

    source: str
    """The kind of data (`data.name`)."""
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Blueprint:
    """Everything that a group is built from, besides its own settings."""

    backbone: Builder
    shapes: MapShapes
    classes: int
    precision: Precision = "fp32"
    #: None where nothing is trained.
    data: TrainedOn | None = None

    def network(self) -> nn.Module:
        """A new backbone, initialised from torch's global random state."""
        return self.backbone(self.classes)


class Method(nn.Module, ABC):
    """A group of networks as one module, so that one DDP wrapper sees every trainable operation.

    A subclass is found by its file in this package, named in job files by its `Settings`, and constructed from those
    settings and a `Blueprint`.
    """

    Settings: ClassVar[type[MethodSettings]]
    #: Augmented views of an image that a step takes.
    views: int = 1

    def __init__(self, settings: Any, blueprint: Blueprint) -> None:
        super().__init__()
        self.settings = settings
        self._precision = blueprint.precision
        #: Backbones that teach and are not trained, all of one kind, in evaluation mode. In a plain list, so that they
        #: are no part of the group's state: they come from where they were trained (`load_teachers`).
        self.teachers: list[nn.Module] = []

    @abstractmethod
    def forward(self, views: list[Tensor], labels: Tensor, phase: str) -> Losses:
        """Losses of one phase for `views` of the images [B, 3, S, S] and labels [B]."""

    @abstractmethod
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [B, K] of every member, in evaluation."""

    @abstractmethod
    def roles(self) -> dict[Role, list[nn.Module]]:
        """The modules of each role: together all parameters that are trained.

        Two roles share a module only where one optimiser a phase moves it (AFD's logit and adversarial steps).
        """

    @property
    @abstractmethod
    def deployed(self) -> tuple[str, nn.Module]:
        """The one member that is kept after training: its name and its backbone."""

    @property
    @abstractmethod
    def members(self) -> list[str]:
        """Names of all members whose logits `forward` and `predict` return, in the order of the tables."""

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The backbone of every member that is one (the fusion module is not), in the order of `members`."""

    @property
    def common(self) -> list[str]:
        """Names of the common students, whose mean and ensembles are reported."""
        return []

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The backward passes of one step, in order."""
        return (Phase("all", tuple(self.roles())),)

    @property
    def adam_rates(self) -> dict[Role, float]:
        """Roles that have an Adam of their own, without weight decay, and its learning rate."""
        return {}

    @property
    def clip_norm(self) -> float | None:
        """The norm, over all parameters of a step's roles, to which its gradients are clipped; None: they are not."""
        return None

    def load_teachers(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        """The trained weights of the settings' `teachers`, in that order; called once, before anything is trained."""
        for teacher, state in zip(self.teachers, weights, strict=True):
            teacher.load_state_dict(state)

    def fit_on_validation(self, batches: Iterable[tuple[Tensor, Tensor]], total: Callable[[Tensor], Tensor]) -> None:
        """Learn from the validation images (normalised [B, 3, S, S], labels [B]) after an epoch, in evaluation mode.

        Each worker is given its share; `total` sums a tensor over the workers, in place.
        """

    def begin_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch (from 1)."""

    def weights(self) -> dict[str, float]:
        """The loss weights in force, by the name they have in the job file."""
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Override what `to` calls, so that teachers move too."""
        for teacher in self.teachers:
            teacher._apply(fn, recurse)
        moved: Self = super()._apply(fn, recurse)
        return moved

    def features(self, net: nn.Module, x: Tensor) -> Features:
        """A network's forward pass under the precision in force, its results in full precision for the losses."""
        return features(net, x, self._precision)

    def features_of_all(self, networks: Sequence[nn.Module], images: Tensor) -> list[Features]:
        """The same for several networks, all on the same images."""
        return [self.features(network, images) for network in networks]
