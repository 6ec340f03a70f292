"""Images that are kept in memory on the training device, and their augmentation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ffsd_ray.data.base import BatchInputs
from ffsd_ray.data.counter_rng import shift_right


@dataclass(frozen=True)
class Images:
    """A `Split` in memory: `images` uint8 [N, 3, S, S], contiguous, and `labels` int64 [N], on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor) -> "Images":
        return Images(self.images[indices], self.labels[indices])

    def augmentation(self, *, crop_padding: int, flip: bool) -> "Crops":
        """Random crops of the reflect-padded images, mirrored at random (the paper's augmentation for CIFAR)."""
        return Crops(self, crop_padding, flip)

    def unaugmented(self, parts: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        for part in parts:
            yield self.images[part], self.labels[part]


class Crops:
    """An `Augmentation`: random crops of reflect-padded images, mirrored with probability 1/2 if `flip`."""

    def __init__(self, images: Images, padding: int, flip: bool) -> None:
        """`padding`: pixels that each side is padded by; must be smaller than the images."""
        self._images, self._offsets, self._flip = images, 2 * padding + 1, flip
        size = images.image_size
        reflected = torch.arange(-padding, size + padding, device=images.device).abs()
        reflected = (size - 1) - (size - 1 - reflected).abs()
        windows = reflected.unfold(0, size, 1)
        #: [2 (2 padding + 1), S]: pixel indices of a crop at each offset, then the same mirrored.
        self._windows = torch.cat([windows, windows.flip(1)])

    def prepare(self, order: Tensor, keys: Tensor, parts: Sequence[slice]) -> Iterator[BatchInputs]:
        """Yield one int64 tensor [b, 1 + 2 views] a part: image indices, then two indices into `_windows` a view."""
        draws = [draw for key in keys.unbind(dim=1) for draw in _draw(key, self._offsets, self._flip)]
        plan = torch.stack([order, *draws], dim=1).to(self._images.device)
        for part in parts:
            yield (plan[part],)

    def views(self, inputs: BatchInputs) -> tuple[list[Tensor], Tensor]:
        samples, *draws = inputs[0].unbind(dim=1)
        images, windows = self._images.images[samples], self._windows
        pairs = zip(draws[::2], draws[1::2], strict=True)
        return [_crop(images, windows[rows], windows[columns]) for rows, columns in pairs], self._images.labels[samples]


def _draw(keys: Tensor, offsets: int, flip: bool) -> tuple[Tensor, Tensor]:
    """Random indices into `Crops._windows` for the rows and the columns of each image, int64 [N] each."""
    # from 21 bits each: an offset's probability is off by less than crop_padding / 2^20
    rows, columns = ((shift_right(keys, by) & 0x1FFFFF) * offsets >> 21 for by in (0, 21))
    return rows, (columns + shift_right(keys, 63) * offsets if flip else columns)


def _crop(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Gather the given rows [b, S] and columns [b, S] of images [b, 3, S, S]: [b, 3, S, S]."""
    size = images.shape[-1]
    pixels = rows[:, :, None] * size + columns[:, None, :]
    pixels = pixels.view(-1, 1, size * size).expand(-1, 3, -1)
    return images.flatten(2).gather(2, pixels).view_as(images)
