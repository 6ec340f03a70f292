"""Batches whose order and augmentation are pure functions of (seed, epoch, image, view), for any kind of split."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ffsd_ray.data.base import BatchInputs, Split
from ffsd_ray.data.counter_rng import random_bits
from ffsd_ray.data.regularisation import Regularisation
from ffsd_ray.data.trivial_augment import TrivialAugment


class Batch(NamedTuple):
    """A rank's part of a global batch."""

    views: list[Tensor]
    """float32 [b, 3, S, S] each, normalised: differently augmented views of the same images."""
    labels: Tensor
    """int64 [b]."""
    weight: float
    """Factor of this rank's mean loss, so that the mean over ranks equals the mean over the global batch."""
    probabilities: Tensor | None = None
    """float32 [b, K] of the classes, to train on in place of the labels; None: the labels."""

    @property
    def targets(self) -> Tensor:
        """What is trained on: probabilities of the classes [b, K], or labels [b]."""
        return self.labels if self.probabilities is None else self.probabilities


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """Normalise images by channel, (images / 255 - mean) / std: uint8 [N, 3, S, S] to float32 [N, 3, S, S]."""
    mean, std = (_per_channel(value, images.device) for value in (mean, std))
    # CUDA multiplies by the reciprocal of a number, which rounds otherwise than dividing by a tensor does.
    return images.to(torch.float32).div_(torch.full_like(mean, 255)).sub_(mean).div_(std)


def _per_channel(value: Sequence[float] | Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32, device=device).view(3, 1, 1)


def rank_slice(start: int, stop: int, rank: int, world_size: int) -> slice:
    """A rank's part of the range start..stop, divided as by torch.tensor_split: the first ranks may get one more."""
    base, more = divmod(stop - start, world_size)
    first = start + rank * base + min(rank, more)
    return slice(first, first + base + (rank < more))


def last_batch(images: int, batch_size: int) -> int:
    """Number of images in the last batch of a complete epoch."""
    return images - (math.ceil(images / batch_size) - 1) * batch_size


def epoch_steps(images: int, batch_size: int, limit: int | None, *, join_last: bool) -> int:
    """Number of batches in an epoch, at most `limit`; with `join_last` the last batch is merged into the one before."""
    all_steps = math.ceil(images / batch_size)
    return min(all_steps, limit or all_steps) - (join_last and all_steps > 1 and (limit or all_steps) >= all_steps)


