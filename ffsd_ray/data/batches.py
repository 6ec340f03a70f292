"""Batches of device-resident images: order, crops and flips as pure functions of (seed, epoch, sample, view)."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ffsd_ray.data.base import Images


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


class TrainBatches:
    """Shuffled, augmented batches: reflect-pad crop and flip (the paper's CIFAR augmentation).

    `images` lie on the training device. `batch_size` is the global batch's, of which a rank gets its share; neither
    `world_size` nor the step at which an epoch is entered changes what a global batch holds. Each of `views` has an
    augmentation of its own. An epoch has `steps` batches; the last one may be smaller.
    """

    def __init__(
        self,
        images: Images,
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
    ) -> None:
        self._images, self._seed, self._views, self._flip = images, seed, views, flip
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._offsets = 2 * crop_padding + 1
        whole = math.ceil(len(images) / batch_size)
        self.steps = whole if steps_per_epoch is None else min(whole, steps_per_epoch)
        device, size = images.images.device, images.images.shape[-1]
        self._mean, self._std = _per_channel(mean, device), _per_channel(std, device)
        reflected = torch.arange(-crop_padding, size + crop_padding, device=device).abs()
        reflected = (size - 1) - (size - 1 - reflected).abs()
        windows = reflected.unfold(0, size, 1)
        #: [2 (2 crop_padding + 1), S]: the pixels that a crop at each offset takes; second half: mirrored.
        self._windows = torch.cat([windows, windows.flip(1)])

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches from `first_step` on of an epoch (counted from 1); only before the first does the host wait."""
        generator = torch.Generator().manual_seed(int(_hash(torch.tensor(self._seed), epoch)))
        order = torch.randperm(len(self._images), generator=generator).to(self._windows.device)
        draws = [draw for view in range(self._views) for draw in self._draw(order, epoch, view)]
        plan = torch.stack([order, *draws], dim=1)
        for step in range(first_step, self.steps):
            batch = plan[step * self._batch_size : (step + 1) * self._batch_size]
            share = batch.tensor_split(self._world_size)[self._rank]
            weight = len(share) * self._world_size / len(batch)
            if not len(share):  # every rank must take part in the step: one image that does not count
                share = batch[:1]
            samples, *draws = share.unbind(dim=1)
            images = self._images.images[samples]
            views = [self._crop(images, *draws[2 * view : 2 * view + 2]) for view in range(self._views)]
            yield Batch(views, self._images.labels[samples], weight)

    def _draw(self, samples: Tensor, epoch: int, view: int) -> tuple[Tensor, Tensor]:
        """Entries of `_windows` for the rows and the columns of each sample, int64 [N] each."""
        bits = _hash(samples, self._seed, epoch, view)
        # 21 bits a draw: an offset's probability is off by less than crop_padding / 2^20
        rows, columns = ((_shift(bits, shift) & 0x1FFFFF) * self._offsets >> 21 for shift in (0, 21))
        return rows, (columns + _shift(bits, 63) * self._offsets if self._flip else columns)

    def _crop(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        size = images.shape[-1]
        pixels = self._windows[rows][:, :, None] * size + self._windows[columns][:, None, :]
        pixels = pixels.view(-1, 1, size * size).expand(-1, 3, -1)
        return normalise(images.flatten(2).gather(2, pixels).view_as(images), self._mean, self._std)


class EvalBatches:
    """This rank's share of the images, in order and as they are: over all ranks each image comes once.

    Yields (float32 [b, 3, S, S] normalised, int64 [b]), b up to `batch_size`; nothing where the share is empty.
    """

    def __init__(
        self,
        images: Images,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._images, self._labels = (t.tensor_split(world_size)[rank] for t in (images.images, images.labels))
        self._batch_size = batch_size
        self._mean, self._std = (_per_channel(value, images.images.device) for value in (mean, std))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._labels), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield normalise(self._images[part], self._mean, self._std), self._labels[part]


def _hash(values: Tensor, *parts: int) -> Tensor:
    """64 random bits for each of (value, *parts): int64 of `values`' shape, the same on every device.

    Chained finalisers of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), in
    wrapping int64 arithmetic.
    """
    bits = _mix(values)
    for part in parts:
        bits = _mix(bits + part)
    return bits


def _mix(bits: Tensor) -> Tensor:
    bits = bits + -0x61C8864680B583EB  # 0x9E3779B97F4A7C15, signed
    bits = (bits ^ _shift(bits, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    bits = (bits ^ _shift(bits, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return bits ^ _shift(bits, 31)


def _shift(bits: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own shifts the sign in."""
    return bits >> by & (1 << (64 - by)) - 1
