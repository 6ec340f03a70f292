"""A method's group of networks in a training loop of one's own: `build`."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ffsd_ray.backbones import backbone as builder
from ffsd_ray.backbones import map_shapes
from ffsd_ray.config.optimisation import TrainSettings
from ffsd_ray.data.batches import Batch
from ffsd_ray.errors import JobError
from ffsd_ray.file_schema import described
from ffsd_ray.methods import METHODS, Blueprint, Losses, Method
from ffsd_ray.nets.precision import Precision
from ffsd_ray.train import optimisers
from ffsd_ray.train.optimisers import Optimisers
from ffsd_ray.train.step import Step


class Group(nn.Module):
    """Networks that are trained together, as one module: images and labels in, losses out."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    @property
    def views(self) -> int:
        """Differently augmented views of each image that the method takes."""
        return self.method.views

    @property
    def deployed(self) -> nn.Module:
        """The network that is kept for use, the leader if there is one; images [B, 3, S, S] to `.logits` [B, K]."""
        return self.method.deployed[1]

    def forward(self, images: Tensor | Sequence[Tensor], labels: Tensor, phase: str | None = None) -> Losses:
        """The losses of a batch: weighted terms by name, their `total`, and every member's logits, detached.

        Args:
            images: normalised, [B, 3, S, S]; of a method with several `views` a tensor each, or one for all.
            labels: int64 [B], or probabilities of the classes [B, K].
            phase: of a method whose step has several (afd, amln): which one. `step` runs them all.

        Raises:
            ValueError: the method's step has several phases, and none is named.
        """
        names = [one.name for one in self.method.phases]
        if phase is None and len(names) > 1:
            raise ValueError(f"a step of this method has the phases {', '.join(names)}: name one, or call step()")
        losses: Losses = self.method(self._views(images), labels, names[0] if phase is None else phase)
        return losses

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [B, K] of every member for images [B, 3, S, S], in evaluation mode."""
        training = self.training
        try:
            return self.eval().method.predict(images)
        finally:
            self.train(training)

    def begin_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch (from 1), such as the λs' warm-up."""
        self.method.begin_epoch(epoch)

    def optimisers(self, **settings: Any) -> Optimisers:
        """The optimisers that trials train the group with, its role each: FFSD's SGD and Adam.

        `settings`: keys of a job file's `train` section, such as lr=0.05.

        Raises:
            JobError: there is no such key, or its value is wrong.
        """
        try:
            return optimisers.build(self.method, TrainSettings(**settings))
        except ValidationError as error:
            raise JobError(f"optimisers: {described(error)}") from error

    def step(self, images: Tensor | Sequence[Tensor], labels: Tensor, optimisers: Optimisers) -> Losses:
        """Train on a batch as trials do, every phase of the method; the losses from before, without their graph."""
        return Step(self.method, optimisers)(Batch(self._views(images), labels, 1.0))

    def _views(self, images: Tensor | Sequence[Tensor]) -> list[Tensor]:
        return [images] * self.views if isinstance(images, Tensor) else list(images)


def build(
    method: str,
    *,
    backbone: str,
    classes: int,
    image_size: int,
    seed: int | None = None,
    precision: Precision = "fp32",
    **settings: Any,
) -> Group:
    """A method's group, for a training loop of one's own.

    >>> group = build("ffsd", backbone="resnet8", classes=10, image_size=16, students=2)
    >>> optimisers = group.optimisers(lr=0.1)
    >>> images, labels = torch.randn(4, 3, 16, 16), torch.tensor([1, 2, 3, 4])
    >>> losses = group(images, labels)
    >>> losses.total.backward()
    >>> sorted(losses.logits)
    ['fusion', 'leader', 'student1', 'student2']

    Args:
        method: its name, such as ffsd.
        backbone: of every network, such as resnet32.
        classes: number of classes.
        image_size: side of the square images in pixels.
        seed: of the initial weights, as trials have it; None: torch's global random state.
        precision: fp32, or bf16: networks under autocast.
        settings: keys of a job file's `method` section.

    Raises:
        JobError: there is no such method, backbone or setting, or they do not go together.
    """
    if method not in METHODS:
        raise JobError(f"build: no method {method}; expected one of {', '.join(METHODS)}")
    try:
        chosen = METHODS[method].Settings(name=method, **settings)
        new = builder(backbone)
        shapes = map_shapes(new, image_size)
    except ValidationError as error:
        raise JobError(f"build: {method}: {described(error)}") from error
    except ValueError as error:  # of a backbone, and of images that it does not take
        raise JobError(f"build: {backbone} on {image_size}×{image_size}: {error}") from error
    if chosen.teachers:
        raise JobError(f"build: {method} learns from networks that are trained before; `fit` trains them first")
    for problem in chosen.problems(shapes):
        raise JobError(f"build: {method}: {'.'.join(problem.key)} = {problem.value}: {problem.expected}")
    if seed is not None:
        optimisers.seed_everything(seed)
    return Group(METHODS[method](chosen, Blueprint(new, shapes, classes, precision)))