class TrainBatches:
    """A rank's parts of an epoch's shuffled, augmented batches.

    The global batches depend on neither `world_size` nor the step at which an epoch is resumed. An epoch has `steps`
    batches; the last one may be smaller than the others or, with `join_last`, larger.
    """

    def __init__(
        self,
        images: Split,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        crop_padding: int,
        flip: bool,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        views: int = 1,
        steps_per_epoch: int | None = None,
        join_last: bool = False,
        regularisation: Regularisation | None = None,
        balanced: bool = False,
        trivial_augment: bool = False,
    ) -> None:
        """`images`: on the training device (`Split.to`); `batch_size`: of the global batch.

        `views`: number of independently augmented views of each image; `steps_per_epoch`: maximum, None for all images;
        `join_last`: merge the last, partial batch of an epoch into the one before; `balanced`: as many of every class;
        `trivial_augment`: every view undergoes an operation of TrivialAugment after its crop and flip.
        """
        self._images, self._seed, self._views, self._regularisation = images, seed, views, regularisation
        self._augmentation = images.augmentation(crop_padding=crop_padding, flip=flip)
        self._trivial_augment = TrivialAugment(images.image_size, images.device) if trivial_augment else None
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._labels = images.labels.cpu() if balanced else None
        self.steps = epoch_steps(len(images), batch_size, steps_per_epoch, join_last=join_last)
        joined = self.steps < epoch_steps(len(images), batch_size, steps_per_epoch, join_last=False)
        #: The step whose batch includes the images of the partial batch after it; None without `join_last`.
        self._joining_step = self.steps - 1 if joined else None
        self._mean, self._std = (_per_channel(value, images.device) for value in (mean, std))

    @property
    def images(self) -> int:
        """Number of images in an epoch, over all ranks."""
        return self._step_end(self.steps - 1)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 1) from `first_step` (counted from 0) on."""
        return (self.batch(inputs, weight) for inputs, weight in self.inputs(epoch, first_step))

    def inputs(self, epoch: int, first_step: int = 0, stop: int | None = None) -> Iterator[tuple[BatchInputs, float]]:
        """Yield the inputs of `batch`, and the batch's weight, for the steps from `first_step` to before `stop`.

        With images in memory, the host waits for the device only before the first batch.
        """
        generator = torch.Generator().manual_seed(int(random_bits(torch.tensor(self._seed), epoch)))
        order = self._order(generator)
        shares = [self._rank_part(step) for step in range(self.steps)[first_step:stop]]
        inputs = self._prepared(order, epoch, [part for part, _ in shares], generator)
        return zip(inputs, (weight for _, weight in shares), strict=True)

    def _order(self, generator: torch.Generator) -> Tensor:
        """Indices of an epoch's images, of which a balanced epoch has some several times, and others not at all.

        The second time an image has its index plus the number of images, by which its augmentation is another.
        """
        images = len(self._images)
        if self._labels is None:
            return torch.randperm(images, generator=generator)
        drawn, classes = [], self._labels.unique()
        for number, label in enumerate(classes):
            own = (self._labels == label).nonzero()[:, 0]
            own = own[torch.randperm(len(own), generator=generator)]
            turn = torch.arange(images // len(classes) + (number < images % len(classes)))
            drawn.append(own[turn % len(own)] + images * (turn // len(own)))
        return torch.cat(drawn)[torch.randperm(images, generator=generator)]

    def _prepared(
        self, order: Tensor, epoch: int, parts: Sequence[slice], generator: torch.Generator
    ) -> Iterator[BatchInputs]:
        """The inputs of the augmentation for slices of an epoch's order, then the draws of all that comes after it.

        Where images are mixed, each slice is followed by as many others, of a second order.
        """
        regularisation, device = self._regularisation, self._images.device
        mixes = regularisation is not None and regularisation.mixes
        original_order, original_parts = order, parts
        if mixes:
            others = order[torch.randperm(len(order), generator=generator)]
            order = torch.cat([images[part] for part in parts for images in (order, others)])
            starts = [0, *accumulate(2 * (part.stop - part.start) for part in parts)]
            parts = [slice(*ends) for ends in pairwise(starts)]
        keys = torch.stack([random_bits(order, self._seed, epoch, view) for view in range(self._views)], dim=1)
        inputs = self._augmentation.prepare(order % len(self._images), keys, parts)
        if self._trivial_augment is not None:
            inputs = _with_draws(inputs, self._trivial_augment.draws(keys).to(device), parts)
        if regularisation is not None and regularisation.random_erasing:
            inputs = _with_draws(inputs, regularisation.erasing_draws(keys).to(device), parts)
        if regularisation is not None and mixes:
            draws = regularisation.mixing_draws(random_bits(original_order, self._seed, epoch))
            inputs = _with_draws(inputs, draws.to(device), original_parts)
        return inputs

    def batch(self, inputs: BatchInputs, weight: float = 1.0) -> Batch:
        """Compute the augmented, normalised batch from its inputs, without waiting for the device."""
        regularisation = self._regularisation
        mixing, erasing, drawn = None, None, None
        if regularisation is not None and regularisation.mixes:
            inputs, mixing = inputs[:-1], inputs[-1]
        if regularisation is not None and regularisation.random_erasing:
            inputs, erasing = inputs[:-1], inputs[-1]
        if self._trivial_augment is not None:
            inputs, drawn = inputs[:-1], inputs[-1]
        views, labels = self._augmentation.views(inputs)
        if self._trivial_augment is not None and drawn is not None:
            views = [self._trivial_augment(view, drawn[:, index]) for index, view in enumerate(views)]
        views = [normalise(view, self._mean, self._std) for view in views]
        if regularisation is None:
            return Batch(views, labels, weight)
        if erasing is not None:
            views = [regularisation.erased(view, erasing[:, index]) for index, view in enumerate(views)]
        if mixing is None:
            targets = regularisation.targets(labels) if regularisation.changes_labels else None
            return Batch(views, labels, weight, targets)
        half = len(mixing)
        others = [view[half:] for view in views]
        views, targets = regularisation.mixed(
            [view[:half] for view in views], labels[:half], others, labels[half:], mixing
        )
        return Batch(views, labels[:half], weight, targets)

    def _step_end(self, step: int) -> int:
        """The position in the epoch's order at which a step's global batch ends."""
        images = len(self._images)
        return images if step == self._joining_step else min((step + 1) * self._batch_size, images)

    def _rank_part(self, step: int) -> tuple[slice, float]:
        """This rank's slice of the epoch's order in a step, and its weight (`Batch.weight`)."""
        start = step * self._batch_size
        stop = self._step_end(step)
        part = rank_slice(start, stop, self._rank, self._world_size)
        weight = (part.stop - part.start) * self._world_size / (stop - start)
        # a rank without images takes part in the step with one image of weight 0
        return (part, weight) if weight else (slice(start, start + 1), 0.0)


def _with_draws(inputs: Iterator[BatchInputs], draws: Tensor, parts: Sequence[slice]) -> Iterator[BatchInputs]:
    return ((*of_part, draws[part]) for of_part, part in zip(inputs, parts, strict=True))


class EvalBatches:
    """A rank's batches of unaugmented images in order, for evaluation; over all ranks each image occurs once.

    Iterating yields (images float32 [b, 3, S, S], normalised, labels int64 [b]) with b up to `batch_size`, and nothing
    if the rank has no images.
    """

    def __init__(
        self,
        images: Split,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._images = images
        rank_images = rank_slice(0, len(images), rank, world_size)
        self._parts = [
            slice(start, min(start + batch_size, rank_images.stop))
            for start in range(rank_images.start, rank_images.stop, batch_size)
        ]
        self._mean, self._std = (_per_channel(value, images.device) for value in (mean, std))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._images.unaugmented(self._parts):
            yield normalise(images, self._mean, self._std), labels
