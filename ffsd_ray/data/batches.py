"""Batches: order and augmentation as pure functions of (seed, epoch, sample, view), wherever the images are."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ffsd_ray.data.base import Drawn, Split
from ffsd_ray.data.counter_rng import random_bits


class Batch(NamedTuple):
    """A rank's share of a global batch."""

    views: list[Tensor]
    """Each float32 [b, 3, S, S], normalised: the same images under one augmentation a view."""
    labels: Tensor
    """int64 [b]."""
    weight: float
    """Factor of this rank's mean loss that makes the mean over ranks the mean over the global batch."""


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """(images / 255 - mean) / std by channel: uint8 [N, 3, S, S] to float32 [N, 3, S, S]."""
    mean, std = (_per_channel(value, images.device) for value in (mean, std))
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)


def _per_channel(value: Sequence[float] | Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32, device=device).view(3, 1, 1)


def rank_slice(start: int, stop: int, rank: int, world_size: int) -> slice:
    """This rank's part of start..stop, as torch.tensor_split cuts it: the first ranks have one more."""
    base, more = divmod(stop - start, world_size)
    first = start + rank * base + min(rank, more)
    return slice(first, first + base + (rank < more))


def last_batch(images: int, batch_size: int) -> int:
    """How many images the last batch of a whole epoch has."""
    return images - (math.ceil(images / batch_size) - 1) * batch_size


def epoch_steps(images: int, batch_size: int, limit: int | None, *, join_last: bool) -> int:
    """Batches of an epoch, at most `limit`; with `join_last` the images of the last one join the batch before."""
    whole = math.ceil(images / batch_size)
    return min(whole, limit or whole) - (join_last and whole > 1 and (limit or whole) >= whole)


class TrainBatches:
    """Shuffled, augmented batches.

    `images` belong to the training device (`Split.to`). `batch_size` is the global batch's, of which a rank gets its
    share; neither `world_size` nor the step at which an epoch is entered changes what a global batch holds. Each of
    `views` has an augmentation of its own. An epoch has `steps` batches; the last one may be smaller or, with
    `join_last`, larger: the images that would be a last batch of their own are in it.
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
    ) -> None:
        self._images, self._seed, self._views = images, seed, views
        self._augmentation = images.augmentation(crop_padding=crop_padding, flip=flip)
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self.steps = epoch_steps(len(images), batch_size, steps_per_epoch, join_last=join_last)
        joined = self.steps < epoch_steps(len(images), batch_size, steps_per_epoch, join_last=False)
        #: The step that takes all images which are left.
        self._joined = self.steps - 1 if joined else None
        self._mean, self._std = (_per_channel(value, images.device) for value in (mean, std))

    @property
    def images(self) -> int:
        """Images of an epoch, over all ranks."""
        return self._stop(self.steps - 1)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches from `first_step` on of an epoch (counted from 1)."""
        return (self.batch(drawn, weight) for drawn, weight in self.drawn(epoch, first_step))

    def drawn(self, epoch: int, first_step: int = 0, stop: int | None = None) -> Iterator[tuple[Drawn, float]]:
        """Yield, up to the step `stop`, what `batch` makes a batch's tensors from, and its weight.

        The host waits for the device only before the first of resident images, for the decoding of streamed ones.
        """
        generator = torch.Generator().manual_seed(int(random_bits(torch.tensor(self._seed), epoch)))
        order = torch.randperm(len(self._images), generator=generator)
        keys = torch.stack([random_bits(order, self._seed, epoch, view) for view in range(self._views)], dim=1)
        shares = [self._step(step) for step in range(self.steps)[first_step:stop]]
        drawn = self._augmentation.draw(order, keys, [part for part, _ in shares])
        return zip(drawn, (weight for _, weight in shares), strict=True)

    def batch(self, drawn: Drawn, weight: float = 1.0) -> Batch:
        """Cut out, augmented and normalised, by operations on the device alone."""
        views, labels = self._augmentation.views(drawn)
        return Batch([normalise(view, self._mean, self._std) for view in views], labels, weight)

    def _stop(self, step: int) -> int:
        """Where a step's part of the epoch's order ends."""
        images = len(self._images)
        return images if step == self._joined else min((step + 1) * self._batch_size, images)

    def _step(self, step: int) -> tuple[slice, float]:
        """Which part of the epoch's order this rank sees in a step, and what it weighs."""
        start = step * self._batch_size
        stop = self._stop(step)
        part = rank_slice(start, stop, self._rank, self._world_size)
        weight = (part.stop - part.start) * self._world_size / (stop - start)
        # every rank must take part in the step: one image that does not count
        return (part, weight) if weight else (slice(start, start + 1), 0.0)


class EvalBatches:
    """This rank's share of the images, in order and unaugmented: over all ranks each image comes once.

    Yields (float32 [b, 3, S, S] normalised, int64 [b]), b up to `batch_size`; nothing where the share is empty.
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
        own = rank_slice(0, len(images), rank, world_size)
        self._parts = [
            slice(start, min(start + batch_size, own.stop)) for start in range(own.start, own.stop, batch_size)
        ]
        self._mean, self._std = (_per_channel(value, images.device) for value in (mean, std))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._images.plain(self._parts):
            yield normalise(images, self._mean, self._std), labels
